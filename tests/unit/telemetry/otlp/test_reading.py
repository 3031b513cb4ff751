"""What apps export, as our spans."""

from typing import Any

from telemetry.otlp.messages_pb2 import (
    SPAN_KIND_INTERNAL,
    SPAN_KIND_PRODUCER,
    STATUS_CODE_ERROR,
    AnyValue,
    ArrayValue,
    Event,
    KeyValue,
    KeyValueList,
    Resource,
    ResourceSpans,
    Scope,
    ScopeSpans,
    Span,
    SpanStatus,
    TracesRequest,
)
from telemetry.otlp.reading import SPAN_LIMIT, read_spans, spans_of, trimmed
from telemetry.otlp.requests import item_count
from tests.unit.telemetry.building import BEGAN, a_span

IDS: dict[str, Any] = {"trace_id": b"\1" * 16, "span_id": b"\2" * 8}


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def request(*spans: Span, service: str = "shop") -> TracesRequest:
    resource = Resource(attributes=[text("service.name", service)] if service else [])
    scope = ScopeSpans(scope=Scope(name="lib"), spans=spans)
    return TracesRequest(resource_spans=[ResourceSpans(resource=resource, scope_spans=[scope])])


def test_values_of_every_kind_are_text() -> None:
    values = {
        "s": AnyValue(string_value="x"),
        "b": AnyValue(bool_value=True),
        "i": AnyValue(int_value=-3),
        "d": AnyValue(double_value=0.5),
        "y": AnyValue(bytes_value=b"\xff"),
        "l": AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue(string_value="a")])),
        "m": AnyValue(kvlist_value=KeyValueList(values=[text("k", "v")])),
        "none": AnyValue(),
    }
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    (read,) = spans_of(request(Span(**IDS, attributes=pairs)))
    assert dict(read.attributes) == {
        "s": "x",
        "b": "true",
        "i": "-3",
        "d": "0.5",
        "y": '"ff"',
        "l": '[1, "a"]',
        "m": '{"k": "v"}',
        "none": "",
    }


def test_span_is_read_whole() -> None:
    event = Event(
        time_unix_nano=BEGAN + 1, name="exception", attributes=[text("exception.type", "ValueError")]
    )
    span = Span(
        **IDS,
        parent_span_id=b"\3" * 8,
        name="charge",
        kind=SPAN_KIND_PRODUCER,
        start_time_unix_nano=BEGAN,
        end_time_unix_nano=BEGAN - 5,
        attributes=[text("server.address", "queue")],
        events=[event],
        status=SpanStatus(code=STATUS_CODE_ERROR),
    )
    (read,) = spans_of(request(span))
    assert (read.service, read.scope, read.name, read.kind) == ("shop", "lib", "charge", "PRODUCER")
    assert (read.context.parent_id, read.start_ns, read.end_ns) == (0x0303030303030303, BEGAN, BEGAN)
    assert (read.error, read.remote_service) == ("error", "queue")
    assert read.events == ((BEGAN + 1, "exception exception.type=ValueError"),)
    assert read.as_dict()["tags"]["otel.scope.name"] == "lib"


def test_internal_span_has_no_kind_for_zipkin() -> None:
    (read,) = spans_of(request(Span(**IDS, kind=SPAN_KIND_INTERNAL), service=""))
    assert "kind" not in read.as_dict()
    assert read.service == "unknown_service"


def test_span_without_ids_is_counted_and_not_read() -> None:
    asked = request(Span(name="none"), Span(trace_id=b"\1" * 16, span_id=b"\0" * 8), Span(**IDS))
    assert item_count(asked) == 3
    assert len(list(spans_of(asked))) == 1


def test_trimmed_span_is_bounded_and_a_small_one_unchanged() -> None:
    small = a_span(events=((1, "e"),), error="x")
    assert trimmed(small) == small
    many = tuple((f"k{n}", "v" * 5000) for n in range(100))
    large = trimmed(a_span(name="n" * 5000, attributes=many, events=((1, "e" * 9000),) * 9, error="x" * 9999))
    held = [large.name, large.error or "", *(word for pair in large.attributes for word in pair)]
    held += [told for _, told in large.events]
    assert sum(map(len, held)) <= 2 * SPAN_LIMIT
    assert large.name.endswith("…")
    assert large.attributes


async def test_many_spans_are_read_in_pieces() -> None:
    body = request(*(Span(**IDS, name=str(n)) for n in range(200))).SerializeToString()
    assert [span.name for span in await read_spans(body)] == [str(n) for n in range(200)]
