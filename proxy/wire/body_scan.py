"""Where a message's body ends: strict framing of HTTP/1.1 bodies, checked on the bytes before `h11` sees them.

Each scan takes bytes as they arrive and returns those that `h11` shall read: exactly this message's, chunks re-framed as one per
piece (so a flood of one-byte chunks costs one event, and only our own framing is ever parsed leniently). What follows the message
is left in `rest`. Source: RFC 9112 §6, §7.
"""

import re
from typing import Protocol

from proxy.contract.engine import Limits
from proxy.wire.head_scan import Refusal, scan_trailers

# 16 digits fit 64 bits. Extensions are allowed and ignored; nobody sends long ones but attackers.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]{0,256}+)?\r\n")
_SIZE_LINE_BYTES = 16 + 1 + 256 + 2
_SIZE_BEGUN = re.compile(rb"[0-9A-Fa-f]{0,16}(?:;[\t\x20-\x7e\x80-\xff]{0,256}+)?\r?")


_CHUNKS = 1_024  # read at once: about a millisecond of the time of the loop, which others wait for


class BodyScan(Protocol):
    """One message's body. `done` once its last byte was seen; then `rest` holds what followed, before that what is to be fed again."""

    done: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes | Refusal:
        """The bytes for `h11`, perhaps none."""


class LengthScan:
    """A body of known length."""

    __slots__ = ("done", "left", "rest")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes | Refusal:
        """See BodyScan."""
        if len(data) < self.left:
            self.left -= len(data)
            return data
        own, self.rest = (data, b"") if len(data) == self.left else (data[: self.left], data[self.left :])
        self.left = 0
        self.done = True
        return own


class CloseScan:
    """A response body that ends with the connection."""

    __slots__ = ("done", "rest")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes | Refusal:
        """See BodyScan."""
        return data


class ChunkScan:
    """A chunked body with its trailers, `_CHUNKS` of a piece at most.

    `_left`: bytes of the open chunk; `_held`: an unfinished line or trailer block.
    """

    __slots__ = ("_held", "_in_trailers", "_left", "_limits", "_owes_crlf", "done", "rest")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = b""
        self._left = 0
        self._owes_crlf = False
        self._in_trailers = False
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes | Refusal:
        """See BodyScan."""
        if self._held:
            data = self._held + data
            self._held = b""
        parts: list[bytes] = []
        at = 0 if self._in_trailers else self._chunks(data, parts)
        if isinstance(at, Refusal):
            return at
        self.rest = b"" if self._in_trailers else data[at:]
        tail = self._trailers(data[at:]) if self._in_trailers else b""
        if isinstance(tail, Refusal):
            return tail
        body = b"".join(parts)
        return b"%x\r\n%b\r\n%b" % (len(body), body, tail) if body else tail

    def _chunks(self, data: bytes, parts: list[bytes]) -> int | Refusal:
        """Gather chunk data; the index where the trailers begin, or what is read begins to be enough, or the end of `data`."""
        at, size, left = 0, len(data), _CHUNKS
        while at < size and left:
            if self._left:
                piece = data[at : at + self._left]
                parts.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._owes_crlf = not self._left
            elif self._owes_crlf:
                if data[at : at + 2] != b"\r\n":
                    return self._hold_crlf(data, at)
                self._owes_crlf = False
                at += 2
            else:
                line = _SIZE.match(data, at)
                if line is None:
                    return self._hold_size(data, at)
                at, length, left = line.end(), int(line[1], 16), left - 1
                end = at + length
                if not length:
                    self._in_trailers = True
                    return at
                if data[end : end + 2] == b"\r\n":  # all of it is there
                    parts.append(data[at:end])
                    at = end + 2
                else:
                    self._left = length
        return at

    def _hold_crlf(self, data: bytes, at: int) -> int | Refusal:
        if data[at:] != b"\r":
            return Refusal(400, "chunk", "a chunk does not end where its size says")
        self._held = b"\r"
        return len(data)

    def _hold_size(self, data: bytes, at: int) -> int | Refusal:
        if len(data) - at >= _SIZE_LINE_BYTES or _SIZE_BEGUN.fullmatch(data, at) is None:
            return Refusal(400, "chunk", "a chunk size line is malformed or too long")
        self._held = data[at:]
        return len(data)

    def _trailers(self, data: bytes) -> bytes | Refusal:
        if data[:2] == b"\r\n":
            end = 2
        else:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                return self._hold_trailers(data)
            if end > self._limits.head_bytes:
                return Refusal(431, "trailer", "the trailers are too large")
        fields = scan_trailers(data[: end - 2], self._limits)
        if isinstance(fields, Refusal):
            return fields
        self.rest = data[end:]
        self.done = True
        return b"0\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % field for field in fields])

    def _hold_trailers(self, data: bytes) -> bytes | Refusal:
        if len(data) > self._limits.head_bytes:
            return Refusal(431, "trailer", "the trailers are too large")
        if data.count(b"\n") > data.count(b"\r\n"):
            return Refusal(400, "trailer", "the trailers hold a control byte or a bare line end")
        self._held = data
        return b""
