"""Lets any OpenTelemetry span exporter take our spans: OTLP, `opentelemetry.exporter.zipkin.json`, a user's own.

Imported on use only: OpenTelemetry's SDK costs 200 ms and 20 MB. Such exporters block, so they run on a thread, one
call at a time; it is a daemon thread, since a stuck exporter must not keep the process from exiting.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from telemetry.errors import ExporterConfigError, ExportError
from telemetry.spans import Span

#: Where packages announce exporters by name, as `OTEL_TRACES_EXPORTER` finds them.
GROUP = "opentelemetry_traces_exporter"

# Not without a version: the Zipkin exporter would write it as null, and Zipkin refuses the batch.
_SCOPE = InstrumentationScope("dapr-diagnostics", "1")
_KINDS = {"CLIENT": SpanKind.CLIENT, "SERVER": SpanKind.SERVER}
_FLAGS = TraceFlags(TraceFlags.SAMPLED)
_Result = TypeVar("_Result")


def load_exporter(name: str, options: Mapping[str, Any] | None = None) -> SpanExporter:
    """An exporter by entry-point name (`zipkin_json`), by module (`opentelemetry.exporter.zipkin.json`) or by
    `module:Class`; `options` are its constructor's arguments.

    Raises: ExporterConfigError when none has that name, or it rejects the options.
    """
    try:
        made = _constructor(name)(**dict(options or {}))
    except ExporterConfigError:
        raise
    except Exception as error:  # foreign constructors raise what they like
        raise ExporterConfigError(name, f"{type(error).__name__}: {error}") from error
    if not isinstance(made, SpanExporter):
        raise ExporterConfigError(name, f"expected a span exporter, got {type(made).__name__}")
    return made


def _constructor(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for; its result is checked
    for entry in entry_points(group=GROUP, name=name):
        return entry.load()
    module_name, _, attribute = name.partition(":")
    if "." not in module_name and not attribute:
        known = sorted(entry.name for entry in entry_points(group=GROUP))
        raise ExporterConfigError(
            name, f"no such exporter is installed; there are: {', '.join(known) or 'none'}"
        )
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ExporterConfigError(name, f"cannot be imported: {error}") from error
    if attribute:
        found = getattr(module, attribute, None)
        if found is None:
            raise ExporterConfigError(name, f"module {module_name} has no {attribute}")
        return found
    exporters = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, SpanExporter) and value is not SpanExporter
    ]
    if len(exporters) != 1:
        raise ExporterConfigError(name, f"expected one exporter class in {module_name}, got {len(exporters)}")
    return exporters[0]


class BridgeExporter:
    """An OpenTelemetry exporter behind our own queue. Owns the exporter, and `_thread` while a call of it runs."""

    def __init__(
        self,
        exporter: SpanExporter | str,
        service: str,
        *,
        options: Mapping[str, Any] | None = None,
        resource: Mapping[str, str] | None = None,
    ) -> None:
        """Raises: ExporterConfigError as `load_exporter`."""
        self._name = exporter if isinstance(exporter, str) else type(exporter).__name__
        self._exporter = load_exporter(exporter, options) if isinstance(exporter, str) else exporter
        self._resource = Resource({"service.name": service, **(resource or {})})
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        """Label of this exporter in metrics and logs."""
        return self._name

    async def export(self, spans: Sequence[Span]) -> None:
        """Raises: ExportError when the exporter refused or failed, or still works on a batch given up before."""
        batch = tuple(spans)
        if self._thread is not None and self._thread.is_alive():
            raise ExportError("still busy with an earlier batch", retryable=True)
        try:
            result = await self._on_thread(lambda: self._export(batch))
        except Exception as error:  # foreign code: requests, grpc, anything
            raise ExportError(f"{type(error).__name__}: {error}", retryable=True) from error
        if result is not SpanExportResult.SUCCESS:
            raise ExportError("the exporter reported a failure", retryable=False)

    async def close(self) -> None:
        """Shuts the exporter down; one that is stuck in an export is left behind."""
        if self._thread is None or not self._thread.is_alive():
            await self._on_thread(self._exporter.shutdown)

    async def _on_thread(self, work: Callable[[], _Result]) -> _Result:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        results: list[_Result] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                results.append(work())
            except Exception as error:  # noqa: BLE001 - raised again on the loop
                errors.append(error)
            # The loop may have been closed while a stuck exporter was left behind.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        self._thread = threading.Thread(target=run, name="span-export", daemon=True)
        self._thread.start()
        await done.wait()
        # It has nothing left to do but to end: is_alive() must not be true for the next batch.
        self._thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def _export(self, spans: tuple[Span, ...]) -> SpanExportResult:
        return self._exporter.export([readable_span(span, self._resource) for span in spans])


def readable_span(span: Span, resource: Resource) -> ReadableSpan:
    """Our record as the SDK's finished span."""
    context = span.context
    state = TraceState.from_header([context.tracestate]) if context.tracestate else None
    parent = None
    if context.parent_id:
        parent = SpanContext(context.trace_id, context.parent_id, is_remote=True, trace_flags=_FLAGS)
    attributes = dict(span.attributes)
    if span.remote_service:
        attributes.setdefault("peer.service", span.remote_service)
    return ReadableSpan(
        name=span.name,
        context=SpanContext(context.trace_id, context.span_id, False, _FLAGS, state),
        parent=parent,
        resource=resource,
        attributes=attributes,
        events=[Event(text.partition(" ")[0], {"text": text}, at_ns) for at_ns, text in span.events],
        kind=_KINDS[span.kind],
        status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=_SCOPE,
    )
