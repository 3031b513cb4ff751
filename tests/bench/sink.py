"""Takes spans as Zipkin would, and forgets them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.errors import HttpSyntaxError
from tests.support.http_wire import MAX_HEAD_BYTES, Headers, format_head, read_body, read_head


@asynccontextmanager
async def span_sink() -> AsyncIterator[int]:
    """Serve on a free port, which is given, until the end."""
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, limit=MAX_HEAD_BYTES)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    trailers: Headers = []
    try:
        while (head := await read_head(reader)) is not None:
            async for _ in read_body(reader, head, trailers):
                pass
            writer.write(format_head("HTTP/1.1 202 Accepted", [("content-length", "0")]))
            await writer.drain()
    except (HttpSyntaxError, OSError):
        pass
    finally:
        writer.close()
