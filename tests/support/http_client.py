"""An HTTP/1.1 client for tests that shows everything: interim answers, trailers, raw targets, header order."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.errors import HttpSyntaxError
from tests.support.http_wire import (
    MAX_HEAD_BYTES,
    Head,
    Headers,
    Response,
    format_chunk,
    format_end,
    format_head,
    read_body,
    read_head,
)

Header = tuple[str, str]


@dataclass(slots=True, kw_only=True)
class Connection:
    """One connection; requests go one after another. `reader` and `writer` are open to whoever wants to misbehave."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    host: str

    async def send_head(self, method: str, target: str, headers: Sequence[Header] = ()) -> None:
        """Write a request head with Host in front, if none is given."""
        given = list(headers)
        if not any(name.lower() == "host" for name, _ in given):
            given.insert(0, ("Host", self.host))
        await self.send(format_head(f"{method} {target} HTTP/1.1", given))

    async def send(self, data: bytes) -> None:
        """Write raw bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def read_response_head(self, interim: list[Head] | None = None) -> Head:
        """Read up to the final head. Raises HttpSyntaxError when the connection ends before one."""
        while (head := await read_head(self.reader)) is not None:
            if not head.second.startswith("1") or head.second == "101":
                return head
            if interim is not None:
                interim.append(head)
        raise HttpSyntaxError("the connection ended before an answer")

    def body(self, method: str, head: Head, trailers: Headers) -> AsyncIterator[bytes]:
        """The body that follows a final head, as it arrives."""
        if method == "HEAD" or head.second in {"204", "304"}:
            return _nothing()
        return read_body(self.reader, head, trailers, until_close=True)

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Sequence[Header] = (),
        body: bytes | None = None,
        chunks: Sequence[bytes] | None = None,
        trailers: Sequence[Header] = (),
    ) -> Response:
        """Send a request (with `body` by length or `chunks` chunked) and read its whole answer."""
        framing: list[Header] = []
        if chunks is not None:
            framing = [("Transfer-Encoding", "chunked")]
        elif body is not None:
            framing = [("Content-Length", str(len(body)))]
        await self.send_head(method, target, [*headers, *framing])
        if chunks is not None:
            await self.send(b"".join(map(format_chunk, chunks)) + format_end(list(trailers)))
        elif body:
            await self.send(body)
        return await self.read_response(method)

    async def read_response(self, method: str) -> Response:
        """Read the whole answer to a request already sent."""
        interim: list[Head] = []
        head = await self.read_response_head(interim)
        response = Response(status=int(head.second), headers=head.headers, interim=interim)
        response.body = b"".join([part async for part in self.body(method, head, response.trailers)])
        return response


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for part in nothing:
        yield part


@asynccontextmanager
async def connect(
    port: int, *, host: str = "127.0.0.1", unix: str | None = None
) -> AsyncIterator[Connection]:
    """Open a connection to a TCP port or a unix socket, closed at the end."""
    if unix is not None:
        reader, writer = await asyncio.open_unix_connection(unix, limit=MAX_HEAD_BYTES)
    else:
        reader, writer = await asyncio.open_connection(host, port, limit=MAX_HEAD_BYTES)
    try:
        yield Connection(reader=reader, writer=writer, host=f"{host}:{port}")
    finally:
        writer.close()
        try:
            async with asyncio.timeout(2.0):
                await writer.wait_closed()
        except (OSError, TimeoutError):
            writer.transport.abort()


async def request(
    port: int,
    method: str,
    target: str,
    *,
    headers: Sequence[Header] = (),
    body: bytes | None = None,
    chunks: Sequence[bytes] | None = None,
    trailers: Sequence[Header] = (),
    unix: str | None = None,
    timeout_s: float = 30.0,
) -> Response:
    """One request on a connection of its own."""
    async with asyncio.timeout(timeout_s), connect(port, unix=unix) as connection:
        return await connection.request(
            method,
            target,
            headers=[*headers, ("Connection", "close")],
            body=body,
            chunks=chunks,
            trailers=trailers,
        )
