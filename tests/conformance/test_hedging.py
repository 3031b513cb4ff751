"""Attempts at once: the first that is answered is the call's, and the others are cancelled."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.contract.budgets import BudgetUse, RetryShare
from proxy.contract.gates import ConcurrencyGate
from proxy.contract.outcome import NotRetried, Outcome
from proxy.contract.plan import Cause, Hedge
from tests.conformance.apps import raw_app
from tests.conformance.frames import FramePeer, Kind, dial, serving
from tests.conformance.harness import DEADLINE_S, always, plan, retry, running
from tests.conformance.test_gates import App, gated, state, waiting
from tests.conformance.test_pushback import GRPC, told
from tests.support.http_client import Connection, connect

HEAD = ((b"content-type", b"application/grpc"),)
NOW = 0.01
NEVER = 600.0


class Answers:
    """Apps behind one cluster that answer calls in the order in which they come: status, gRPC code, or None for never.

    `came` counts the calls, `resets` those that were cancelled.
    """

    def __init__(self, *turns: int | None, grpc: bool = False) -> None:
        self.turns = list(turns)
        self.grpc = grpc
        self.bodies: list[bytes] = []
        self.came = asyncio.Semaphore(0)
        self.resets = asyncio.Semaphore(0)

    async def __call__(self, peer: FramePeer) -> None:
        answered: set[int] = set()
        while (got := await peer.read()) is not None:
            message = peer.message(got.stream)
            if message.ended and got.stream not in answered:
                answered.add(got.stream)
                self.bodies.append(bytes(message.body))
                self.came.release()
                await self._answer(peer, got.stream, self.turns.pop(0))
            if got.kind == Kind.RST_STREAM:
                self.resets.release()

    async def _answer(self, peer: FramePeer, stream: int, turn: int | None) -> None:
        if turn is None:
            return
        if self.grpc:
            await peer.respond(stream, headers=HEAD, trailers=((b"grpc-status", b"%d" % turn),))
        else:
            await peer.respond(stream, status=turn, body=b"%d" % turn)

    async def cancelled(self, times: int) -> None:
        """Wait until so many calls were."""
        await several(self.resets, times)


async def several(events: asyncio.Semaphore, times: int) -> None:
    """Wait for so many."""
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(times):
            await events.acquire()


@asynccontextmanager
async def hedged(engine: str, app: Answers, delay_s: float, **fields: Any) -> AsyncIterator[tuple[Any, int]]:
    """A node, and the port of a listener over two endpoints of an app."""
    rule = retry(3, Cause.RESET_EARLY, http_codes=frozenset({503}), grpc_codes=frozenset({14}))
    # Under load the last answer may take longer than the delay: none is made for which there is no answer, and one is always allowed.
    hedge = Hedge(attempts=max(2, len(app.turns)), delay_s=delay_s)
    given: dict[str, Any] = {"retries": (rule,), "hedge": hedge}
    async with serving(app) as first, serving(app) as second, running(engine) as node:
        node.cluster("app", first, second, wire="h2c")
        yield node, await node.listen(always(plan(**given | fields)))


async def asked(port: int, **fields: Any) -> tuple[int, bytes]:
    async with connect(port) as caller:
        response = await caller.request(fields.pop("method", "PUT"), "/", **fields)
    return response.status, response.body


async def test_answer_of_the_second_attempt_is_the_calls_and_the_first_is_cancelled(engine: str) -> None:
    app = Answers(None, 200)
    async with hedged(engine, app, NOW) as (node, port):
        assert await asked(port, body=b"replay me") == (200, b"200")
        outcome: Outcome = await node.seen.outcome()
        await app.cancelled(1)
    assert app.bodies == [b"replay me"] * 2
    assert [attempt.cause for attempt in outcome.attempts] == [Cause.CALLER_LEFT, None]
    assert len({attempt.endpoint for attempt in outcome.attempts}) == 2
    assert (outcome.status, outcome.cause, outcome.not_retried) == (200, None, None)


async def test_call_that_is_answered_in_time_is_made_once(engine: str) -> None:
    app = Answers(200)
    async with hedged(engine, app, NEVER) as (node, port):
        assert await asked(port) == (200, b"200")
        assert len((await node.seen.outcome()).attempts) == 1


async def test_there_are_no_more_than_so_many(engine: str) -> None:
    app = Answers(None, None, 200)
    async with hedged(engine, app, NOW) as (node, port):
        assert await asked(port, body=b"x") == (200, b"200")
        assert len((await node.seen.outcome()).attempts) == 3
        await app.cancelled(2)


async def test_failure_that_is_not_fatal_is_followed_by_the_next_at_once(engine: str) -> None:
    app = Answers(503, 503, 200)
    async with hedged(engine, app, NEVER) as (_, port):
        assert await asked(port, body=b"x") == (200, b"200")


async def test_failure_that_is_not_fatal_leaves_the_others(engine: str) -> None:
    app = Answers(None, 503, 200)
    async with hedged(engine, app, NOW) as (node, port):
        assert await asked(port) == (200, b"200")
        outcome = await node.seen.outcome()
    assert {attempt.status for attempt in outcome.attempts} == {0, 503, 200}


async def test_last_failure_passes(engine: str) -> None:
    app = Answers(503, 503, 503)
    async with hedged(engine, app, NEVER) as (node, port):
        assert await asked(port) == (503, b"503")
        assert (await node.seen.outcome()).not_retried is NotRetried.NO_ATTEMPTS


async def test_fatal_failure_ends_all(engine: str) -> None:
    app = Answers(None, 500)
    async with hedged(engine, app, NOW) as (node, port):
        assert await asked(port) == (500, b"500")
        await app.cancelled(1)
        outcome = await node.seen.outcome()
    assert (len(outcome.attempts), outcome.not_retried) == (2, NotRetried.NOT_COVERED)


@pytest.mark.parametrize(("turns", "code"), [((None, 0), b"0"), ((14, 14, 0), b"0"), ((None, 5), b"5")])
async def test_grpc_calls_go_by_their_codes(engine: str, turns: tuple[int | None, ...], code: bytes) -> None:
    app = Answers(*turns, grpc=True)
    delay_s = NOW if None in turns else NEVER
    async with hedged(engine, app, delay_s) as (_, port), dial(port) as caller:
        request = await caller.request(b"/s/M", method=b"POST", headers=GRPC, body=b"12345")
        assert told(await caller.whole(request), b"grpc-status") == code
        await app.cancelled(turns.count(None))
    assert app.bodies == [b"12345"] * len(turns)


async def test_attempts_beside_another_take_from_the_budget(engine: str) -> None:
    empty = BudgetUse(target="app", rule=RetryShare(ratio=0.0, min_per_s=0.0))
    app = Answers(None)
    async with hedged(engine, app, NOW, budget=empty, total_s=0.5) as (node, port):
        assert (await asked(port))[0] == 504
        assert len((await node.seen.outcome()).attempts) == 1


async def unfinished(caller: Connection, body: bytes) -> None:
    """A request of which a byte is missing."""
    await caller.send_head("PUT", "/", [("Content-Length", str(len(body) + 1))])
    await caller.send(body)


async def test_request_that_is_not_complete_is_sent_once(engine: str) -> None:
    app = Answers(200, 200)  # once it is complete there may be two
    async with hedged(engine, app, NOW) as (node, port), connect(port) as caller:
        await unfinished(caller, b"hal")
        await node.seen.until(lambda: bool(node.seen.dials))
        with pytest.raises(TimeoutError):
            await node.seen.outcome(timeout_s=0.5)
        assert len(node.seen.dials) == 1
        await caller.send(b"f")
        assert (await caller.read_response("PUT")).status == 200


async def test_request_that_is_too_large_to_keep_is_sent_once(engine: str) -> None:
    app = Answers(None)
    async with hedged(engine, app, NOW, replay_bytes=3, total_s=0.5) as (node, port):
        assert (await asked(port, body=b"four"))[0] == 504
        await node.seen.outcome()
    assert app.bodies == [
        b"four"
    ]  # another attempt may have begun while the first still connected: it is ended before it has any


async def test_caller_that_leaves_cancels_all(engine: str) -> None:
    app = Answers(None, None, None)
    async with hedged(engine, app, NOW) as (node, port):
        async with connect(port) as caller:
            await caller.send_head("GET", "/")
            await several(app.came, 3)
        await app.cancelled(3)
        outcome = await node.seen.outcome()
    assert [attempt.cause for attempt in outcome.attempts] == [Cause.CALLER_LEFT] * 3


async def test_hedge_takes_no_room_that_another_call_waits_for(engine: str) -> None:
    """It is one more at the callee where there is room; where there is none, nobody waits behind it or is pushed out."""
    app = App()
    async with raw_app(app) as port, running(engine) as node:
        node.cluster("app", port)
        node.engine.set_gate("g", ConcurrencyGate(limit=1, queue=1, wait_s=DEADLINE_S, newest_first=True))
        hedge = Hedge(attempts=2, delay_s=0.0)
        way = await node.listen(always(plan(hedge=hedge, **gated("attempt", "g"))))
        async with connect(way) as first, connect(way) as second, asyncio.TaskGroup() as calls:
            one = calls.create_task(first.request("GET", "/one"))
            await app.begun.acquire()
            other = calls.create_task(second.request("GET", "/other"))
            await waiting(node, 1)
            app.go.set()
        assert (one.result().status, other.result().status, app.most) == (200, 200, 1)
        outcome = await node.seen.outcome()
        found = state(node)
    # An engine's timers are a millisecond late, and the app may have answered by then.
    assert [attempt.cause for attempt in outcome.attempts] in ([Cause.SHED, None], [None])
    assert (found.inside, found.refused) == (0, {})


async def test_hedge_is_counted_once_where_there_is_room(engine: str) -> None:
    app = App()
    async with raw_app(app) as first, raw_app(app) as second, running(engine) as node:
        node.cluster("app", first, second)
        node.engine.set_gate("g", ConcurrencyGate(limit=2, queue=0))
        hedge = Hedge(attempts=2, delay_s=0.0)
        way = await node.listen(always(plan(hedge=hedge, **gated("attempt", "g"))))
        async with connect(way) as caller, asyncio.TaskGroup() as calls:
            call = calls.create_task(caller.request("GET", "/"))
            await several(app.begun, 2)
            assert state(node).inside == 2
            app.go.set()
        assert call.result().status == 200
        await node.seen.outcome()
        found = state(node)
    assert (found.inside, sum(found.left.values())) == (0, 2)
