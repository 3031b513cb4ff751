"""Our meters in OTLP's messages, under the names that Prometheus has them by. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from telemetry.otlp.encoding import attributes_of
from telemetry.otlp.messages_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    AggregationTemporality,
    Exemplar,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsRequest,
    NumberDataPoint,
    Resource,
    ResourceMetrics,
    Scope,
    ScopeMetrics,
    Sum,
)
from telemetry.otlp.temporality import Since, Temporality
from telemetry.series import AnyFamily, Distribution, Value
from telemetry.series import Gauge as GaugeFamily
from telemetry.series import Histogram as HistogramFamily

SlotT = TypeVar("SlotT", Value, Distribution)
SCOPE = "postern"
#: Series of one request: some 100 KiB.
PIECE = 500
_TEMPORALITIES: Mapping[Temporality, AggregationTemporality] = {
    "cumulative": AGGREGATION_TEMPORALITY_CUMULATIVE,
    "delta": AGGREGATION_TEMPORALITY_DELTA,
}
_UNITS = (("_seconds", "s"), ("_ms", "ms"), ("_latency", "ms"), ("_bytes", "By"))


def metrics_requests(
    families: Sequence[AnyFamily], resource: Resource, since: Since, *, now_ns: int
) -> Iterator[bytes]:
    """Requests that export all metrics with a series, in pieces that are requests by themselves."""
    held: list[Metric] = []
    count = 0
    for family in families:
        for metric, series in _metrics(family, since, now_ns):
            if held and count + series > PIECE:
                yield _request(held, resource)
                held, count = [], 0
            held.append(metric)
            count += series
    if held:
        yield _request(held, resource)


def unit_of(name: str) -> str:
    """The unit that a name ends in, by UCUM; "" where it ends in none."""
    base = name.removesuffix("_total")
    return next((unit for ending, unit in _UNITS if base.endswith(ending)), "")


def _request(metrics: list[Metric], resource: Resource) -> bytes:
    scope = ScopeMetrics(scope=Scope(name=SCOPE), metrics=metrics)
    return MetricsRequest(
        resource_metrics=[ResourceMetrics(resource=resource, scope_metrics=[scope])]
    ).SerializeToString()


def _metrics(family: AnyFamily, since: Since, now_ns: int) -> Iterator[tuple[Metric, int]]:
    """The metric, in several with the same name where it has many series, and how many each has."""
    temporality = _TEMPORALITIES[since.temporality]
    if isinstance(family, HistogramFamily):
        for piece in _pieces(family.slots):
            found = (_distribution(family, values, slot, since, now_ns) for values, slot in piece)
            points = [point for point in found if point is not None]
            made = Histogram(data_points=points, aggregation_temporality=temporality)
            if points:
                yield _metric(family, histogram=made), len(points)
        return
    for values_of in _pieces(family.slots):
        if isinstance(family, GaugeFamily):
            levels = [
                _number(family, values, slot.value, since.started_ns, now_ns) for values, slot in values_of
            ]
            yield _metric(family, gauge=Gauge(data_points=levels)), len(levels)
            continue
        come = ((values, since.number((family.name, values), slot.value)) for values, slot in values_of)
        numbers = [
            _number(family, values, value, since.started_ns, now_ns)
            for values, value in come
            if value is not None
        ]
        total = Sum(data_points=numbers, aggregation_temporality=temporality, is_monotonic=True)
        if numbers:
            yield _metric(family, sum=total), len(numbers)


def _number(
    family: AnyFamily, values: tuple[str, ...], value: float, started_ns: int, now_ns: int
) -> NumberDataPoint:
    return NumberDataPoint(
        attributes=attributes_of(_labels(family, values)),
        start_time_unix_nano=started_ns,
        time_unix_nano=now_ns,
        as_double=value,
    )


def _pieces(slots: Mapping[tuple[str, ...], SlotT]) -> Iterator[list[tuple[tuple[str, ...], SlotT]]]:
    # A copy: the loop's thread may add a label set while this one writes.
    copied = list(slots.items())
    for start in range(0, len(copied), PIECE):
        yield copied[start : start + PIECE]


def _metric(family: AnyFamily, **data: Gauge | Sum | Histogram) -> Metric:
    return Metric(name=family.name, description=family.help, unit=unit_of(family.name), **data)  # type: ignore[arg-type]


def _labels(family: AnyFamily, values: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    return zip(family.labels, values, strict=True)


def _distribution(
    family: HistogramFamily, values: tuple[str, ...], slot: Distribution, since: Since, now_ns: int
) -> HistogramDataPoint | None:
    come = since.spread((family.name, values), slot.counts, slot.sum)
    if come is None:
        return None
    counts, total = come
    return HistogramDataPoint(
        attributes=attributes_of(_labels(family, values)),
        start_time_unix_nano=since.started_ns,
        time_unix_nano=now_ns,
        count=sum(counts),
        sum=total,
        bucket_counts=counts,
        explicit_bounds=slot.bounds,
        exemplars=[
            Exemplar(
                as_double=value,
                time_unix_nano=int(at_s * 1e9),
                trace_id=context.trace_id.to_bytes(16, "big"),
                span_id=context.span_id.to_bytes(8, "big"),
            )
            for context, value, at_s in list(slot.exemplars.values())
        ],
    )
