"""gRPC's message framing and how a call of it ends (gRPC over HTTP/2). Pure, but for what `Messages` has of a message so far."""

from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, unquote

from proxy.api.dapr.codes import RESOURCE_EXHAUSTED, UNIMPLEMENTED
from proxy.contract.head import Header, Headers

HEAD: Final[Headers] = ((b"content-type", b"application/grpc"),)
_PREFIX_BYTES: Final = 5
_SAFE: Final = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")


class WireError(Exception):
    """What a peer sent can't be taken. `code`: of gRPC."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Messages:
    """Cuts a body into messages. limit_bytes: of one. Mutable state: the part of a message that is there."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = bytearray()

    @property
    def is_between(self) -> bool:
        """Whether no message has begun."""
        return not self._held

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are whole now. Raises WireError for one that is compressed or too large."""
        self._held += data
        while len(self._held) >= _PREFIX_BYTES:
            size = int.from_bytes(self._held[1:_PREFIX_BYTES], "big")
            if self._held[0]:
                raise WireError(UNIMPLEMENTED, "compressed messages are not taken here")
            if size > self._limit:
                raise WireError(RESOURCE_EXHAUSTED, f"a message of {size} bytes, the limit is {self._limit}")
            if len(self._held) < _PREFIX_BYTES + size:
                return
            message = bytes(self._held[_PREFIX_BYTES : _PREFIX_BYTES + size])
            del self._held[: _PREFIX_BYTES + size]
            yield message


def check_envelope(size: int, limit_bytes: int) -> None:
    """Whether what a message holds beside its body can be a head at all, before anything is made of it. Raises WireError.

    limit_bytes: of a head, whose fields take up fewer bytes here than twice theirs.
    """
    if size > 2 * limit_bytes:
        text = f"the envelope is {size} bytes without its body, a head has {limit_bytes} at most; --read-buffer-size sets the limit"
        raise WireError(RESOURCE_EXHAUSTED, text)


def framed(message: bytes) -> bytes:
    """A message as it is sent."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def ending(code: int, text: str = "") -> Headers:
    """The trailers that end a call."""
    message: tuple[Header, ...] = ((b"grpc-message", quote(text, safe=_SAFE).encode()),) if text else ()
    return ((b"grpc-status", b"%d" % code), *message)


def message_of(trailers: Headers) -> str:
    """The text that came with a status."""
    return unquote(dict(trailers).get(b"grpc-message", b"").decode("latin-1"))
