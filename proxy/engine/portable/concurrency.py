"""Gates by how many are inside: a fixed limit, one that adapts, and one for each caller."""

from collections import Counter, deque

from proxy.contract.gates import AdaptiveGate, ConcurrencyGate, EachGate, GateSpec, GateState
from proxy.contract.plan import Cause
from proxy.engine.portable.gradient import Gradient
from proxy.engine.portable.passing import Begun, Passed, Refused, Waiting


class Concurrency:
    """See ConcurrencyGate. Mutable state: `_inside`, who waits, whether who came last is first, and whether some are being admitted."""

    __slots__ = ("_admitting", "_inside", "_is_reversed", "_left", "_queue", "_refused", "_spec")

    def __init__(self, spec: ConcurrencyGate | AdaptiveGate) -> None:
        self._spec: ConcurrencyGate | AdaptiveGate | None = spec  # None: everybody may come in
        self._inside = 0
        self._queue: deque[Waiting] = deque()
        self._is_reversed = False
        self._left: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._admitting = False

    @property
    def _limit(self) -> int:
        assert isinstance(self._spec, ConcurrencyGate)
        return self._spec.limit

    @property
    def _has_room(self) -> bool:
        return self._spec is None or self._inside < self._limit

    @property
    def _is_free(self) -> bool:
        return self._spec is None or (self._has_room and not self._is_awaited)

    @property
    def _is_awaited(self) -> bool:
        """Whether somebody is before who comes now; with room, only while those who wait are being admitted."""
        return any(not waiting.is_over for waiting in self._queue)

    def _come_in(self, now: float) -> Passed:
        self._inside += 1
        return self

    def enter(self, now: float, chance: float, who: str) -> Passed | Waiting | Refused:
        """Come in where there is room, else wait for it in turn."""
        spec = self._spec
        if self._is_free:
            return self._come_in(now)
        assert spec is not None
        if len(self._queue) >= spec.queue:
            self._queue = deque(waiting for waiting in self._queue if not waiting.is_over)
        if len(self._queue) >= spec.queue:
            full = Refused(Cause.SHED, f"queue full (limit {spec.queue})")
            self._refused["queue-full"] += 1
            if not spec.newest_first or not self._queue:
                return full
            self._is_reversed = True
            self._queue.popleft().settle(full)
        waiting = Waiting()
        if spec.wait_s > 0:
            waiting = _Timed(self, now + spec.wait_s, spec.wait_s)
        self._queue.append(waiting)
        return waiting

    def enter_at_once(self, now: float, chance: float) -> Passed | Refused:
        """Come in where there is room: what is only tried beside something else takes nobody's turn."""
        return self._come_in(now) if self._is_free else _NO_ROOM_BESIDE

    def waited_too_long(self) -> None:
        """One gives up as it waited as long as it may: those behind it would as well, each just before its turn."""
        self._refused["queue-timeout"] += 1
        self._is_reversed = self._spec is not None and self._spec.newest_first

    def leave(self, cause: Cause | None, now: float) -> None:
        """One is out, the next may come in."""
        self._inside -= 1
        self._left["" if cause is None else cause.value] += 1
        self._admit(now)

    def change(self, spec: GateSpec) -> None:
        """Another bound; who waits may come in at once."""
        assert isinstance(spec, ConcurrencyGate)
        self._spec = spec
        self._admit(0.0)

    def open(self) -> None:
        """No bound any more."""
        self._spec = None
        self._admit(0.0)

    def state(self) -> GateState:
        """See Gate."""
        waiting = sum(not waiting.is_over for waiting in self._queue)
        return GateState(
            inside=self._inside, waiting=waiting, left=dict(self._left), refused=dict(self._refused)
        )

    def note_lag(self, lag_s: float) -> None:
        """Of no concern here."""

    def _admit(self, now: float) -> None:
        if self._admitting:  # a call that ended at once: the loop below goes on, however long the queue
            return
        self._admitting = True
        try:
            while self._queue and self._has_room:
                waiting = self._queue.pop() if self._is_reversed else self._queue.popleft()
                if not waiting.is_over:
                    waiting.settle(self._come_in(now))
        finally:
            self._admitting = False
        if self._is_reversed and not self._is_awaited:
            self._is_reversed = False


_NO_ROOM_BESIDE = Refused(Cause.SHED, "no room for another attempt beside those under way")


