"""The delays of a retry rule; pure, with randomness passed in."""

import random as random_module
from collections.abc import Iterator

from policies.rules.resiliency import RetryRule
from policies.rules.retries import BackoffRule

INITIAL_S = 0.5
MULTIPLIER = 1.5
JITTER = 0.5
EXPONENTIAL_WITHIN_S = (
    15 * 60.0
)  # from the call's start to the last attempt's, also of a rule without a count
_AS_DAPR = BackoffRule()


def within_s(rule: RetryRule) -> float | None:
    """How long after the call's start, attempts included, the last attempt may begin; None: at any time."""
    return EXPONENTIAL_WITHIN_S if rule.kind == "exponential" else None


def delays(rule: RetryRule, random: random_module.Random, backoff: BackoffRule = _AS_DAPR) -> Iterator[float]:
    """The seconds to wait before each retry; it ends when there is none left.

    Unless `backoff` has it otherwise, a constant rule has no jitter, and an exponential one draws from half to one and a half of a value
    that grows to `max_interval_s`. Source: Dapr `retry` policies; for `full` and `equal`, "Exponential Backoff And Jitter", AWS.
    """
    steps = _constant(rule) if rule.kind == "constant" else _exponential(rule, backoff)
    spread = (1 - JITTER, 1 + JITTER) if rule.kind == "exponential" else (1.0, 1.0)
    least, most = {"full": (0.0, 1.0), "equal": (0.5, 1.0), "none": (1.0, 1.0), None: spread}[backoff.jitter]
    for count, step_s in enumerate(steps):
        if 0 <= rule.max_retries <= count:
            return
        yield step_s if least == most else random.uniform(least * step_s, most * step_s)


def _constant(rule: RetryRule) -> Iterator[float]:
    while True:
        yield max(rule.duration_s, 0.0)


def _exponential(rule: RetryRule, backoff: BackoffRule) -> Iterator[float]:
    limit = max(rule.max_interval_s, 0.0)
    multiplier = backoff.multiplier or MULTIPLIER
    current = INITIAL_S if backoff.first_s is None else min(backoff.first_s, limit)
    while True:
        yield current
        current = limit if current >= limit / multiplier else current * multiplier
