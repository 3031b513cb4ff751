"""What an engine measures beside calls: where time goes, and what is open."""

import asyncio

from msgspec.structs import replace

from proxy.contract.engine import OpenWork
from proxy.contract.outcome import PHASED
from proxy.contract.plan import Cause, Decision, Hold
from proxy.contract.recording import RecordingHead
from tests.conformance.apps import raw_app
from tests.conformance.frames import dial
from tests.conformance.harness import DEADLINE_S, LABELS, Node, always, leading, plan, reply, retry, running
from tests.conformance.test_attempts import OK, Answering
from tests.conformance.test_gates import App
from tests.integration.mesh.standing import eventually
from tests.support.http_client import connect

NOTHING = OpenWork(calls={}, streams_in=0, streams_out=0, replay_bytes=0)


async def until_open(node: Node, work: OpenWork) -> None:
    """Until just that is open: an engine's own thread may be behind."""

    async def is_so() -> bool:
        return replace(node.engine.open_work(), lag_s=None) == work

    await eventually(is_so, within_s=DEADLINE_S)


async def test_phases_of_a_call_add_up_to_its_time(engine: str, hops: str) -> None:
    async with (
        raw_app(Answering([OK])) as port,
        leading(engine, hops, port) as way,
        connect(way.port) as caller,
    ):
        await caller.request("GET", "/")
        for node in (way.front, way.back):
            outcome = await node.seen.outcome()
            await node.seen.until(lambda seen=node.seen: bool(seen.phases and seen.dials))  # type: ignore[misc]
            (phases,), ((connect_s, tls_s),) = node.seen.phases, node.seen.dials
            took_s = (outcome.ended_ns - outcome.started_ns) / 1e9
            (attempt,) = outcome.attempts
            waited_s = (attempt.sent_ns - attempt.started_ns) / 1e9  # its first call waits for a connection
            assert abs(sum(took or 0.0 for took in phases) + waited_s - took_s) < 1e-3
            assert phases.upstream_ttfb > 0
            assert (phases.resolve, phases.queue, phases.authorize) == (0, 0, None)
            assert waited_s >= connect_s + tls_s - 1e-3
            assert connect_s > 0
            assert (tls_s > 0) == (hops == "two" and node is way.front)


async def test_one_call_in_so_many_is_looked_at(engine: str) -> None:
    async with (
        raw_app(Answering([OK])) as port,
        leading(engine, "one", port) as way,
        connect(way.port) as caller,
    ):
        for _ in range(PHASED + 1):
            await caller.request("GET", "/")
        await way.front.seen.outcome(PHASED)
        await way.front.seen.until(lambda: len(way.front.seen.phases) == 2)


async def test_calls_without_an_answer_or_of_several_attempts_have_no_phases(engine: str) -> None:
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    rule = (retry(2, http_codes=None),)
    async with raw_app(Answering([busy, OK])) as port, leading(engine, "one", port, retries=rule) as way:
        async with connect(way.port) as caller:
            await caller.request("GET", "/")
            await way.front.seen.outcome()
        assert not way.front.seen.phases
    async with leading(engine, "one", 1) as way, connect(way.port) as caller:
        await caller.request("GET", "/")
        await way.front.seen.outcome()
        assert not way.front.seen.phases
        assert not way.front.seen.dials


async def test_time_until_the_callee_is_found_is_told_apart(engine: str) -> None:
    is_known = False
    held = asyncio.Event()
    hold = Hold(key="app", for_s=DEADLINE_S, then=reply(Cause.NO_ENDPOINT))

    def decide(head: RecordingHead) -> Decision:
        held.set()
        return plan() if is_known else hold

    async with (
        raw_app(Answering([OK])) as port,
        running(engine) as node,
        connect(await node.listen(decide)) as caller,
    ):
        await caller.send_head("GET", "/")
        await held.wait()
        is_known = True
        node.cluster("app", port)
        node.engine.wake("app")
        await caller.read_response("GET")
        await node.seen.until(lambda: bool(node.seen.phases))
        assert node.seen.phases[0].resolve > 0
        outcome = await node.seen.outcome()
        assert outcome.resolve_ns > 0
        assert outcome.queue_ns == 0


async def test_open_calls_streams_and_request_bodies_are_counted(engine: str) -> None:
    app = App()
    rule = (retry(2, Cause.RESET_EARLY),)
    async with raw_app(app) as port, leading(engine, "two", port, retries=rule, replay_bytes=100) as way:
        await until_open(way.front, NOTHING)
        async with dial(way.port) as caller:
            first = await caller.request()
            second = await caller.request(method=b"POST", end=False)
            await caller.send_body(second, b"ten bytes.", end=True)
            for _ in range(2):
                await app.begun.acquire()
            calls = {LABELS: 2}
            await until_open(way.front, OpenWork(calls=calls, streams_in=2, streams_out=2, replay_bytes=10))
            await until_open(way.back, OpenWork(calls=calls, streams_in=2, streams_out=0, replay_bytes=10))
            app.go.set()
            for stream in (first, second):
                await caller.whole(stream)
            for node in (way.front, way.back):
                await until_open(node, NOTHING)


async def test_threads_of_the_engines_own_tell_how_late_they_are(engine: str) -> None:
    async with running(engine) as node:
        await node.listen(always(reply(Cause.DENIED)))  # then it is running
        lag_s = node.engine.open_work().lag_s
        assert lag_s is None if engine == "portable" else (lag_s is not None and lag_s >= 0)


async def test_nothing_is_open_after_the_end(engine: str) -> None:
    async with running(engine) as node:
        pass
    assert node.engine.open_work() == NOTHING


async def test_answers_of_ours_are_no_open_calls(engine: str) -> None:
    async with running(engine) as node, connect(await node.listen(always(reply(Cause.DENIED)))) as caller:
        await caller.request("GET", "/")
        assert node.engine.open_work().calls == {}
