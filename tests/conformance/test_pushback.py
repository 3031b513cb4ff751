"""What servers and callers say of attempts is heeded and told: pushback, Retry-After, previous attempts, the time that is left."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.contract.plan import Cause
from proxy.wire.grpc_timeout import parse_grpc_timeout
from tests.conformance.apps import raw_app
from tests.conformance.frames import FramePeer, Message, dial, serving
from tests.conformance.harness import leading, retry
from tests.conformance.test_attempts import OK, Answering
from tests.support.http_client import connect
from tests.support.ports import free_ports

HEAD = ((b"content-type", b"application/grpc"),)
GRPC = (*HEAD, (b"te", b"trailers"))
FAILED = (b"grpc-status", b"14")


def busy(retry_after: str, status: int = 503) -> bytes:
    return b"HTTP/1.1 %d Busy\r\nRetry-After: %s\r\nContent-Length: 4\r\n\r\nbusy" % (
        status,
        retry_after.encode(),
    )


class Pushing:
    """A gRPC app that fails its first calls with these fields and no message, then answers; keeps what it was asked."""

    def __init__(self, *fields: tuple[tuple[bytes, bytes], ...], has_head: bool = False) -> None:
        self.fields = list(fields)
        self.has_head = has_head
        self.asked: list[Message] = []

    async def __call__(self, peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            self.asked.append(await peer.whole(stream))
            failing = self.fields.pop(0) if self.fields else None
            if failing is None:
                await peer.respond(stream, headers=HEAD, trailers=((b"grpc-status", b"0"),))
            elif self.has_head:
                await peer.respond(stream, headers=HEAD, trailers=(FAILED, *failing))
            else:
                await peer.respond(stream, headers=(*HEAD, FAILED, *failing))


@asynccontextmanager
async def calling(
    engine: str, hops: str, app: Pushing, *headers: tuple[bytes, bytes], **fields: Any
) -> AsyncIterator[Message]:
    """The answer to one gRPC call by a Plan of these fields."""
    async with (
        serving(app) as port,
        leading(engine, hops, port, wire="h2c", **fields) as way,
        dial(way.port) as caller,
    ):
        yield await caller.whole(
            await caller.request(b"/s/M", method=b"POST", headers=(*GRPC, *headers), body=b"12345")
        )


def told(message: Message, name: bytes) -> bytes | None:
    """A field of a message's head or its end."""
    return dict((*message.headers, *message.trailers)).get(name)


def micros(request: Message) -> int:
    """The time that a request says it has, in microseconds."""
    return round((parse_grpc_timeout(request.get(b"grpc-timeout")) or 0) * 1e6)


def heeding(attempts: int, **fields: Any) -> dict[str, Any]:
    return {"retries": (retry(attempts, http_codes=None, grpc_codes=None, heeds_answer=True, **fields),)}


async def test_retry_after_makes_the_pause_longer(engine: str, hops: str) -> None:
    app = Answering([busy("1"), OK])
    async with (
        raw_app(app) as port,
        leading(engine, hops, port, **heeding(3)) as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
    first, second = outcome.attempts
    assert response.status == 200
    assert second.started_ns - first.ended_ns >= 0.99e9


@pytest.mark.parametrize("answer", [busy("30", 500), busy("soon")])
async def test_retry_after_is_of_busy_answers_and_readable(engine: str, answer: bytes) -> None:
    app = Answering([answer, OK])
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, total_s=20.0, **heeding(3)) as way,
        connect(way.port) as caller,
    ):
        assert (await caller.request("GET", "/")).status == 200


async def test_retry_after_beyond_the_deadline_ends_the_call_with_the_answer(engine: str) -> None:
    app = Answering([busy("30"), OK])
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, total_s=20.0, **heeding(3)) as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("GET", "/")
    assert (response.status, response.get("retry-after"), len(app.heads)) == (503, "30", 1)


async def test_rule_that_does_not_heed_answers_goes_by_its_own_pause(engine: str) -> None:
    app = Answering([busy("30"), OK])
    rules = (retry(3, http_codes=None),)
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, total_s=20.0, retries=rules) as way,
        connect(way.port) as caller,
    ):
        assert (await caller.request("GET", "/")).status == 200


