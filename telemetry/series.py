"""Counters, gauges and histograms cheap enough for the call path: a label set is resolved once, to a slot.

Plain attributes, no locks (one thread writes; a reader may see a sum one observation old), and a cap on the label
sets of each metric. Writing them out is up to `exposition`.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from telemetry.context import SpanContext
from telemetry.errors import MetricError

#: Label sets of one metric; a caller that makes up paths must not fill the memory.
SERIES_LIMIT = 2000
OTHER = "other"
#: Characters of a label's value; no name of ours, nor a path that is its own label, is longer than some 600.
LABEL_CHARS = 1024


class Value:
    """The slot of a counter or gauge: `slot.value += 1`, or `add` and `set`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        """Raises (or lowers, a gauge) the value."""
        self.value += amount

    def set(self, value: float) -> None:
        """Replaces a gauge's value."""
        self.value = value


class Distribution:
    """The slot of a histogram: a count per bucket (the last is everything above), their sum, one exemplar each."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, tuple[SpanContext, float, float]] = {}

    def observe(self, value: float) -> None:
        """Counts a value in its bucket; bounds are inclusive."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def exemplify(self, value: float, context: SpanContext, at_s: float) -> None:
        """Remembers a span as the exemplar of its value's bucket; the value itself is counted elsewhere."""
        self.exemplars[bisect_left(self.bounds, value)] = (context, value, at_s)

    def observe_sampled(self, value: float, context: SpanContext, at_s: float) -> None:
        """As `observe`, and remembers the span as this bucket's exemplar."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        self.exemplars[bucket] = (context, value, at_s)

    def add(self, counts: Sequence[int], total: float) -> None:
        """Adds observations that were counted elsewhere, in buckets with the same bounds."""
        own = self.counts
        for bucket, count in enumerate(counts):
            if count:
                own[bucket] += count
        self.sum += total

    def cumulative(self) -> list[int]:
        """Counts as Prometheus has them: of values up to each bound, the last of all."""
        return list(accumulate(self.counts))


Rewrite = Callable[[str], str]
SlotT = TypeVar("SlotT", Value, Distribution)


class Family(Generic[SlotT]):
    """One metric: its labels and the slot of each label set.

    Owns `slots`. Beyond `limit` label sets every new one shares the slot whose values are all `other`; `folded`
    counts how often one was asked for.
    """

    def __init__(
        self, name: str, help_: str, labels: Sequence[str] = (), *, limit: int = SERIES_LIMIT
    ) -> None:
        self.name = name
        self.help = help_
        self.labels = tuple(labels)
        self.slots: dict[tuple[str, ...], SlotT] = {}
        self.folded = 0
        self._limit = limit
        self._rewritten: dict[int, Rewrite] = {}

    def rewrite(self, label: str, rewrite: Rewrite) -> None:
        """Have the values of a label pass through `rewrite` before they name a slot. Raises: ValueError for an unknown label."""
        self._rewritten[self.labels.index(label)] = rewrite

    def forget_rewrites(self) -> None:
        """Stop rewriting label values."""
        self._rewritten = {}

    def begin_anew(self) -> None:
        """Drop every series; a thread that writes them out goes on with those that it has."""
        self.slots = {}

    def _new_slot(self) -> SlotT:
        raise MetricError(self.name, "has no slots of its own kind")

    def slot(self, *values: str) -> SlotT:
        """The slot of these label values, in the order of `labels`; keep it instead of asking again.

        Raises: MetricError when there are more or fewer values than labels.
        """
        found = self.slots.get(values)
        if found is not None:
            return found
        if len(values) != len(self.labels):
            raise MetricError(self.name, f"expected {len(self.labels)} label values, got {len(values)}")
        if self._rewritten:
            unchanged: Rewrite = str
            values = tuple(self._rewritten.get(place, unchanged)(value) for place, value in enumerate(values))
            if (found := self.slots.get(values)) is not None:
                return found
        if any(len(value) > LABEL_CHARS for value in values):
            values = tuple(value if len(value) <= LABEL_CHARS else OTHER for value in values)
            if (found := self.slots.get(values)) is not None:
                return found
        if len(self.slots) >= self._limit:
            self.folded += 1
            values = (OTHER,) * len(self.labels)
            found = self.slots.get(values)
            if found is not None:
                return found
        made = self.slots[values] = self._new_slot()
        return made


class Counter(Family[Value]):
    """Only rises."""

    def _new_slot(self) -> Value:
        return Value()

    def add(self, *values: str, amount: float = 1.0) -> None:
        """Counts for these label values: for events rarer than calls."""
        self.slot(*values).value += amount


class Gauge(Family[Value]):
    """Goes up and down."""

    def _new_slot(self) -> Value:
        return Value()

    def set(self, value: float, *values: str) -> None:
        """Replaces the value at these label values."""
        self.slot(*values).value = value

    def replace(self, values: Mapping[tuple[str, ...], float]) -> None:
        """Replaces the whole metric, so that what is gone leaves no series behind."""
        self.slots.clear()
        for labels, value in values.items():
            self.slot(*labels).value = value


class Histogram(Family[Distribution]):
    """Counts observations by size."""

    def __init__(
        self,
        name: str,
        help_: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        *,
        limit: int = SERIES_LIMIT,
    ) -> None:
        super().__init__(name, help_, labels, limit=limit)
        self.bounds = tuple(bounds)

    def _new_slot(self) -> Distribution:
        return Distribution(self.bounds)


AnyFamily = Counter | Gauge | Histogram
