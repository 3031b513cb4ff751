"""Gates before calls and before attempts: who is let in, who waits, who is refused, and what a gate hears of the end."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.contract.gates import ConcurrencyGate, GateState, RateGate
from proxy.contract.outcome import Outcome
from proxy.contract.plan import Cause, Decision, Route
from proxy.contract.recording import RecordingHead
from tests.conformance.apps import http_app, raw_app
from tests.conformance.frames import FramePeer, dial, reset, serving
from tests.conformance.harness import DEADLINE_S, EDITS, Node, leading, plan, reply, retry
from tests.support.http_client import connect
from tests.support.http_wire import read_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
GONE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
HANGS_UP = b""


@pytest.fixture(params=["call", "attempt"])
def level(request: pytest.FixtureRequest) -> str:
    """Before the call, or before each of its attempts."""
    return str(request.param)


def gated(level: str, *names: str, cluster: str = "app", **fields: Any) -> dict[str, Any]:
    """What a Plan has so that gates stand at a level."""
    if level == "call":
        return {"gates": names, **fields}
    return {"routes": (Route(cluster=cluster, edits=EDITS, gates=names),), **fields}


def state(node: Node, name: str = "g") -> GateState:
    """A gate as it stands."""
    return node.engine.stats().gates[name]


async def waiting(node: Node, count: int, name: str = "g") -> None:
    """Until so many wait at a gate: an engine's own thread lets them."""
    async with asyncio.timeout(DEADLINE_S):
        while state(node, name).waiting != count:  # noqa: ASYNC110 - the engine has no event for a wait
            await asyncio.sleep(0.001)


@dataclass
class App:
    """An app that answers when told to, and knows how many calls were in it at once."""

    answers: list[bytes] = field(default_factory=lambda: [OK])
    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    inside: int = 0
    most: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.begun.release()
            await self.go.wait()
            self.inside -= 1
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer == HANGS_UP:
                return
            writer.write(answer)


async def test_gate_lets_in_as_many_as_it_says_and_queues_the_rest(engine: str, level: str) -> None:
    app = App()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, **gated(level, "g")) as way,
        dial(way.port) as caller,
    ):
        way.front.gate("g", 2)
        streams = [await caller.request() for _ in range(10)]
        await app.begun.acquire()
        await app.begun.acquire()
        await waiting(way.front, 8)
        assert state(way.front).inside == 2
        app.go.set()
        statuses = [(await caller.whole(stream)).status for stream in streams]
    assert (statuses, app.most) == ([200] * 10, 2)


def queued_ns(outcome: Outcome) -> tuple[int, list[int]]:
    """How long it waited before the call, and before each attempt."""
    return outcome.queue_ns, [attempt.queue_ns for attempt in outcome.attempts]


async def test_time_at_a_gate_is_told_whether_the_call_is_let_in_or_leaves(engine: str, level: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, **gated(level, "g")) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_gate("g", ConcurrencyGate(limit=0, queue=2))
        kept, left = [await caller.request() for _ in range(2)]
        await waiting(way.front, 2)
        await caller.send(reset(left))
        gone = await way.front.seen.outcome()
        way.front.gate("g", None)
        await caller.whole(kept)
        let_in = await way.front.seen.outcome(1)
    for outcome in (gone, let_in):
        (before, of_attempts) = queued_ns(outcome)
        assert outcome.resolve_ns == 0
        assert (before > 0, [took > 0 for took in of_attempts]) == (
            (False, [True]) if level == "attempt" else (True, [False] if outcome is let_in else [])
        )
    (attempt,) = let_in.attempts
    assert attempt.sent_ns >= attempt.started_ns


