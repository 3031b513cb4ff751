"""The delays of a retry rule; pure, with randomness passed in."""

import random as random_module
from collections.abc import Iterator

from policies.rules.resiliency import RetryRule

INITIAL_S = 0.5
MULTIPLIER = 1.5
JITTER = 0.5
EXPONENTIAL_WITHIN_S = (
    15 * 60.0
)  # from the call's start to the last attempt's, also of a rule without a count


def within_s(rule: RetryRule) -> float | None:
    """How long after the call's start, attempts included, the last attempt may begin; None: at any time."""
    return EXPONENTIAL_WITHIN_S if rule.kind == "exponential" else None


def delays(rule: RetryRule, random: random_module.Random) -> Iterator[float]:
    """The seconds to wait before each retry; it ends when there is none left.

    A constant rule has no jitter. An exponential one draws from half to one and a half of a value that grows to
    `max_interval_s`. Source: Dapr `retry` policies.
    """
    steps = _constant(rule) if rule.kind == "constant" else _exponential(rule, random)
    for count, delay_s in enumerate(steps):
        if 0 <= rule.max_retries <= count:
            return
        yield delay_s


def _constant(rule: RetryRule) -> Iterator[float]:
    while True:
        yield max(rule.duration_s, 0.0)


def _exponential(rule: RetryRule, random: random_module.Random) -> Iterator[float]:
    current = INITIAL_S
    limit = max(rule.max_interval_s, 0.0)
    while True:
        yield random.uniform((1 - JITTER) * current, (1 + JITTER) * current)
        current = limit if current >= limit / MULTIPLIER else current * MULTIPLIER
