"""The meters of what is exported: our own spans, metrics and logs, and those of the app."""

from collections.abc import Callable

from telemetry.series import Counter, Gauge


class ExportMeters:
    """Public attributes are the metrics. counter, gauge: declare one, by its name, help and labels."""

    def __init__(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        self.spans_exported = counter("postern_spans_exported_total", "Spans exported.", ("exporter",))
        self.spans_dropped = counter(
            "postern_spans_dropped_total", "Spans dropped before export.", ("exporter", "reason")
        )
        self.metric_pushes = counter(
            "postern_metric_pushes_total",
            "Pushes of metrics to an OTLP collector: ok, partial (some were rejected) or failed.",
            ("result",),
        )
        self.app_spans = counter(
            "postern_app_spans_total",
            "Spans that the app exported to this proxy: taken, or without the ids that a span needs.",
            ("result",),
        )
        self.app_exports = counter(
            "postern_app_exports_total",
            "Data points and log records that the app exported to this proxy: exported to the collector, lost and why, or no-collector.",
            ("signal", "result"),
        )
        self.app_exports_queued = gauge(
            "postern_app_exports_queued",
            "Data points and log records of the app that wait for the collector.",
            ("signal",),
        )
        self.span_queue = gauge("postern_span_queue_length", "Spans waiting.", ("exporter",))
        self.tail_lost = counter(
            "postern_tail_callable_lost_total",
            "Calls about which the callable of spec.tracing.tail gave no answer: queue-full or raised.",
            ("reason",),
        )
        self.log_records = counter(
            "postern_log_records_total",
            "Log records for the OTLP collector: exported, lost and why, or no-collector.",
            ("result",),
        )
        self.log_queue = gauge("postern_log_queue_length", "Log records waiting for the OTLP collector.")
