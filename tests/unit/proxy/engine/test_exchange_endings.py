"""How attempts and calls end when several things happen at once: limits while dialling, late heads, trailers, crowded gates."""

import asyncio
from typing import Any

from msgspec.structs import replace

from proxy.contract.gates import ConcurrencyGate
from proxy.contract.head import Headers
from proxy.contract.plan import Cause, Decision, Edit, Op, Route
from proxy.contract.recording import RecordingHead
from tests.conformance.harness import plan, retry
from tests.unit.proxy.engine.test_exchange import GRPC, Bench, get, post

STRIPPING = (Edit(op=Op.REMOVE, name=b"dapr-app-id"), Edit(op=Op.REMOVE_PREFIX, name=b"dapr-caller-"))


async def later(delay_s: float) -> None:
    """Until every timer that is due before has rung."""
    rung = asyncio.Event()
    asyncio.get_running_loop().call_later(delay_s, rung.set)
    await rung.wait()


async def test_attempt_that_ran_out_while_dialling_is_not_sent_when_the_connection_comes() -> None:
    fields: dict[str, Any] = {"attempt_s": 0.01, "retries": (retry(2, Cause.TIMEOUT, delay_s=30.0),)}
    bench = Bench(plan(**fields), "a")
    bench.pool.slow = {"a"}
    exchange, _ = bench.call(get())
    await later(0.03)
    assert bench.pool.waiters[0][1].cancelled
    assert not bench.pool.attempts
    exchange.cut()
    assert bench.outcome.cause is Cause.DRAINING


async def test_head_held_by_an_attempt_that_timed_out_is_not_the_next_ones() -> None:
    fields: dict[str, Any] = {
        "attempt_s": 0.02,
        "replay_bytes": 4,
        "retries": (retry(2, Cause.TIMEOUT, grpc_codes=frozenset({14})),),
    }
    bench = Bench(plan(**fields), "a", "b")
    exchange, down = bench.call(post(GRPC, grpc=True))
    exchange.request_data(b"1")
    bench.up.events.response_head(200, (*GRPC, (b"from", b"first")), end=False)
    bench.pool.opened.clear()
    async with asyncio.timeout(10):
        await bench.pool.opened.wait()
    assert len(bench.pool.attempts) == 2
    exchange.request_data(b"23456")  # too much for a third attempt: the next head is passed on at once
    bench.up.events.response_head(200, (*GRPC, (b"from", b"second")), end=False)
    bench.up.events.response_data(b"m")
    assert (b"from", b"second") in down.headers
    exchange.cut()


async def test_complete_answer_ends_an_upload_that_the_callee_takes_no_more() -> None:
    """The request has ended here, but some of it still waits for the callee's window: the stream would wait for ever."""
    bench = Bench(plan())
    exchange, down = bench.call(post())
    exchange.request_data(b"12345")
    exchange.request_end(())
    bench.up.events.request_drained(2)
    bench.up.events.response_head(200, (), end=True)
    assert (down.status, bench.up.aborted, bench.outcome.cause) == (200, True, None)


async def test_complete_answer_after_the_whole_upload_aborts_nothing() -> None:
    bench = Bench(plan())
    exchange, _ = bench.call(post())
    exchange.request_data(b"12345")
    exchange.request_end(())
    bench.up.events.request_drained(5)
    bench.up.events.response_head(200, (), end=True)
    assert not bench.up.aborted


async def test_request_trailers_lose_what_headers_lose() -> None:
    sent: list[Headers] = []
    bench = Bench(plan(routes=(Route(cluster="app", edits=STRIPPING),)))
    exchange, _ = bench.call(post())
    bench.up.finish = sent.append  # type: ignore[method-assign, assignment]
    exchange.request_end(
        ((b"dapr-caller-app-id", b"admin"), (b"dapr_app_id", b"x"), (b"x-sum", b"9"), (b"connection", b"x"))
    )
    assert sent == [((b"x-sum", b"9"),)]


async def test_trailers_that_came_before_the_connection_lose_it_too() -> None:
    bench = Bench(plan(routes=(Route(cluster="app", edits=STRIPPING),)))
    bench.pool.slow = {"1.1.1.1:1"}
    exchange, _ = bench.call(post())
    exchange.request_data(b"x")
    exchange.request_end(((b"dapr-caller-namespace", b"other"),))
    sent: list[Headers] = []
    connection = bench.pool.connection("1.1.1.1:1")
    opened = connection.open

    def watched(events: Any) -> Any:
        up = opened(events)
        up.finish = sent.append
        return up

    connection.open = watched
    bench.pool.waiters[0][1].ready(connection)
    assert sent == [()]


async def test_response_trailers_lose_what_headers_lose() -> None:
    bench = Bench(plan(reply_edits=(Edit(op=Op.REMOVE_PREFIX, name=b"postern-"),)))
    _, down = bench.call(get())
    bench.up.events.response_head(200, (), end=False)
    bench.up.events.response_end(((b"postern-error", b"denied"), (b"grpc-status", b"0")))
    assert down.trailers == ((b"grpc-status", b"0"),)


async def test_call_that_no_decider_could_decide_fails_and_is_not_kept() -> None:
    def decide(head: RecordingHead) -> Decision:
        raise KeyError(head.path_class(99))

    bench = Bench(plan())
    bench.listener = replace(bench.listener, decide=decide)
    _, down = bench.call(get())
    assert (down.status, bench.carrier.plans.size) == (500, 0)
    assert not bench.carrier.calls["in"]


async def test_crowd_before_a_gate_is_let_through_without_a_deep_stack() -> None:
    """Each call that fails at once makes room for the next: a thousand of them must not nest."""
    bench = Bench(plan(gates=("g",)), "a")
    bench.carrier.gates.set("g", ConcurrencyGate(limit=1))
    first, _ = bench.call(get())
    for _ in range(1_000):
        bench.call(get())
    bench.carrier.clusters.drop("app")
    first.cut()
    gate = bench.carrier.gates.get("g")
    assert gate is not None
    assert gate.state().inside == 0
    assert (len(bench.seen.outcomes), bench.carrier.calls["in"]) == (1_001, set())
