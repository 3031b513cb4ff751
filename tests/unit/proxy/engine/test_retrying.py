"""Which failures a retry rule speaks of, and which pause comes next."""

from collections.abc import Iterator
from typing import Any

import pytest

from proxy.contract.budgets import RetryShare
from proxy.contract.outcome import NotRetried
from proxy.contract.plan import Cause, RetryPolicy
from proxy.engine.portable.budgets import Share
from proxy.engine.portable.retrying import Failure, Pause, Retrying, SoFar, covers
from proxy.wire.pushback import Pushback
from tests.support.vectors import Vector, vectors


class Covers(Vector, frozen=True, kw_only=True):
    on: tuple[str, ...]
    http_codes: tuple[int, ...] | None
    grpc_codes: tuple[int, ...] | None
    cause: str
    status: int = 0
    code: int | None = None
    covers: bool


def no_pauses() -> Iterator[float]:
    return iter(())


@vectors("retries", "covers", Covers)
def test_rule_covers_the_failures_that_it_names(vector: Covers) -> None:
    policy = RetryPolicy(
        attempts=None,
        on=frozenset(map(Cause, vector.on)),
        http_codes=None if vector.http_codes is None else frozenset(vector.http_codes),
        grpc_codes=None if vector.grpc_codes is None else frozenset(vector.grpc_codes),
        delays_s=no_pauses,
    )
    assert covers(policy, Cause(vector.cause), vector.status, vector.code) == vector.covers


def rule(*pauses_s: float, **fields: Any) -> RetryPolicy:
    on = frozenset({Cause.REFUSED})
    return RetryPolicy(**{"attempts": None, "on": on, "delays_s": lambda: iter(pauses_s), **fields})


def after(attempts: int, elapsed_s: float = 0.0, left_s: float | None = None) -> SoFar:
    return SoFar(attempts, elapsed_s, left_s, now=100.0)


REFUSED = Failure(Cause.REFUSED)


def paused(
    retrying: Retrying, attempts: int = 1, failure: Failure = REFUSED, **changes: Any
) -> Pause | NotRetried | None:
    """The pause, or why there is none."""
    return retrying.next_pause(SoFar(*after(attempts)[:4], **changes), failure) or retrying.why


def test_inner_rule_begins_anew_within_each_attempt_of_the_next() -> None:
    inner, outer = rule(1.0, 1.0, is_inner=True), rule(5.0, 5.0, 5.0, attempts=2)
    retrying = Retrying((inner, outer))
    found = [paused(retrying, attempts) for attempts in range(1, 7)]
    one, five = Pause(1.0, is_inner=True), Pause(5.0)
    assert found == [one, one, five, one, one, NotRetried.NO_ATTEMPTS]


def test_attempts_of_an_inner_rule_are_counted_within_one_of_the_next() -> None:
    retrying = Retrying((rule(0.0, 0.0, is_inner=True, attempts=2), rule(5.0, 5.0, 5.0, attempts=3)))
    found = [paused(retrying, attempts) for attempts in range(1, 7)]
    once, five = Pause(0.0, is_inner=True), Pause(5.0)
    assert found == [once, five, once, five, once, NotRetried.NO_ATTEMPTS]


def test_rules_end_at_the_first_that_is_no_inner_one() -> None:
    retrying = Retrying((rule(5.0, attempts=1), rule(1.0)))
    assert paused(retrying) is NotRetried.NO_ATTEMPTS


def test_what_an_answer_asks_for_counts_by_rules_that_heed_it() -> None:
    def asking(asked: Pushback, **fields: Any) -> Pause | NotRetried | None:
        retrying = Retrying((rule(1.0, http_codes=None, heeds_answer=True, **fields),))
        return retrying.next_pause(after(1, 10.0), Failure(Cause.STATUS, 503, None, asked)) or retrying.why

    assert asking(Pushback(3.0, is_least=True)) == Pause(3.0)
    assert asking(Pushback(0.5, is_least=True)) == Pause(1.0)
    assert asking(Pushback(0.5)) == Pause(0.5)
    assert asking(Pushback(None)) is NotRetried.PUSHBACK
    assert asking(Pushback(30.0), within_s=20.0) is NotRetried.TOO_LATE
    deaf = Retrying((rule(1.0, http_codes=None),))
    assert deaf.next_pause(after(1), Failure(Cause.STATUS, 503, None, Pushback(None))) == Pause(1.0)


def test_failure_that_no_rule_covers_is_not_retried() -> None:
    timeout = Failure(Cause.TIMEOUT)
    assert paused(Retrying((rule(1.0),)), failure=timeout) is NotRetried.NOT_COVERED
    denied = Failure(Cause.DENIED, 403)
    assert paused(Retrying((rule(1.0, http_codes=None),)), failure=denied) is NotRetried.DENIED
    assert paused(Retrying((), is_stream=True), failure=timeout) is NotRetried.STREAMING
    assert paused(Retrying((rule(1.0),), is_stream=True), failure=timeout) is NotRetried.NOT_COVERED


def test_request_that_is_not_kept_is_not_retried() -> None:
    assert paused(Retrying((rule(1.0),)), is_kept=False) is NotRetried.BODY
    assert paused(Retrying(()), is_kept=False) is NotRetried.NOT_COVERED


@pytest.mark.parametrize(
    ("failure", "was_kept", "why"),
    [
        (REFUSED, True, NotRetried.BEGUN),
        (REFUSED, False, NotRetried.BODY),
        (Failure(Cause.TIMEOUT), True, NotRetried.NOT_COVERED),
    ],
)
def test_failure_after_the_answer_began_is_the_last(
    failure: Failure, was_kept: bool, why: NotRetried
) -> None:
    retrying = Retrying((rule(1.0),))
    retrying.note_late(failure, was_kept=was_kept)
    assert retrying.why is why


def test_pause_ends_before_the_deadline() -> None:
    retrying = Retrying((rule(1.0, 1.0),))
    assert retrying.next_pause(after(1, left_s=1.1), REFUSED) == Pause(1.0)
    assert retrying.next_pause(after(2, left_s=1.0), REFUSED) is None
    assert retrying.why is NotRetried.DEADLINE


def test_only_what_is_no_inner_rule_takes_from_the_budget() -> None:
    budget = Share(RetryShare(ratio=0.0, min_per_s=0.1, ttl_s=10.0))  # one in all
    inner, outer = rule(0.0, is_inner=True), rule(5.0, 5.0, 5.0)
    retrying = Retrying((inner, outer), budget)
    found = [paused(retrying, attempts) for attempts in range(1, 5)]
    at_once = Pause(0.0, is_inner=True)
    assert found == [at_once, Pause(5.0), at_once, NotRetried.BUDGET]


def test_retry_that_is_not_made_takes_nothing() -> None:
    budget = Share(RetryShare(ratio=0.0, min_per_s=0.1, ttl_s=10.0))
    for _ in range(3):
        assert Retrying((rule(5.0),), budget).next_pause(after(1, left_s=1.0), REFUSED) is None
    assert budget.take(100.0)
