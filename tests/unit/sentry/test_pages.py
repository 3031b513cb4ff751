"""One page for probes and scrapers."""

import asyncio
import socket
from contextlib import suppress

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
        for line in (b"GET / HTTP/1.1", b"POST /metrics HTTP/1.1", b"odd", b"GET /metricsx HTTP/1.1"):
            assert (await asked(address, line + b"\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
    assert address_of(None) == ""


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("Host: localhost:8080", 200),
        ("Host: 10.0.0.1:8080", 200),
        ("Host: sentry.example.com", 200),
        ("Host: evil.example", 403),
        ("Host: evil.example\r\nAccept-Language: en\r\nAccept: text/plain;version=0.0.4", 403),
        ("Host: evil.example\r\nAccept: text/plain;version=0.0.4", 200),  # a scraper by any name
        ("Host: localhost:8080\r\nOrigin: http://evil.example", 403),
        ("Host: localhost:8080\r\nOrigin: http://localhost:8080", 200),
        ("Host: localhost:8080\r\nSec-Fetch-Site: cross-site", 403),
    ],
)
async def test_page_is_for_probes_and_scrapers_and_not_for_other_sites_pages(
    fields: str, status: int
) -> None:
    server = await serve_page(
        "127.0.0.1", 0, "/healthz", lambda: Page("200 OK", body=b"up"), hosts=("*.example.com",)
    )
    async with server:
        got = await asked(address_of(server), f"GET /healthz HTTP/1.1\r\n{fields}\r\n\r\n".encode())
    assert int(got.split()[1]) == status
    assert (b"up" in got) is (status == 200)


@pytest.mark.parametrize(
    "head", [b"GET /healthz HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\nA: " + b"a" * 20_000]
)
async def test_head_that_has_no_end_is_not_answered(head: bytes) -> None:
    server = await serve_page("127.0.0.1", 0, "/healthz", lambda: Page("200 OK"))
    async with server:
        host, _, port = address_of(server).rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head)
        writer.write_eof()
        with suppress(ConnectionResetError):  # what was not read
            assert await reader.read() == b""
        writer.close()


async def test_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StoreError, match=f"127.0.0.1:{port}.*/healthz"):
            await serve_page("127.0.0.1", port, "/healthz", lambda: Page("200 OK"))
