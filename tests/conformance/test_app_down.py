"""A peer's proxy that kept a call from its app: it failed as an endpoint, and another one is asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest

from proxy.contract.plan import Cause
from tests.conformance.apps import grpc_app, http_app, raw_app
from tests.conformance.harness import DEADLINE_S, Node, always, leading, plan, reply, running
from tests.conformance.identities import Mint, spiffe
from tests.support.echo_client import EchoClient
from tests.support.http_client import connect
from tests.support.http_wire import read_head
from tests.support.proto.echo_pb2 import EchoRequest

KEPT_FROM_APP = (Cause.APP_DOWN, Cause.APP_UNHEALTHY, Cause.MISDIRECTED)


@dataclass(frozen=True, slots=True)
class Pair:
    """A caller before two proxies of one callee, of which the second keeps every call from its app."""

    port: int
    front: Node
    failing: str

    def attempts_at_failing(self) -> int:
        """How many attempts went to the one that keeps calls from its app."""
        attempts = [attempt for outcome in self.front.seen.outcomes for attempt in outcome.attempts]
        return sum(attempt.endpoint == self.failing for attempt in attempts)


@asynccontextmanager
async def pair(
    engine: str, mint: Mint, app: int | None, cause: Cause, wire: str = "http1"
) -> AsyncIterator[Pair]:
    """`app` None: the first keeps calls from its app too."""
    async with running(engine) as front, running(engine) as good, running(engine) as bad:
        for node in (good, bad):
            node.engine.set_identity(mint.identity("callee"))
        if app is not None:
            good.cluster("app", app, wire=wire)  # type: ignore[arg-type]
        first = await good.listen(
            always(plan() if app is not None else reply(cause)), name="peer", tls="mesh"
        )
        second = await bad.listen(always(reply(cause)), name="peer", tls="mesh")
        front.engine.set_identity(mint.identity("caller"))
        front.cluster("callee", first, second, wire="postern", tls="mesh")
        port = await front.listen(always(plan("callee", expect=frozenset({spiffe("callee")}))))
        yield Pair(port, front, f"127.0.0.1:{second}")


@pytest.mark.parametrize("cause", KEPT_FROM_APP)
async def test_call_that_was_kept_from_an_app_goes_to_another_instance(
    engine: str, mint: Mint, cause: Cause
) -> None:
    async with http_app() as app, pair(engine, mint, app, cause) as way, connect(way.port) as caller:
        answers = [await caller.request("POST", "/echo", body=b"once") for _ in range(40)]
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 40)
        failed = [
            attempt.cause
            for outcome in way.front.seen.outcomes
            for attempt in outcome.attempts
            if attempt.endpoint == way.failing
        ]
    assert [answer.status for answer in answers] == [200] * 40
    assert set(failed) <= {cause}
    assert len(failed) <= 5, "failing fast drew calls"


async def test_call_that_an_app_refused_goes_to_another_instance(engine: str, mint: Mint) -> None:
    async with http_app() as app, pair(engine, mint, app, Cause.REFUSED) as way, connect(way.port) as caller:
        assert {(await caller.request("POST", "/echo", body=b"once")).status for _ in range(20)} == {200}


async def test_grpc_call_that_was_kept_from_an_app_goes_to_another_instance(engine: str, mint: Mint) -> None:
    async with (
        grpc_app() as app,
        pair(engine, mint, app, Cause.APP_DOWN, "h2c") as way,
        grpc.aio.insecure_channel(f"127.0.0.1:{way.port}") as channel,
        asyncio.timeout(DEADLINE_S),
    ):
        client = EchoClient(channel)
        for number in range(40):
            assert (await client.unary(EchoRequest(message=str(number)))).message == str(number)
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 40)
        assert way.attempts_at_failing() <= 5, "failing fast drew calls"


async def test_answer_of_the_peer_passes_where_no_instance_is_left(engine: str, mint: Mint) -> None:
    async with pair(engine, mint, None, Cause.APP_UNHEALTHY) as way, connect(way.port) as caller:
        answer = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
    assert (answer.status, answer.get("postern-error")) == (503, "app-unhealthy")
    assert [attempt.cause for attempt in outcome.attempts] == [Cause.APP_UNHEALTHY] * 2


@pytest.mark.parametrize(
    "greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"<!DOCTYPE HTML>\n", b"220 mail ESMTP\r\n"]
)
async def test_app_that_speaks_no_http2_is_told_as_such(engine: str, greeting: bytes) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read()

    async with (
        raw_app(app) as port,
        leading(engine, "one", port, wire="h2c") as way,
        connect(way.port) as caller,
    ):
        answer = await caller.request("GET", "/")
    assert (answer.status, answer.get("postern-error")) == (502, "connect")
    assert b"HTTP/2" in answer.body


async def test_header_of_an_app_is_no_word_of_a_proxy(engine: str) -> None:
    """Towards an app, `postern-error` is a header like any other."""

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            writer.write(b"HTTP/1.1 502 Bad\r\npostern-error: app-down\r\nContent-Length: 0\r\n\r\n")

    async with raw_app(app) as first, raw_app(app) as second, running(engine) as node:
        node.cluster("app", first, second)
        port = await node.listen(always(plan()))
        async with connect(port) as caller:
            answer = await caller.request("GET", "/")
        outcome = await node.seen.outcome()
    assert (answer.status, len(outcome.attempts)) == (502, 1)
