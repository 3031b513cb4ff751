"""A small HTTP/1.1 of its own, for apps and clients under test: an independent peer, not the library that the proxy uses.

Bodies by length or chunked, trailers, interim answers. Owns no rule of the proxy.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.support.errors import HttpSyntaxError

Headers = list[tuple[str, str]]
MAX_HEAD_BYTES = 256 * 1024


@dataclass(slots=True, kw_only=True)
class Head:
    """A start line, split in three, and the headers as they came (names keep their case)."""

    first: str
    second: str
    third: str
    headers: Headers

    def get(self, name: str, default: str = "") -> str:
        """The first value of a header; names compare without case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), default)

    def get_all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass(slots=True, kw_only=True)
class Response:
    """A whole answer, interim ones apart."""

    status: int
    headers: Headers
    body: bytes = b""
    trailers: Headers = field(default_factory=list)
    interim: list[Head] = field(default_factory=list)

    def get(self, name: str, default: str = "") -> str:
        """The first value of a header; names compare without case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), default)


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """Read a request or response head; None at a clean end. Raises HttpSyntaxError."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise HttpSyntaxError(f"the connection ended within a head: {error.partial[:80]!r}") from None
    except asyncio.LimitOverrunError:
        raise HttpSyntaxError(f"a head of more than {MAX_HEAD_BYTES} bytes") from None
    start, *lines = raw[:-4].decode("latin-1").split("\r\n")
    parts = (*start.split(" ", 2), "")[:3]
    if len(parts) != 3:
        raise HttpSyntaxError(f"no start line: {start!r}")
    return Head(first=parts[0], second=parts[1], third=parts[2], headers=[_header(line) for line in lines])


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or name != name.strip():
        raise HttpSyntaxError(f"no header line: {line!r}")
    return name, value.strip()


async def read_body(
    reader: asyncio.StreamReader, head: Head, trailers: Headers, *, until_close: bool = False
) -> AsyncIterator[bytes]:
    """Yield the body of a message as it arrives; trailers are appended to the list given. Raises HttpSyntaxError."""
    if head.get("transfer-encoding").lower() == "chunked":
        async for part in _read_chunks(reader, trailers):
            yield part
    elif length := head.get("content-length"):
        async for part in _read_exactly(reader, int(length)):
            yield part
    elif until_close:
        while part := await reader.read(65536):
            yield part


async def _read_exactly(reader: asyncio.StreamReader, count: int) -> AsyncIterator[bytes]:
    while count:
        part = await reader.read(min(count, 65536))
        if not part:
            raise HttpSyntaxError(f"the body ended {count} bytes early")
        count -= len(part)
        yield part


async def _read_chunks(reader: asyncio.StreamReader, trailers: Headers) -> AsyncIterator[bytes]:
    while size := int((await _line(reader)).partition(";")[0], 16):
        async for part in _read_exactly(reader, size):
            yield part
        await _line(reader)
    while line := await _line(reader):
        trailers.append(_header(line))


async def _line(reader: asyncio.StreamReader) -> str:
    raw = await reader.readline()
    if not raw.endswith(b"\r\n"):
        raise HttpSyntaxError(f"the connection ended within a chunked body: {raw[:80]!r}")
    return raw[:-2].decode("latin-1")


def format_head(start: str, headers: Headers) -> bytes:
    """The bytes of a head."""
    lines = [start, *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def format_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; empty data gives nothing."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def format_end(trailers: Headers) -> bytes:
    """The last chunk with its trailers."""
    return b"0\r\n" + b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in trailers) + b"\r\n"
