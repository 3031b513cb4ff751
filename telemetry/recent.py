"""What each route carried in the last minute, second by second, for `postern edges`, `stat` and `top`.

Nothing is recorded twice: calls are counted in a histogram's slots, as those of metrics are, and once a second this looks how far they have
come.
"""

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import NamedTuple

from telemetry.series import Distribution, Histogram

WINDOW_S = 60
ROUTES = 500  # beyond it they are counted as `other`
ROUTE_LABELS = ("direction", "src", "dst", "protocol", "method", "path", "code_class", "peer", "made_by")


class _Second(NamedTuple):
    """One sample: when it was taken, how many calls were new in each bucket, and a bound of the longest of them, in seconds."""

    at: float
    counts: "array[int]"  # of eight bytes each; the type takes no parameter when run
    longest_s: float


class _Seen:
    """A route's counts and sum at the last sample, the samples of the last minute, when the latest call was, and the longest of all."""

    __slots__ = ("counts", "last_at", "longest_s", "looks", "sum")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.looks: deque[_Second] = deque()
        self.last_at = 0.0
        self.longest_s = 0.0
        self.sum = 0.0


def longest_of(counts: Sequence[int], total_s: float, bounds_s: Sequence[float]) -> float:
    """The most seconds that the longest of some calls can have taken, by their buckets and their sum: of one call, what it took.

    The others took at least the lower bounds of their buckets. Never below the lower bound of the longest's own, nor above its upper one.
    """
    top = max((bucket for bucket, count in enumerate(counts) if count), default=None)
    if top is None:
        return 0.0
    lower = [0.0, *bounds_s]
    others_s = sum(lower[bucket] * count for bucket, count in enumerate(counts)) - lower[top]
    longest_s = max(total_s - others_s, lower[top])
    return min(longest_s, bounds_s[top]) if top < len(bounds_s) else longest_s


class Recent:
    """The last minute of every route, at most `ROUTES`. Owns how far each had come, `_Seen`.

    wall: the clock of what people are told, epoch seconds.
    """

    def __init__(
        self, routes: Histogram, *, clock: Callable[[], float] = monotonic, wall: Callable[[], float] = time
    ) -> None:
        self._routes = routes
        self._clock = clock
        self._wall = wall
        self._began = clock()
        self._seen: dict[tuple[str, ...], _Seen] = {}

    def look(self) -> None:
        """Note what came since the last look; call it each second."""
        now = self._clock()
        for labels, slot in self._routes.slots.items():
            seen = self._seen.get(labels)
            if seen is None:
                seen = self._seen[labels] = _Seen(len(slot.counts))
            if seen.counts != slot.counts:
                self._note(seen, slot, now)
            while seen.looks and seen.looks[0].at <= now - WINDOW_S:
                seen.looks.popleft()

    def _note(self, seen: _Seen, slot: Distribution, now: float) -> None:
        came = array("Q", [new - old for new, old in zip(slot.counts, seen.counts, strict=True)])
        longest_s = longest_of(came, slot.sum - seen.sum, self._routes.bounds)
        seen.looks.append(_Second(now, came, longest_s))
        seen.counts, seen.sum = list(slot.counts), slot.sum
        seen.longest_s = max(seen.longest_s, longest_s)
        seen.last_at = self._wall()

    @property
    def bounds_s(self) -> tuple[float, ...]:
        """Of the buckets that calls are counted in, in seconds, inclusive; those beyond the last have one of their own."""
        return tuple(self._routes.bounds)

    def sent(self, within_s: float) -> dict[str, list[int]]:
        """Calls to each callee that ended in the last so many seconds, by bucket."""
        since, direction, dst = self._clock() - within_s, *map(ROUTE_LABELS.index, ("direction", "dst"))
        found: dict[str, list[int]] = {}
        for labels, seen in self._seen.items():
            looks = [look.counts for look in seen.looks if look.at > since]
            if labels[direction] == "outbound" and looks:
                before = found.get(labels[dst], [0] * len(seen.counts))
                found[labels[dst]] = [sum(column) for column in zip(before, *looks, strict=True)]
        return found

    def report(self) -> dict[str, object]:
        """Every route with its calls, in all and in the last minute, by the buckets of `bounds_s`; JSON."""
        self.look()
        return {
            "window_s": round(min(max(self._clock() - self._began, 1.0), WINDOW_S), 3),
            "bounds_s": list(self._routes.bounds),
            "routes": [
                {
                    **dict(zip(ROUTE_LABELS, labels, strict=True)),
                    "calls": seen.counts,
                    "recent": [
                        sum(column) for column in zip(*(look.counts for look in seen.looks), strict=True)
                    ],
                    "longest_s": round(seen.longest_s, 6),
                    "recent_longest_s": round(max((look.longest_s for look in seen.looks), default=0.0), 6),
                    "last_seen": seen.last_at,
                }
                for labels, seen in self._seen.items()
            ],
        }
