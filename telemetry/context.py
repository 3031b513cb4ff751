"""Trace context: reading W3C, gRPC and B3 headers, deciding what is sampled, writing the headers of the next hop.

Pure: bytes in, values out. It knows nothing of requests, spans or clocks; `baggage` is left to others.
Source: W3C Trace Context; OpenCensus binary encoding (`grpc-trace-bin`); B3 propagation.
"""

import base64
import binascii
import math
import random
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
GRPC_TRACE_BIN = b"grpc-trace-bin"
B3 = b"b3"
B3_TRACE_ID = b"x-b3-traceid"
B3_SPAN_ID = b"x-b3-spanid"
B3_SAMPLED = b"x-b3-sampled"
B3_FLAGS = b"x-b3-flags"

#: Every header that `extract` may read; a proxy that writes context removes these first.
CONTEXT_HEADERS = frozenset(
    {TRACEPARENT, TRACESTATE, GRPC_TRACE_BIN, B3, B3_TRACE_ID, B3_SPAN_ID, B3_SAMPLED, B3_FLAGS}
)

#: W3C: a vendor list of at most 32 members; a longer one is dropped whole.
TRACESTATE_MEMBERS = 32

_LOW_64 = (1 << 64) - 1
# One regular expression instead of int(x, 16) alone, which also takes "+1", "1_0" and capitals.
_TRACEPARENT = re.compile(
    rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
).fullmatch
# As almost all are written, and read in two thirds of the time that the other takes.
_PLAIN = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]([0-9a-f])").fullmatch
_ODD = frozenset({b"1", b"3", b"5", b"7", b"9", b"b", b"d", b"f"})
_B3_SINGLE = re.compile(rb"([0-9a-f]{16}|[0-9a-f]{32})-([0-9a-f]{16})(?:-([01d])(?:-[0-9a-f]{16})?)?")
_B3_TRACE = re.compile(rb"[0-9a-f]{16}|[0-9a-f]{32}")
_B3_SPAN = re.compile(rb"[0-9a-f]{16}")
_STATE_MEMBER = re.compile(
    r"(?P<key>[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z0-9][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


class SpanContext(NamedTuple):
    """The identity of one span; ids are never 0, except `parent_id` of a root.

    A named tuple, not a frozen dataclass: one is made per call even when nothing is recorded (0.3 µs against 1).
    """

    trace_id: int
    span_id: int
    parent_id: int
    sampled: bool
    tracestate: str = ""


# The named tuple's own constructor is a Python function: this is half the cost.
_new = tuple.__new__


def extract(headers: Iterable[tuple[bytes, bytes]], *, grpc: bool, b3: bool = True) -> SpanContext | None:
    """The remote span that these headers (lower-case names) name, or None; invalid counts as absent.

    On gRPC `grpc-trace-bin` comes first, then `traceparent`, then B3; elsewhere `traceparent` is first. Where a gRPC call
    carries several values, the last was added by the nearest hop and wins; on HTTP two different `traceparent`s are invalid.
    """
    found: list[tuple[bytes, bytes]] | None = None
    for header in headers:
        if header[0] in CONTEXT_HEADERS:
            if found is None:
                found = [header]
            else:
                found.append(header)
    if found is None:
        return None
    return _from_found(found, grpc=grpc, b3=b3)


def _from_found(found: list[tuple[bytes, bytes]], *, grpc: bool, b3: bool) -> SpanContext | None:
    if len(found) == 1 and found[0][0] == TRACEPARENT:
        return parse_traceparent(found[0][1])
    parent = _traceparent_of([value for name, value in found if name == TRACEPARENT], last_wins=grpc)
    context = parent
    if grpc or parent is None:
        for name, value in found:
            if name == GRPC_TRACE_BIN:
                context = parse_grpc_trace_bin(value) or context
    if context is None:
        return _b3_of(dict(found)) if b3 else None
    if parent is not None and parent.trace_id != context.trace_id:
        return context  # the tracestate belongs to the other trace
    state = parse_tracestate(b",".join(value for name, value in found if name == TRACESTATE))
    return context._replace(tracestate=state) if state else context


def _traceparent_of(values: list[bytes], *, last_wins: bool) -> SpanContext | None:
    if not values:
        return None
    if last_wins or all(value == values[0] for value in values):
        return parse_traceparent(values[-1])
    return None


def parse_traceparent(value: bytes) -> SpanContext | None:
    """A W3C `traceparent`; later versions are read by the rules of version 00, `ff` is invalid."""
    plain = _PLAIN(value)
    if plain is not None:
        trace, span, flags = plain.groups()
        trace_id, span_id = int(trace, 16), int(span, 16)
        return _new(SpanContext, (trace_id, span_id, 0, flags in _ODD, "")) if trace_id and span_id else None
    match = _TRACEPARENT(value.strip(b" \t"))
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    return _checked(int(trace, 16), int(span, 16), sampled=bool(int(flags, 16) & 1))


def parse_tracestate(value: bytes) -> str:
    """The list normalised (empty members and white space gone), or "" when it is invalid or over 32 members."""
    if not value:
        return ""
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError:
        return ""
    members: dict[str, str] = {}
    for raw in text.split(","):
        member = raw.strip(" \t")
        if not member:
            continue
        match = _STATE_MEMBER.fullmatch(member)
        if match is None or match["key"] in members:
            return ""
        members[match["key"]] = member
    return ",".join(members.values()) if len(members) <= TRACESTATE_MEMBERS else ""


def parse_grpc_trace_bin(value: bytes) -> SpanContext | None:
    """`grpc-trace-bin` as it stands on the wire: base64, padded or not, several values joined by commas."""
    text = value.rpartition(b",")[2].strip(b" ")
    try:
        raw = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != 29 or raw[0] or raw[1] or raw[18] != 1 or raw[27] != 2:
        return None
    trace_id = int.from_bytes(raw[2:18], "big")
    return _checked(trace_id, int.from_bytes(raw[19:27], "big"), sampled=bool(raw[28] & 1))


def _b3_of(found: dict[bytes, bytes]) -> SpanContext | None:
    single = found.get(B3)
    if single is not None:
        match = _B3_SINGLE.fullmatch(single.strip(b" \t"))
        if match is not None:
            return _checked(int(match[1], 16), int(match[2], 16), sampled=match[3] in (b"1", b"d"))
    trace, span = found.get(B3_TRACE_ID, b""), found.get(B3_SPAN_ID, b"")
    if _B3_TRACE.fullmatch(trace) is None or _B3_SPAN.fullmatch(span) is None:
        return None
    sampled = found.get(B3_SAMPLED, b"").lower() in (b"1", b"true") or found.get(B3_FLAGS) == b"1"
    return _checked(int(trace, 16), int(span, 16), sampled=sampled)


def _checked(trace_id: int, span_id: int, *, sampled: bool) -> SpanContext | None:
    return _new(SpanContext, (trace_id, span_id, 0, sampled, "")) if trace_id and span_id else None


def format_traceparent(context: SpanContext) -> bytes:
    """The `traceparent` of a child's request or of an answer: always version 00."""
    return b"00-%032x-%016x-0%d" % (context[0], context[1], context[3])


def grpc_trace_bytes(context: SpanContext) -> bytes:
    """The 29 bytes of a `grpc-trace-bin` value, as gRPC libraries take it."""
    return b"\x00\x00%b\x01%b\x02%c" % (
        context[0].to_bytes(16, "big"),
        context[1].to_bytes(8, "big"),
        context[3],
    )


def format_grpc_trace_bin(context: SpanContext) -> bytes:
    """The `grpc-trace-bin` value as it goes on the wire: base64 without padding."""
    return base64.b64encode(grpc_trace_bytes(context)).rstrip(b"=")


class Sampler:
    """Parent-based ratio sampling; makes every new span's ids.

    A valid parent's decision holds whatever the rate; a root is sampled by its trace id's low 64 bits, so that
    everyone who reads that id decides alike.
    """

    __slots__ = ("_bits", "_bound", "rate")

    def __init__(self, rate: float, random: random.Random) -> None:
        rate = 0.0 if math.isnan(rate) else min(max(rate, 0.0), 1.0)
        self.rate = rate
        self._bound = int(rate * (1 << 63))
        self._bits = random.getrandbits

    def start(self, parent: SpanContext | None) -> SpanContext:
        """A new span: the child of `parent`, or a root."""
        span_id = self._bits(64) or 1
        if parent is not None:
            return _new(SpanContext, (parent[0], span_id, parent[1], parent[3], parent[4]))
        trace_id = self._bits(128) or 1
        return _new(SpanContext, (trace_id, span_id, 0, ((trace_id & _LOW_64) >> 1) < self._bound, ""))


class RuleSampler:
    """Samples new traces that one rule is for: a ratio by their ids, as `Sampler`, and at most so many a second.

    Mutable state: how many may be sampled now, up to what a second brings (at least one), and since when.
    """

    __slots__ = ("_bound", "_clock", "_left", "_per_s", "_since")

    def __init__(self, rate: float, per_s: float | None, clock: Callable[[], float]) -> None:
        self._bound = int(rate * (1 << 63))
        self._per_s = per_s
        self._clock = clock
        self._left, self._since = max(per_s or 0.0, 1.0), clock()

    def takes(self, trace_id: int) -> bool:
        """Whether a new trace of this id is sampled."""
        if ((trace_id & _LOW_64) >> 1) >= self._bound:
            return False
        if self._per_s is None:
            return True
        now = self._clock()
        self._left = min(self._left + (now - self._since) * self._per_s, max(self._per_s, 1.0))
        self._since = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
