"""Meters as OTLP."""

import pytest

from telemetry.context import SpanContext
from telemetry.metrics import Meters
from telemetry.otlp.encoding import resource_of
from telemetry.otlp.json_form import request_json
from telemetry.otlp.messages_pb2 import Metric, MetricsRequest
from telemetry.otlp.metrics import PIECE, metrics_requests, unit_of
from telemetry.otlp.temporality import Cumulative, Delta, Since

BEGAN, NOW = 1_000, 2_000


def metrics_of(meters: Meters, since: Since | None = None) -> list[Metric]:
    resource = resource_of("cart", ())
    pieces = metrics_requests(meters.families(), resource, since or Cumulative(BEGAN), now_ns=NOW)
    read = MetricsRequest.FromString(b"".join(pieces))
    assert {pair.value.string_value for one in read.resource_metrics for pair in one.resource.attributes} <= {
        "cart"
    }
    return [
        metric for one in read.resource_metrics for scope in one.scope_metrics for metric in scope.metrics
    ]


def test_each_kind_is_what_it_is_in_opentelemetry() -> None:
    meters = Meters("cart")
    meters.counter("things_total", "Things.", ("kind",)).add("a", amount=3)
    meters.gauge("level_bytes", "A level.", ("of",)).slot("x").set(-2.5)
    slot = meters.histogram("took_seconds", "How long.", ("to",), (0.5, 1.0)).slot("b")
    for value in (0.1, 0.5, 0.7, 9.0):
        slot.observe(value)
    slot.exemplify(0.7, SpanContext(7, 8, 0, sampled=True), 1.5)
    found = {metric.name: metric for metric in metrics_of(meters)}
    things, level, took = found["things_total"], found["level_bytes"], found["took_seconds"]
    assert (things.description, things.sum.is_monotonic, things.sum.aggregation_temporality) == (
        "Things.",
        True,
        2,
    )
    (point,) = things.sum.data_points
    assert (point.as_double, point.start_time_unix_nano, point.time_unix_nano) == (3.0, BEGAN, NOW)
    assert [(pair.key, pair.value.string_value) for pair in point.attributes] == [("kind", "a")]
    assert (level.unit, level.gauge.data_points[0].as_double) == ("By", -2.5)
    (spread,) = took.histogram.data_points
    assert (took.unit, took.histogram.aggregation_temporality) == ("s", 2)
    assert list(spread.bucket_counts) == [2, 1, 1]
    assert list(spread.explicit_bounds) == [0.5, 1.0]
    assert spread.count == 4
    assert spread.sum == pytest.approx(10.3)
    (exemplar,) = spread.exemplars
    assert (exemplar.as_double, exemplar.trace_id.hex()[-1], exemplar.span_id.hex()[-1]) == (0.7, "7", "8")
    assert exemplar.time_unix_nano == 1_500_000_000


def test_metric_without_a_series_is_left_out() -> None:
    meters = Meters("cart")
    meters.counter("never_total", "Never.", ("kind",))
    assert "never_total" not in {metric.name for metric in metrics_of(meters)}


def test_many_series_go_in_several_requests() -> None:
    meters = Meters("cart")
    counter = meters.counter("many_total", "Many.", ("n",))
    for n in range(2 * PIECE + 1):
        counter.add(str(n))
    pieces = list(metrics_requests((counter,), resource_of("cart", ()), Cumulative(BEGAN), now_ns=NOW))
    assert len(pieces) == 3
    points = [
        point
        for metric in metrics_of(meters)
        if metric.name == "many_total"
        for point in metric.sum.data_points
    ]
    assert len({point.attributes[0].value.string_value for point in points}) == 2 * PIECE + 1


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("postern_edge_duration_seconds", "s"),
        ("dapr_http_server_latency", "ms"),
        ("x_latency_ms", "ms"),
        ("dapr_http_server_request_bytes", "By"),
        ("x_seconds_total", "s"),
        ("postern_spans_exported_total", ""),
    ],
)
def test_unit_is_what_the_name_ends_in(name: str, unit: str) -> None:
    assert unit_of(name) == unit


def test_opentelemetry_reads_the_same() -> None:
    official = pytest.importorskip(
        "opentelemetry.proto.collector.metrics.v1.metrics_service_pb2",
        reason="opentelemetry-proto is not installed: pip install -e '.[dev]'",
    )
    meters = Meters("cart")
    meters.exports.app_spans.add("taken")
    meters.exports.span_queue.set(3, "otlp")
    meters.edge_duration.slot(*("x" for _ in meters.edge_duration.labels)).observe(0.1)
    (body,) = metrics_requests(meters.families(), resource_of("cart", ()), Cumulative(BEGAN), now_ns=NOW)
    read = official.ExportMetricsServiceRequest.FromString(body)
    read.DiscardUnknownFields()
    assert read.SerializeToString() == body
    assert b'"bucketCounts"' in request_json(body, "metrics")


def test_delta_has_what_came_since_the_push_that_was_taken() -> None:
    meters, since = Meters("cart"), Delta(BEGAN)
    things = meters.counter("things_total", "Things.", ("kind",))
    things.add("a", amount=3)
    things.add("b", amount=1)
    meters.gauge("level", "A level.", ("of",)).slot("x").set(4)

    def told() -> dict[str, float]:
        (one,) = [metric for metric in metrics_of(meters, since) if metric.name == "things_total"]
        assert one.sum.aggregation_temporality == 1
        return {point.attributes[0].value.string_value: point.as_double for point in one.sum.data_points}

    assert told() == {"a": 3, "b": 1}
    things.add("a", amount=2)
    assert told() == {"a": 5, "b": 1}  # what was not taken is told again
    since.taken(NOW)
    things.add("a", amount=1)
    assert told() == {"a": 1}
    since.taken(NOW)
    assert [metric.name for metric in metrics_of(meters, since) if metric.name == "things_total"] == []
    assert "level" in {metric.name for metric in metrics_of(meters, since)}
