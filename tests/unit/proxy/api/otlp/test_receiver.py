"""What becomes of exported spans."""

import pytest

from proxy.api.otlp.answers import Refusal
from proxy.api.otlp.receiver import Receiver
from telemetry.metrics import Meters
from telemetry.otlp.json_form import request_json
from telemetry.otlp.messages_pb2 import (
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    LogRecord,
    LogsRequest,
    Metric,
    MetricsRequest,
    NumberDataPoint,
    ResourceLogs,
    ResourceMetrics,
    ResourceSpans,
    ScopeLogs,
    ScopeMetrics,
    ScopeSpans,
    Span,
    Sum,
    TracesRequest,
)
from telemetry.otlp.relays import Relays
from telemetry.tracing import ExportLimits, Tracer
from tests.unit.telemetry.building import KeptLines
from tests.unit.telemetry.test_exporting import Forwarder


def request(count: int, *, unnamed: int = 0) -> bytes:
    spans = [Span(trace_id=b"\1" * 16, span_id=n.to_bytes(8, "big"), name="x") for n in range(1, count + 1)]
    spans += [Span(name="no ids")] * unnamed
    return TracesRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
    ).SerializeToString()


class Received:
    """A receiver with a collector or without."""

    def __init__(self, *forwarders: Forwarder, queue: int = 2048, relay: Forwarder | None = None) -> None:
        self.tracer = Tracer("cart", forwarders=forwarders, limits=ExportLimits(queue=queue))
        self.meters = Meters("cart")
        self._kept = KeptLines()
        self.lines = self._kept.lines
        limits = ExportLimits(queue_bytes=100)
        self.relays = Relays(
            forwarders={"metrics": relay} if relay else {}, meters=self.meters, limits=limits
        )
        self.receiver = Receiver(self.tracer, self.relays, self._kept.get("x"), self.meters.exports.app_spans)

    def counted(self) -> dict[str, float]:
        return {labels[0]: slot.value for labels, slot in self.meters.exports.app_spans.slots.items()}


async def test_without_a_collector_spans_are_kept_and_the_log_says_so_once() -> None:
    it = Received()
    for _ in range(2):
        assert await it.receiver.take(request(100), "traces", is_json=False) == (0, "")
    assert len(it.tracer.recent()) == 200
    assert len(it.lines) == 1
    assert "no collector" in it.lines[0]["event"]
    assert it.counted() == {"taken": 200}


@pytest.mark.parametrize("is_json", [True, False])
async def test_request_goes_on_in_protobuf(*, is_json: bool) -> None:
    forwarder = Forwarder()
    it = Received(forwarder)
    body = request(3)
    assert await it.receiver.take(
        request_json(body, "traces") if is_json else body, "traces", is_json=is_json
    ) == (
        0,
        "",
    )
    await it.tracer.queues[0].flush()
    assert [(item.body, item.items) for item in forwarder.batches[0]] == [(body, 3)]
    assert it.lines == []


async def test_spans_without_ids_are_rejected() -> None:
    it = Received(Forwarder())
    rejected, why = await it.receiver.take(request(2, unnamed=3), "traces", is_json=False)
    assert (rejected, why) == (3, "3 without a trace or span id")
    assert it.counted() == {"taken": 2, "without-ids": 3}


async def test_full_queue_is_told() -> None:
    it = Received(Forwarder(), queue=10)
    assert await it.receiver.take(request(8), "traces", is_json=False) == (0, "")
    rejected, why = await it.receiver.take(request(4), "traces", is_json=False)
    assert (rejected, "8 older" in why) == (4, True)
    assert it.tracer.queues[0].dropped == {"queue-full": 8}


async def test_empty_request_goes_nowhere() -> None:
    it = Received(Forwarder())
    assert await it.receiver.take(b"", "traces", is_json=False) == (0, "")
    assert it.tracer.queued == 0


@pytest.mark.parametrize(("body", "is_json"), [(b"\xff\xff", False), (b"{", True), (b"[]", True)])
async def test_nonsense_is_refused(body: bytes, *, is_json: bool) -> None:
    with pytest.raises(Refusal, match="not a request of OTLP"):
        await Received().receiver.take(body, "traces", is_json=is_json)


def points(count: int) -> bytes:
    """A request of metrics with points of each kind that holds some."""
    number = Metric(name="n", sum=Sum(data_points=[NumberDataPoint(as_int=1)] * count))
    native = Metric(
        name="e",
        exponential_histogram=ExponentialHistogram(
            data_points=[ExponentialHistogramDataPoint(count=1, scale=3)]
        ),
    )
    nothing = Metric(name="empty")
    made = ScopeMetrics(metrics=[number, native, nothing])
    return MetricsRequest(resource_metrics=[ResourceMetrics(scope_metrics=[made])]).SerializeToString()


LOGS = LogsRequest(
    resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[LogRecord(severity_number=9)] * 2)])]
).SerializeToString()


async def test_without_a_collector_metrics_and_logs_are_rejected_and_the_log_says_so_once() -> None:
    it = Received()
    for _ in range(2):
        rejected, why = await it.receiver.take(points(4), "metrics", is_json=False)
        assert (rejected, "OTEL_EXPORTER_OTLP_ENDPOINT" in why) == (5, True)
        assert (await it.receiver.take(LOGS, "logs", is_json=False))[0] == 2
    assert [line["event"].partition(",")[0] for line in it.lines] == [
        "metrics of the app are dropped",
        "logs of the app are dropped",
    ]
    counted = {labels: slot.value for labels, slot in it.meters.exports.app_exports.slots.items()}
    assert counted == {("metrics", "no-collector"): 10, ("logs", "no-collector"): 4}


@pytest.mark.parametrize("is_json", [True, False])
async def test_metrics_go_on_in_protobuf_and_are_counted(*, is_json: bool) -> None:
    forwarder = Forwarder()
    it = Received(relay=forwarder)
    body = points(3)
    taken = request_json(body, "metrics") if is_json else body
    assert await it.receiver.take(taken, "metrics", is_json=is_json) == (0, "")
    assert await it.receiver.take(b"", "metrics", is_json=False) == (0, "")
    await it.relays.used_queues[0].flush()
    assert [(item.body, item.items) for item in forwarder.batches[0]] == [(body, 4)]
    it.meters.refresh()
    assert it.meters.exports.app_exports.slot("metrics", "exported").value == 4


async def test_metrics_beyond_the_queue_s_bytes_push_out_older_ones() -> None:
    it = Received(relay=Forwarder())
    body = points(1)
    answers = [await it.receiver.take(body, "metrics", is_json=False) for _ in range(6)]
    assert answers[0] == (0, "")
    assert answers[-1] == (2, "2 older ones dropped, as the collector does not keep up")
    it.meters.refresh()
    assert it.meters.exports.app_exports.slot("metrics", "queue-full").value > 0
