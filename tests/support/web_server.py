"""A server of the web that sidecars call: the HTTP app under test over TLS, in the test's own loop."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.http_app import App
from tests.support.http_wire import MAX_HEAD_BYTES


@asynccontextmanager
async def web_server(tls: ssl.SSLContext | None = None, *, name: str = "web") -> AsyncIterator[int]:
    """Its port on loopback."""
    app = App(name)
    server = await asyncio.start_server(app.serve_connection, "127.0.0.1", 0, limit=MAX_HEAD_BYTES, ssl=tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
