"""One page for probes and scrapers."""

import asyncio
import socket

import pytest

from sentry.errors import StoreError
from sentry.pages import Page, address_of, serve_page


async def asked(address: str, request: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_page_is_served_at_its_path_only() -> None:
    server = await serve_page("127.0.0.1", 0, "/metrics", lambda: Page("200 OK", "text/plain", b"up 1\n"))
    async with server:
        address = address_of(server)
        got = await asked(address, b"GET /metrics?x=1 HTTP/1.1\r\n\r\n")
        assert got.endswith(
            b"content-type: text/plain\r\ncontent-length: 5\r\nconnection: close\r\n\r\nup 1\n"
        )
        assert (await asked(address, b"HEAD /metrics HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
        for line in (
            b"GET / HTTP/1.1\r\n",
            b"POST /metrics HTTP/1.1\r\n",
            b"odd\r\n",
            b"GET /metricsx HTTP/1.1\r\n",
        ):
            assert (await asked(address, line)).startswith(b"HTTP/1.1 404 ")
    assert address_of(None) == ""


async def test_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StoreError, match=f"127.0.0.1:{port}.*/healthz"):
            await serve_page("127.0.0.1", port, "/healthz", lambda: Page("200 OK"))
