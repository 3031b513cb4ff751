"""How long a call waits before it is sent, and how long its caller keeps it waiting."""

import time
from typing import Literal

from proxy.contract.engine import Limits

Waited = Literal["resolve", "queue", "authorize"]


class Waits:
    """One wait at a time, of nanoseconds: `resolve_ns` for its callee to be found, `queue_ns` at gates, `authorize_ns` for authorizers."""

    __slots__ = ("_since", "_what", "authorize_ns", "queue_ns", "resolve_ns")

    def __init__(self) -> None:
        self.resolve_ns = self.queue_ns = self.authorize_ns = 0
        self._since = 0  # finer than the loop's clock; 0: nothing is waited for
        self._what: Waited = "resolve"

    def begin(self, what: Waited) -> None:
        """A wait begins."""
        self._since = time.perf_counter_ns()
        self._what = what

    def end(self) -> None:
        """It is over, if there was one."""
        if not self._since:
            return
        took_ns = time.perf_counter_ns() - self._since
        self._since = 0
        if self._what == "queue":
            self.queue_ns += took_ns
        elif self._what == "resolve":
            self.resolve_ns += took_ns
        else:
            self.authorize_ns += took_ns


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
