"""Endpoints that answer badly: left out, tried again by one call, and back."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from proxy.contract.balancing import Balancing, Outliers
from proxy.contract.engine import Cluster, Upstream, WireProtocol
from proxy.contract.plan import Cause
from tests.conformance.accepting import Script
from tests.conformance.apps import grpc_app, raw_app
from tests.conformance.harness import Node, always, plan, retry, running
from tests.support.echo_client import EchoClient
from tests.support.http_client import connect
from tests.support.http_wire import read_head
from tests.support.proto.echo_pb2 import EchoRequest

RULES = Outliers(consecutive=3, ejection_s=600.0, max_ejection_s=600.0)
BRIEF = Outliers(consecutive=3, ejection_s=0.5, max_ejection_s=600.0, slow_start_s=0.0)
BY_TURNS = Balancing(policy="round-robin")


class Shops:
    """Apps by number, each of which answers with a status of its own (0: it breaks the connection off, -1: it never answers)."""

    def __init__(self) -> None:
        self.calls: Counter[int] = Counter()
        self.answers: dict[int, int] = {}
        self._changed = asyncio.Event()

    async def asked(self, times: int) -> None:
        """Wait until the first was called so often."""
        async with asyncio.timeout(10.0):
            while self.calls[0] < times:
                self._changed.clear()
                await self._changed.wait()

    def app(self, number: int) -> Script:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await read_head(reader):
                self.calls[number] += 1
                self._changed.set()
                status = self.answers.get(number, 200)
                if status < 0:
                    await asyncio.Event().wait()
                if status == 0:
                    writer.transport.abort()
                    return
                writer.write(f"HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n".encode())

        return serve


@asynccontextmanager
async def shops(
    engine: str, count: int = 2, rules: Outliers = RULES, **fields: Any
) -> AsyncIterator[tuple[Node, Shops, int]]:
    """An engine in front of so many apps, in turn, and the port that leads to them."""
    async with AsyncExitStack() as stack:
        found = Shops()
        ports = [await stack.enter_async_context(raw_app(found.app(number))) for number in range(count)]
        node = await stack.enter_async_context(running(engine))
        push(node, ports, rules)
        yield node, found, await node.listen(always(plan(**fields)))


def push(node: Node, ports: list[int], rules: Outliers | None, wire: WireProtocol = "http1") -> None:
    upstreams = tuple(Upstream(address=f"127.0.0.1:{port}") for port in ports)
    node.engine.set_cluster(
        Cluster(key="app", wire=wire, tls=None, upstreams=upstreams, balancing=BY_TURNS, outliers=rules)
    )


async def calls(port: int, times: int) -> list[int]:
    """The statuses of calls one after the other, over one connection."""
    async with connect(port) as caller:
        return [(await caller.request("GET", "/")).status for _ in range(times)]


def out(node: Node) -> list[str]:
    """Why endpoints are left out now."""
    return [str(load["outlier"]) for load in node.engine.loads("app") if load["outlier"]]


async def test_failures_in_a_row_put_an_endpoint_out(engine: str) -> None:
    async with shops(engine, 3) as (node, found, port):
        found.answers[0] = 500
        assert (await calls(port, 9)).count(500) == 3
        assert await calls(port, 12) == [200] * 12
        assert (found.calls[0], out(node)) == (3, ["failures"])
        await node.seen.until(lambda: bool(node.seen.endpoint_turns))
        (turn,) = node.seen.endpoint_turns
        assert (turn.cluster, turn.reason, turn.times) == ("app", "failures", 1)
        assert 600.0 <= turn.for_s <= 660.0
        (ejected,) = (load for load in node.engine.loads("app") if load["outlier"])
        assert turn.address == ejected["address"]
        assert 590.0 < float(str(ejected["ejectedForS"])) <= 660.0


@pytest.mark.parametrize("status", [404, 429, 200])
async def test_other_answers_put_nobody_out(engine: str, status: int) -> None:
    async with shops(engine) as (node, found, port):
        found.answers[0] = status
        await calls(port, 20)
        assert (found.calls[0], out(node)) == (10, [])


async def test_one_that_goes_well_begins_the_count_anew(engine: str) -> None:
    async with shops(engine) as (node, found, port):
        for _ in range(4):
            found.answers[0] = 500
            await calls(port, 4)
            found.answers[0] = 200
            await calls(port, 2)
        assert (found.calls[0], out(node)) == (12, [])


async def test_answers_that_a_retry_throws_away_count(engine: str) -> None:
    async with shops(engine, retries=(retry(3, http_codes=None),)) as (node, found, port):
        found.answers[0] = 503
        assert await calls(port, 12) == [200] * 12
        assert (found.calls[0], out(node)) == (3, ["failures"])


async def test_connections_that_break_off_count(engine: str) -> None:
    async with shops(engine, retries=(retry(3, Cause.RESET_EARLY),)) as (node, found, port):
        found.answers[0] = 0
        assert await calls(port, 12) == [200] * 12
        assert (found.calls[0], out(node)) == (3, ["failures"])


async def test_attempts_that_time_out_count(engine: str) -> None:
    async with shops(engine, attempt_s=0.4, retries=(retry(3, Cause.TIMEOUT),)) as (node, found, port):
        found.answers[0] = -1
        assert await calls(port, 12) == [200] * 12
        assert (found.calls[0], out(node)) == (3, ["failures"])


async def test_the_last_that_takes_calls_is_never_out(engine: str) -> None:
    async with shops(engine) as (node, found, port):
        found.answers = {0: 500, 1: 500}
        assert await calls(port, 20) == [500] * 20
        assert out(node) == ["failures"]


async def test_one_alone_is_never_out(engine: str) -> None:
    async with shops(engine, 1) as (node, found, port):
        found.answers[0] = 500
        assert await calls(port, 20) == [500] * 20
        assert out(node) == []


async def turned(node: Node, port: int, times: int) -> list[int]:
    """Call until so many endpoints were left out or came back; returns the statuses."""
    statuses: list[int] = []
    async with asyncio.timeout(10.0):
        while len(node.seen.endpoint_turns) < times:
            statuses += await calls(port, 2)
    return statuses


async def test_one_call_tries_it_again_and_takes_it_back(engine: str) -> None:
    async with shops(engine, 2, BRIEF) as (node, found, port):
        found.answers[0] = 500
        await turned(node, port, 1)
        assert found.calls[0] == 3
        assert (await turned(node, port, 2)).count(500) == 1, "it failed again: out for twice as long"
        found.answers[0] = 200
        await turned(node, port, 3)
        turns = [(turn.reason, turn.times) for turn in node.seen.endpoint_turns]
        assert turns == [("failures", 1), ("probe", 2), ("", 2)]
        assert out(node) == []
        found.calls.clear()
        await calls(port, 12)
        assert found.calls[0] == 6, "it has its turns again"


async def test_while_one_call_tries_it_others_go_elsewhere(engine: str) -> None:
    async with shops(engine, 2, BRIEF) as (node, found, port):
        found.answers[0] = 500
        await turned(node, port, 1)
        found.answers[0] = -1

        async def go_on() -> None:
            while True:
                await calls(port, 1)

        async with asyncio.TaskGroup() as tasks:
            probe = tasks.create_task(go_on())
            await found.asked(4)
            assert await calls(port, 10) == [200] * 10
            assert found.calls[0] == 4
            probe.cancel()


async def test_one_that_comes_back_has_fewer_calls_at_first(engine: str) -> None:
    rules = Outliers(consecutive=3, ejection_s=0.2, slow_start_s=600.0)
    async with shops(engine, 2, rules) as (node, found, port):
        found.answers[0] = 500
        await turned(node, port, 1)
        found.answers[0] = 200
        await turned(node, port, 2)
        found.calls.clear()
        await calls(port, 44)
        assert 3 <= found.calls[0] <= 5, "a tenth of the other's turns"


async def test_far_fewer_that_go_well_than_elsewhere_put_an_endpoint_out(engine: str) -> None:
    rules = Outliers(consecutive=0, rate_requests=20, interval_s=2.0, ejection_s=600.0, max_ejection_s=600.0)
    async with shops(engine, 5, rules) as (node, found, port):
        found.answers[2] = 500
        async with asyncio.timeout(20.0):
            while not out(node):
                await calls(port, 250)
        assert out(node) == ["success-rate"]
        assert found.calls[2] >= 20


async def test_rules_that_go_take_everybody_back(engine: str) -> None:
    async with AsyncExitStack() as stack:
        found = Shops()
        ports = [await stack.enter_async_context(raw_app(found.app(number))) for number in range(2)]
        node = await stack.enter_async_context(running(engine))
        push(node, ports, RULES)
        port = await node.listen(always(plan()))
        found.answers[0] = 500
        await calls(port, 6)
        push(node, ports, RULES)
        assert (await calls(port, 4), out(node)) == ([200] * 4, ["failures"]), "the same rules change nothing"
        push(node, ports, None)
        assert (await calls(port, 4)).count(500) == 2
        assert out(node) == []


@pytest.mark.parametrize(
    ("code", "counts"), [(14, True), (13, True), (4, True), (2, True), (5, False), (8, False)]
)
async def test_codes_of_grpc_count_by_whose_fault_they_are(engine: str, code: int, counts: bool) -> None:
    async with grpc_app() as one, grpc_app() as other, running(engine) as node:
        push(node, [one, other], RULES, "h2c")
        port = await node.listen(always(plan()))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            client = EchoClient(channel)
            for _ in range(8):
                found = await client.unary(EchoRequest(code=code), method="Fail").code()
                assert found.value[0] == code
            await client.unary(EchoRequest(message="x"))
        assert out(node) == (["failures"] if counts else [])