async def test_gate_with_a_full_queue_sheds(engine: str, level: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, **gated(level, "g")) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_gate("g", ConcurrencyGate(limit=0, queue=2))
        kept = [await caller.request() for _ in range(2)]
        await waiting(way.front, 2)
        shed = [await caller.whole(await caller.request()) for _ in range(3)]
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 3)
        outcomes = list(way.front.seen.outcomes)
        way.front.gate("g", None)
        let_in = [(await caller.whole(stream)).status for stream in kept]
    assert [(one.status, one.get(b"postern-error")) for one in shed] == [(503, b"shed")] * 3
    assert b"queue full (limit 2)" in shed[0].body
    attempts = [Cause.SHED] if level == "attempt" else []
    for outcome in outcomes:
        assert outcome.resolve_ns == 0
        assert (outcome.cause, [attempt.cause for attempt in outcome.attempts]) == (Cause.SHED, attempts)
    assert let_in == [200] * 2


@pytest.mark.parametrize("limit", [None, 5])
async def test_gate_taken_down_or_made_wider_lets_the_queue_in(
    engine: str, level: str, limit: int | None
) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, **gated(level, "g")) as way,
        dial(way.port) as caller,
    ):
        way.front.gate("g", 0)
        streams = [await caller.request() for _ in range(3)]
        await waiting(way.front, 3)
        way.front.gate("g", limit)
        statuses = [(await caller.whole(stream)).status for stream in streams]
    assert statuses == [200] * 3


async def test_attempt_that_a_gate_refused_is_tried_again_by_rule(engine: str) -> None:
    fields = gated("attempt", "g", retries=(retry(3, Cause.SHED),))
    async with http_app() as app, leading(engine, "one", app, **fields) as way, connect(way.port) as caller:
        way.front.engine.set_gate("g", ConcurrencyGate(limit=0, queue=0))
        response = await caller.request("POST", "/", body=b"kept")
        outcome = await way.front.seen.outcome()
    assert (response.status, response.get("postern-error")) == (503, "shed")
    refused = [(attempt.cause, attempt.endpoint, attempt.detail) for attempt in outcome.attempts]
    assert refused == [(Cause.SHED, "", "queue full (limit 0)")] * 3
    assert all(attempt.started_ns <= attempt.ended_ns != 0 for attempt in outcome.attempts)


async def test_attempt_that_fails_at_once_and_is_tried_again_waits_behind_those_who_came_before(
    engine: str,
) -> None:
    app = App()

    def decide(head: RecordingHead) -> Decision:
        if head.method() == "PUT":
            return plan(**gated("attempt", "g", cluster="nowhere"), retries=(retry(3, Cause.NO_ENDPOINT),))
        return plan(**gated("attempt", "g"))

    async with (
        raw_app(app) as port,
        leading(engine, "one", port, decide=decide) as way,
        dial(way.port) as caller,
    ):
        way.front.gate("g", 1)
        first = await caller.request()
        await app.begun.acquire()
        fails = await caller.request(method=b"PUT")
        await waiting(way.front, 1)
        last = await caller.request()
        await waiting(way.front, 2)
        way.front.gate("g", 2)  # lets in who fails, then who came last: the other's next attempt is behind
        await app.begun.acquire()
        await waiting(way.front, 1)
        app.go.set()
        statuses = [(await caller.whole(stream)).status for stream in (first, fails, last)]
    assert statuses == [200, 503, 200]


async def test_gate_of_calls_is_passed_once_and_one_of_attempts_by_each(engine: str, level: str) -> None:
    app = App([BUSY, OK])
    app.go.set()
    fields = gated(level, "g", retries=(retry(2, http_codes=None),))
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, **fields) as way,
        connect(way.port) as caller,
    ):
        way.front.gate("g", 1)
        assert (await caller.request("GET", "/")).status == 200
        await way.front.seen.outcome()
        left = state(way.front)
    assert left == GateState(inside=0, waiting=0, left={"": 1} | ({"shed": 1} if level == "attempt" else {}))


