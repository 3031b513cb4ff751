"""Spans that an engine wrote itself, on their way to an exporter that sends them as they are."""

from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct
from msgspec.structs import replace

from telemetry.exporting import Exporter, ExportLimits
from telemetry.spans import Span

#: Of a `Span` in memory, with its texts: what written ones are measured by.
_SPAN_BYTES = 4096
_ANY = 1 << 62


class WrittenSpans(Struct, frozen=True):
    """In Zipkin's JSON: objects with commas between, and how many."""

    text: bytes
    count: int


SpanItem = Span | WrittenSpans


@runtime_checkable
class TakesWritten(Exporter[SpanItem], Protocol):
    """An exporter of written spans and of others."""

    takes_written: Literal[True]


def weigh(item: SpanItem) -> tuple[int, int]:
    """Its spans and bytes, for a queue with the limits of `by_bytes`."""
    return (item.count, len(item.text)) if isinstance(item, WrittenSpans) else (1, _SPAN_BYTES)


def by_bytes(limits: ExportLimits) -> ExportLimits:
    """For a queue of both: as much memory as `limits.queue` spans take that nobody has written yet."""
    return replace(
        limits,
        queue=_ANY,
        queue_bytes=limits.queue * _SPAN_BYTES,
        batch_bytes=max(limits.batch_bytes, limits.batch * _SPAN_BYTES),
    )
