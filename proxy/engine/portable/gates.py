"""The gates in force, by name, and how a call or an attempt passes a list of them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from proxy.contract.gates import (
    AdaptiveGate,
    ConcurrencyGate,
    EachGate,
    FaultGate,
    GateSpec,
    GateState,
    LagGate,
    RateGate,
    ThrottleGate,
)
from proxy.contract.plan import Cause
from proxy.engine.portable.concurrency import Adaptive, Concurrency, Each, Stay
from proxy.engine.portable.faults import Fault, Hit
from proxy.engine.portable.overload import Lag, Throttle
from proxy.engine.portable.passing import Begun, Gate, Passed, Refused, Waiting
from proxy.engine.portable.rate import Rate

if TYPE_CHECKING:
    from proxy.engine.portable.carrier import Carrier

_KINDS: dict[type[Struct], Callable[[Any], Gate]] = {
    ConcurrencyGate: Concurrency,
    AdaptiveGate: Adaptive,
    RateGate: Rate,
    ThrottleGate: Throttle,
    LagGate: Lag,
    EachGate: Each,
    FaultGate: Fault,
}


class Gates:
    """Mutable state: the gates that stand, by name, each with the kind of its spec."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[type[Struct], Gate]] = {}

    def get(self, name: str) -> Gate | None:
        """The gate of that name; None where it stands open."""
        known = self._known.get(name)
        return None if known is None else known[1]

    def set(self, name: str, spec: GateSpec | None) -> None:
        """Put up, change or take down a gate. What is inside leaves the gate that it entered, whatever stands there by then."""
        kind, gate = self._known.pop(name, (None, None))
        if spec is not None and gate is not None and kind is type(spec):
            self._known[name] = (kind, gate)
            gate.change(spec)
            return
        if spec is not None:
            self._known[name] = (type(spec), _KINDS[type(spec)](spec))
        if gate is not None:
            gate.open()

    def note_lag(self, lag_s: float) -> None:
        """How late the loop ran a timer that is due each `LAG_SAMPLE_S`."""
        for _, gate in self._known.values():
            gate.note_lag(lag_s)

    def states(self) -> dict[str, GateState]:
        """A glance at each, for status."""
        return {name: gate.state() for name, (_, gate) in self._known.items()}


class Passage:
    """The way through a list of gates, one after the other. `then` hears once of the end: None where all let it through.

    at_once: of an attempt beside others, which comes in only where there is room: nobody who has none waits for longer.
    Mutable state: the gates ahead, those passed, and the wait at one of them.
    """

    __slots__ = ("_ahead", "_at_once", "_carrier", "_passed", "_then", "_timer", "_waiting", "_who")

    def __init__(
        self,
        carrier: "Carrier",
        names: Sequence[str],
        who: str,
        then: Callable[[Refused | None], None],
        *,
        at_once: bool = False,
    ) -> None:
        self._at_once = at_once
        self._carrier = carrier
        self._who = who
        self._ahead = list(reversed(names))
        self._passed: list[Passed] = []
        self._then = then
        self._waiting: Waiting | None = None
        self._timer: Callable[[], None] | None = None

    def go_on(self) -> None:
        """Enter the gates ahead, until one refuses or makes us wait."""
        while self._ahead:
            gate = self._carrier.gates.get(self._ahead.pop())
            found = None if gate is None else self._enter(gate)
            if isinstance(found, Waiting):
                self._wait(found)
                return
            if isinstance(found, Refused):
                self._then(found)
                return
            if found is not None:
                self._passed.append(found)
        self._then(None)

    def _enter(self, gate: Gate) -> Passed | Waiting | Refused:
        now, chance = self._carrier.now(), self._carrier.rng.random()
        if self._at_once and isinstance(gate, Concurrency):
            return gate.enter_at_once(now, chance)
        return gate.enter(now, chance, self._who)

    def _wait(self, waiting: Waiting) -> None:
        self._waiting = waiting
        waiting.tell = self._told
        if waiting.at is not None:
            left_s = max(0.0, waiting.at - self._carrier.now())
            self._timer = self._carrier.later(left_s, waiting.expire).cancel

    def _told(self, found: Passed | Refused) -> None:
        self._waiting = None
        self._stop_timer()
        if isinstance(found, Refused):
            self._then(found)
            return
        self._passed.append(found)
        self.go_on()

    @property
    def faults(self) -> list[FaultGate]:
        """By which it was harmed on the way, also by what still holds it up."""
        delayed = [self._waiting.then] if self._waiting is not None else []
        return [one.spec for one in (*self._passed, *delayed) if isinstance(one, Hit)]

    def leave(self, cause: Cause | None, begun: Begun = "never") -> None:
        """What was let through has ended, or needs to go on no more. begun: when its answer did."""
        waiting, self._waiting = self._waiting, None
        now = self._carrier.now()
        if waiting is not None:
            waiting.cancel(cause, now)
        self._stop_timer()
        passed, self._passed = self._passed, []
        for one in passed:
            if isinstance(one, Stay):
                one.begun = begun
            one.leave(cause, now)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer()
