"""Gates that shed by how things go: the callee refuses much, or the engine itself is late."""

from collections import Counter, deque

from proxy.contract.gates import LAG_SAMPLE_S, THROTTLE_FROM, GateSpec, GateState, LagGate, ThrottleGate
from proxy.contract.plan import Cause
from proxy.engine.portable.passing import Passed, Refused, Waiting

_SLICES = 24  # of a throttle's window, which forgets one at a time
# It did not reach the callee, or that had no room for it.
NOT_ACCEPTED = frozenset(
    {
        Cause.NO_ENDPOINT,
        Cause.CONNECT,
        Cause.TLS_IDENTITY,
        Cause.REFUSED,
        Cause.RESET_EARLY,
        Cause.TIMEOUT,
        Cause.SHED,
        Cause.RATE,
    }
)


class _Slice:
    __slots__ = ("accepts", "number", "requests")

    def __init__(self, number: int) -> None:
        self.number = number
        self.requests = self.accepts = 0


class Throttle:
    """See ThrottleGate. Mutable state: what ended in each slice of the window, and how many are inside.

    Requests count once they ended: those under way say nothing yet.
    """

    __slots__ = ("_inside", "_left", "_refused", "_slices", "_spec")

    def __init__(self, spec: ThrottleGate) -> None:
        self._spec: ThrottleGate | None = spec  # None: everybody may come in
        self._slices: deque[_Slice] = deque()
        self._inside = 0
        self._refused = 0
        self._left: Counter[str] = Counter()

    def _now(self, spec: ThrottleGate, now: float) -> _Slice:
        number = int(now * _SLICES / spec.window_s)
        while self._slices and self._slices[0].number <= number - _SLICES:
            self._slices.popleft()
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        return self._slices[-1]

    def enter(self, now: float, chance: float, who: str) -> Passed | Waiting | Refused:
        """Come in, unless chance has it that the callee would refuse anyway."""
        spec = self._spec
        if spec is not None:
            newest = self._now(spec, now)
            requests = sum(one.requests for one in self._slices)
            accepts = sum(one.accepts for one in self._slices)
            refuses = (requests - spec.ratio * accepts) / (requests + 1)
            if requests >= THROTTLE_FROM and chance < refuses:
                newest.requests += 1
                self._refused += 1
                detail = f"it accepted {accepts} of {requests} requests in {spec.window_s:g} s, and some are held back"
                return Refused(Cause.SHED, detail)
        self._inside += 1
        return self

    def leave(self, cause: Cause | None, now: float) -> None:
        """One is out, accepted or not."""
        self._inside -= 1
        self._left["" if cause is None else cause.value] += 1
        if self._spec is not None:
            newest = self._now(self._spec, now)
            newest.requests += 1
            newest.accepts += cause not in NOT_ACCEPTED

    def change(self, spec: GateSpec) -> None:
        """Another ratio; another window begins anew."""
        assert isinstance(spec, ThrottleGate)
        if self._spec is None or spec.window_s != self._spec.window_s:
            self._slices.clear()
        self._spec = spec

    def open(self) -> None:
        """No bound any more."""
        self._spec = None

    def state(self) -> GateState:
        """See Gate."""
        refused = {"throttle": self._refused} if self._refused else {}
        return GateState(inside=self._inside, waiting=0, left=dict(self._left), refused=refused)

    def note_lag(self, lag_s: float) -> None:
        """Of no concern here."""


class Lag:
    """See LagGate. Mutable state: how many looks in a row found the loop late, and what is inside."""

    __slots__ = ("_inside", "_late", "_left", "_refused", "_spec")

    def __init__(self, spec: LagGate) -> None:
        self._spec: LagGate | None = spec  # None: everybody may come in
        self._late = 0
        self._inside = 0
        self._refused = 0
        self._left: Counter[str] = Counter()

    def enter(self, now: float, chance: float, who: str) -> Passed | Waiting | Refused:
        """Come in, unless the loop has been late for too long."""
        spec = self._spec
        if spec is not None and self._late * LAG_SAMPLE_S >= spec.for_s:
            self._refused += 1
            return Refused(
                Cause.SHED, f"this proxy has been late by more than {spec.above_s:g} s for {spec.for_s:g} s"
            )
        self._inside += 1
        return self

    def leave(self, cause: Cause | None, now: float) -> None:
        """One is out."""
        self._inside -= 1
        self._left["" if cause is None else cause.value] += 1

    def change(self, spec: GateSpec) -> None:
        """Other bounds."""
        assert isinstance(spec, LagGate)
        self._spec = spec

    def open(self) -> None:
        """No bound any more."""
        self._spec = None

    def state(self) -> GateState:
        """See Gate."""
        refused = {"lag": self._refused} if self._refused else {}
        return GateState(inside=self._inside, waiting=0, left=dict(self._left), refused=refused)

    def note_lag(self, lag_s: float) -> None:
        """One more look."""
        is_late = self._spec is not None and lag_s > self._spec.above_s
        self._late = self._late + 1 if is_late else 0
