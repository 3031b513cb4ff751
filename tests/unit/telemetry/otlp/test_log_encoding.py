"""Log lines as OTLP's records, beside OpenTelemetry's own messages."""

import logging

import pytest

from telemetry.logs import Line, call_fields
from telemetry.otlp.encoding import resource_of
from telemetry.otlp.log_encoding import ACCESS_SCOPE, PIECE, log_requests
from telemetry.otlp.log_export import told
from telemetry.otlp.log_items import Lines, Told, weigh
from telemetry.otlp.messages_pb2 import LogsRequest
from tests.unit.telemetry.building import SAMPLED

RESOURCE = resource_of("cart", ())
ACCESS = b'{"path":"/\\"trace_id\\":\\"x","trace_id":"%b","span_id":"%b"}\n' % (b"0a" * 16, b"0b" * 8)


def encoded(*items: Told | Lines) -> LogsRequest:
    return LogsRequest.FromString(b"".join(log_requests(items, RESOURCE)))


def test_line_of_the_log_has_its_trace_and_fields() -> None:
    line = Line("postern.x", logging.WARNING, "it failed", {"count": 3, **call_fields(SAMPLED, "spiffe://p")})
    line.__dict__["suppressed"] = 2
    (resource,) = encoded(told(line)).resource_logs
    assert resource.resource.attributes[0].value.string_value == "cart"
    (scope,) = resource.scope_logs
    (record,) = scope.log_records
    assert (scope.scope.name, record.body.string_value) == ("postern.x", "it failed")
    assert (record.severity_number, record.severity_text, record.flags) == (13, "warning", 1)
    assert record.trace_id == SAMPLED.trace_id.to_bytes(16, "big")
    assert record.span_id == SAMPLED.span_id.to_bytes(8, "big")
    assert {pair.key: pair.value.string_value for pair in record.attributes} == {
        "count": "3",
        "peer": "spiffe://p",
        "suppressed": "2",
    }


def test_exception_is_an_attribute_and_libraries_lines_are_taken() -> None:
    with pytest.raises(ValueError, match="no") as caught:
        int("no")
    record = logging.LogRecord(
        "lib", logging.ERROR, "", 0, "broke: %s", ("x",), (ValueError, caught.value, None)
    )
    found = told(record)
    assert (found.message, found.severity, found.scope) == ("broke: x", 17, "lib")
    assert "ValueError: invalid literal" in dict(found.attributes)["exception.stacktrace"]


def test_lines_of_the_access_log_are_records_with_their_trace() -> None:
    (resource,) = encoded(Lines(at_ns=5, data=ACCESS + b"GET /x 200\n")).resource_logs
    (scope,) = resource.scope_logs
    first, second = scope.log_records
    assert (scope.scope.name, first.body.string_value) == (ACCESS_SCOPE, ACCESS.decode().rstrip())
    assert (first.trace_id, first.span_id) == (b"\x0a" * 16, b"\x0b" * 8)
    assert (second.body.string_value, second.trace_id, second.time_unix_nano) == ("GET /x 200", b"", 5)


def test_many_lines_go_in_pieces_and_weigh_what_they_hold() -> None:
    item = Lines(at_ns=5, data=b"x\n" * (2 * PIECE + 1))
    assert weigh(item) == (2 * PIECE + 1, 4 * PIECE + 2)
    assert len(list(log_requests((item,), RESOURCE))) == 3


def test_opentelemetry_reads_the_same() -> None:
    official = pytest.importorskip("opentelemetry.proto.collector.logs.v1.logs_service_pb2")
    line = Line("postern", logging.INFO, "hello", {"a": "b", **call_fields(SAMPLED)})
    body = b"".join(log_requests((told(line), Lines(at_ns=5, data=ACCESS)), RESOURCE))
    read = official.ExportLogsServiceRequest.FromString(body)
    read.DiscardUnknownFields()
    assert read.SerializeToString() == body
