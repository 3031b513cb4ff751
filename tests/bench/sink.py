"""Takes spans as Zipkin would, counts them, and forgets them."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.support.errors import HttpSyntaxError
from tests.support.http_wire import MAX_HEAD_BYTES, Headers, format_head, read_body, read_head

_SPAN: Final = b'"traceId"'
_GZIP: Final = 16 + zlib.MAX_WBITS


class Sink:
    """Where spans go. State: those counted, and batches packed by gzip, which are counted when asked: not while something is measured."""

    def __init__(self) -> None:
        self.port = 0
        self._counted = 0
        self._packed: list[bytes] = []

    def spans(self) -> int:
        """How many came."""
        while self._packed:
            self._counted += zlib.decompress(self._packed.pop(), _GZIP).count(_SPAN)
        return self._counted

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take batches until the connection ends."""
        trailers: Headers = []
        try:
            while (head := await read_head(reader)) is not None:
                body = b"".join([part async for part in read_body(reader, head, trailers)])
                if head.get("content-encoding") == "gzip":
                    self._packed.append(body)
                else:
                    self._counted += body.count(_SPAN)
                writer.write(format_head("HTTP/1.1 202 Accepted", [("content-length", "0")]))
                await writer.drain()
        except (HttpSyntaxError, OSError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def span_sink() -> AsyncIterator[Sink]:
    """Serve on a free port until the end."""
    sink = Sink()
    server = await asyncio.start_server(sink.serve, "127.0.0.1", 0, limit=MAX_HEAD_BYTES)
    sink.port = int(server.sockets[0].getsockname()[1])
    async with server:
        yield sink
