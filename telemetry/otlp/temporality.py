"""What a push of metrics says of each series: all since the start (cumulative), or what has come since the last push (delta). Pure."""

from collections.abc import Sequence
from typing import Literal, Protocol

Temporality = Literal["cumulative", "delta"]
Key = tuple[str, tuple[str, ...]]  # a metric's name, and the values of its labels
Spread = tuple[list[int], float]  # observations per bucket, and their sum


class Since(Protocol):
    """Cuts values to the time that a push is about."""

    @property
    def temporality(self) -> Temporality:
        """Which it is."""

    @property
    def started_ns(self) -> int:
        """Since when values count, epoch nanoseconds."""

    def number(self, key: Key, value: float) -> float | None:
        """Of a counter; None: nothing has come."""

    def spread(self, key: Key, counts: Sequence[int], total: float) -> Spread | None:
        """Of a histogram; None: nothing has come."""

    def taken(self, now_ns: int) -> None:
        """What was asked for since the last time has been exported, as of this time."""


class Cumulative:
    """All since the start."""

    temporality: Temporality = "cumulative"

    def __init__(self, started_ns: int) -> None:
        self.started_ns = started_ns

    def number(self, key: Key, value: float) -> float | None:
        """See Since."""
        return value

    def spread(self, key: Key, counts: Sequence[int], total: float) -> Spread | None:
        """See Since."""
        return list(counts), total

    def taken(self, now_ns: int) -> None:
        """See Since."""


class Delta:
    """What has come since the last push that was taken: after one that failed, the next has its share too.

    Mutable state: what each series was at that push, and at the one under way. A series that is lower than it was has begun anew.
    """

    temporality: Temporality = "delta"

    def __init__(self, started_ns: int) -> None:
        self.started_ns = started_ns
        self._numbers: dict[Key, float] = {}
        self._spreads: dict[Key, Spread] = {}
        self._numbers_now: dict[Key, float] = {}
        self._spreads_now: dict[Key, Spread] = {}

    def number(self, key: Key, value: float) -> float | None:
        """See Since."""
        self._numbers_now[key] = value
        before = self._numbers.get(key, 0.0)
        come = value - before if value >= before else value
        return come or None

    def spread(self, key: Key, counts: Sequence[int], total: float) -> Spread | None:
        """See Since."""
        now = list(counts)
        self._spreads_now[key] = (now, total)
        before, total_before = self._spreads.get(key, ([0] * len(now), 0.0))
        is_anew = len(before) != len(now) or any(a < b for a, b in zip(now, before, strict=True))
        if is_anew:
            return (now, total) if any(now) else None
        come = [a - b for a, b in zip(now, before, strict=True)]
        return (come, total - total_before) if any(come) else None

    def taken(self, now_ns: int) -> None:
        """See Since."""
        self.started_ns = now_ns
        self._numbers, self._spreads = self._numbers_now, self._spreads_now
        self._numbers_now, self._spreads_now = {}, {}


def since(temporality: Temporality, started_ns: int) -> Since:
    """What cuts by a temporality. started_ns: when the meters began to count."""
    return Delta(started_ns) if temporality == "delta" else Cumulative(started_ns)
