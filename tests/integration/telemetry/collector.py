"""A small collector over real sockets: answers as told, and keeps what was posted."""

import asyncio
import contextlib
import json
import ssl
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

_READ_S = 10.0


@dataclass
class Collector:
    """`answers` are used up first to last; then every POST gets 202. `posted` are the decoded arrays, `bodies` those unpacked."""

    answers: list[bytes] = field(default_factory=list)
    posted: list[list[dict[str, Any]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    got: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where spans go."""
        return f"http://127.0.0.1:{self.port}/api/v2/spans"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side closes it."""
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                async with asyncio.timeout(_READ_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    body = await reader.readexactly(length)
                self.heads.append(head)
                answer = (
                    self.answers.pop(0)
                    if self.answers
                    else b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
                )
                if answer.startswith(b"HTTP/1.1 2"):
                    if b"content-encoding: gzip" in head.lower():
                        body = zlib.decompress(body, wbits=31)
                    self.bodies.append(body)
                    if b"application/json" in head.lower():
                        self.posted.append(json.loads(body))
                self.got.set()
                writer.write(answer)
                await writer.drain()
                if not answer or b"connection: close" in answer.lower():
                    break
        writer.close()

    @property
    def spans(self) -> list[dict[str, Any]]:
        """All spans posted and taken."""
        return [span for batch in self.posted for span in batch]


@contextlib.asynccontextmanager
async def collecting(
    answers: list[bytes] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Collector]:
    """A collector on a free port of loopback."""
    collector = Collector(answers=list(answers or []))
    server = await asyncio.start_server(collector.serve, "127.0.0.1", 0, ssl=tls, limit=1 << 20)
    collector.port = server.sockets[0].getsockname()[1]
    try:
        yield collector
    finally:
        server.close()
        for writer in collector.writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                async with asyncio.timeout(_READ_S):
                    await writer.wait_closed()


def answer(status: int, *headers: str) -> bytes:
    """An empty answer."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status} X\r\n{lines}Content-Length: 0\r\n\r\n".encode()
