"""A strict scan of HTTP/1.1 heads and chunked bodies, on the bytes before `h11` sees them.

`h11` tolerates bare LF, folded lines and `Content-Length: 3, 3`; the next parser on the path may read such bytes differently, and that
difference is request smuggling. Here nothing is tolerated: what RFC 9112 does not allow is a `Refusal`. Pure; no I/O, no clock.
Source: RFC 9112 §2 to §7, RFC 9110 §5.
"""

import re
from typing import Literal

from msgspec import Struct

from proxy.contract.engine import Limits
from proxy.contract.head import Header, Headers

Kind = Literal[
    "bare-line-end",
    "chunk",
    "content-length",
    "control-byte",
    "field-count",
    "field-line",
    "framing",
    "head-size",
    "head-timeout",
    "host",
    "method",
    "start-line",
    "target",
    "trailer",
    "transfer-encoding",
    "version",
]

# RFC 3986 §3.2 without user information: a name or an address in brackets, and a port.
AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[A-Za-z0-9._~!$&'()*+,;=%:-]+\])(?::[0-9]{0,5})?")
MAX_TARGET_BYTES = 65_534  # what the native engine's library holds
_NAME = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
TOKEN = re.compile(_NAME)  # RFC 9110 §5.6.2: methods and names of fields
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# The possessive quantifiers keep a hostile line linear. CR and LF are known to come in pairs when this runs.
_FIELD = re.compile(rb"^(" + _NAME + rb"):[ \t]*+([^\r\n]*+)\r\n", re.MULTILINE)
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Z]+) ([\x21-\x7e]+) HTTP/1\.([0-9])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_LINE_PARTS = re.compile(rb"([^ ]*) ([^ ]*) ([^ ]*)")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_HTTP_URL = re.compile(rb"(?i:https?)://[^/?#@]")
_HOST_PORT = re.compile(rb"[A-Za-z0-9._~%\[\]:-]+:[0-9]{1,5}")
_LENGTH = re.compile(rb"[0-9]{1,18}")  # 18 digits fit every signed 64-bit counter on the way

# Fields that speak of this connection or of framing; they are read here and never forwarded as they are.
_OURS = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})
_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"http2-settings"}
)
_HOP_OR_HOST = _HOP | {b"host"}
_NEVER_IN_TRAILERS = frozenset({b"content-length", b"transfer-encoding", b"host"})


class Refusal(Struct, frozen=True):
    """Why a message is not read. status: the answer if it was a request. kind: for counters. text: for people."""

    status: int
    kind: Kind
    text: str


class RequestStart(Struct, frozen=True):
    """A request head. headers: all fields, names lower-case, in order. options: the Connection options, lower-case."""

    method: bytes
    target: bytes
    minor: int
    headers: list[Header]
    host: bytes
    length: int | None
    chunked: bool
    options: frozenset[bytes]

    def forwarded(self) -> Headers:
        """The fields that concern the next hop: without Host, hop-by-hop fields and what Connection lists."""
        return _forwarded(self.headers, _HOP_OR_HOST, self.options)


class ResponseStart(Struct, frozen=True):
    """A response head; see RequestStart."""

    status: int
    minor: int
    headers: list[Header]
    length: int | None
    chunked: bool
    options: frozenset[bytes]

    def forwarded(self) -> Headers:
        """The fields that concern the next hop. A 1xx or 204 has no length, whatever it says (RFC 9110 §8.6)."""
        drop = _HOP if self.status >= 200 and self.status != 204 else _HOP | {b"content-length"}
        if self.status == 501:
            drop |= {DECLINED}  # ours to say
        if self.status != 426:
            return _forwarded(self.headers, drop, self.options)
        upgrade = b", ".join([data for name, data in self.headers if name == b"upgrade"])
        kept = _forwarded(self.headers, drop | {UPGRADE}, self.options)
        return (*kept, (UPGRADE, upgrade)) if upgrade else kept


class _Fields(Struct, frozen=True):
    headers: list[Header]
    hosts: list[bytes]
    length: int | None
    chunked: bool
    options: frozenset[bytes]


_NO_OPTIONS: frozenset[bytes] = frozenset()
# What a 426 must say (RFC 9110 §15.5.22), between the two HTTP/1.1 ends of a call: Upgrade itself goes no further than one hop.
UPGRADE = b"postern-upgrade"
# The status of an app that goes on in HTTP where it was offered a WebSocket: over HTTP/2 a 2xx accepts (RFC 8441 §5), so 501 stands for it.
DECLINED = b"postern-declined"


def _forwarded(headers: list[Header], drop: frozenset[bytes], options: frozenset[bytes]) -> Headers:
    if options:
        drop = drop | (options - {b"content-length"})  # framing is not the sender's to take away
    return tuple([field for field in headers if field[0] not in drop])