@pytest.mark.parametrize(
    ("answer", "outcome"), [(OK, ""), (GONE, "status"), (BUSY, "shed"), (HANGS_UP, "reset-early")]
)
async def test_gate_hears_how_a_call_ended(engine: str, level: str, answer: bytes, outcome: str) -> None:
    app = App([answer])
    app.go.set()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, **gated(level, "g")) as way,
        connect(way.port) as caller,
    ):
        way.front.gate("g", 1)
        await caller.request("GET", "/")
        await way.front.seen.outcome()
        assert state(way.front).left == {outcome: 1}


@pytest.mark.parametrize(("code", "heard"), [(5, "status"), (8, "shed"), (14, "shed")])
async def test_gate_hears_the_status_of_grpc_in_trailers(
    engine: str, level: str, code: int, heard: str
) -> None:
    async def app(peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            head = ((b"content-type", b"application/grpc"),)
            await peer.respond(stream, headers=head, trailers=((b"grpc-status", b"%d" % code),))

    headers = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c", **gated(level, "g")) as way,
        dial(way.port) as caller,
    ):
        way.front.gate("g", 1)
        await caller.whole(await caller.request(b"/s/M", method=b"POST", headers=headers, body=b"12345"))
        await way.front.seen.outcome()
        assert state(way.front).left == {heard: 1}


async def test_gate_hears_of_a_deadline_and_of_a_caller_that_left(engine: str, level: str) -> None:
    app = App()
    async with raw_app(app) as port, leading(engine, "one", port, **gated(level, "g", total_s=0.05)) as way:
        way.front.gate("g", 1)
        async with connect(way.port) as caller:
            assert (await caller.request("GET", "/")).status == 504
        await way.front.seen.outcome()
        assert state(way.front).left == {"timeout": 1}
    async with raw_app(app) as port, leading(engine, "one", port, **gated(level, "g")) as way:
        way.front.gate("g", 1)
        async with connect(way.port) as caller:
            await caller.send_head("GET", "/")
            await app.begun.acquire()
            await app.begun.acquire()
        await way.front.seen.outcome()
        assert state(way.front) == GateState(inside=0, waiting=0, left={"caller-left": 1})


async def test_caller_that_leaves_while_it_waits_gives_up_its_turn(engine: str, level: str) -> None:
    app = App()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, **gated(level, "g")) as way,
        connect(way.port) as first,
        connect(way.port) as last,
    ):
        way.front.gate("g", 1)
        await first.send_head("GET", "/")
        await app.begun.acquire()
        async with connect(way.port) as leaving:
            await leaving.send_head("GET", "/")
            await waiting(way.front, 1)
            await last.send_head("GET", "/")
            await waiting(way.front, 2)
        left = await way.front.seen.outcome()
        await waiting(way.front, 1)
        app.go.set()
        statuses = [(await caller.read_response("GET")).status for caller in (first, last)]
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 3)
        end = state(way.front)
    attempts = [Cause.CALLER_LEFT] if level == "attempt" else []
    assert (left.cause, [attempt.cause for attempt in left.attempts]) == (Cause.CALLER_LEFT, attempts)
    assert (statuses, end) == ([200, 200], GateState(inside=0, waiting=0, left={"": 2}))


async def test_wait_at_a_gate_ends_with_the_calls_time(engine: str, level: str) -> None:
    async with leading(engine, "one", 1, **gated(level, "g", total_s=0.05)) as way:
        way.front.gate("g", 0)
        async with connect(way.port) as caller:
            response = await caller.request("GET", "/")
        await way.front.seen.outcome()
        assert (response.status, state(way.front)) == (504, GateState(inside=0, waiting=0, left={}))


async def test_wait_before_an_attempt_counts_towards_its_limit(engine: str) -> None:
    fields = gated("attempt", "g", attempt_s=0.05, retries=(retry(2, Cause.TIMEOUT),))
    async with leading(engine, "one", 1, **fields) as way, connect(way.port) as caller:
        way.front.gate("g", 0)
        response = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
        assert state(way.front) == GateState(inside=0, waiting=0, left={})
    assert (response.status, [attempt.cause for attempt in outcome.attempts]) == (504, [Cause.TIMEOUT] * 2)


