"""HTTP/1.1 messages as bytes, with what an engine makes of them. One corpus for both engines, sans-io and over sockets.

Sources: RFC 9112 and RFC 9110 (section beside the entry where it isn't plain); classes of public request-smuggling research.
"""

from dataclasses import dataclass

from proxy.contract.engine import Limits


@dataclass(frozen=True, slots=True)
class Bad:
    """A message to refuse. status: the answer, after which the connection closes."""

    name: str
    data: bytes
    status: int = 400


def _get(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a\r\n") -> bytes:
    return start + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def _post(*lines: bytes, body: bytes = b"") -> bytes:
    return _get(*lines, start=b"POST / HTTP/1.1") + body


_LIMITS = Limits()

BAD_HEADS = (
    # line ends and control bytes (RFC 9112 §2.2)
    Bad("bare-lf-everywhere", b"GET / HTTP/1.1\nHost: a\n\n"),
    Bad("bare-lf-in-start-line", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    Bad("bare-lf-between-fields", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
    Bad("bare-lf-at-the-end", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    Bad("bare-lf-hides-a-field", _get(b"X: y\nContent-Length: 3")),
    Bad("bare-cr-in-value", _get(b"X: y\rContent-Length: 3")),
    Bad("bare-cr-in-target", b"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n"),
    Bad("bare-cr-before-crlf", _get(b"X: y\r")),
    Bad("nul-in-value", _get(b"X: a\x00b")),
    Bad("nul-in-name", _get(b"X\x00: a")),
    Bad("vertical-tab-before-value", _get(b"Transfer-Encoding:\x0bchunked")),
    Bad("form-feed-in-value", _get(b"X: a\x0cb")),
    Bad("escape-in-value", _get(b"X: \x1b[2J")),
    Bad("del-in-value", _get(b"X: a\x7f")),
    Bad("tls-client-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    # the request line (RFC 9112 §3)
    Bad("http-0.9", b"GET /\r\n\r\n"),
    Bad("lower-case-method", _get(start=b"get / HTTP/1.1")),
    Bad("mixed-case-method", _get(start=b"Get / HTTP/1.1")),
    Bad("method-with-bracket", _get(start=b"G(T / HTTP/1.1")),
    Bad("empty-method", _get(start=b" / HTTP/1.1")),
    Bad("two-spaces-before-target", _get(start=b"GET  / HTTP/1.1")),
    Bad("two-spaces-before-version", _get(start=b"GET /  HTTP/1.1")),
    Bad("tab-for-space", _get(start=b"GET\t/ HTTP/1.1")),
    Bad("space-in-target", _get(start=b"GET /a b HTTP/1.1")),
    Bad("space-after-version", _get(start=b"GET / HTTP/1.1 ")),
    Bad("space-before-method", _get(start=b" GET / HTTP/1.1")),
    Bad("lower-case-version", _get(start=b"GET / http/1.1")),
    Bad("version-without-minor", _get(start=b"GET / HTTP/1")),
    Bad("version-with-sign", _get(start=b"GET / HTTP/+1.1")),
    Bad("http-3.0", _get(start=b"GET / HTTP/3.0"), 505),
    Bad("utf-8-in-target", _get(start="GET /ä HTTP/1.1".encode())),
    Bad("fragment-in-target", _get(start=b"GET /a#b HTTP/1.1")),
    Bad("relative-target", _get(start=b"GET a/b HTTP/1.1")),
    Bad("star-with-get", _get(start=b"GET * HTTP/1.1")),
    Bad("authority-with-get", _get(start=b"GET a:80 HTTP/1.1")),
    Bad("foreign-scheme", _get(start=b"GET ftp://a/ HTTP/1.1")),
    Bad("absolute-without-authority", _get(start=b"GET http:///a HTTP/1.1")),
    Bad("connect-with-path", _get(start=b"CONNECT /a HTTP/1.1")),
    Bad("connect-without-port", _get(start=b"CONNECT a HTTP/1.1")),
    # field lines (RFC 9112 §5)
    Bad("obs-fold", _get(b"X: a", b" b")),
    Bad("obs-fold-with-tab", _get(b"X: a", b"\tb")),
    Bad("fold-before-first-field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    Bad("space-before-colon", _get(b"X : a")),
    Bad("tab-before-colon", _get(b"X\t: a")),
    Bad("space-before-te-colon", _post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n")),
    Bad("empty-name", _get(b": a")),
    Bad("no-colon", _get(b"X")),
    Bad("name-with-space", _get(b"X Y: a")),
    Bad("name-with-bracket", _get(b"X[0]: a")),
    Bad("name-with-slash", _get(b"X/Y: a")),
    Bad("name-with-at", _get(b"X@Y: a")),
    Bad("name-with-quote", _get(b'"X": a')),
    Bad("name-in-utf-8", _get("Ünicode: a".encode())),
    # Host (RFC 9112 §3.2)
    Bad("no-host", b"GET / HTTP/1.1\r\n\r\n"),
    Bad("two-hosts", _get(b"Host: b")),
    Bad("two-equal-hosts", _get(b"Host: a")),
    Bad("host-with-user", _get(host=b"Host: u@a\r\n")),
    Bad("host-with-path", _get(host=b"Host: a/b\r\n")),
    Bad("host-with-space", _get(host=b"Host: a b\r\n")),
    Bad("host-with-comma-and-space", _get(host=b"Host: a, b\r\n")),
    Bad("host-in-utf-8", _get(host="Host: ä\r\n".encode())),
    # Content-Length (RFC 9110 §8.6)
    Bad("length-with-sign", _post(b"Content-Length: +5", body=b"hello")),
    Bad("length-negative", _post(b"Content-Length: -1")),
    Bad("length-list", _post(b"Content-Length: 3, 3", body=b"abc")),
    Bad("length-list-differs", _post(b"Content-Length: 3, 4", body=b"abc")),
    Bad("length-with-junk", _post(b"Content-Length: 3x", body=b"abc")),
    Bad("length-with-space-inside", _post(b"Content-Length: 1 2", body=b"abc")),
    Bad("length-hex", _post(b"Content-Length: 0x3", body=b"abc")),
    Bad("length-with-underscore", _post(b"Content-Length: 1_0", body=b"0123456789")),
    Bad("length-empty", _post(b"Content-Length:")),
    Bad("length-decimal", _post(b"Content-Length: 3.0", body=b"abc")),
    Bad("length-beyond-64-bits", _post(b"Content-Length: 18446744073709551617")),
    Bad("length-in-arabic-digits", _post("Content-Length: ٣".encode(), body=b"abc")),
    Bad("two-lengths-differ", _post(b"Content-Length: 3", b"Content-Length: 4", body=b"abc")),
    Bad("two-lengths-equal", _post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc")),
    # Transfer-Encoding (RFC 9112 §6.1)
    Bad("length-then-chunked", _post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    Bad("chunked-then-length", _post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n")),
    Bad("zero-length-and-chunked", _post(b"Content-Length: 0", b"Transfer-Encoding: chunked")),
    Bad("length-and-unknown-coding", _post(b"Content-Length: 3", b"Transfer-Encoding: x", body=b"abc")),
    Bad("unknown-coding", _post(b"Transfer-Encoding: gzip"), 501),
    Bad("unknown-coding-then-chunked", _post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    Bad("identity-coding", _post(b"Transfer-Encoding: identity"), 501),
    Bad("almost-chunked", _post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 501),
    Bad("chunked-is-not-last", _post(b"Transfer-Encoding: chunked, gzip")),
    Bad("chunked-twice", _post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n")),
    Bad("chunked-in-two-fields", _post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
    Bad("chunked-then-identity", _post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity")),
    Bad("chunked-quoted", _post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n")),
    Bad("chunked-with-comma", _post(b"Transfer-Encoding: ,chunked", body=b"0\r\n\r\n")),
    Bad("coding-empty", _post(b"Transfer-Encoding:")),
    Bad("chunked-on-http-1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    # sizes
    Bad("head-too-large", _get(b"X: " + b"a" * _LIMITS.head_bytes), 431),
    Bad("head-too-large-without-end", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * _LIMITS.head_bytes, 431),
    Bad("target-too-large", _get(start=b"GET /" + b"a" * _LIMITS.head_bytes + b" HTTP/1.1"), 414),
    Bad("target-too-large-without-end", b"GET /" + b"a" * _LIMITS.head_bytes, 414),
    Bad("host-with-an-open-bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    Bad("too-many-fields", _get(*[b"X: y"] * _LIMITS.header_count), 431),
)

_CHUNKED = _post(b"Transfer-Encoding: chunked")

# A good head, then a body that no parser may guess about: 400, or the connection just ends where an answer had begun.
BAD_BODIES = (
    Bad("chunk-size-not-hex", _CHUNKED + b"5g\r\nhello\r\n0\r\n\r\n"),
    Bad("chunk-size-with-sign", _CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n"),
    Bad("chunk-size-with-prefix", _CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n"),
    Bad("chunk-size-with-underscore", _CHUNKED + b"0_5\r\nhello\r\n0\r\n\r\n"),
    Bad("chunk-size-empty", _CHUNKED + b"\r\nhello\r\n0\r\n\r\n"),
    Bad("chunk-size-only-extension", _CHUNKED + b";a=b\r\nhello\r\n0\r\n\r\n"),
    Bad("chunk-size-with-space-before", _CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n"),
    Bad("chunk-size-with-space-after", _CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n"),
    Bad("chunk-size-beyond-64-bits", _CHUNKED + b"00000000000000005\r\nhello\r\n0\r\n\r\n"),
    Bad("chunk-line-bare-lf", _CHUNKED + b"5\nhello\r\n0\r\n\r\n"),
    Bad("chunk-line-bare-cr", _CHUNKED + b"5\rhello\r\n0\r\n\r\n"),
    Bad("chunk-extension-bare-lf", _CHUNKED + b"5;a\nhello\r\n0\r\n\r\n"),
    Bad("chunk-extension-bare-cr", _CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    Bad("chunk-extension-nul", _CHUNKED + b"5;\x00\r\nhello\r\n0\r\n\r\n"),
    Bad("chunk-extension-too-long", _CHUNKED + b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n"),
    Bad("chunk-longer-than-its-size", _CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n"),
    Bad("chunk-data-ends-in-lf", _CHUNKED + b"5\r\nhello\n0\r\n\r\n"),
    Bad("chunk-data-ends-in-any-two-bytes", _CHUNKED + b"5\r\nhelloXX0\r\n\r\n"),
    Bad("last-chunk-bare-lf", _CHUNKED + b"5\r\nhello\r\n0\n\n"),
    Bad("trailer-bare-lf", _CHUNKED + b"0\r\nX: y\n\r\n"),
    Bad("trailer-folded", _CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n"),
    Bad("trailer-control-byte", _CHUNKED + b"0\r\nX: \x01\r\n\r\n"),
    Bad("trailer-content-length", _CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n"),
    Bad("trailer-transfer-encoding", _CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    Bad("trailer-host", _CHUNKED + b"0\r\nHost: b\r\n\r\n"),
    Bad("trailers-too-large", _CHUNKED + b"0\r\nX: " + b"a" * _LIMITS.head_bytes + b"\r\n\r\n", 431),
    Bad("too-many-trailers", _CHUNKED + b"0\r\n" + b"X: y\r\n" * (_LIMITS.header_count + 1) + b"\r\n", 431),
)


@dataclass(frozen=True, slots=True)
class Good:
    """A message to accept: what the exchange must be told."""

    name: str
    data: bytes
    method: bytes = b"POST"
    target: bytes = b"/"
    authority: bytes = b"a"
    body: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()


GOOD = (
    Good("plain", _get(), method=b"GET"),
    Good("http-1.0-without-host", b"GET / HTTP/1.0\r\n\r\n", method=b"GET", authority=b""),
    Good("unknown-method", _get(start=b"M-SEARCH / HTTP/1.1"), method=b"M-SEARCH"),
    Good("options-star", _get(start=b"OPTIONS * HTTP/1.1"), method=b"OPTIONS", target=b"*"),
    Good("absolute-form", _get(start=b"GET HTTP://b/x HTTP/1.1"), method=b"GET", target=b"HTTP://b/x"),
    Good("connect", _get(start=b"CONNECT b:443 HTTP/1.1"), method=b"CONNECT", target=b"b:443"),
    Good(
        "odd-but-legal-target",
        _get(start=b'GET /a"|^`{}\\<> HTTP/1.1'),
        method=b"GET",
        target=b'/a"|^`{}\\<>',
    ),
    Good("host-with-port", _get(host=b"hOsT:\tA.b:80  \r\n"), method=b"GET", authority=b"A.b:80"),
    Good("host-v6", _get(host=b"Host: [::1]:3500\r\n"), method=b"GET", authority=b"[::1]:3500"),
    Good("empty-host", _get(host=b"Host:\r\n"), method=b"GET", authority=b""),
    Good("empty-value", _get(b"X:"), method=b"GET"),
    Good("latin-1-in-value", _get(b"X: \xe4\xff"), method=b"GET"),
    Good("length-zero", _post(b"Content-Length: 0")),
    Good("length", _post(b"Content-Length: 5", body=b"hello"), body=b"hello"),
    Good("length-with-leading-zeros", _post(b"Content-Length: 005", body=b"hello"), body=b"hello"),
    Good("chunked", _CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", body=b"hello"),
    Good("chunked-any-case", _post(b"tRANSFER-eNCODING: CHUNKED", body=b"0\r\n\r\n")),
    Good("chunked-extension", _CHUNKED + b"5;a=b;c\r\nhello\r\n0;d\r\n\r\n", body=b"hello"),
    Good("chunked-leading-zeros", _CHUNKED + b"0000005\r\nhello\r\n000\r\n\r\n", body=b"hello"),
    Good(
        "chunked-hex-case",
        _CHUNKED + b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n",
        body=b"01234567890123456789a",
    ),
    Good("trailers", _CHUNKED + b"1\r\n!\r\n0\r\nX-Sum: 9\r\n\r\n", body=b"!", trailers=((b"x-sum", b"9"),)),
    Good("most-fields", _get(*[b"X: y"] * (_LIMITS.header_count - 1)), method=b"GET"),
)


@dataclass(frozen=True, slots=True)
class BadAnswer:
    """An app's answer that must not reach the caller as if it were whole. late: the response head is fine."""

    name: str
    data: bytes
    late: bool = False


def _ok(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    return start + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


_OK_CHUNKED = _ok(b"Transfer-Encoding: chunked")

# Each is followed by the app closing its connection.
BAD_ANSWERS = (
    BadAnswer("nothing", b""),
    BadAnswer("half-a-head", b"HTTP/1.1 200 OK\r\nContent-Le"),
    BadAnswer("not-http", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    BadAnswer("bare-lf", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    BadAnswer("http-2.0", _ok(b"Content-Length: 0", start=b"HTTP/2.0 200 OK")),
    BadAnswer("status-of-two-digits", _ok(b"Content-Length: 0", start=b"HTTP/1.1 20 OK")),
    BadAnswer("status-below-100", _ok(b"Content-Length: 0", start=b"HTTP/1.1 099 OK")),
    BadAnswer("status-with-sign", _ok(b"Content-Length: 0", start=b"HTTP/1.1 +20 OK")),
    BadAnswer("control-byte-in-reason", _ok(b"Content-Length: 0", start=b"HTTP/1.1 200 O\x01K")),
    BadAnswer("obs-fold", _ok(b"X: a", b" b", b"Content-Length: 0")),
    BadAnswer("space-before-colon", _ok(b"Content-Length : 0")),
    BadAnswer("nul-in-value", _ok(b"X: \x00", b"Content-Length: 0")),
    BadAnswer(
        "length-and-chunked", _ok(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")
    ),
    BadAnswer("two-lengths", _ok(b"Content-Length: 1", b"Content-Length: 2", body=b"ab")),
    BadAnswer("length-list", _ok(b"Content-Length: 1, 1", body=b"a")),
    BadAnswer("unknown-coding", _ok(b"Transfer-Encoding: gzip")),
    BadAnswer(
        "unasked-101",
        _ok(b"Upgrade: websocket", b"Connection: upgrade", start=b"HTTP/1.1 101 Switching Protocols"),
    ),
    BadAnswer("head-too-large", _ok(b"X: " + b"a" * _LIMITS.head_bytes, b"Content-Length: 0")),
    BadAnswer("too-many-fields", _ok(*[b"X: y"] * (_LIMITS.header_count + 1), b"Content-Length: 0")),
    BadAnswer("endless-100s", _ok(start=b"HTTP/1.1 100 Continue") * 100),
    BadAnswer("body-too-short", _ok(b"Content-Length: 5", body=b"hell"), late=True),
    BadAnswer("no-last-chunk", _OK_CHUNKED + b"5\r\nhello\r\n", late=True),
    BadAnswer("half-a-chunk", _OK_CHUNKED + b"5\r\nhel", late=True),
    BadAnswer("no-end-of-trailers", _OK_CHUNKED + b"0\r\n", late=True),
    BadAnswer("bad-chunk-size", _OK_CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", late=True),
    BadAnswer("bad-trailer", _OK_CHUNKED + b"0\r\nContent-Length: 0\r\n\r\n", late=True),
)
