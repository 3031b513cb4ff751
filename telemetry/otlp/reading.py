"""The spans that an app exports, read as ours."""

import asyncio
import json
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec.structs import replace

from telemetry.context import SpanContext, parse_tracestate
from telemetry.otlp.messages_pb2 import (
    SPAN_KIND_CLIENT,
    SPAN_KIND_CONSUMER,
    SPAN_KIND_PRODUCER,
    SPAN_KIND_SERVER,
    STATUS_CODE_ERROR,
    AnyValue,
    Event,
    KeyValue,
    TracesRequest,
)
from telemetry.otlp.messages_pb2 import Span as OtlpSpan
from telemetry.spans import Span

#: Characters of a span that stays in memory, and of one value of it.
SPAN_LIMIT = 4096
VALUE_LIMIT = 1024
#: Spans read without letting the loop run.
PIECE = 64
_MAX_DEPTH = 8  # of values within values

_KINDS = {
    SPAN_KIND_SERVER: "SERVER",
    SPAN_KIND_CLIENT: "CLIENT",
    SPAN_KIND_PRODUCER: "PRODUCER",
    SPAN_KIND_CONSUMER: "CONSUMER",
}
_UNNAMED = "unknown_service"
# Who is at the other end: the first of these.
_PEERS = ("peer.service", "server.address", "net.peer.name")


async def read_spans(body: bytes) -> list[Span]:
    """The spans of a request, without keeping the loop from running."""
    found: list[Span] = []
    for span in spans_of(TracesRequest.FromString(body)):
        found.append(span)
        if len(found) % PIECE == 0:
            await asyncio.sleep(0)
    return found


def spans_of(request: TracesRequest) -> Iterator[Span]:
    """Each span that has ids, as one of ours."""
    for resource in request.resource_spans:
        service = _named(resource.resource.attributes, "service.name") or _UNNAMED
        for scope in resource.scope_spans:
            for span in scope.spans:
                if _has_ids(span):
                    yield _span(span, service, scope.scope.name)


def _has_ids(span: OtlpSpan) -> bool:
    return len(span.trace_id) == 16 and len(span.span_id) == 8 and any(span.trace_id) and any(span.span_id)


def _span(span: OtlpSpan, service: str, scope: str) -> Span:
    attributes = dict(_pairs(span.attributes))
    return Span(
        context=SpanContext(
            int.from_bytes(span.trace_id, "big"),
            int.from_bytes(span.span_id, "big"),
            int.from_bytes(span.parent_span_id, "big") if len(span.parent_span_id) == 8 else 0,
            sampled=True,
            tracestate=parse_tracestate(span.trace_state.encode()) if span.trace_state else "",
        ),
        name=span.name,
        kind=_KINDS.get(span.kind, ""),
        start_ns=span.start_time_unix_nano,
        end_ns=max(span.end_time_unix_nano, span.start_time_unix_nano),
        service=service,
        remote_service=_peer(attributes) if span.kind in (SPAN_KIND_CLIENT, SPAN_KIND_PRODUCER) else "",
        attributes=tuple(attributes.items()),
        error=(span.status.message or "error") if span.status.code == STATUS_CODE_ERROR else None,
        events=tuple((event.time_unix_nano, _told(event)) for event in span.events),
        scope=scope,
    )


def trimmed(span: Span) -> Span:
    """The same without what takes up too much memory: long values are cut, and the last attributes and events left out."""
    texts = (_cut(span.name), _cut(span.service), _cut(span.remote_service), _cut(span.scope))
    left = SPAN_LIMIT - sum(map(len, texts))
    attributes, events = [], []
    for name, value in span.attributes:
        pair = (_cut(name), _cut(value))
        left -= len(pair[0]) + len(pair[1])
        if left < 0:
            break
        attributes.append(pair)
    for at_ns, told in span.events:
        text = _cut(told)
        left -= len(text)
        if left < 0:
            break
        events.append((at_ns, text))
    return replace(
        span,
        name=texts[0],
        service=texts[1],
        remote_service=texts[2],
        scope=texts[3],
        attributes=tuple(attributes),
        events=tuple(events),
        error=None if span.error is None else _cut(span.error),
    )


def _peer(attributes: dict[str, str]) -> str:
    return next((attributes[name] for name in _PEERS if attributes.get(name)), "")


def _pairs(attributes: Iterable[KeyValue]) -> Iterator[tuple[str, str]]:
    return ((pair.key, _text(pair.value)) for pair in attributes)


def _named(attributes: Iterable[KeyValue], name: str) -> str:
    return next((_text(pair.value) for pair in attributes if pair.key == name), "")


def _told(event: Event) -> str:
    return " ".join((event.name, *(f"{key}={value}" for key, value in _pairs(event.attributes))))


def _text(value: AnyValue) -> str:
    """A value as a tag has it: strings as they are, all else as JSON."""
    if value.HasField("string_value"):
        return value.string_value
    found = _plain(value, 0)
    return "" if found is None else json.dumps(found)


def _plain(value: AnyValue, depth: int) -> Any:  # noqa: ANN401 - JSON
    which = value.WhichOneof("value")
    if which is None or depth > _MAX_DEPTH:
        return None
    if which == "array_value":
        return [_plain(each, depth + 1) for each in value.array_value.values]
    if which == "kvlist_value":
        return {pair.key: _plain(pair.value, depth + 1) for pair in value.kvlist_value.values}
    found = getattr(value, which)
    return found.hex() if isinstance(found, bytes) else found


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_LIMIT else f"{text[: VALUE_LIMIT - 1]}…"
