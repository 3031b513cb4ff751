"""Circuit breakers: one for each method of each target, and what a call has to do with one.

Kept in step with `crates/core/src/call/breakers.rs` by `tests/vectors/breakers.json`.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from proxy.contract.breakers import (
    MAX_TARGETS,
    BreakerGlance,
    BreakerSpec,
    BreakerState,
    BreakerTurn,
    BreakerUse,
    Counts,
)
from proxy.contract.head import RequestHead
from proxy.contract.plan import Cause
from proxy.engine.portable.passing import Refused
from proxy.engine.portable.trips import is_true
from proxy.wire.target import as_forwarded

_T = TypeVar("_T")
# Places of Counts.
_REQUESTS, _SUCCESSES, _FAILURES, _SUCCESSES_IN_A_ROW, _FAILURES_IN_A_ROW = range(5)


class Admitted(NamedTuple):
    """What a breaker let through, until it hears of its end. generation: in which of the breaker's."""

    breaker: "Breaker"
    generation: int


class Breaker:
    """One circuit breaker. Mutable state: the state, the counters, how often either began anew, and when it is to change by itself.

    `turned` is told of each change of state.
    """

    __slots__ = ("_at", "_counts", "_generation", "_spec", "_state", "_turned")

    def __init__(
        self, spec: BreakerSpec, now: float, turned: Callable[[BreakerState, BreakerState, Counts], None]
    ) -> None:
        self._spec = spec
        self._turned = turned
        self._state: BreakerState = "closed"
        self._generation = 0
        self._begin_anew(now)

    def _begin_anew(self, now: float) -> None:
        self._generation += 1
        self._counts = [0] * 5
        after_s = {"closed": self._spec.interval_s or math.inf, "open": self._spec.timeout_s}
        self._at = now + after_s.get(self._state, math.inf)

    def _turn(self, state: BreakerState, now: float) -> BreakerState:
        before, counts, self._state = self._state, Counts(*self._counts), state
        self._begin_anew(now)
        self._turned(before, state, counts)
        return state

    def state(self, now: float) -> BreakerState:
        """The state by now: no timer changes it, whoever looks does."""
        if now > self._at:
            if self._state == "open":
                self._turn("half-open", now)
            else:
                self._begin_anew(now)
        return self._state

    def ask(self, now: float) -> Admitted | Refused:
        """Whether an attempt may go on."""
        state = self.state(now)
        if state == "open":
            return Refused(
                Cause.BREAKER, f"{self._spec.policy} lets calls try again in {self._left(now):.1f} s"
            )
        if state == "half-open" and self._counts[_REQUESTS] >= self._spec.max_requests:
            return Refused(
                Cause.PROBING,
                f"{self._spec.policy} lets {self._spec.max_requests} try, which are on their way",
            )
        self._counts[_REQUESTS] += 1
        return Admitted(self, self._generation)

    def hear(self, now: float, generation: int, *, is_failure: bool) -> BreakerState | None:
        """What it let through has ended; returns the state that this turned it to."""
        state = self.state(now)
        if generation != self._generation:
            return None
        counts = self._counts
        if is_failure:
            counts[_FAILURES] += 1
            counts[_FAILURES_IN_A_ROW] += 1
            counts[_SUCCESSES_IN_A_ROW] = 0
            if state == "half-open" or is_true(self._spec.trip, counts):
                return self._turn("open", now)
        else:
            counts[_SUCCESSES] += 1
            counts[_SUCCESSES_IN_A_ROW] += 1
            counts[_FAILURES_IN_A_ROW] = 0
            if state == "half-open" and counts[_SUCCESSES_IN_A_ROW] >= self._spec.max_requests:
                return self._turn("closed", now)
        return None

    def _left(self, now: float) -> float:
        return max(0.0, self._at - now) if self._state == "open" else 0.0

    def glance(self, now: float) -> tuple[BreakerState, Counts, float]:
        """State, counters, and how long it stays open; changes nothing."""
        is_due = now > self._at
        if is_due and self._state == "open":
            return "half-open", Counts(), 0.0
        return self._state, Counts() if is_due else Counts(*self._counts), self._left(now)


class Breakers:
    """Mutable state: the specs that were pushed, and the breakers of the methods called, by spec and target, those used last."""

    def __init__(self, turned: Callable[[BreakerTurn], None]) -> None:
        self._turned = turned
        self._specs: dict[str, BreakerSpec] = {}
        self._known: dict[str, OrderedDict[str, OrderedDict[str, Breaker]]] = {}

    def set(self, name: str, spec: BreakerSpec | None) -> None:
        """Set, replace or remove; an equal spec changes nothing."""
        if self._specs.get(name) == spec:
            return
        self._known.pop(name, None)
        self._specs.pop(name, None)
        if spec is not None:
            self._specs[name] = spec

    def find(self, use: BreakerUse, method: str, now: float) -> Breaker | None:
        """The breaker of a method; None where none was pushed."""
        spec = self._specs.get(use.name)
        if spec is None:
            return None
        targets = self._known.setdefault(use.name, OrderedDict())
        methods = _used(targets, use.target, OrderedDict, MAX_TARGETS)
        return _used(methods, method, lambda: self._made(spec, use, method, now), spec.methods)

    def _made(self, spec: BreakerSpec, use: BreakerUse, method: str, now: float) -> Breaker:
        def turned(before: BreakerState, after: BreakerState, counts: Counts) -> None:
            self._turned(BreakerTurn(use.name, use.target, method, before, after, counts))

        return Breaker(spec, now, turned)

    def glances(self, now: float) -> Iterable[BreakerGlance]:
        """All that have been asked."""
        for name, targets in self._known.items():
            for target, methods in targets.items():
                for method, breaker in methods.items():
                    yield BreakerGlance(name, target, method, *breaker.glance(now))


def _used(known: OrderedDict[str, _T], key: str, make: Callable[[], _T], most: int) -> _T:
    """What stands under a key, made where nothing does; of more than `most`, the one that was used longest ago is forgotten."""
    found = known.get(key)
    if found is None:
        if len(known) >= most:
            known.popitem(last=False)
        found = known[key] = make()
    known.move_to_end(key)
    return found


class Asking:
    """What one call has to do with a breaker. Mutable state: by what it was let through, and `met`: how it found the breaker that it asked
    first, and how it left it.
    """

    __slots__ = ("_admitted", "met")

    def __init__(self) -> None:
        self._admitted: Admitted | None = None
        self.met: tuple[BreakerState, BreakerState] | None = None

    def ask(self, breakers: Breakers, use: BreakerUse, head: RequestHead, now: float) -> Refused | None:
        """Why an attempt may not begin. What was let through stays so until its end is told."""
        if self._admitted is not None:
            return None
        method = use.method if use.method is not None else as_forwarded(head.path, use.form)
        breaker = breakers.find(use, method, now)
        if breaker is None:
            return None
        if self.met is None:
            state = breaker.state(now)
            self.met = (state, state)
        found = breaker.ask(now)
        if isinstance(found, Refused):
            return found
        self._admitted = found
        return None

    def tell(self, now: float, *, is_failure: bool) -> None:
        """What was let through has ended."""
        admitted, self._admitted = self._admitted, None
        if admitted is None or self.met is None:
            return
        turned = admitted.breaker.hear(now, admitted.generation, is_failure=is_failure)
        if turned is not None:
            self.met = (self.met[0], turned)