async def test_gates_of_a_list_are_passed_in_order_and_all_left(engine: str, level: str) -> None:
    app = App()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, **gated(level, "one", "open", "two")) as way,
        dial(way.port) as caller,
    ):
        way.front.gate("one", 2)
        way.front.gate("two", 1)
        streams = [await caller.request() for _ in range(3)]
        await waiting(way.front, 1, "one")
        await waiting(way.front, 1, "two")
        assert (state(way.front, "one").inside, state(way.front, "two").inside) == (2, 1)
        app.go.set()
        statuses = [(await caller.whole(stream)).status for stream in streams]
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 3)
        ends = [state(way.front, name) for name in ("one", "two")]
    assert (statuses, app.most) == ([200] * 3, 1)
    assert ends == [GateState(inside=0, waiting=0, left={"": 3})] * 2


async def test_call_leaves_the_gate_that_it_entered(engine: str, level: str) -> None:
    app = App()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, **gated(level, "g")) as way,
        connect(way.port) as caller,
    ):
        way.front.gate("g", 1)
        await caller.send_head("GET", "/")
        await app.begun.acquire()
        way.front.gate("g", None)
        way.front.gate("g", 1)
        app.go.set()
        assert (await caller.read_response("GET")).status == 200
        await way.front.seen.outcome()
        assert state(way.front) == GateState(inside=0, waiting=0, left={})


async def test_rate_refuses_a_caller_that_comes_too_often(engine: str, level: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, **gated(level, "g")) as way,
        connect(way.port) as first,
        connect(way.port) as second,
    ):
        way.front.engine.set_gate("g", RateGate(per_s=0.001, burst=3))
        answers = [await caller.request("GET", "/") for caller in (first, second, first, second)]
        await way.front.seen.until(lambda: any(one.cause is not None for one in way.front.seen.outcomes))
        outcome = next(one for one in way.front.seen.outcomes if one.cause is not None)
        way.front.engine.set_gate("g", None)
        after = await first.request("GET", "/")
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert (answers[3].get("postern-error"), outcome.cause) == ("rate-limited", Cause.RATE)
    assert b"from 127.0.0.1" in answers[3].body
    assert after.status == 200


async def test_answer_of_a_decision_is_given_once_its_gates_let_the_call_through(engine: str) -> None:
    def decide(_: RecordingHead) -> Decision:
        refusals = {Cause.SHED: reply(Cause.SHED), Cause.RATE: reply(Cause.RATE)}
        return replace(reply(Cause.DENIED), gates=("rate", "busy"), local_replies=refusals)

    async with leading(engine, "one", 1, decide=decide) as way, connect(way.port) as caller:
        statuses = [(await caller.request("GET", "/")).status]
        way.front.engine.set_gate("rate", RateGate(per_s=0.001, burst=2))
        statuses += [(await caller.request("GET", "/")).status for _ in range(3)]
        way.front.engine.set_gate("rate", None)
        way.front.engine.set_gate("busy", ConcurrencyGate(limit=0, queue=0))
        busy = await caller.request("GET", "/")
        way.front.gate("busy", 1)
        statuses.append((await caller.request("GET", "/")).status)
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 6)
        left = state(way.front, "busy").left
    assert (statuses, busy.status) == ([403, 403, 403, 429, 403], 503)
    assert b"queue full (limit 0)" in busy.body
    assert left == {"denied": 1}


async def test_caller_that_leaves_while_its_answer_waits_leaves_the_gate(engine: str) -> None:
    def decide(_: RecordingHead) -> Decision:
        return replace(reply(Cause.DENIED), gates=("g",))

    async with leading(engine, "one", 1, decide=decide) as way:
        way.front.gate("g", 0)
        async with connect(way.port) as caller:
            await caller.send_head("GET", "/")
            await waiting(way.front, 1)
        await waiting(way.front, 0)
