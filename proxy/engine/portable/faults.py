"""Harm that is done on purpose: the gate that says to whom, and answers that break off or come slowly."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from proxy.contract.gates import FaultGate, GateSpec, GateState
from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.engine.portable.passing import Passed, Refused, Waiting
from proxy.wire.streams import ResponseEvents

if TYPE_CHECKING:
    from proxy.engine.portable.carrier import Carrier

HEADER: Final = b"postern-fault"
CAUSES: Final = {
    "unavailable": Cause.CONNECT,
    "reset": Cause.RESET_EARLY,
}  # what ends an attempt before it is sent
_PIECES_A_SECOND = 20  # of a slow answer
_BITS = (1 << 64) - 1


def drawn(seed: int, number: int) -> float:
    """The draw of who comes as this one, from 1 on, in [0, 1): SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
    Generators").
    """
    bits = (seed + number * 0x9E3779B97F4A7C15) & _BITS
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & _BITS
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & _BITS
    return ((bits ^ (bits >> 31)) >> 11) / (1 << 53)


class Hit:
    """What came in and is harmed, by which fault."""

    __slots__ = ("_gate", "spec")

    def __init__(self, gate: "Fault", spec: FaultGate) -> None:
        self._gate = gate
        self.spec = spec

    def leave(self, cause: Cause | None, now: float) -> None:
        """See Passed."""
        self._gate.leave(cause, now)


class Fault:
    """See FaultGate. Mutable state: how many came, how many were harmed, and what is inside."""

    __slots__ = ("_came", "_hits", "_inside", "_left", "_spec")

    def __init__(self, spec: FaultGate) -> None:
        self._spec: FaultGate | None = spec  # None: nobody is harmed
        self._came = 0
        self._hits: Counter[str] = Counter()
        self._inside = 0
        self._left: Counter[str] = Counter()

    def enter(self, now: float, chance: float, who: str) -> Passed | Waiting | Refused:
        """Come in, harmed or not."""
        self._inside += 1
        spec = self._spec
        if spec is None:
            return self
        self._came += 1
        if spec.seed >= 0:
            chance = drawn(spec.seed, self._came)
        if chance >= spec.share or (spec.times and self._hits[spec.kind] >= spec.times):
            return self
        self._hits[spec.kind] += 1
        hit = Hit(self, spec)
        wait_s = spec.least_s + max(0.0, spec.most_s - spec.least_s) * chance / spec.share
        return Waiting(now + wait_s, hit) if spec.kind == "delay" and wait_s > 0 else hit

    def leave(self, cause: Cause | None, now: float) -> None:
        """One is out."""
        self._inside -= 1
        self._left["" if cause is None else cause.value] += 1

    def change(self, spec: GateSpec) -> None:
        """Another fault begins anew."""
        assert isinstance(spec, FaultGate)
        if spec != self._spec:
            self._came = 0
            self._hits.clear()
        self._spec = spec

    def open(self) -> None:
        """No harm any more."""
        self._spec = None

    def state(self) -> GateState:
        """See Gate."""
        return GateState(inside=self._inside, waiting=0, left=dict(self._left), refused=dict(self._hits))

    def note_lag(self, lag_s: float) -> None:
        """Of no concern here."""


def names_of(faults: Sequence[FaultGate]) -> str:
    """With commas between."""
    return ",".join(one.name for one in faults)


def ending(faults: Sequence[FaultGate]) -> FaultGate | None:
    """The first that ends an attempt before it is sent."""
    return next((one for one in faults if one.kind == "abort" or one.kind in CAUSES), None)


def injected(fault: FaultGate, *, grpc: bool) -> tuple[int, Headers]:
    """The head of an answer in place of the callee's, which has nothing else."""
    if grpc:
        message = f"injected by the fault {fault.name}".encode()
        code = (b"grpc-status", b"%d" % fault.grpc_code)
        return 200, ((b"content-type", b"application/grpc"), code, (b"grpc-message", message))
    return fault.status, () if fault.status == 204 else ((b"content-length", b"0"),)