@pytest.mark.parametrize("has_head", [False, True])
@pytest.mark.parametrize("asked", [b"-1", b"soon"])
async def test_pushback_may_ask_for_no_retry(engine: str, hops: str, has_head: bool, asked: bytes) -> None:
    app = Pushing(((b"grpc-retry-pushback-ms", asked),), has_head=has_head)
    async with calling(engine, hops, app, **heeding(3)) as answer:
        assert (told(answer, b"grpc-status"), told(answer, b"grpc-retry-pushback-ms")) == (b"14", asked)
    assert len(app.asked) == 1


@pytest.mark.parametrize("has_head", [False, True])
async def test_pushback_takes_the_place_of_the_pause(engine: str, has_head: bool) -> None:
    app = Pushing(((b"grpc-retry-pushback-ms", b"10"),), has_head=has_head)
    async with calling(engine, "one", app, total_s=20.0, **heeding(3, delay_s=25.0)) as answer:
        assert told(answer, b"grpc-status") == b"0"


@pytest.mark.parametrize(("said", "counts"), [((), [None, b"1", b"2"]), ((b"3",), [b"3", b"4", b"5"])])
async def test_retries_tell_how_many_attempts_were_before(
    engine: str, hops: str, said: tuple[bytes, ...], counts: list[bytes | None]
) -> None:
    app = Pushing((), ())
    headers = tuple((b"grpc-previous-rpc-attempts", count) for count in said)
    async with calling(engine, hops, app, *headers, **heeding(3)) as answer:
        assert told(answer, b"grpc-status") == b"0"
    assert [told(request, b"grpc-previous-rpc-attempts") for request in app.asked] == counts


async def test_attempts_that_no_app_saw_are_none_before(engine: str) -> None:
    (dead,) = free_ports(1)
    app = Pushing()
    async with (
        serving(app) as port,
        leading(engine, "one", dead, wire="h2c") as way,
    ):
        way.front.cluster("app", dead, port, wire="h2c")
        for _ in range(6):
            async with dial(way.port) as caller:
                await caller.whole(await caller.request(b"/s/M", method=b"POST", headers=GRPC, body=b"12345"))
    assert {told(request, b"grpc-previous-rpc-attempts") for request in app.asked} == {None}


async def test_each_attempt_has_what_is_left_of_the_callers_time_or_its_own(engine: str, hops: str) -> None:
    app = Pushing((), ())
    fields = {"attempt_s": 40.0, **heeding(3, delay_s=0.2)}
    async with calling(engine, hops, app, (b"grpc-timeout", b"60S"), **fields):
        pass
    assert all(0 < micros(request) <= 40_000_000 for request in app.asked)
    app = Pushing((), ())
    async with calling(engine, hops, app, (b"grpc-timeout", b"30S"), **fields):
        pass
    first, second, third = map(micros, app.asked)
    assert first <= 30_000_000
    assert second <= first - 190_000
    assert third <= second - 190_000


@pytest.mark.parametrize("left", [b"0m", b"1n", b"900u"])
async def test_call_with_less_than_a_millisecond_left_is_not_made(engine: str, left: bytes) -> None:
    app = Pushing()
    async with calling(engine, "one", app, (b"grpc-timeout", left)) as answer:
        assert told(answer, b"grpc-status") == b"4"
    assert app.asked == []


async def test_rules_within_another_have_all_their_attempts_in_each_of_its_own(engine: str) -> None:
    """§14, row 32: one retry round a built-in one of three: 8 attempts where nobody accepts, 2 of what only the outer one covers."""
    (dead,) = free_ports(1)
    inner = retry(None, Cause.CONNECT, is_inner=True, http_codes=frozenset(), grpc_codes=frozenset())

    class Three:
        def __init__(self) -> None:
            self.left = 3

        def __next__(self) -> float:
            if not self.left:
                raise StopIteration
            self.left -= 1
            return 0.0

    rules = (
        type(inner)(attempts=None, on=inner.on, delays_s=Three, is_inner=True),
        retry(2, Cause.CONNECT, http_codes=None),
    )
    app = Answering([b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"])
    async with raw_app(app) as port, leading(engine, "one", dead, retries=rules) as way:
        async with connect(way.port) as caller:
            refused = await caller.request("GET", "/")
            way.front.cluster("app", port)
            failed = await caller.request("GET", "/")
        down, answered = await way.front.seen.outcome(), await way.front.seen.outcome(1)
    assert (refused.status, len(down.attempts)) == (502, 8)
    assert (failed.status, len(answered.attempts)) == (500, 2)
