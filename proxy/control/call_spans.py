"""Spans of calls that an engine adds up: tells it which to write and what they say, and hands them to the exporters."""

from collections.abc import Callable

from proxy.contract.engine import SpanLabels, SpansWanted
from proxy.contract.plan import Labels
from telemetry.calls import CallRecorder
from telemetry.metrics import Meters
from telemetry.written import WrittenSpans


class CallSpans:
    """See `Spans`. are_hidden: paths, which a new configuration may turn."""

    def __init__(self, recorder: CallRecorder, are_hidden: Callable[[], bool], meters: Meters) -> None:
        self._recorder = recorder
        self._tracer = recorder.tracer
        self._are_hidden = are_hidden
        self._meters = meters

    @property
    def wanted(self) -> SpansWanted | None:
        """Where spans go to Zipkin or stay in memory; None where any exporter wants them in another form, or they have routes."""
        tracer, form = self._tracer, self._recorder.form
        if not tracer.is_written or self._recorder.has_routes:
            return None
        return SpansWanted(
            service=tracer.service,
            hides_paths=self._are_hidden(),
            per_piece=tracer.per_piece,
            conventions=form.conventions,
            captures_query=form.captures_query,
            baggage=form.baggage,
        )

    def labels(self, labels: Labels) -> SpanLabels | None:
        """What spans say of calls with these labels; None for calls that don't cross the mesh."""
        if not labels.dst:
            return None
        return SpanLabels(
            is_outbound=labels.direction == "outbound",
            is_dapr=labels.surface == "dapr",
            is_by_path=labels.strip,
            is_grpc_web=labels.is_grpc_web,
            src=labels.src,
            dst=labels.dst,
            decision=labels.decision,
        )

    def written(self, spans: bytes, count: int) -> None:
        """Take spans that an engine wrote."""
        if not self._tracer.put_written(WrittenSpans(spans, count)):
            self._meters.reports_lost.add("span", amount=count)  # written just before their exporter went
