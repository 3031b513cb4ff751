"""What an engine is told of spans, and what becomes of those that it writes."""

from msgspec.structs import replace

from proxy.contract.engine import SpanLabels, SpansWanted
from proxy.contract.plan import Labels
from proxy.control.call_spans import CallSpans
from telemetry.calls import CallRecorder
from telemetry.metrics import Meters
from telemetry.path_labels import PathLabels
from telemetry.spans import SpanForm
from telemetry.tracing import Tracer
from telemetry.zipkin import ZipkinExporter
from tests.unit.telemetry.test_exporting import FakeExporter

LABELS = Labels(direction="inbound", surface="dapr", src="web", dst="cart", decision="rule", strip=True)


def spans_of(tracer: Tracer, meters: Meters | None = None, *, hides_paths: bool = False) -> CallSpans:
    meters = meters or Meters("cart")
    return CallSpans(CallRecorder("cart", "shop", meters, tracer), lambda: hides_paths, meters)


def test_spans_are_written_for_zipkin_alone_and_remembered_where_they_go_nowhere() -> None:
    zipkin = ZipkinExporter("http://localhost:9411/api/v2/spans")
    wanted = SpansWanted(service="cart", hides_paths=True, per_piece=128)
    assert spans_of(Tracer("cart", [zipkin]), hides_paths=True).wanted == wanted
    assert spans_of(Tracer("cart"), hides_paths=True).wanted == replace(wanted, per_piece=None)
    assert spans_of(Tracer("cart", [zipkin, FakeExporter()])).wanted is None


def test_labels_are_those_of_calls_that_cross_the_mesh() -> None:
    spans = spans_of(Tracer("cart"))
    assert spans.labels(Labels(direction="inbound")) is None
    assert spans.labels(LABELS) == SpanLabels(
        is_outbound=False,
        is_dapr=True,
        is_by_path=True,
        is_grpc_web=False,
        src="web",
        dst="cart",
        decision="rule",
    )


def test_spans_written_before_their_exporter_went_are_counted_as_lost() -> None:
    meters = Meters("cart")
    tracer = Tracer("cart")
    spans_of(tracer, meters).written(b"{},{}", 2)
    assert meters.reports_lost.slot("span").value == 2
    tracer = Tracer("cart", [ZipkinExporter("http://localhost:9411/api/v2/spans")])
    spans_of(tracer, meters).written(b"{},{}", 2)
    assert (tracer.queued, meters.reports_lost.slot("span").value) == (2, 2)


def test_spans_are_written_in_the_form_in_force_and_here_where_they_have_routes() -> None:
    meters = Meters("cart")
    recorder = CallRecorder("cart", "shop", meters, Tracer("cart"))
    spans = CallSpans(recorder, lambda: False, meters)
    recorder.form = SpanForm("dapr", captures_query=True, baggage=("tenant",))
    assert spans.wanted == SpansWanted(
        service="cart", hides_paths=False, conventions="dapr", captures_query=True, baggage=("tenant",)
    )
    recorder.reshape(PathLabels(["/a/{b}"]))
    assert spans.wanted is not None
    recorder.form = SpanForm("otel")
    assert spans.wanted is None
