"""The message in a request's body: taken out of gRPC's frame, unpacked, and bounded. Pure."""

import zlib
from typing import Final

from proxy.api.dapr.codes import INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from proxy.api.otlp.answers import Refusal

MAX_BYTES: Final = 4 * 1024 * 1024  # of a request, packed or not: what gRPC servers take
_PREFIX_BYTES: Final = 5
_WBITS: Final = {b"gzip": 31, b"deflate": 15}


def unframed(body: bytes, encoding: bytes) -> bytes:
    """The one message of a unary gRPC call. Raises Refusal."""
    size = int.from_bytes(body[1:_PREFIX_BYTES], "big")
    if len(body) != _PREFIX_BYTES + size or body[0] > 1:
        raise Refusal(INVALID_ARGUMENT, "expected one whole message")
    message = body[_PREFIX_BYTES:]
    return unpacked(message, encoding) if body[0] else message


def unpacked(body: bytes, encoding: bytes) -> bytes:
    """The body without its encoding. Raises Refusal for an unknown one, and for what becomes too large."""
    coding = encoding.strip().lower()
    if coding in (b"", b"identity"):
        return body
    wbits = _WBITS.get(coding)
    if wbits is None:
        raise Refusal(
            UNIMPLEMENTED,
            f"the encoding {coding[:40].decode('latin-1')!r} is not known here: use gzip or none",
        )
    inflating = zlib.decompressobj(wbits)
    try:
        found = inflating.decompress(body, MAX_BYTES)
    except zlib.error as error:
        raise Refusal(INVALID_ARGUMENT, f"the body is not {coding.decode()}: {error}") from error
    if inflating.unconsumed_tail:
        raise Refusal(RESOURCE_EXHAUSTED, f"a request is at most {MAX_BYTES} bytes: send smaller batches")
    if not inflating.eof:
        raise Refusal(INVALID_ARGUMENT, f"the body is not {coding.decode()}: it ends too early")
    return found
