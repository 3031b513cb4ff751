"""The exporter of `tracing.stdout`: one info line per finished span, in the log's own format."""

from collections.abc import Callable, Sequence

from telemetry.logs import Logger, format_time, get_logger
from telemetry.spans import Span

#: The scope that these lines have always had; it is exempt from the log's rate limit.
SCOPE = "dapr.runtime.trace"


class StdoutExporter:
    """Logs spans."""

    def __init__(self, logger: Callable[[str], Logger] = get_logger) -> None:
        self._log = logger(SCOPE)

    @property
    def name(self) -> str:
        """Label of this exporter in metrics and logs."""
        return "stdout"

    async def export(self, spans: Sequence[Span]) -> None:
        """Never fails: a closed stdout is the log's business."""
        for span in spans:
            self._log.info(describe(span))

    async def close(self) -> None:
        """Nothing to close."""


def describe(span: Span) -> str:
    """`[name] Trace: … Span: parent/id Time: [start ->  end] Annotations: […]`."""
    context = span.context
    events = " ".join(text for _, text in span.events)
    return (
        f"[{span.name}] Trace: {context.trace_id:032x} Span: {context.parent_id:016x}/{context.span_id:016x}"
        f" Time: [{format_time(span.start_ns)} ->  {format_time(span.end_ns)}] Annotations: [{events}]"
    )
