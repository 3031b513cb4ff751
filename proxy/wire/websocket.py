"""The HTTP/1.1 handshake of a WebSocket, both sides; frames are never looked at. Source: RFC 6455 §4, RFC 8441 §5."""

import base64
import hashlib
import re
from collections.abc import Iterable

from proxy.contract.head import Header, Headers
from proxy.wire.head_scan import RequestStart, ResponseStart

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
_OURS = frozenset({b"sec-websocket-key", b"sec-websocket-accept", b"upgrade", b"connection"})


def accept_of(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())


def make_key(random_bytes: bytes) -> bytes:
    """Sec-WebSocket-Key from 16 random bytes."""
    return base64.b64encode(random_bytes)


def offered_key(start: RequestStart) -> bytes | None:
    """The key of a valid WebSocket offer; None when the request is to be treated as if it offered nothing."""
    if b"upgrade" not in start.options or start.method != b"GET" or start.minor != 1:
        return None
    if start.chunked or start.length:
        return None
    upgrades, versions, keys = (
        _values(start.headers, name) for name in (b"upgrade", b"sec-websocket-version", b"sec-websocket-key")
    )
    if [u.lower() for u in upgrades] != [b"websocket"] or versions != [b"13"] or len(keys) != 1:
        return None
    return keys[0] if _KEY.fullmatch(keys[0]) else None


def is_accepted(start: ResponseStart, key: bytes) -> bool:
    """Whether a 101 answers our offer."""
    return (
        [u.lower() for u in _values(start.headers, b"upgrade")] == [b"websocket"]
        and b"upgrade" in start.options
        and _values(start.headers, b"sec-websocket-accept") == [accept_of(key)]
    )


def without_handshake(headers: Iterable[Header]) -> Headers:
    """The fields that go through: protocol, extensions, version and everything end to end."""
    return tuple([field for field in headers if field[0] not in _OURS])


def _values(headers: list[Header], name: bytes) -> list[bytes]:
    return [data for key, data in headers if key == name]
