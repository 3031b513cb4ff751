"""Calls that are told as they go on, while somebody looks: that they began, that they are answered, and how they ended, in this order."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.contract.gates import ConcurrencyGate
from proxy.contract.outcome import NotRetried
from proxy.contract.plan import Cause, Decide, Decision, Hedge, Hold, Labels
from proxy.contract.recording import RecordingHead
from proxy.contract.watching import AnswerBegun, CallBegun, Watch
from tests.conformance.apps import raw_app
from tests.conformance.frames import dial, reset
from tests.conformance.harness import DEADLINE_S, LABELS, Node, always, leading, plan, reply, retry, running
from tests.conformance.test_attempts import Answering, Never
from tests.conformance.test_gates import App, gated, waiting
from tests.integration.mesh.standing import eventually
from tests.support.http_client import connect

FIELDS = Watch(fields=frozenset({b"x-shown"}))
OK = b"HTTP/1.1 200 OK\r\nX-Shown: down\r\nSet-Cookie: s=1\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Busy\r\nX-Shown: thrown-away\r\nContent-Length: 0\r\n\r\n"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
SENT = (("X-Shown", "up"), ("X-Hidden", "h"), ("Authorization", "Bearer secret"))


async def ended(node: Node, number: int = 0) -> list[str]:
    """What was told of the call that ended so far as the last of so many, in order."""
    outcome = await node.seen.outcome(number)
    return [kind for kind, told in node.seen.news if told == outcome.number]


async def begun(node: Node, count: int = 1) -> list[CallBegun]:
    """So many calls that have begun."""
    await node.seen.until(lambda: len(node.seen.begun_calls) >= count)
    return node.seen.begun_calls


async def answered(node: Node) -> list[AnswerBegun]:
    """Calls whose answers have begun."""
    await node.seen.until(lambda: bool(node.seen.answers))
    return node.seen.answers


async def test_call_is_told_in_order_with_the_fields_that_are_asked_for(engine: str, hops: str) -> None:
    async with (
        raw_app(Answering([OK])) as port,
        leading(engine, hops, port) as way,
        connect(way.port) as caller,
    ):
        for node in (way.front, way.back):
            node.engine.watch(FIELDS)
        await caller.request("GET", "/x", headers=SENT)
        for node in {id(node): node for node in (way.front, way.back)}.values():
            assert await ended(node) == ["begun", "answered", "finished"]
            (call,), (answer,) = node.seen.begun_calls, node.seen.answers
            outcome = node.seen.outcomes[0]
            assert (call.head.path, call.head.method, call.labels) == ("/x", "GET", LABELS)
            assert call.head.headers == ((b"x-shown", b"up"),)
            assert (answer.status, answer.fields) == (200, ((b"x-shown", b"down"),))
            assert call.started_ns == outcome.started_ns
            assert answer.head_ns == outcome.head_ns


async def test_nothing_is_told_while_nobody_looks(engine: str) -> None:
    async with (
        raw_app(Answering([OK])) as port,
        leading(engine, "one", port) as way,
        connect(way.port) as caller,
    ):
        await caller.request("GET", "/")
        assert await ended(way.front) == ["finished"]
        way.front.engine.watch(Watch())
        await caller.request("GET", "/", headers=SENT)
        assert await ended(way.front, 1) == ["begun", "answered", "finished"]
        (call,), (answer,) = way.front.seen.begun_calls, way.front.seen.answers
        assert (call.head.headers, answer.fields) == ((), ())
        way.front.engine.watch(None)
        await caller.request("GET", "/")
        assert await ended(way.front, 2) == ["finished"]


async def test_call_that_hangs_is_told_at_once_and_once_its_caller_leaves(engine: str, hops: str) -> None:
    async with raw_app(Never()) as port, leading(engine, hops, port) as way, dial(way.port) as caller:
        way.front.engine.watch(Watch())
        stream = await caller.request(b"/hangs")
        (call,) = await begun(way.front)
        assert call.head.path == "/hangs"
        assert not way.front.seen.outcomes
        await caller.send(reset(stream))
        assert await ended(way.front) == ["begun", "finished"]
        assert way.front.seen.outcomes[0].cause is Cause.CALLER_LEFT


@pytest.mark.parametrize("level", ["call", "attempt"])
async def test_call_that_waits_at_a_gate_is_told(engine: str, level: str) -> None:
    async with (
        raw_app(Answering([OK])) as port,
        leading(engine, "one", port, **gated(level, "g")) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_gate("g", ConcurrencyGate(limit=0, queue=1))
        way.front.engine.watch(Watch())
        stream = await caller.request()
        await waiting(way.front, 1)
        await begun(way.front)
        way.front.gate("g", None)
        await caller.whole(stream)
        assert await ended(way.front) == ["begun", "answered", "finished"]


def held_at_first(labels: Labels) -> tuple[list[bool], Decide]:
    """Whether a callee is known, which is for the test to say, and a decider that holds calls until then."""
    known: list[bool] = []
    hold = Hold(key="app", for_s=DEADLINE_S, then=reply(Cause.NO_APP, labels=labels))
    return known, lambda head: plan() if known else hold


async def test_call_that_waits_for_its_callee_is_told_and_again_once_it_is_decided(engine: str) -> None:
    looked_for = replace(LABELS, dst="app")
    known, decide = held_at_first(looked_for)
    async with (
        raw_app(Answering([OK])) as port,
        running(engine) as node,
        dial(await node.listen(decide)) as caller,
    ):
        node.engine.watch(FIELDS)
        stream = await caller.request(b"/held", headers=((b"x-shown", b"up"),))
        (held,) = await begun(node)
        assert (held.head.path, held.labels, held.trace) == ("/held", looked_for, None)
        assert held.head.headers == ((b"x-shown", b"up"),)
        known.append(True)
        node.cluster("app", port)
        await caller.whole(stream)
        assert await ended(node) == ["begun", "begun", "answered", "finished"]
        _, decided = node.seen.begun_calls
        assert (decided.labels, decided.number) == (LABELS, held.number)


async def test_call_that_waits_for_its_callee_is_told_to_whoever_looks_later(engine: str) -> None:
    _, decide = held_at_first(LABELS)
    asked = asyncio.Event()

    def asking(head: RecordingHead) -> Decision:
        asked.set()
        return decide(head)

    async with running(engine) as node, dial(await node.listen(asking)) as caller:
        stream = await caller.request(b"/held")
        await asked.wait()

        async def is_told() -> bool:
            node.engine.watch(None)
            node.engine.watch(Watch())
            await asyncio.sleep(0)
            return bool(node.seen.begun_calls)

        await eventually(is_told, within_s=DEADLINE_S)  # the engine may still be about to wait
        assert node.seen.begun_calls[0].head.path == "/held"
        await caller.send(reset(stream))
        assert (await node.seen.outcome()).cause is Cause.CALLER_LEFT


async def test_answer_that_breaks_off_is_told_to_have_begun(engine: str) -> None:
    """Its caller reads what there is of it, which is told while it goes on."""
    release = asyncio.Event()

    async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HALF)
        await release.wait()

    async with (
        raw_app(breaks_off) as port,
        leading(engine, "one", port) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.watch(Watch())
        await caller.request()
        (answer,) = await answered(way.front)
        assert answer.status == 200
        assert not way.front.seen.outcomes
        release.set()
        assert await ended(way.front) == ["begun", "answered", "finished"]
        outcome = way.front.seen.outcomes[0]
        assert (outcome.cause, outcome.not_retried) == (Cause.RESET_LATE, NotRetried.BEGUN)


async def test_attempts_are_one_call_with_one_answer(engine: str) -> None:
    rule = (retry(2, http_codes=None),)
    async with (
        raw_app(Answering([BUSY, OK])) as port,
        leading(engine, "one", port, retries=rule) as way,
        connect(way.port) as caller,
    ):
        way.front.engine.watch(FIELDS)
        await caller.request("GET", "/")
        assert await ended(way.front) == ["begun", "answered", "finished"]
        (answer,) = way.front.seen.answers
        assert (answer.status, answer.fields) == (200, ((b"x-shown", b"down"),))
        assert len(way.front.seen.outcomes[0].attempts) == 2


async def test_hedged_call_is_told_once(engine: str) -> None:
    app = App(answers=[OK])
    given: dict[str, Any] = {"hedge": Hedge(attempts=2, delay_s=0.0)}
    async with raw_app(app) as port, leading(engine, "one", port, **given) as way, dial(way.port) as caller:
        way.front.engine.watch(Watch())
        stream = await caller.request()
        for _ in range(2):
            await app.begun.acquire()
        app.go.set()
        await caller.whole(stream)
        assert await ended(way.front) == ["begun", "answered", "finished"]


async def test_answer_of_ours_is_told_by_its_end(engine: str) -> None:
    async with running(engine) as node, connect(await node.listen(always(reply(Cause.DENIED)))) as caller:
        node.engine.watch(Watch())
        await caller.request("GET", "/")
        assert await ended(node) == ["begun", "finished"]


@pytest.mark.parametrize("has_answer", [False, True])
async def test_calls_under_way_are_told_once_when_somebody_begins_to_look(
    engine: str, has_answer: bool
) -> None:
    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if has_answer:
            writer.write(HALF)
        await release.wait()
        writer.write(b".....")

    async with (
        raw_app(slow) as port,
        leading(engine, "one", port) as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(b"/before")
        if has_answer:
            async with asyncio.timeout(DEADLINE_S):
                while not caller.message(stream).body:
                    await caller.read()
        else:

            async def is_carried() -> bool:
                return way.front.engine.open_work().calls == {LABELS: 1}

            await eventually(is_carried, within_s=DEADLINE_S)
        way.front.engine.watch(FIELDS)
        await begun(way.front)
        if has_answer:
            await answered(way.front)
        way.front.engine.watch(Watch())  # somebody else looks, too
        release.set()
        told = await ended(way.front)
        assert told == ["begun", *(("answered",) if has_answer else ()), "finished"]
        assert way.front.seen.begun_calls[0].head.path == "/before"
