"""A connection to a server through an HTTP proxy, by CONNECT (RFC 9110 §9.3.6)."""

import asyncio
import re
import ssl

from proxy.errors import ProxyError
from telemetry.web_proxies import WebProxy

_HEAD_BYTES = 16_384  # of the proxy's answer, whose fields say nothing to us
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r)")


class TunnelError(ProxyError, OSError):
    """The proxy opened no way to the server. The text has neither the proxy's address nor credentials."""


async def open_tunnel(proxy: WebProxy, authority: str) -> asyncio.Transport:
    """A way to `host:port`, which nothing was sent on. Its caller sets the deadline and closes it. Raises: OSError."""
    loop = asyncio.get_running_loop()
    transport, asked = await loop.create_connection(
        lambda: _Asked(authority, loop.create_future()),
        proxy.host,
        proxy.port,
    )
    try:
        credentials = f"proxy-authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
        transport.write(
            f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n{credentials}\r\n".encode("latin-1")
        )
        await asked.opened
    except BaseException:
        transport.abort()
        raise
    return transport


class _Asked(asyncio.Protocol):
    """Waits for the head of the answer. Mutable state: what came of it."""

    def __init__(self, authority: str, opened: asyncio.Future[None]) -> None:
        self.opened = opened
        self._authority = authority
        self._head = b""

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._head += data
        head, blank, rest = self._head.partition(b"\r\n\r\n")
        if not blank and len(head) <= _HEAD_BYTES:
            return
        found = _STATUS.match(head)
        if self.opened.done():
            return
        if not blank or found is None:
            self._fail("its answer to CONNECT is not valid HTTP")
        elif not found[1].startswith(b"2"):
            self._fail(f"it answered CONNECT {self._authority} with status {found[1].decode()}")
        elif rest:
            self._fail("it sent something before the server was asked")
        else:
            self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if not self.opened.done():
            self._fail("it closed the connection without an answer to CONNECT")

    def _fail(self, why: str) -> None:
        self.opened.set_exception(TunnelError(why))


async def over_tls(
    transport: asyncio.Transport, protocol: asyncio.Protocol, tls: ssl.SSLContext, server_name: str
) -> asyncio.Transport:
    """The protocol on TLS over that way, which is closed where the handshake fails. Raises: OSError."""
    loop = asyncio.get_running_loop()
    try:
        # Not with the protocol itself, which would be told of the end of a connection that it has never heard of.
        found = await loop.start_tls(transport, asyncio.Protocol(), tls, server_hostname=server_name)
    except BaseException:
        transport.abort()
        raise
    if found is None:
        raise TunnelError("the connection was closed during the TLS handshake")
    found.set_protocol(protocol)
    protocol.connection_made(found)
    return found
