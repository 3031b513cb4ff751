"""Apps in the test's own process: the HTTP/1.1 and gRPC apps of `tests.support`, and raw ones that a test scripts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.conformance.accepting import Script, accepting
from tests.support.errors import HttpSyntaxError
from tests.support.grpc_app import start_server
from tests.support.http_app import App
from tests.support.http_wire import MAX_HEAD_BYTES


@asynccontextmanager
async def raw_app(script: Script, port: int = 0) -> AsyncIterator[int]:
    """A server that runs `script` on each connection; its port. A connection that breaks ends its script quietly."""

    quiet = (OSError, HttpSyntaxError, asyncio.IncompleteReadError)
    async with accepting(script, quiet=quiet, limit=MAX_HEAD_BYTES, port=port) as bound:
        yield bound


@asynccontextmanager
async def http_app() -> AsyncIterator[int]:
    """The HTTP/1.1 app of `tests.support`; its port."""
    async with raw_app(App("app").serve_connection) as port:
        yield port


@asynccontextmanager
async def grpc_app() -> AsyncIterator[int]:
    """The gRPC app of `tests.support`, on grpcio; its port."""
    server, port = await start_server(name="app", address="127.0.0.1:0", services=(), reflects=False)
    try:
        yield port
    finally:
        await server.stop(0)
