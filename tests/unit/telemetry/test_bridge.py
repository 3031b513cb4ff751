"""OpenTelemetry's exporters behind our queue: found by name, fed with spans of their own kind."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from telemetry.bridge import BridgeExporter, load_exporter, readable_span
from telemetry.errors import ExporterConfigError, ExportError
from tests.unit.telemetry.building import BEGAN, SAMPLED, a_span


def test_readable_span_carries_everything() -> None:
    span = readable_span(
        a_span(
            context=SAMPLED._replace(parent_id=0xB2, tracestate="a=1"),
            error="bad",
            events=((BEGAN + 5, "retry attempt=2"),),
        ),
        Resource({"service.name": "cart"}),
    )
    context = span.context
    assert context is not None
    assert (context.trace_id, context.span_id) == (SAMPLED.trace_id, 0xA1)
    assert context.trace_flags.sampled
    assert context.trace_state.to_header() == "a=1"
    assert span.parent is not None
    assert span.parent.span_id == 0xB2
    assert (span.name, span.kind) == ("CallLocal/checkout/Orders", SpanKind.CLIENT)
    assert (span.start_time, span.end_time) == (BEGAN, BEGAN + 2_000_000)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "bad")
    assert dict(span.attributes or {}) == {"dapr.protocol": "http", "peer.service": "checkout"}
    assert [(event.name, event.timestamp) for event in span.events] == [("retry", BEGAN + 5)]
    assert span.resource.attributes["service.name"] == "cart"


def test_readable_span_of_a_root_has_no_parent_and_no_status() -> None:
    span = readable_span(a_span(kind="SERVER"), Resource({}))
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET
    assert span.kind is SpanKind.SERVER


async def test_export_goes_to_the_exporter_on_another_thread() -> None:
    class Noting(InMemorySpanExporter):
        thread = ""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            self.thread = threading.current_thread().name
            return super().export(spans)

    inner = Noting()
    bridge = BridgeExporter(inner, "cart")
    await bridge.export([a_span(), a_span()])
    await bridge.close()
    assert len(inner.get_finished_spans()) == 2
    assert inner.thread.startswith("span-export")
    assert bridge.name == "Noting"


class Failing(SpanExporter):
    """Fails one way or the other."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.error is not None:
            raise self.error
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        pass


async def test_export_reported_failure_is_not_retried() -> None:
    bridge = BridgeExporter(Failing(None), "cart")
    with pytest.raises(ExportError) as caught:
        await bridge.export([a_span()])
    await bridge.close()
    assert not caught.value.retryable


async def test_export_raised_failure_may_be_retried() -> None:
    bridge = BridgeExporter(Failing(ConnectionError("refused")), "cart")
    with pytest.raises(ExportError, match="ConnectionError: refused") as caught:
        await bridge.export([a_span()])
    await bridge.close()
    assert caught.value.retryable


async def test_export_while_an_earlier_batch_is_stuck_is_refused() -> None:
    begun, release = threading.Event(), threading.Event()

    class Stuck(Failing):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            begun.set()
            release.wait(10)
            return SpanExportResult.SUCCESS

    bridge = BridgeExporter(Stuck(None), "cart")
    async with asyncio.TaskGroup() as tasks:
        given_up = tasks.create_task(bridge.export([a_span()]))
        assert await asyncio.to_thread(begun.wait, 10)
        given_up.cancel()
    with pytest.raises(ExportError, match="still busy") as caught:
        await bridge.export([a_span()])
    await bridge.close()
    release.set()
    assert caught.value.retryable


@pytest.mark.parametrize(
    "name",
    [
        "zipkin_json",
        "opentelemetry.exporter.zipkin.json",
        "opentelemetry.exporter.zipkin.json:ZipkinExporter",
    ],
)
def test_load_exporter_zipkin_by_any_of_its_names(name: str) -> None:
    exporter = load_exporter(name, {"endpoint": "http://localhost:9/api/v2/spans"})
    assert type(exporter).__name__ == "ZipkinExporter"
    exporter.shutdown()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such", "no such exporter is installed; there are:.* zipkin_json"),
        ("no.such.module", "cannot be imported"),
        ("json:Nothing", "has no Nothing"),
        ("json.decoder", "expected one exporter class"),
        ("json:JSONDecoder", "expected a span exporter, got JSONDecoder"),
    ],
)
def test_load_exporter_wrong_name_says_what_was_met(name: str, problem: str) -> None:
    with pytest.raises(ExporterConfigError, match=problem):
        load_exporter(name)


def test_load_exporter_wrong_options_are_a_configuration_error() -> None:
    with pytest.raises(ExporterConfigError, match="TypeError"):
        load_exporter("zipkin_json", {"nonsense": 1})
