"""What goes to a collector of logs, until it is encoded: lines of our own log, and whole lines of the access log."""

from msgspec import Struct

Pairs = tuple[tuple[str, str], ...]


class Told(Struct, frozen=True, kw_only=True):
    """A line of our log. severity: OpenTelemetry's number; trace_id and span_id: empty where it is about no call."""

    at_ns: int
    severity: int
    level: str
    scope: str
    message: str
    attributes: Pairs
    trace_id: bytes = b""
    span_id: bytes = b""
    flags: int = 0


class Lines(Struct, frozen=True, kw_only=True):
    """Lines of the access log, each with its end, and when they were taken."""

    at_ns: int
    data: bytes


LogItem = Told | Lines


def weigh(item: LogItem) -> tuple[int, int]:
    """Its lines and bytes, for a queue."""
    if isinstance(item, Lines):
        return item.data.count(b"\n"), len(item.data)
    return 1, len(item.message) + sum(len(name) + len(value) for name, value in item.attributes)
