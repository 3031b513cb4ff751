"""How long a call may take: the least of what its caller and its Plan give it."""

from asyncio import TimerHandle
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.engine.portable.carrier import Carrier


class CallTime:
    """Mutable state: when it is over, by the loop's clock, None where nobody says, and the timers that tell so."""

    __slots__ = ("_at", "_timers")

    def __init__(self) -> None:
        self._at: float | None = None
        self._timers: list[TimerHandle] = []

    def limit(self, limit_s: float | None, carrier: "Carrier", passed: Callable[[], None]) -> None:
        """It ends so many seconds from now, if not before; `passed` is told."""
        if limit_s is None:
            return
        at = carrier.now() + limit_s
        if self._at is None or at < self._at:
            self._at = at
            self._timers.append(carrier.later(max(limit_s, 0.0), passed))

    def left_s(self, now: float) -> float | None:
        """Seconds that are left; None: no limit."""
        return None if self._at is None else self._at - now

    def stop(self) -> None:
        """The call is over."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
