"""The gates in force, by name, and how a call or an attempt passes a list of them.

A kind of gate is a class with the methods of `Gate`; it is given the clock and randomness, and owns no timer and no task.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from msgspec import Struct

from proxy.contract.gates import MAX_CALLERS, ConcurrencyGate, GateSpec, GateState, RateGate
from proxy.contract.plan import Cause

if TYPE_CHECKING:
    from proxy.engine.portable.carrier import Carrier


class Passed(Protocol):
    """What a gate let through."""

    def leave(self, cause: Cause | None) -> None:
        """It ended: well, or failed by a cause. STATUS: the app's answer is a failure, whether or not it was passed on."""


class Refused(NamedTuple):
    """A gate refuses, and why: the attempt or the call fails with this."""

    cause: Cause
    detail: str


class Waiting:
    """What must wait: until the gate settles it, or until the clock says `at`, when `then` has come of it."""

    __slots__ = ("at", "is_over", "tell", "then")

    def __init__(self, at: float | None = None, then: "Passed | Refused | None" = None) -> None:
        self.at = at
        self.then = then
        self.tell: Callable[[Passed | Refused], None] = _nobody
        self.is_over = False

    def settle(self, found: "Passed | Refused") -> None:
        """This has come of it."""
        if not self.is_over:
            self.is_over = True
            self.tell(found)

    def cancel(self, cause: Cause | None) -> None:
        """Nobody waits any more."""
        self.is_over = True
        if self.then is not None and not isinstance(self.then, Refused):
            self.then.leave(cause)


def _nobody(_: "Passed | Refused") -> None:
    """Until somebody waits."""


class Gate(Protocol):
    """One gate of some kind."""

    def enter(self, now: float, chance: float, who: str) -> Passed | Waiting | Refused:
        """Ask to be admitted. now: the loop's clock; chance: in [0, 1); who: the peer's proven id, else its address."""

    def change(self, spec: GateSpec) -> None:
        """Take over a spec of the same kind; who waits may come in by it."""

    def open(self) -> None:
        """It is taken down: who waits comes in. What is inside leaves it as before."""

    def state(self) -> GateState:
        """A glance, for status."""


class Concurrency:
    """See ConcurrencyGate. Mutable state: `_inside`, who waits, and whether they are being admitted."""

    __slots__ = ("_admitting", "_inside", "_left", "_queue", "_spec")

    def __init__(self, spec: ConcurrencyGate) -> None:
        self._spec: ConcurrencyGate | None = spec  # None: everybody may come in
        self._inside = 0
        self._queue: deque[Waiting] = deque()
        self._left: Counter[str] = Counter()
        self._admitting = False

    @property
    def _has_room(self) -> bool:
        return self._spec is None or self._inside < self._spec.limit

    @property
    def _is_awaited(self) -> bool:
        """Whether somebody is before who comes now; with room, only while those who wait are being admitted."""
        return any(not waiting.is_over for waiting in self._queue)

    def enter(self, now: float, chance: float, who: str) -> Passed | Waiting | Refused:
        """Come in where there is room, else wait for it in turn."""
        if self._spec is None or (self._has_room and not self._is_awaited):
            self._inside += 1
            return self
        if len(self._queue) >= self._spec.queue:
            self._queue = deque(waiting for waiting in self._queue if not waiting.is_over)
        if len(self._queue) >= self._spec.queue:
            return Refused(Cause.SHED, f"queue full (limit {self._spec.queue})")
        self._queue.append(Waiting())
        return self._queue[-1]

    def leave(self, cause: Cause | None) -> None:
        """One is out, the next may come in."""
        self._inside -= 1
        self._left["" if cause is None else cause.value] += 1
        self._admit()

    def change(self, spec: GateSpec) -> None:
        """Another bound; who waits may come in at once."""
        assert isinstance(spec, ConcurrencyGate)
        self._spec = spec
        self._admit()

    def open(self) -> None:
        """No bound any more."""
        self._spec = None
        self._admit()

    def state(self) -> GateState:
        """See Gate."""
        waiting = sum(not waiting.is_over for waiting in self._queue)
        return GateState(inside=self._inside, waiting=waiting, left=dict(self._left))

    def _admit(self) -> None:
        if self._admitting:  # a call that ended at once: the loop below goes on, however long the queue
            return
        self._admitting = True
        try:
            while self._queue and self._has_room:
                waiting = self._queue.popleft()
                if not waiting.is_over:
                    self._inside += 1
                    waiting.settle(self)
        finally:
            self._admitting = False


