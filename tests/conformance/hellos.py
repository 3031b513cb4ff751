"""Reads the hellos of a TLS 1.3 handshake off the wire: which versions and key exchanges are offered and chosen (RFC 8446 §4)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from msgspec import Struct

from tests.conformance.accepting import accepting

TLS_1_3: Final = 0x0304
X25519MLKEM768: Final = 0x11EC
_SUPPORTED_GROUPS, _SUPPORTED_VERSIONS, _KEY_SHARE = 10, 43, 51


class Hellos(Struct):
    """What both sides said first; as raw bytes until asked."""

    client: bytearray
    server: bytearray

    @property
    def offered_versions(self) -> list[int]:
        data = _extensions(bytes(self.client))[_SUPPORTED_VERSIONS]
        return _numbers(data[1:])

    @property
    def offered_groups(self) -> list[int]:
        """The caller's key exchanges, dearest first."""
        return _numbers(_extensions(bytes(self.client))[_SUPPORTED_GROUPS][2:])

    @property
    def chosen_version(self) -> int:
        return _numbers(_extensions(bytes(self.server))[_SUPPORTED_VERSIONS])[0]

    @property
    def chosen_group(self) -> int:
        return _numbers(_extensions(bytes(self.server))[_KEY_SHARE][:2])[0]


def _numbers(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


def _extensions(record: bytes) -> dict[int, bytes]:
    """Those of the first record, a ClientHello or ServerHello, by number."""
    body, is_client = record[9:], record[5] == 1
    at = 2 + 32
    at += 1 + body[at]  # the session id
    at += 2 + int.from_bytes(body[at : at + 2], "big") + 1 + 1 if is_client else 3  # ciphers, compression
    end = at + 2 + int.from_bytes(body[at : at + 2], "big")
    at += 2
    found = {}
    while at < end:
        number, size = _numbers(body[at : at + 4])
        found[number] = body[at + 4 : at + 4 + size]
        at += 4 + size
    return found


@asynccontextmanager
async def tap(port: int) -> AsyncIterator[tuple[int, list[Hellos]]]:
    """A port that leads to another, and what passed first each way, by connection."""
    taken: list[Hellos] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray) -> None:
        while data := await reader.read(65_536):
            if len(seen) < 65_536:
                seen += data
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(hellos := Hellos(client=bytearray(), server=bytearray()))
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(copy(reader, far_writer, hellos.client))
                tasks.create_task(copy(far_reader, writer, hellos.server))
        finally:
            far_writer.transport.abort()

    async with accepting(connected, quiet=(OSError, ExceptionGroup), limit=1 << 20) as tapped:
        yield tapped, taken
