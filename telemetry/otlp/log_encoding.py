"""Log lines as OTLP's log records. Pure.

Source: OpenTelemetry, Logs Data Model.
"""

import re
from collections.abc import Iterator, Sequence

from telemetry.otlp.encoding import attributes_of, sound
from telemetry.otlp.log_items import Lines, LogItem
from telemetry.otlp.messages_pb2 import (
    AnyValue,
    LogRecord,
    LogsRequest,
    Resource,
    ResourceLogs,
    Scope,
    ScopeLogs,
)

#: Records encoded without letting the loop run: well under 2 ms.
PIECE = 64
ACCESS_SCOPE = "postern.access_log"
_INFO = 9
# In JSON a quote within a value is escaped, so that this is the key and its value.
_TRACE = re.compile(rb'"trace_id":"([0-9a-f]{32})"')
_SPAN = re.compile(rb'"span_id":"([0-9a-f]{16})"')


def log_requests(items: Sequence[LogItem], resource: Resource) -> Iterator[bytes]:
    """Requests that export all of them, each by itself, in pieces."""
    held: dict[str, list[LogRecord]] = {}
    count = 0
    for scope, record in _records(items):
        held.setdefault(scope, []).append(record)
        count += 1
        if count == PIECE:
            yield _request(held, resource)
            held, count = {}, 0
    if held:
        yield _request(held, resource)


def _records(items: Sequence[LogItem]) -> Iterator[tuple[str, LogRecord]]:
    for item in items:
        if isinstance(item, Lines):
            for line in item.data.splitlines():
                yield ACCESS_SCOPE, _of_call(line, item.at_ns)
            continue
        yield (
            item.scope,
            LogRecord(
                time_unix_nano=item.at_ns,
                observed_time_unix_nano=item.at_ns,
                severity_number=item.severity,
                severity_text=item.level,
                body=AnyValue(string_value=sound(item.message)),
                attributes=attributes_of(item.attributes),
                trace_id=item.trace_id,
                span_id=item.span_id,
                flags=item.flags,
            ),
        )


def _of_call(line: bytes, at_ns: int) -> LogRecord:
    trace, span = _TRACE.search(line), _SPAN.search(line)
    return LogRecord(
        time_unix_nano=at_ns,
        observed_time_unix_nano=at_ns,
        severity_number=_INFO,
        severity_text="info",
        body=AnyValue(string_value=line.decode("utf-8", "replace")),
        trace_id=bytes.fromhex(trace[1].decode()) if trace else b"",
        span_id=bytes.fromhex(span[1].decode()) if span else b"",
    )


def _request(held: dict[str, list[LogRecord]], resource: Resource) -> bytes:
    scopes = [ScopeLogs(scope=Scope(name=name), log_records=records) for name, records in held.items()]
    return LogsRequest(resource_logs=[ResourceLogs(resource=resource, scope_logs=scopes)]).SerializeToString()
