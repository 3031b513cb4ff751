"""Just enough RFC 6455 for an echo app and its client: the handshake by hand, frames without extensions."""

import asyncio
import base64
import hashlib
import os
from dataclasses import dataclass
from typing import Final

from tests.support.errors import HttpSyntaxError

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame, unmasked."""

    opcode: int
    payload: bytes
    is_final: bool = True


def new_key() -> str:
    """A Sec-WebSocket-Key."""
    return base64.b64encode(os.urandom(16)).decode()


def accept_key(key: str) -> str:
    """The Sec-WebSocket-Accept that answers a key."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()


def format_frame(frame: Frame, *, is_client: bool) -> bytes:
    """The bytes of a frame; clients mask."""
    size = len(frame.payload)
    mask_bit = 0x80 if is_client else 0
    head = bytes([(0x80 if frame.is_final else 0) | frame.opcode])
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 65536:
        head += bytes([mask_bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([mask_bit | 127]) + size.to_bytes(8, "big")
    if not is_client:
        return head + frame.payload
    mask = os.urandom(4)
    return head + mask + _masked(frame.payload, mask)


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """Read one frame. Raises HttpSyntaxError at an end of the connection within or before one."""
    try:
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        mask = await reader.readexactly(4) if second & 0x80 else b""
        payload = await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        raise HttpSyntaxError("the connection ended without a close frame") from None
    return Frame(first & 0x0F, _masked(payload, mask) if mask else payload, bool(first & 0x80))


def _masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