class HeadCollector:
    """Collects the pieces of one head. Owns `rest`: what came after the head's end."""

    __slots__ = ("_held", "_limit", "rest")

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.head_bytes
        self._held = bytearray()
        self.rest = b""

    @property
    def started(self) -> bool:
        """Whether part of a head is held."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes | Refusal | None:
        """The whole head with its empty line, None if more is needed, or why it is hopeless already."""
        held = self._held
        if not held:
            end = data.find(b"\r\n\r\n")
            if end >= 0:
                return self._complete(data, end + 4)
        start = len(held)
        held += data
        end = held.find(b"\r\n\r\n", max(0, start - 3))
        if end >= 0:
            whole = bytes(held)
            held.clear()
            return self._complete(whole, end + 4)
        if len(held) > self._limit:
            return _too_large(held, self._limit)
        return _check_bytes(bytes(held[max(0, start - 1) :]), partial=True)

    def _complete(self, data: bytes, end: int) -> bytes | Refusal:
        if end > self._limit:
            return _too_large(data, self._limit)
        if end == len(data):
            self.rest = b""
            return data
        self.rest = data[end:]
        return data[:end]


def _too_large(data: bytes | bytearray, limit: int) -> Refusal:
    if data.find(b"\r\n", 0, limit) < 0:
        return Refusal(414, "target", f"the request line is longer than {limit} bytes")
    return Refusal(431, "head-size", f"the head is larger than {limit} bytes")


def _check_bytes(data: bytes, *, partial: bool) -> Refusal | None:
    control = _CONTROL.search(data)
    if control is not None:
        if control[0] == b"\0" and control.start() == 0:
            return Refusal(400, "control-byte", "the head begins with the byte 0x00, as frames of HTTP/2 do")
        return Refusal(400, "control-byte", f"the head holds the control byte 0x{control[0][0]:02x}")
    pairs = data.count(b"\r\n")
    # The piece may begin with the last byte of the one before and end between CR and LF.
    bare_lf = data.count(b"\n") - pairs - (partial and data[:1] == b"\n")
    bare_cr = data.count(b"\r") - pairs - (partial and data[-1:] == b"\r")
    if bare_lf or bare_cr:
        return Refusal(400, "bare-line-end", "a line of the head does not end in CRLF")
    return None


def scan_request(head: bytes, limits: Limits) -> RequestStart | Refusal:
    """Read a whole request head, empty line included."""
    cut = head.index(b"\r\n")
    line = _REQUEST_LINE.fullmatch(head, 0, cut)
    bad = _check_bytes(head, partial=False)
    if bad is not None or line is None:
        return bad or _explain_request_line(head[:cut])
    # A later 1.x is read as the latest that we know (RFC 9110 §2.5).
    method, target, minor = line[1], line[2], min(int(line[3]), 1)
    if len(target) > MAX_TARGET_BYTES:
        return Refusal(414, "target", f"the request target is longer than {MAX_TARGET_BYTES} bytes")
    if target[:1] != b"/" or b"#" in target or method == b"CONNECT":
        refused = _check_target(method, target)
        if refused is not None:
            return refused
    fields = _scan_fields(head[cut + 2 : -2], limits, minor)
    if isinstance(fields, Refusal):
        return fields
    host = _the_host(fields.hosts, minor)
    if isinstance(host, Refusal):
        return host
    return RequestStart(
        method, target, minor, fields.headers, host, fields.length, fields.chunked, fields.options
    )


def _the_host(hosts: list[bytes], minor: int) -> bytes | Refusal:
    if len(hosts) == 1:
        if AUTHORITY.fullmatch(hosts[0]) is not None:
            return hosts[0]
        return Refusal(400, "host", "the Host field is not a host and port")
    if hosts or minor:
        return Refusal(400, "host", "a request needs exactly one Host field")
    return b""


def _explain_request_line(line: bytes) -> Refusal:
    parts = _LINE_PARTS.fullmatch(line)
    if parts is None:
        return Refusal(400, "start-line", "the request line is not 'METHOD target HTTP/1.1'")
    method, _, version = parts.groups()
    if TOKEN.fullmatch(method) is None:
        return Refusal(400, "method", "the method holds bytes that no method may hold")
    if method.upper() != method:
        return Refusal(400, "method", "methods are upper-case")
    if _VERSION.fullmatch(version) is None:
        return Refusal(400, "start-line", "the request line does not end in an HTTP version")
    if version[:7] != b"HTTP/1.":
        return Refusal(505, "version", "this port speaks HTTP/1.1, HTTP/1.0 and HTTP/2")
    return Refusal(400, "target", "the request target is empty or holds bytes that must be escaped")


def _check_target(method: bytes, target: bytes) -> Refusal | None:
    if b"#" in target:
        return Refusal(400, "target", "the request target holds a fragment ('#')")
    if method == b"CONNECT":
        if _HOST_PORT.fullmatch(target) is not None:
            return None
        return Refusal(400, "target", "CONNECT needs a target of the form host:port")
    if (target == b"*" and method == b"OPTIONS") or _HTTP_URL.match(target) is not None:
        return None
    return Refusal(400, "target", "the request target is neither a path nor an http URL")


def scan_response(head: bytes, limits: Limits) -> ResponseStart | Refusal:
    """Read a whole response head of an app, empty line included."""
    bad = _check_bytes(head, partial=False)
    if bad is not None:
        return bad
    cut = head.index(b"\r\n")
    line = _STATUS_LINE.fullmatch(head, 0, cut)
    if line is None:
        return Refusal(400, "start-line", "the status line is not 'HTTP/1.1 code reason'")
    minor = int(line[1])
    fields = _scan_fields(head[cut + 2 : -2], limits, minor)
    if isinstance(fields, Refusal):
        return fields
    return ResponseStart(int(line[2]), minor, fields.headers, fields.length, fields.chunked, fields.options)


def _scan_lines(block: bytes, limits: Limits) -> list[Header] | Refusal:
    lines = block.count(b"\n")
    if lines > limits.header_count:
        return Refusal(431, "field-count", f"the head has more than {limits.header_count} fields")
    found = _FIELD.findall(block)
    if len(found) != lines:
        return _explain_field(block)
    return [(name.lower(), data.rstrip(b" \t")) for name, data in found]


def _explain_field(block: bytes) -> Refusal:
    text = "a header line is not 'name: value'"
    for line in block.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            text = "a header line is folded"
            break
        name, colon, _ = line.partition(b":")
        if colon and name != name.rstrip(b" \t"):
            text = "a header name is followed by white space"
            break
        if line and (not colon or TOKEN.fullmatch(name) is None):
            text = "a header name is empty or holds bytes that no name may hold"
            break
    return Refusal(400, "field-line", text)


def _scan_fields(block: bytes, limits: Limits, minor: int) -> _Fields | Refusal:
    headers = _scan_lines(block, limits)
    if isinstance(headers, Refusal):
        return headers
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    connection: list[bytes] = []
    for name, data in headers:
        if name in _OURS:
            if name == b"host":
                hosts.append(data)
            elif name == b"content-length":
                lengths.append(data)
            elif name == b"connection":
                connection.append(data)
            else:
                codings.append(data)
    if codings:
        refused = _check_codings(codings, minor, bool(lengths))
        if refused is not None:
            return refused
    elif lengths and (len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None):
        return Refusal(400, "content-length", "Content-Length is not one plain number")
    options = _options(connection) if connection else _NO_OPTIONS
    return _Fields(headers, hosts, int(lengths[0]) if lengths else None, bool(codings), options)


def _options(connection: list[bytes]) -> frozenset[bytes]:
    return frozenset(option.strip(b" \t") for option in b",".join(connection).lower().split(b","))


def _check_codings(codings: list[bytes], minor: int, has_length: bool) -> Refusal | None:
    if has_length:
        return Refusal(400, "framing", "Content-Length and Transfer-Encoding exclude each other")
    if minor == 0:
        return Refusal(400, "transfer-encoding", "HTTP/1.0 has no Transfer-Encoding")
    if len(codings) == 1 and codings[0].lower() == b"chunked":
        return None
    names = [name.strip(b" \t") for name in b",".join(codings).lower().split(b",")]
    sound = all(TOKEN.match(name) for name in names)
    if not sound or b"chunked" in names[:-1]:
        return Refusal(400, "transfer-encoding", "Transfer-Encoding is malformed")
    return Refusal(501, "transfer-encoding", "only the transfer coding 'chunked' is understood")


def scan_trailers(block: bytes, limits: Limits) -> Headers | Refusal:
    """Read trailer lines (without the empty line). Framing fields are refused, connection fields left out."""
    bad = _check_bytes(block, partial=False)
    if bad is not None:
        return Refusal(400, "trailer", "the trailers hold a control byte or a bare line end")
    fields = _scan_lines(block, limits)
    if isinstance(fields, Refusal):
        return Refusal(fields.status, "trailer", fields.text)
    if any(name in _NEVER_IN_TRAILERS for name, _ in fields):
        return Refusal(400, "trailer", "the trailers hold a framing field")
    return tuple([field for field in fields if field[0] not in _HOP])
