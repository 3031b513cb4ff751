"""How long a call waits before it is sent, and how long its caller keeps it waiting."""

import time

from proxy.contract.engine import Limits


class Waits:
    """One wait at a time, of nanoseconds: `resolve_ns` for its callee to be found, `queue_ns` at gates."""

    __slots__ = ("_is_at_gates", "_since", "queue_ns", "resolve_ns")

    def __init__(self) -> None:
        self.resolve_ns = self.queue_ns = 0
        self._since = 0  # finer than the loop's clock; 0: nothing is waited for
        self._is_at_gates = False

    def begin(self, *, at_gates: bool) -> None:
        """A wait begins."""
        self._since = time.perf_counter_ns()
        self._is_at_gates = at_gates

    def end(self) -> None:
        """It is over, if there was one."""
        if not self._since:
            return
        took_ns = time.perf_counter_ns() - self._since
        self._since = 0
        if self._is_at_gates:
            self.queue_ns += took_ns
        else:
            self.resolve_ns += took_ns


class CallerProgress:
    """When a caller last had moved enough bytes, and how many it had moved by then."""

    __slots__ = ("_at", "_before")

    def __init__(self, now: float) -> None:
        self._at, self._before = now, 0

    def is_stalled(self, now: float, moved: int, limits: Limits, *, is_waited_for: bool) -> bool:
        """Whether it has moved too little for too long. moved: bytes in all; is_waited_for: it owes some, or owes reading some."""
        if not is_waited_for or moved - self._before >= limits.stall_bytes:
            self._at, self._before = now, moved
            return False
        return now - self._at > limits.stall_s
