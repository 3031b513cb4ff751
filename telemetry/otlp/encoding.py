"""Our spans in OTLP's messages. Pure."""

from collections.abc import Iterable, Sequence

from telemetry import names
from telemetry.otlp.messages_pb2 import (
    SPAN_KIND_CLIENT,
    SPAN_KIND_INTERNAL,
    SPAN_KIND_SERVER,
    STATUS_CODE_ERROR,
    AnyValue,
    Event,
    KeyValue,
    Resource,
    ResourceSpans,
    Scope,
    ScopeSpans,
    SpanStatus,
    TracesRequest,
)
from telemetry.otlp.messages_pb2 import Span as OtlpSpan
from telemetry.spans import SCOPE, Span

_KINDS = {"CLIENT": SPAN_KIND_CLIENT, "SERVER": SPAN_KIND_SERVER}
# W3C flags in the low byte, then whether it is known that the parent is of another process, and that it is.
_SAMPLED_CHILD_OF_REMOTE = 0x301
_SAMPLED = 0x001

Pairs = Iterable[tuple[str, str]]


def resource_of(service: str, attributes: Pairs) -> Resource:
    """What the spans are about: the service, under its own name where the attributes name none."""
    return Resource(attributes=attributes_of({"service.name": service, **dict(attributes)}.items()))


def traces_request(spans: Sequence[Span], resource: Resource) -> bytes:
    """The request that exports these. Two requests on end are one with the spans of both, as messages are joined by appending."""
    scope = Scope(name=SCOPE)
    made = ScopeSpans(scope=scope, spans=[_span(span) for span in spans])
    return TracesRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[made])]
    ).SerializeToString()


def _span(span: Span) -> OtlpSpan:
    context = span.context
    attributes = dict(span.attributes)
    if span.remote_service:
        attributes.setdefault(names.PEER_SERVICE, span.remote_service)
    made = OtlpSpan(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        trace_state=context.tracestate,
        parent_span_id=context.parent_id.to_bytes(8, "big") if context.parent_id else b"",
        flags=_SAMPLED_CHILD_OF_REMOTE if context.parent_id else _SAMPLED,
        name=sound(span.name),
        kind=_KINDS.get(span.kind, SPAN_KIND_INTERNAL),
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=max(span.end_ns, span.start_ns),
        attributes=attributes_of(attributes.items()),
        events=[_event(at_ns, text) for at_ns, text in span.events],
    )
    if span.error is not None:
        made.status.CopyFrom(SpanStatus(code=STATUS_CODE_ERROR, message=sound(span.error)))
    return made


def _event(at_ns: int, text: str) -> Event:
    """`retry attempt=2 reason=503` is the event `retry` with two attributes."""
    name, *words = text.split(" ")
    pairs = (word.partition("=") for word in words)
    attributes = ((key, value) for key, _, value in pairs)
    return Event(time_unix_nano=at_ns, name=sound(name), attributes=attributes_of(attributes))


def attributes_of(pairs: Pairs) -> list[KeyValue]:
    """Attributes with values that are text."""
    return [KeyValue(key=sound(key), value=AnyValue(string_value=sound(value))) for key, value in pairs]


def sound(text: str) -> str:
    """The text without halves of surrogate pairs, which escapes in a path can write and UTF-8 has no form for."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