class _Bucket(NamedTuple):
    tokens: float
    at: float


class Rate:
    """See RateGate: a bucket of tokens for each caller. Mutable state: what is inside; the buckets in two generations, of which the older
    is dropped once the younger is full.
    """

    __slots__ = ("_inside", "_left", "_old", "_spec", "_young")

    def __init__(self, spec: RateGate) -> None:
        self._spec: RateGate | None = spec  # None: everybody may come in
        self._young: dict[str, _Bucket] = {}
        self._old: dict[str, _Bucket] = {}
        self._inside = 0
        self._left: Counter[str] = Counter()

    def enter(self, now: float, chance: float, who: str) -> Passed | Waiting | Refused:
        """Come in for a token."""
        if self._spec is not None and not self._take(self._spec, now, who):
            return Refused(Cause.RATE, f"from {who or 'a local socket'}")
        self._inside += 1
        return self

    def _take(self, spec: RateGate, now: float, who: str) -> bool:
        before = self._young.get(who) or self._old.get(who) or _Bucket(spec.burst, now)
        tokens = min(float(spec.burst), before.tokens + (now - before.at) * spec.per_s)
        has_one = tokens >= 1
        if who not in self._young and len(self._young) >= MAX_CALLERS:
            self._young, self._old = {}, self._young
        self._young[who] = _Bucket(tokens - has_one, now)
        return has_one

    def leave(self, cause: Cause | None) -> None:
        """One is out."""
        self._inside -= 1
        self._left["" if cause is None else cause.value] += 1

    def change(self, spec: GateSpec) -> None:
        """Another rate, for the buckets as they are."""
        assert isinstance(spec, RateGate)
        self._spec = spec

    def open(self) -> None:
        """No bound any more."""
        self._spec = None

    def state(self) -> GateState:
        """See Gate."""
        return GateState(inside=self._inside, waiting=0, left=dict(self._left))


_KINDS: dict[type[Struct], Callable[[Any], Gate]] = {ConcurrencyGate: Concurrency, RateGate: Rate}


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

    def states(self) -> dict[str, GateState]:
        """A glance at each, for status."""
        return {name: gate.state() for name, (_, gate) in self._known.items()}


class Passage:
    """The way through a list of gates, one after the other. `then` hears once of the end: None where all let it through.

    Mutable state: the gates ahead, those passed, and the wait at one of them.
    """

    __slots__ = ("_ahead", "_carrier", "_passed", "_then", "_timer", "_waiting", "_who")

    def __init__(
        self, carrier: "Carrier", names: Sequence[str], who: str, then: Callable[[Refused | None], None]
    ) -> None:
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
            found = (
                None
                if gate is None
                else gate.enter(self._carrier.now(), self._carrier.rng.random(), self._who)
            )
            if isinstance(found, Waiting):
                self._wait(found)
                return
            if isinstance(found, Refused):
                self._then(found)
                return
            if found is not None:
                self._passed.append(found)
        self._then(None)

    def _wait(self, waiting: Waiting) -> None:
        self._waiting = waiting
        waiting.tell = self._told
        if waiting.at is not None and waiting.then is not None:
            left_s = max(0.0, waiting.at - self._carrier.now())
            self._timer = self._carrier.later(left_s, waiting.settle, waiting.then).cancel

    def _told(self, found: Passed | Refused) -> None:
        self._waiting = None
        if isinstance(found, Refused):
            self._then(found)
            return
        self._passed.append(found)
        self.go_on()

    def leave(self, cause: Cause | None) -> None:
        """What was let through has ended, or needs to go on no more."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel(cause)
        if self._timer is not None:
            self._timer()
        passed, self._passed = self._passed, []
        for one in passed:
            one.leave(cause)
