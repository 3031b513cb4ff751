"""Our spans as OTLP, and back."""

import pytest

from telemetry.otlp.encoding import resource_of, traces_request
from telemetry.otlp.messages_pb2 import TracesRequest
from telemetry.otlp.reading import spans_of
from telemetry.otlp.requests import item_count
from tests.unit.telemetry.building import BEGAN, SAMPLED, a_span


def test_request_holds_what_the_span_says() -> None:
    span = a_span(
        context=SAMPLED._replace(parent_id=0xB2, tracestate="a=1"),
        error="Code(503): Service Unavailable",
        events=(
            (BEGAN + 5, "retry attempt=2 reason=503 delay_ms=20 endpoint=10.0.0.7:5000"),
            (BEGAN + 9, "timeout"),
        ),
    )
    request = TracesRequest.FromString(traces_request([span], resource_of("cart", [("zone", "a")])))
    (resource,) = request.resource_spans
    assert {pair.key: pair.value.string_value for pair in resource.resource.attributes} == {
        "service.name": "cart",
        "zone": "a",
    }
    (scope,) = resource.scope_spans
    assert scope.scope.name == "dapr-diagnostics"
    (made,) = scope.spans
    assert made.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (made.span_id.hex(), made.parent_span_id.hex()) == ("00000000000000a1", "00000000000000b2")
    assert (made.flags, made.trace_state, made.kind) == (0x301, "a=1", 3)
    assert (made.start_time_unix_nano, made.end_time_unix_nano) == (BEGAN, BEGAN + 2_000_000)
    assert (made.status.code, made.status.message) == (2, "Code(503): Service Unavailable")
    assert {pair.key: pair.value.string_value for pair in made.attributes} == {
        "dapr.protocol": "http",
        "peer.service": "checkout",
    }
    retry, timeout = made.events
    assert (retry.name, retry.time_unix_nano, timeout.name) == ("retry", BEGAN + 5, "timeout")
    assert [(pair.key, pair.value.string_value) for pair in retry.attributes] == [
        ("attempt", "2"),
        ("reason", "503"),
        ("delay_ms", "20"),
        ("endpoint", "10.0.0.7:5000"),
    ]


def test_root_without_error_says_so() -> None:
    request = TracesRequest.FromString(traces_request([a_span()], resource_of("cart", ())))
    (made,) = request.resource_spans[0].scope_spans[0].spans
    assert (made.parent_span_id, made.flags, made.status.code) == (b"", 1, 0)


def test_service_of_the_attributes_wins() -> None:
    (named,) = resource_of("cart", [("service.name", "other")]).attributes
    assert named.value.string_value == "other"


def test_half_a_surrogate_pair_is_replaced() -> None:
    request = TracesRequest.FromString(traces_request([a_span(name="a\ud800b")], resource_of("cart", ())))
    assert request.resource_spans[0].scope_spans[0].spans[0].name == "a?b"


def test_requests_on_end_are_one() -> None:
    resource = resource_of("cart", ())
    pieces = [traces_request([a_span(), a_span()], resource), traces_request([a_span()], resource)]
    assert item_count(TracesRequest.FromString(b"".join(pieces))) == 3


def test_what_is_written_is_read_again() -> None:
    span = a_span(context=SAMPLED._replace(parent_id=7), error="no", remote_host="", remote_port=0)
    (read,) = spans_of(TracesRequest.FromString(traces_request([span], resource_of("cart", ()))))
    assert (read.context, read.name, read.kind, read.service) == (span.context, span.name, "CLIENT", "cart")
    assert (read.error, read.remote_service, read.scope) == ("no", "checkout", "dapr-diagnostics")


def test_opentelemetry_reads_the_same() -> None:
    """Its own messages read ours without an unknown field, and write the same bytes."""
    official = pytest.importorskip(
        "opentelemetry.proto.collector.trace.v1.trace_service_pb2",
        reason="opentelemetry-proto is not installed: pip install -e '.[dev]'",
    )
    span = a_span(
        context=SAMPLED._replace(parent_id=3, tracestate="a=1"),
        error="no",
        events=((BEGAN, "retry attempt=2"),),
    )
    body = traces_request([span], resource_of("cart", ()))
    read = official.ExportTraceServiceRequest.FromString(body)
    assert read.SerializeToString() == body
    made = read.resource_spans[0].scope_spans[0].spans[0]
    assert (made.name, made.flags, made.status.message) == (span.name, 0x301, "no")
    read.DiscardUnknownFields()
    assert read.SerializeToString() == body
