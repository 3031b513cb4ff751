"""Delays of retries."""

import itertools
import random

from policies.rules.backoff import delays, within_s
from policies.rules.resiliency import BUILTIN_RETRY, RetryRule


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