def harmed(
    events: ResponseEvents,
    faults: Sequence[FaultGate],
    carrier: "Carrier",
    fail: Callable[[Cause, str], None],
) -> "FaultyAnswer | None":
    """What stands before who is told of an answer; None where no fault harms those. fail: ends the attempt."""
    cuts = [
        0 if one.kind == "reset-late" else one.bytes
        for one in faults
        if one.kind in ("reset-late", "truncate")
    ]
    rates = [one.bytes for one in faults if one.kind == "bandwidth"]
    if not cuts and not rates:
        return None
    is_reset = any(one.kind == "reset-late" for one in faults)
    cut, rate = min(cuts, default=None), min(rates, default=None)
    return FaultyAnswer(events, carrier, fail, cut=cut, is_reset=is_reset, rate=rate)


class FaultyAnswer:
    """Stands between a callee's end and whoever is told of its answer, which breaks off or comes slowly.

    Mutable state: how much may still come, what waits for its time, and that time. Bytes that wait are acknowledged once they went on.
    """

    __slots__ = (
        "_carrier",
        "_events",
        "_fail",
        "_is_over",
        "_is_reset",
        "_left",
        "_rate",
        "_timer",
        "_waiting",
    )

    def __init__(
        self,
        events: ResponseEvents,
        carrier: "Carrier",
        fail: Callable[[Cause, str], None],
        *,
        cut: int | None,
        is_reset: bool,
        rate: int | None,
    ) -> None:
        self._events = events
        self._carrier = carrier
        self._fail = fail
        self._left = cut
        self._is_reset = is_reset  # behind the head, whatever follows
        self._rate = rate
        self._waiting: deque[bytes | Headers] = deque()  # pieces of the body, then its trailers
        self._timer = False
        self._is_over = False

    def request_drained(self, count: int) -> None:
        """See ResponseEvents."""
        self._events.request_drained(count)

    def response_inform(self, status: int, headers: Headers) -> None:
        """See ResponseEvents."""
        self._events.response_inform(status, headers)

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """See ResponseEvents. One without a body has nothing to break off."""
        self._events.response_head(status, headers, end=end)
        if self._is_reset and not end:
            self._break_off()

    def response_data(self, data: bytes) -> None:
        """See ResponseEvents."""
        if self._is_over:
            return
        if self._rate is None:
            self._pass_on(data)
            return
        most = max(1, self._rate // _PIECES_A_SECOND)
        self._waiting.extend(data[at : at + most] for at in range(0, len(data), most))
        if not self._timer:
            self._next()

    def response_end(self, trailers: Headers) -> None:
        """See ResponseEvents."""
        if self._timer:
            self._waiting.append(trailers)
        elif not self._is_over:
            self._is_over = True
            self._events.response_end(trailers)

    def response_lost(self, cause: Cause, detail: str) -> None:
        """See ResponseEvents."""
        if not self._is_over:
            self._is_over = True
            self._events.response_lost(cause, detail)

    def stop(self) -> None:
        """Nobody wants more of it."""
        self._is_over = True
        self._waiting.clear()

    def _next(self) -> None:
        """Pass the next piece on, and the one after it when that is due."""
        self._timer = False
        if self._is_over or not self._waiting:
            return
        piece = self._waiting.popleft()
        if isinstance(piece, tuple):
            self._is_over = True
            self._events.response_end(piece)
            return
        assert self._rate is not None
        self._timer = True
        self._carrier.later(len(piece) / self._rate, self._next)
        self._pass_on(piece)

    def _pass_on(self, data: bytes) -> None:
        if self._left is not None:
            data, beyond = data[: self._left], len(data) > self._left
            self._left -= len(data)
            if data:
                self._events.response_data(data)
            if beyond:
                self._break_off()
            return
        self._events.response_data(data)

    def _break_off(self) -> None:
        if not self._is_over:
            self.stop()
            self._fail(Cause.RESET_LATE, "injected by a fault")
