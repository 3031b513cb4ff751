"""Which failures a retry rule speaks of, and which pause comes next."""

from collections.abc import Iterator
from typing import Any

from proxy.contract.plan import Cause, RetryPolicy
from proxy.engine.portable.retrying import Failure, Pause, Retrying, covers
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


REFUSED = Failure(Cause.REFUSED)


def test_inner_rule_begins_anew_within_each_attempt_of_the_next() -> None:
    inner, outer = rule(1.0, 1.0, is_inner=True), rule(5.0, 5.0, 5.0, attempts=2)
    retrying = Retrying((inner, outer))
    found = [retrying.next_pause(attempts, 0.0, REFUSED) for attempts in range(1, 7)]
    one, five = Pause(1.0, is_inner=True), Pause(5.0)
    assert found == [one, one, five, one, one, None]


def test_attempts_of_an_inner_rule_are_counted_within_one_of_the_next() -> None:
    retrying = Retrying((rule(0.0, 0.0, is_inner=True, attempts=2), rule(5.0, 5.0, 5.0, attempts=3)))
    found = [retrying.next_pause(attempts, 0.0, REFUSED) for attempts in range(1, 7)]
    once, five = Pause(0.0, is_inner=True), Pause(5.0)
    assert found == [once, five, once, five, once, None]


def test_rules_end_at_the_first_that_is_no_inner_one() -> None:
    retrying = Retrying((rule(5.0, attempts=1), rule(1.0)))
    assert retrying.next_pause(1, 0.0, REFUSED) is None


def test_what_an_answer_asks_for_counts_by_rules_that_heed_it() -> None:
    def paused(asked: Pushback, **fields: Any) -> Pause | None:
        heeding = rule(1.0, http_codes=None, heeds_answer=True, **fields)
        return Retrying((heeding,)).next_pause(1, 10.0, Failure(Cause.STATUS, 503, None, asked))

    assert paused(Pushback(3.0, is_least=True)) == Pause(3.0)
    assert paused(Pushback(0.5, is_least=True)) == Pause(1.0)
    assert paused(Pushback(0.5)) == Pause(0.5)
    assert paused(Pushback(None)) is None
    assert paused(Pushback(30.0), within_s=20.0) is None
    deaf = Retrying((rule(1.0, http_codes=None),))
    assert deaf.next_pause(1, 0.0, Failure(Cause.STATUS, 503, None, Pushback(None))) == Pause(1.0)
