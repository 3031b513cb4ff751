"""Zipkin JSON v2, encoded and sent by our own code: lower-case names, both endpoints, microseconds, gzip, no threads.

Encodes 64 spans at a time and lets the loop run in between: a batch of 512 would block it for 6 ms.
Source: Zipkin API v2; OpenTelemetry's mapping to Zipkin.
"""

import asyncio
import json
import ssl
import zlib
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import groupby
from typing import Any, Literal

import msgspec

from telemetry.otlp.received import Received
from telemetry.post import Headers, HttpPoster, PostTarget
from telemetry.spans import Span
from telemetry.written import SpanItem, WrittenSpans

#: Spans encoded (and bytes compressed) without letting the loop run: well under 2 ms.
PIECE = 64
#: Smaller bodies cost more to unpack than to send.
GZIP_FROM_BYTES = 1024
#: A larger batch goes in several requests; Zipkin's own limit is 5 MB.
BODY_LIMIT_BYTES = 1024 * 1024

_encode = msgspec.json.Encoder().encode


def zipkin_span(span: Span) -> dict[str, Any]:
    """The span as Zipkin wants it: `Span.as_dict()` with its names in lower case."""
    encoded = span.as_dict()
    encoded["name"] = span.name.lower()
    encoded["localEndpoint"] = {"serviceName": span.service.lower()}
    if span.remote_service:
        encoded["remoteEndpoint"]["serviceName"] = span.remote_service.lower()
    return encoded


def encode_spans(spans: Sequence[Span]) -> bytes:
    """A JSON array of spans, without looking at the time it takes."""
    made = [zipkin_span(span) for span in spans]
    try:
        return _encode(made)
    except UnicodeEncodeError:  # half a surrogate pair, which only escapes can write
        return json.dumps(made, separators=(",", ":")).encode()


class ZipkinExporter:
    """Sends batches to a collector's span endpoint. Owns the connection to it."""

    takes_written: Literal[True] = True

    def __init__(
        self,
        endpoint: str,
        *,
        timeout_s: float = 10.0,
        headers: Headers = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Raises: ExporterConfigError when `endpoint` is not an http(s) address."""
        target = PostTarget.parse(self.name, endpoint)
        self._packs = not target.is_loopback  # which costs more than to send it, at either end
        self._poster = HttpPoster(
            target,
            headers=(("Content-Type", "application/json"), *headers),
            timeout_s=timeout_s,
            tls=tls,
        )

    @property
    def name(self) -> str:
        """Label of this exporter in metrics and logs."""
        return "zipkin"

    async def export(self, spans: Sequence[SpanItem]) -> None:
        """Raises: ExportError when the collector did not take a part of the batch."""
        pieces: list[bytes] = []
        size = 0
        for piece in _written(spans):
            if pieces and size + len(piece) > BODY_LIMIT_BYTES:
                await self._post(pieces, size)
                pieces, size = [], 0
            pieces.append(piece)
            size += len(piece) + 1
            await asyncio.sleep(0)
        if pieces:
            await self._post(pieces, size)

    async def close(self) -> None:
        """Ends the connection."""
        await self._poster.close()

    async def _post(self, pieces: list[bytes], size: int) -> None:
        if size < GZIP_FROM_BYTES or not self._packs:
            await self._poster.post(b"".join(_joined(pieces)), ())
            return
        # Level 1: a third of the time of the default, and spans repeat themselves enough for it.
        gzip = zlib.compressobj(level=1, wbits=31)
        packed: list[bytes] = []
        for part in _joined(pieces):
            packed.append(gzip.compress(part))
            await asyncio.sleep(0)
        packed.append(gzip.flush())
        await self._poster.post(b"".join(packed), (("Content-Encoding", "gzip"),))


class ZipkinForwarder:
    """Sends what the app has sent as OTLP, by an exporter of its own."""

    name = "zipkin-app"

    def __init__(self, exporter: ZipkinExporter) -> None:
        self._exporter = exporter

    async def export(self, items: Sequence[Received]) -> None:
        """Raises: ExportError when the collector did not take a part of it."""
        reading = await asyncio.to_thread(import_module, "telemetry.otlp.reading")
        spans: list[Span] = []
        for item in items:
            spans += await reading.read_spans(item.body)
        await self._exporter.export(spans)

    async def close(self) -> None:
        """Ends the connection."""
        await self._exporter.close()


def _written(items: Sequence[SpanItem]) -> Iterator[bytes]:
    """Spans with commas between, `PIECE` at a time but for those that are written already."""
    for is_written, group in groupby(items, lambda item: isinstance(item, WrittenSpans)):
        if is_written:
            yield from (item.text for item in group if isinstance(item, WrittenSpans))
            continue
        spans = [item for item in group if isinstance(item, Span)]
        for start in range(0, len(spans), PIECE):
            yield encode_spans(spans[start : start + PIECE])[1:-1]


def _joined(pieces: list[bytes]) -> Iterator[bytes]:
    """The pieces as one JSON array, without copying them into one."""
    for number, piece in enumerate(pieces):
        yield b"," if number else b"["
        yield piece
    yield b"]"
