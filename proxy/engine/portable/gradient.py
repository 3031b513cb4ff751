"""How many an adaptive gate lets in: a limit that follows how long those inside take. Pure: the clock and chance are given."""

import math

from proxy.contract.gates import (
    HEADROOM,
    MIN_RTT_CALLS,
    MIN_RTT_EVERY_S,
    MIN_RTT_FOR_S,
    MIN_RTT_JITTER,
    SAMPLE_S,
)

_START = 10  # the limit after the first measurement: raised soon, and a callee that has no room for more is not drowned meanwhile
_MOST_SAMPLES = 1_024  # of one turn
_STEEPEST = (0.5, 2.0)  # change by one turn


class Gradient:
    """See AdaptiveGate. Mutable state: the limit, the lowest round trip, and what ended since the last turn.

    While it measures the lowest round trip, `min_limit` alone are let in, and only those count that came in since. A limit that is not
    used is not raised, as nothing shows that it holds.
    """

    __slots__ = (
        "_begun_at",
        "_limit",
        "_lowest_s",
        "_measuring",
        "_most",
        "_next_at",
        "_peak",
        "_samples",
        "min_limit",
    )

    def __init__(self, min_limit: int, max_limit: int) -> None:
        self.min_limit = min_limit
        self._most = max_limit
        self._limit = float(min(max_limit, max(min_limit, _START)))
        self._lowest_s = 0.0
        self._measuring = True
        self._begun_at: float | None = None  # of the measurement or the turn
        self._next_at = 0.0  # measurement
        self._samples: list[float] = []
        self._peak = 0

    @property
    def limit(self) -> int:
        """How many may be inside."""
        return self.min_limit if self._measuring else int(self._limit)

    def bound(self, min_limit: int, max_limit: int) -> None:
        """Other bounds."""
        self.min_limit, self._most = min_limit, max_limit
        self._limit = min(max(self._limit, min_limit), max_limit)

    def entered(self, now: float, inside: int) -> None:
        """One more is inside, which makes so many."""
        if self._begun_at is None:
            self._begun_at = now
        self._peak = max(self._peak, inside)

    def left(self, now: float, entered_at: float, chance: float, took_s: float | None) -> None:
        """One ended that came in then. took_s: what says how busy the callee is; None: nothing does."""
        begun_at = self._begun_at if self._begun_at is not None else now
        is_early = self._measuring and entered_at < begun_at
        if took_s is not None and len(self._samples) < _MOST_SAMPLES and not is_early:
            self._samples.append(took_s)
        if self._measuring:
            if len(self._samples) >= MIN_RTT_CALLS or now - begun_at >= MIN_RTT_FOR_S:
                self._measured(now, chance)
        elif now >= self._next_at:
            self._measuring = True
            self._begin(now)
        elif now - begun_at >= SAMPLE_S:
            self._turn(now)

    def _begin(self, now: float) -> None:
        self._begun_at, self._peak = now, 0
        self._samples.clear()

    def _measured(self, now: float, chance: float) -> None:
        if self._samples:
            self._lowest_s = _median(self._samples)
        self._measuring = False
        self._next_at = now + MIN_RTT_EVERY_S * (1 + MIN_RTT_JITTER * (2 * chance - 1))
        self._begin(now)

    def _turn(self, now: float) -> None:
        if self._samples and self._lowest_s > 0:
            least, most = _STEEPEST
            wanted = self._lowest_s * (1 + HEADROOM) / max(_median(self._samples), 1e-6)
            found = self._limit * min(max(wanted, least), most) + math.sqrt(self._limit)
            if found < self._limit or 2 * self._peak >= self._limit:
                self._limit = min(max(found, float(self.min_limit)), float(self._most))
        self._begin(now)


def _median(samples: list[float]) -> float:
    return sorted(samples)[len(samples) // 2]
