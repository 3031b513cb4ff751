"""Several attempts of one call under way at once. No Plan asks for that yet: the tests begin the second one."""

import pytest

from proxy.contract.gates import ConcurrencyGate
from proxy.contract.plan import Cause, Route
from proxy.engine.portable.exchange import Exchange
from tests.conformance.harness import EDITS, plan, retry
from tests.unit.proxy.engine.test_exchange import Bench, Down, Up, post

OUTRUN = "another attempt of the call went on"


def two(bench: Bench) -> tuple[Exchange, Down, Up, Up]:
    """A call with half of its request sent when the second attempt begins."""
    exchange, down = bench.call(post())
    exchange.request_data(b"first")
    exchange.attempt()
    first, second = bench.pool.attempts
    assert first.address != second.address
    return exchange, down, first, second


def in_flight(bench: Bench) -> list[int]:
    """Calls in flight by endpoint."""
    state = bench.carrier.clusters.get("app")
    assert state is not None
    loads = [state.load(address) for address in ("a", "b")]
    return [load.in_flight for load in loads if load is not None]


async def test_attempt_that_answers_first_is_the_one_and_the_other_is_reset() -> None:
    bench = Bench(plan(routes=(Route(cluster="app", edits=EDITS, gates=("g",)),)), "a", "b")
    bench.carrier.gates.set("g", ConcurrencyGate(limit=2))
    exchange, down, first, second = two(bench)
    exchange.request_data(b"later")
    exchange.request_end(())
    assert (first.body, first.ended, second.body, second.ended) == (b"firstlater", True) * 2
    assert in_flight(bench) == [1, 1]
    second.events.response_head(200, (), end=False)
    assert (first.aborted, second.aborted, sum(in_flight(bench))) == (True, False, 1)
    first.events.response_head(503, (), end=True)  # was on its way
    second.events.response_data(b"answer")
    exchange.response_drained(6)
    second.events.response_end(())
    assert (down.status, down.body, down.trailers) == (200, b"answer", ())
    assert (first.acked, second.acked, second.aborted) == (
        0,
        6,
        True,
    )  # none of the request has left in this test
    records = bench.outcome.attempts
    assert [(record.cause, record.detail) for record in records] == [
        (Cause.CALLER_LEFT, OUTRUN),
        (None, ""),
    ]
    assert (bench.outcome.cause, bench.outcome.up_bytes) == (None, 10)
    assert (in_flight(bench), bench.carrier.gates.states()["g"].inside) == ([0, 0], 0)


async def test_last_record_is_of_the_attempt_that_answered() -> None:
    bench = Bench(plan(), "a", "b")
    _, down, first, second = two(bench)
    first.events.response_head(204, (), end=True)
    assert (down.status, second.aborted) == (204, True)
    assert [record.status for record in bench.outcome.attempts] == [0, 204]


async def test_request_is_acked_once_by_the_attempt_that_is_furthest() -> None:
    bench = Bench(plan(), "a", "b")
    _, down, first, second = two(bench)
    acked = []
    for up, count in ((first, 3), (second, 2), (second, 3), (first, 2)):
        up.events.request_drained(count)
        acked.append(down.acked)
    assert acked == [3, 3, 5, 5]


async def test_nothing_goes_through_before_it_is_clear_whose_answer_it_is() -> None:
    bench = Bench(plan(), "a", "b")
    exchange, down, first, second = two(bench)
    first.events.response_inform(103, ())
    second.events.response_inform(103, ())
    assert down.informed == []
    first.events.response_lost(Cause.RESET_EARLY, "gone")
    second.events.response_inform(103, ())
    assert (down.informed, down.status) == ([103], 0)
    exchange.request_gone("hung up")
    assert second.aborted


@pytest.mark.parametrize("is_sent", [True, False])
async def test_body_too_large_to_keep_is_the_attempts_that_has_it(is_sent: bool) -> None:
    bench = Bench(plan(replay_bytes=6), "a", "b")
    if not is_sent:
        bench.pool.slow = {"a", "b"}
    exchange, down = bench.call(post())
    exchange.request_data(b"first")
    exchange.attempt()
    exchange.request_data(b"later")
    if not is_sent:
        address, waiter = bench.pool.waiters[1]
        waiter.ready(bench.pool.connection(address))
    exchange.request_end(())
    bench.pool.attempts[-1 if not is_sent else 0].events.response_head(200, (), end=True)
    assert down.status == 200
    assert [up.aborted for up in bench.pool.attempts] == ([True, True] if is_sent else [True])
    assert [record.cause for record in bench.outcome.attempts] == [Cause.CALLER_LEFT, None]


async def test_call_fails_with_the_last_attempt_under_way() -> None:
    rules = (retry(2, Cause.RESET_EARLY, http_codes=frozenset({503})),)
    bench = Bench(plan(retries=rules), "a", "b")
    _, down, first, second = two(bench)
    second.events.response_head(503, (), end=False)  # thrown away, as another may do better
    assert (second.aborted, first.aborted, down.status) == (True, False, 0)
    first.events.response_lost(Cause.RESET_EARLY, "gone")
    assert (down.status, len(bench.pool.attempts)) == (502, 2)
    assert [record.cause for record in bench.outcome.attempts] == [Cause.RESET_EARLY, Cause.STATUS]


async def test_end_of_the_call_ends_all() -> None:
    bench = Bench(plan(), "a", "b")
    exchange, _, first, second = two(bench)
    exchange.cut()
    assert (first.aborted, second.aborted, in_flight(bench)) == (True, True, [0, 0])
    assert [record.cause for record in bench.outcome.attempts] == [Cause.DRAINING] * 2