class _Timed(Waiting):
    """Waits so long at most."""

    __slots__ = ("_gate",)

    def __init__(self, gate: Concurrency, at: float, wait_s: float) -> None:
        super().__init__(at, Refused(Cause.SHED, f"no room within {wait_s:g} s"))
        self._gate = gate

    def expire(self) -> None:
        if not self.is_over:
            self._gate.waited_too_long()
        super().expire()


class Adaptive(Concurrency):
    """See AdaptiveGate. Mutable state besides: what its limit follows, and the last chance, by which measurements are spread."""

    __slots__ = ("_chance", "_gradient")

    def __init__(self, spec: AdaptiveGate) -> None:
        super().__init__(spec)
        self._gradient = Gradient(spec.min_limit, spec.max_limit)
        self._chance = 0.5

    @property
    def _limit(self) -> int:
        return self._gradient.limit

    def enter(self, now: float, chance: float, who: str) -> Passed | Waiting | Refused:
        """Come in where there is room, else wait for it in turn."""
        self._chance = chance
        return super().enter(now, chance, who)

    def enter_at_once(self, now: float, chance: float) -> Passed | Refused:
        """See Concurrency."""
        self._chance = chance
        return super().enter_at_once(now, chance)

    def _come_in(self, now: float) -> Passed:
        self._inside += 1
        self._gradient.entered(now, self._inside)
        return Stay(self, now)

    def ended(self, cause: Cause | None, entered_at: float, now: float, begun: Begun) -> None:
        """What came in then is out."""
        took_s = None
        if cause in _TELLING and begun != "streaming":
            took_s = max(0.0, (now if begun == "never" else begun) - entered_at)
        self._gradient.left(now, entered_at, self._chance, took_s)
        self.leave(cause, now)

    def change(self, spec: GateSpec) -> None:
        """Other bounds."""
        assert isinstance(spec, AdaptiveGate)
        self._spec = spec
        self._gradient.bound(spec.min_limit, spec.max_limit)

    def state(self) -> GateState:
        """See Gate."""
        seen = super().state()
        return GateState(
            inside=seen.inside,
            waiting=seen.waiting,
            left=seen.left,
            refused=seen.refused,
            limit=self._gradient.limit,
        )


# How long it took until the answer began tells how busy the callee is: not of those that never reached it, or were turned away.
_TELLING = frozenset({None, Cause.STATUS, Cause.TIMEOUT})


class Stay:
    """One inside an adaptive gate. Mutable state: when its answer began."""

    __slots__ = ("_entered_at", "_gate", "begun")

    def __init__(self, gate: Adaptive, entered_at: float) -> None:
        self._gate = gate
        self._entered_at = entered_at
        self.begun: Begun = "never"

    def leave(self, cause: Cause | None, now: float) -> None:
        """See Passed."""
        self._gate.ended(cause, self._entered_at, now, self.begun)


class Each:
    """See EachGate. Mutable state: how many are inside of each caller, of those that have any."""

    __slots__ = ("_inside", "_left", "_refused", "_spec")

    def __init__(self, spec: EachGate) -> None:
        self._spec: EachGate | None = spec  # None: everybody may come in
        self._inside: Counter[str] = Counter()
        self._left: Counter[str] = Counter()
        self._refused = 0

    def enter(self, now: float, chance: float, who: str) -> Passed | Waiting | Refused:
        """Come in where the caller has room."""
        if self._spec is not None and self._inside[who] >= self._spec.limit:
            self._refused += 1
            return Refused(
                Cause.RATE, f"{who or 'a local socket'} has as many as it may (limit {self._spec.limit})"
            )
        self._inside[who] += 1
        return _Own(self, who)

    def ended(self, who: str, cause: Cause | None) -> None:
        """One of a caller is out."""
        self._left["" if cause is None else cause.value] += 1
        self._inside[who] -= 1
        if not self._inside[who]:
            del self._inside[who]

    def change(self, spec: GateSpec) -> None:
        """Another limit, for those who come."""
        assert isinstance(spec, EachGate)
        self._spec = spec

    def open(self) -> None:
        """No bound any more."""
        self._spec = None

    def state(self) -> GateState:
        """See Gate."""
        refused = {"connections": self._refused} if self._refused else {}
        return GateState(inside=self._inside.total(), waiting=0, left=dict(self._left), refused=refused)

    def note_lag(self, lag_s: float) -> None:
        """Of no concern here."""


class _Own:
    """One of a caller."""

    __slots__ = ("_gate", "_who")

    def __init__(self, gate: Each, who: str) -> None:
        self._gate = gate
        self._who = who

    def leave(self, cause: Cause | None, now: float) -> None:
        self._gate.ended(self._who, cause)
