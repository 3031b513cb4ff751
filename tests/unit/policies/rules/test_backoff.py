"""Delays of retries."""

import itertools
import random

import pytest

from policies.rules.backoff import delays, within_s
from policies.rules.resiliency import BUILTIN_RETRY, RetryRule
from policies.rules.retries import BackoffRule, Jitter


def exponential(max_interval_s: float, max_retries: int = -1) -> RetryRule:
    return RetryRule(name="r", kind="exponential", max_interval_s=max_interval_s, max_retries=max_retries)


def test_constant_rule_waits_the_same_each_time() -> None:
    assert list(delays(BUILTIN_RETRY, random.Random(1))) == [1.0, 1.0, 1.0]


def test_constant_rule_without_count_never_ends() -> None:
    rule = RetryRule(name="r", duration_s=0.2)
    assert list(itertools.islice(delays(rule, random.Random(1)), 5000)) == [0.2] * 5000


def test_rule_of_no_retries_gives_no_delay() -> None:
    assert list(delays(exponential(5, 0), random.Random(1))) == []


def test_exponential_rule_draws_around_a_growing_value() -> None:
    middle = [0.5, 0.75, 1.125, 1.6875, 2.0, 2.0, 2.0]
    for seed in range(50):
        drawn = list(itertools.islice(delays(exponential(2.0), random.Random(seed)), len(middle)))
        assert all(0.5 * m <= d <= 1.5 * m for d, m in zip(drawn, middle, strict=True))


def test_first_delay_ignores_a_smaller_maximum() -> None:
    first, second = itertools.islice(delays(exponential(0.1), random.Random(1)), 2)
    assert 0.25 <= first <= 0.75
    assert 0.05 <= second <= 0.15


def test_only_an_exponential_rule_is_bound_in_time() -> None:
    assert within_s(exponential(60.0)) == 900.0
    assert within_s(RetryRule(name="r")) is None


def test_equal_seeds_give_equal_delays() -> None:
    first, second = (list(delays(exponential(5.0, 6), random.Random(7))) for _ in range(2))
    assert first == second
    assert len(first) == 6


def drawn(rule: RetryRule, backoff: BackoffRule, count: int = 6) -> list[list[float]]:
    """Pauses of many calls."""
    each = (delays(rule, random.Random(seed), backoff) for seed in range(50))
    return [list(itertools.islice(one, count)) for one in each]


@pytest.mark.parametrize(
    ("jitter", "least", "most"), [("full", 0.0, 1.0), ("equal", 0.5, 1.0), ("none", 1.0, 1.0)]
)
@pytest.mark.parametrize(
    ("rule", "steps"),
    [
        (exponential(4.0), [0.5, 0.75, 1.125, 1.6875, 2.53125, 3.796875]),
        (RetryRule(name="r", duration_s=0.2), [0.2] * 6),
    ],
)
def test_jitter_is_drawn_from_each_pause(
    rule: RetryRule, steps: list[float], jitter: Jitter, least: float, most: float
) -> None:
    each = drawn(rule, BackoffRule(jitter=jitter))
    for pauses in each:
        assert all(least * s <= d <= most * s for d, s in zip(pauses, steps, strict=True))
    assert (len({tuple(pauses) for pauses in each}) > 1) is (jitter != "none")


def test_first_pause_and_multiplier_are_of_exponential_rules() -> None:
    backoff = BackoffRule(jitter="none", first_s=0.1, multiplier=2.0)
    assert drawn(exponential(1.0), backoff)[0] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert drawn(exponential(0.05), backoff)[0] == [0.05] * 6
    assert drawn(RetryRule(name="r", duration_s=0.2), backoff)[0] == [0.2] * 6
    assert drawn(exponential(60.0), BackoffRule(jitter="none", first_s=3.0, multiplier=1.0))[0] == [3.0] * 6
