"""Circuit breakers as data: what is pushed to an engine, how a Plan asks one, and what an engine tells of them.

The engine keeps the state: one breaker for each method of each target, as it is called.
"""

from typing import Literal, NamedTuple

from msgspec import Struct

from proxy.contract.head import Form

BreakerState = Literal["closed", "half-open", "open"]
#: Targets of one pushed breaker whose methods are remembered, those used last.
MAX_TARGETS = 1_024


class BreakerSpec(Struct, frozen=True, kw_only=True):
    """How breakers behave; equal specs keep their state.

    An open one lets nothing through for timeout_s, then `max_requests` attempts in all, which probe: it closes when so many have gone well
    one after the other, and opens again when one failed. A closed one runs `trip` after each failure, over the counters since it closed, or
    since the window of interval_s (0: there is none) began: true opens it. trip: a program, see `policies/rules/trip.py`. methods: those
    of a target that are remembered, those used last.
    """

    policy: str
    max_requests: int
    interval_s: float
    timeout_s: float
    trip: tuple[tuple[str, int | float], ...]
    methods: int = 100


class BreakerUse(Struct, frozen=True, kw_only=True):
    """What a Plan's attempts ask. name: of the pushed breaker; one that was never pushed lets everything through.

    The method is the path in this form, or `method` where that is given. is_opening: it hears of an answer's head as of a success,
    whatever comes after.
    """

    name: str
    target: str
    form: Form = "sent"
    method: str | None = None
    is_opening: bool = False


class Counts(NamedTuple):
    """Of attempts since the counters were last set to zero; in the order of `policies.rules.trip.COUNTERS`."""

    requests: int = 0
    total_successes: int = 0
    total_failures: int = 0
    consecutive_successes: int = 0
    consecutive_failures: int = 0


class BreakerTurn(NamedTuple):
    """A breaker changed its state. counts: by which it did; what is told of half-open ones was counted before they opened."""

    name: str
    target: str
    method: str
    before: BreakerState
    after: BreakerState
    counts: Counts


class BreakerGlance(NamedTuple):
    """A breaker that has been asked. left_s: until an open one lets calls probe."""

    name: str
    target: str
    method: str
    state: BreakerState
    counts: Counts
    left_s: float
