"""gRPC-Web on the wire: its content types, the frame that ends an answer, base64 of the text form.

Source: gRPC-Web (doc/PROTOCOL-WEB.md of grpc/grpc).
"""

import base64
import re
from typing import Literal

from proxy.contract.head import Headers
from proxy.wire.streams import RawHead

Form = Literal["binary", "text"]
_TYPE = re.compile(rb"application/grpc-web(-text)?(\+[^;]*)?\s*(?:;.*)?", re.IGNORECASE)
_TRAILERS = 0x80


def content_type(head: RawHead) -> bytes:
    """What a gRPC-Web call is sent as and answered as; empty if it is not one."""
    if head.method != b"POST" or head.protocol not in {"http1", "http2"}:
        return b""
    found = next((data for name, data in head.headers if name == b"content-type"), b"")
    return found if found[:20].lower() == b"application/grpc-web" and _TYPE.fullmatch(found) else b""


def form_of(sent_as: bytes) -> Form:
    """Whether bodies of such a type are base64."""
    return "text" if sent_as[20:25].lower() == b"-text" else "binary"


def as_grpc(sent_as: bytes) -> bytes:
    """The same type of gRPC's."""
    found = _TYPE.fullmatch(sent_as)
    return b"application/grpc" + (found[2] or b"" if found is not None else b"")


def trailer_frame(trailers: Headers, sent_as: bytes) -> bytes:
    """The end of an answer, as the last frame of its body."""
    block = b"".join(b"%b: %b\r\n" % field for field in trailers)
    frame = bytes((_TRAILERS,)) + len(block).to_bytes(4, "big") + block
    return base64.b64encode(frame) if form_of(sent_as) == "text" else frame


def decode_base64(data: bytes) -> bytes:
    """Whole groups of four; padded ones may stand between others, as each message is encoded by itself. Raises binascii.Error."""
    if b"=" not in data[:-2]:
        return base64.b64decode(data, validate=True)
    return b"".join(base64.b64decode(data[at : at + 4], validate=True) for at in range(0, len(data), 4))
