"""One page over HTTP, for probes and scrapers: a GET or HEAD of one path, answered at once and closed."""

import asyncio
from collections.abc import Callable

from msgspec import Struct

from sentry.errors import StoreError

_ASK_S = 5.0
_LINE_BYTES = 4096


class Page(Struct, frozen=True):
    """An answer: the status line's text, and a body with its type."""

    status: str
    kind: str = ""
    body: bytes = b""


async def serve_page(host: str, port: int, path: str, answer: Callable[[], Page]) -> asyncio.Server:
    """Serve `path` on `host` ("" for all addresses) and `port`; the caller closes it.

    Raises: StoreError when the port can't be listened on.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_ASK_S):
                writer.write(_response(await reader.readline(), path, answer))
                await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass
        finally:
            writer.close()

    try:
        return await asyncio.start_server(serve, host or None, port, limit=_LINE_BYTES)
    except OSError as error:
        raise StoreError(
            f"{host or '*'}:{port}", f"can't be listened on for {path}: {error.strerror}"
        ) from error


def _response(line: bytes, path: str, answer: Callable[[], Page]) -> bytes:
    parts = line.split(b" ")
    is_asked = (
        len(parts) == 3 and parts[0] in {b"GET", b"HEAD"} and parts[1].partition(b"?")[0] == path.encode()
    )
    page = answer() if is_asked else Page("404 Not Found")
    kind = f"content-type: {page.kind}\r\n" if page.kind else ""
    head = f"HTTP/1.1 {page.status}\r\n{kind}content-length: {len(page.body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + (b"" if parts[0] == b"HEAD" else page.body)


def address_of(server: asyncio.Server | None) -> str:
    """Where a server listens, `host:port`; empty without one."""
    return ":".join(str(part) for part in server.sockets[0].getsockname()[:2]) if server is not None else ""
