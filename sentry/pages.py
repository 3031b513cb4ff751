"""One page over HTTP, for probes and scrapers and not for browsers' pages: a GET or HEAD of one path, answered at once and closed."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from sentry.errors import StoreError
from telemetry.hosts import Fields, own_names, split_authority, stranger
from telemetry.server_tls import ServerTls

_LOG: Final = logging.getLogger("sentry")
_ASK_S = 5.0
_HEAD_BYTES = 16_384
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Page(Struct, frozen=True):
    """An answer: the status line's text, and a body with its type."""

    status: str
    kind: str = ""
    body: bytes = b""


async def serve_page(
    host: str,
    port: int,
    path: str,
    answer: Callable[[], Page],
    *,
    hosts: tuple[str, ...] = (),
    tls: ssl.SSLContext | None = None,
) -> asyncio.Server:
    """Serve `path` on `host` ("" for all addresses) and `port`; the caller closes it. `hosts`: names by which it may be asked for too.
    tls: None for plain HTTP.

    Raises: StoreError when the port can't be listened on.
    """

    names = None if host in _LOOPBACK else own_names(socket.gethostname(), beyond=True)

    def judged(authority: str, fields: Fields) -> Page:
        what = stranger(authority, fields, hosts=hosts, names=names, scraped=True)
        return answer() if what is None else _refusal(what, authority)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_ASK_S):
                writer.write(_response(await reader.readuntil(b"\r\n\r\n"), path, judged))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    try:
        within: dict[str, Any] = {"ssl": tls, "ssl_handshake_timeout": _ASK_S} if tls is not None else {}
        return await asyncio.start_server(serve, host or None, port, limit=_HEAD_BYTES, **within)
    except OSError as error:
        raise StoreError(
            f"{host or '*'}:{port}", f"can't be listened on for {path}: {error.strerror}"
        ) from error


def _response(head: bytes, path: str, judged: Callable[[str, Fields], Page]) -> bytes:
    line, *rest = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    parts = line.split(b" ")
    is_asked = (
        len(parts) == 3 and parts[0] in {b"GET", b"HEAD"} and parts[1].partition(b"?")[0] == path.encode()
    )
    fields = tuple((name.lower(), data.strip()) for name, _, data in (each.partition(b":") for each in rest))
    authority = next((data.decode("latin-1") for name, data in fields if name == b"host"), "")
    page = judged(authority, fields) if is_asked else Page("404 Not Found")
    kind = f"content-type: {page.kind}\r\n" if page.kind else ""
    told = f"HTTP/1.1 {page.status}\r\n{kind}content-length: {len(page.body)}\r\nconnection: close\r\n\r\n"
    return told.encode() + (b"" if parts[0] == b"HEAD" else page.body)


def _refusal(what: str, authority: str) -> Page:
    text = "a page of another site may not read this\n"
    if what == "host":
        name = split_authority(authority)[0]
        text = (
            f"host {authority!r} is not known to be this machine: use localhost or an IP address, or start sentry with "
            f"--allowed-hosts={name}\n"
        )
    return Page("403 Forbidden", "text/plain; charset=utf-8", text.encode())


def page_tls(files: tuple[Path, Path] | None) -> ssl.SSLContext | None:
    """TLS by certificate chain and key, which are read again when they change; None: none. Raises: StoreError."""
    if files is None:
        return None

    def unusable(error: Exception) -> None:
        _LOG.error("the files of --metrics-tls-cert can't be used, the old ones stay in force: %s", error)

    try:
        return ServerTls(*files, unusable).context
    except (OSError, ValueError) as error:
        raise StoreError(str(files[0]), f"can't be used for the metrics port: {error}") from error


def address_of(server: asyncio.Server | None) -> str:
    """Where a server listens, `host:port`; empty without one."""
    return ":".join(str(part) for part in server.sockets[0].getsockname()[:2]) if server is not None else ""
