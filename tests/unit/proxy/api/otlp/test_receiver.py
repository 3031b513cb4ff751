"""What becomes of exported spans."""

import pytest

from proxy.api.otlp.answers import Refusal
from proxy.api.otlp.receiver import Receiver
from telemetry.metrics import Meters
from telemetry.otlp.json_form import request_json
from telemetry.otlp.messages_pb2 import ResourceSpans, ScopeSpans, Span, TracesRequest
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

    def __init__(self, *forwarders: Forwarder, queue: int = 2048) -> None:
        self.tracer = Tracer("cart", forwarders=forwarders, limits=ExportLimits(queue=queue))
        self.meters = Meters("cart")
        self._kept = KeptLines()
        self.lines = self._kept.lines
        self.receiver = Receiver(self.tracer, self._kept.get("x"), self.meters.app_spans)

    def counted(self) -> dict[str, float]:
        return {labels[0]: slot.value for labels, slot in self.meters.app_spans.slots.items()}


async def test_without_a_collector_spans_are_kept_and_the_log_says_so_once() -> None:
    it = Received()
    for _ in range(2):
        assert await it.receiver.take(request(100), is_json=False) == (0, "")
    assert len(it.tracer.recent()) == 200
    assert len(it.lines) == 1
    assert "no collector" in it.lines[0]["event"]
    assert it.counted() == {"taken": 200}


@pytest.mark.parametrize("is_json", [True, False])
async def test_request_goes_on_in_protobuf(*, is_json: bool) -> None:
    forwarder = Forwarder()
    it = Received(forwarder)
    body = request(3)
    assert await it.receiver.take(request_json(body, "traces") if is_json else body, is_json=is_json) == (
        0,
        "",
    )
    await it.tracer.queues[0].flush()
    assert [(item.body, item.spans) for item in forwarder.batches[0]] == [(body, 3)]
    assert it.lines == []


async def test_spans_without_ids_are_rejected() -> None:
    it = Received(Forwarder())
    rejected, why = await it.receiver.take(request(2, unnamed=3), is_json=False)
    assert (rejected, why) == (3, "3 without a trace or span id")
    assert it.counted() == {"taken": 2, "without-ids": 3}


async def test_full_queue_is_told() -> None:
    it = Received(Forwarder(), queue=10)
    assert await it.receiver.take(request(8), is_json=False) == (0, "")
    rejected, why = await it.receiver.take(request(4), is_json=False)
    assert (rejected, "8 older" in why) == (4, True)
    assert it.tracer.queues[0].dropped == {"queue-full": 8}


async def test_empty_request_goes_nowhere() -> None:
    it = Received(Forwarder())
    assert await it.receiver.take(b"", is_json=False) == (0, "")
    assert it.tracer.queued == 0


@pytest.mark.parametrize(("body", "is_json"), [(b"\xff\xff", False), (b"{", True), (b"[]", True)])
async def test_nonsense_is_refused(body: bytes, *, is_json: bool) -> None:
    with pytest.raises(Refusal, match="not a request of OTLP"):
        await Received().receiver.take(body, is_json=is_json)
