"""What holds over all threads of an engine as it does on one: gates, bounds, goaways, pushes, health.

Connections go to the threads in turn, so two of them are served by two threads; each thread keeps Plans of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from proxy.contract.engine import Limits, ListenerSpec
from proxy.contract.plan import Cause, Decision, Hold
from proxy.contract.recording import RecordingHead
from tests.conformance.apps import http_app, raw_app
from tests.conformance.frames import FramePeer, Kind, dial
from tests.conformance.harness import CHOSEN, Way, always, leading, plan, reply, running
from tests.conformance.identities import Mint
from tests.support.http_client import Connection, connect
from tests.support.http_wire import read_head
from tests.support.ports import free_port

THREADED = "native-threads"
pytestmark = pytest.mark.skipif("native" not in CHOSEN, reason="the native engine is not under test")


class Parking:
    """An app that holds every call until `go`. `most`: how many were there at a time."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.go = asyncio.Event()
        self.begun = asyncio.Semaphore(0)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.begun.release()
            await self.go.wait()
            self.inside -= 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@asynccontextmanager
async def connected(port: int, count: int) -> AsyncIterator[list[Connection]]:
    """So many connections."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connect(port)) for _ in range(count)]


@asynccontextmanager
async def gated(app: Parking) -> AsyncIterator[tuple[Way, FramePeer, FramePeer]]:
    """A way to the app through gate `g`, and a caller on each of two threads."""
    async with (
        raw_app(app) as port,
        leading(THREADED, "one", port, gates=("g",)) as way,
        dial(way.port) as one,
        dial(way.port) as two,
    ):
        yield way, one, two


async def begin(callers: Sequence[Connection]) -> None:
    """Have a call of each caller begin."""
    for caller in callers:
        await caller.send_head("GET", "/")


async def statuses(callers: Sequence[Connection]) -> list[int]:
    """What came of the calls begun."""
    return [(await caller.read_response("GET")).status for caller in callers]


async def test_connections_are_served_by_all_threads(tmp_path: Path) -> None:
    async with http_app() as app, leading(THREADED, "one", app) as way:
        unix = f"unix:{tmp_path / 'in'}"
        await way.front.engine.listen(ListenerSpec(name="unix", address=unix, decide=always(plan())))
        async with connected(way.port, 2) as callers, AsyncExitStack() as stack:
            local = [await stack.enter_async_context(connect(0, unix=str(tmp_path / "in"))) for _ in range(2)]
            for caller in (*callers, *local) * 2:
                assert (await caller.request("GET", "/echo")).status == 200
            stats = way.front.engine.stats()
        await way.front.seen.until(lambda: len(way.front.seen.cache) == 8)
    assert (stats.threads, stats.connections, stats.plans_kept) == (2, 4, 4)
    assert sorted(way.front.seen.cache) == [False] * 4 + [True] * 4


async def test_gate_bounds_the_calls_of_all_threads_and_forgets_none() -> None:
    app = Parking()
    async with gated(app) as (way, one, two):
        way.front.gate("g", 2)
        calls = [(caller, await caller.request()) for caller in (one, two) * 5]
        await app.begun.acquire()
        await app.begun.acquire()
        await one.settled()
        await two.settled()
        app.go.set()
        assert [(await caller.whole(stream)).status for caller, stream in calls] == [200] * 10
    assert app.most == 2


async def test_gate_made_wider_lets_in_who_waits_on_any_thread() -> None:
    app = Parking()
    async with gated(app) as (way, one, two):
        way.front.gate("g", 0)
        calls = [(caller, await caller.request()) for caller in (one, two) * 3]
        await one.settled()
        await two.settled()
        for limit in (2, 4, None):
            way.front.gate("g", limit)
            await app.begun.acquire()
            await app.begun.acquire()
        app.go.set()
        assert [(await caller.whole(stream)).status for caller, stream in calls] == [200] * 6
    assert app.most == 6


async def test_bound_on_connections_is_exact_over_all_threads() -> None:
    async with (
        http_app() as app,
        leading(THREADED, "one", app, limits=Limits(connections=3)) as way,
        connected(way.port, 2) as callers,
    ):
        seen = way.front.seen
        async with connect(way.port) as third:
            for caller in (*callers, third):
                assert (await caller.request("GET", "/echo")).status == 200
            await seen.until(
                lambda: seen.open == 3
            )  # threads report on their own: two might be of the first two alone
            async with connect(way.port) as late:
                assert await late.reader.read() == b""
        await seen.until(lambda: seen.open == 2)
        async with connect(way.port) as another:
            assert (await another.request("GET", "/echo")).status == 200
    assert seen.refused["connections"] == 1


async def test_drain_ends_the_calls_of_all_threads_and_counts_those_it_cut() -> None:
    app = Parking()
    async with raw_app(app) as port, leading(THREADED, "one", port) as way, connected(way.port, 4) as callers:
        await begin(callers)
        for _ in callers:
            await app.begun.acquire()
        assert await way.front.engine.drain(["in"], 0.05) == 4
        assert [await caller.reader.read() for caller in callers] == [b""] * 4
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 4)
    assert {outcome.cause for outcome in way.front.seen.outcomes} == {Cause.DRAINING}


async def test_drain_waits_for_the_calls_of_all_threads() -> None:
    app = Parking()
    async with raw_app(app) as port, leading(THREADED, "one", port) as way, connected(way.port, 4) as callers:
        await begin(callers)
        for _ in callers:
            await app.begun.acquire()
        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(way.front.engine.drain(["in"], 10.0))
            await asyncio.sleep(0)  # it has begun
            app.go.set()
            assert await statuses(callers) == [200] * 4
    assert draining.result() == 0


async def test_invalidate_drops_what_every_thread_keeps() -> None:
    cause = Cause.DENIED

    def decide(head: RecordingHead) -> Decision:
        return reply(cause, scopes=("rules",))

    async with running(THREADED) as node:
        port = await node.listen(decide)
        async with connected(port, 4) as callers:
            before = [(await caller.request("GET", "/")).status for caller in callers]
            cause = Cause.NO_APP
            node.engine.invalidate("rules")
            after = [(await caller.request("GET", "/")).status for caller in callers]
            await node.seen.until(lambda: len(node.seen.cache) == 8)
    assert (before, after) == ([403] * 4, [404] * 4)
    assert sorted(node.seen.cache) == [False] * 4 + [True] * 4  # each thread asked twice


async def test_new_cluster_wakes_the_calls_held_on_every_thread() -> None:
    asked = asyncio.Semaphore(0)
    known = False

    def decide(head: RecordingHead) -> Decision:
        asked.release()
        return plan() if known else Hold(key="app", for_s=30.0, then=reply(Cause.NO_APP))

    async with http_app() as app, running(THREADED) as node:
        port = await node.listen(decide)
        async with connected(port, 4) as callers:
            for caller in callers:
                await caller.send_head("GET", "/echo")
                await asked.acquire()
            known = True
            node.cluster("app", app)
            assert await statuses(callers) == [200] * 4


async def test_loads_are_those_of_all_threads() -> None:
    app = Parking()
    async with raw_app(app) as port, leading(THREADED, "one", port) as way, connected(way.port, 5) as callers:
        await begin(callers)
        for _ in callers:
            await app.begun.acquire()
        (busy,) = way.front.engine.loads("app")
        app.go.set()
        await statuses(callers)
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 5)
        (idle,) = way.front.engine.loads("app")
    assert (busy["inFlight"], idle["inFlight"], busy["address"]) == (5, 0, f"127.0.0.1:{port}")


async def test_endpoint_that_failed_on_one_thread_is_left_alone_by_all() -> None:
    dead = free_port()
    async with http_app() as app, leading(THREADED, "one", app) as way, connected(way.port, 2) as callers:
        way.front.cluster("app", app, dead)
        seen = way.front.seen
        first, second = callers
        while not seen.upstream_failures:
            assert (await first.request("GET", "/echo")).status == 200
        told = len(seen.outcomes)
        for _ in range(20):
            assert (await second.request("GET", "/echo")).status == 200
        await seen.until(lambda: len(seen.outcomes) >= told + 20)
    failed_ns = next(
        attempt.ended_ns
        for outcome in seen.outcomes
        for attempt in outcome.attempts
        if attempt.endpoint.endswith(f":{dead}")
    )
    during = [outcome for outcome in seen.outcomes[told:] if outcome.ended_ns < failed_ns + 900_000_000]
    assert all(len(outcome.attempts) == 1 for outcome in during if outcome.started_ns > failed_ns)


async def test_renewed_identity_reaches_the_peers_of_every_thread(mint: Mint) -> None:
    async with http_app() as app, running(THREADED) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", app)
        port = await node.listen(always(plan()), name="peer", tls="mesh")
        tls = mint.client_context("caller")
        async with dial(port, tls=tls) as one, dial(port, tls=tls) as two:
            for peer in (one, two):
                assert (await peer.whole(await peer.request(b"/echo"))).status == 200
            node.engine.set_identity(mint.identity("callee"))
            for peer in (one, two):
                await peer.until(lambda f: f.kind == Kind.GOAWAY)
                await peer.to_the_end()


async def test_end_of_an_engine_ends_its_threads() -> None:
    def names() -> list[str]:
        found = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
        return sorted(name for name in found if name.startswith("postern-"))

    before = names()
    async with http_app() as app, leading(THREADED, "one", app) as way, connected(way.port, 2) as callers:
        for caller in callers:
            assert (await caller.request("GET", "/echo")).status == 200
        during = names()
    assert (during, names()) == (sorted([*before, "postern-0", "postern-1"]), before)
