"""The delays of a retry rule; pure, with randomness passed in."""

import random as random_module
from collections.abc import Callable, Iterator

from policies.resiliency import RetryRule

INITIAL_S = 0.5
MULTIPLIER = 1.5
JITTER = 0.5
MAX_ELAPSED_S = 15 * 60.0  # of an exponential rule, also of one without a count


def delays(
    rule: RetryRule,
    random: random_module.Random,
    elapsed_s: Callable[[], float] | None = None,
) -> Iterator[float]:
    """The seconds to wait before each retry; it ends when there is none left.

    `elapsed_s` tells the time since the call began, attempts included; without it the delays given so far count.
    A constant rule has no jitter. An exponential one draws from half to one and a half of a value that grows to
    `max_interval_s`, and ends at 15 minutes. Source: Dapr `retry` policies.
    """
    steps = _constant(rule) if rule.kind == "constant" else _exponential(rule, random, elapsed_s)
    for count, delay_s in enumerate(steps):
        if 0 <= rule.max_retries <= count:
            return
        yield delay_s


def _constant(rule: RetryRule) -> Iterator[float]:
    while True:
        yield max(rule.duration_s, 0.0)


def _exponential(
    rule: RetryRule,
    random: random_module.Random,
    elapsed_s: Callable[[], float] | None,
) -> Iterator[float]:
    current, spent = INITIAL_S, 0.0
    limit = max(rule.max_interval_s, 0.0)
    while True:
        delay_s = random.uniform((1 - JITTER) * current, (1 + JITTER) * current)
        if (elapsed_s() if elapsed_s is not None else spent) + delay_s > MAX_ELAPSED_S:
            return
        spent += delay_s
        yield delay_s
        current = limit if current >= limit / MULTIPLIER else current * MULTIPLIER
