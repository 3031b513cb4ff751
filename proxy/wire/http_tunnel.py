"""Connections to an HTTP proxy, and through one by CONNECT (RFC 9110 §9.3.6). Errors name it; credentials are in none."""

import asyncio
import re
import ssl
from collections.abc import Callable

from proxy.contract.addresses import split_address
from proxy.contract.engine import Via
from proxy.errors import ProxyError, os_reason

_HEAD_BYTES = 16_384  # of the proxy's answer, whose fields say nothing to us
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r)")


class TunnelError(ProxyError, OSError):
    """The proxy opened no way to the server."""


def proxy_at(address: str) -> str:
    """One of them, for people."""
    return f"the HTTP proxy at {address}"


def refused_by_proxy(address: str, what: str, status: int) -> str:
    """Its answer, for people."""
    hint = (
        ": it asks for another user and password, or for any (http://user:password@…)"
        if status == 407
        else ""
    )
    return f"{proxy_at(address)} answered {what} with status {status}{hint}"


async def connect_proxy(
    via: Via, make: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None, name: str | None
) -> asyncio.Transport:
    """A connection to the proxy itself, over TLS with a proxy of that name, or in plaintext. Raises: OSError."""
    host, port = split_address(via.address)
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(
            make, host, port, ssl=tls, server_hostname=name
        )
    except ssl.SSLError:
        raise
    except OSError as error:
        raise TunnelError(f"{proxy_at(via.address)}: {os_reason(error)}") from error
    return transport


async def open_tunnel(
    via: Via, authority: str, tls: ssl.SSLContext | None = None, name: str | None = None
) -> asyncio.Transport:
    """A way to `host:port`, which nothing was sent on. Its caller sets the deadline and closes it. Raises: OSError."""
    asked = _Asked(via.address, authority, asyncio.get_running_loop().create_future())
    transport = await connect_proxy(via, lambda: asked, tls, name)
    try:
        credentials = b"proxy-authorization: %b\r\n" % via.authorization if via.authorization else b""
        target = authority.encode("latin-1")
        transport.write(b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (target, target, credentials))
        await asked.opened
    except BaseException:
        transport.abort()
        raise
    return transport


class _Asked(asyncio.Protocol):
    """Waits for the head of the answer. Mutable state: what came of it."""

    def __init__(self, address: str, authority: str, opened: asyncio.Future[None]) -> None:
        self.opened = opened
        self._address = address
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
            self._fail("gave an answer to CONNECT that is not valid HTTP")
        elif not found[1].startswith(b"2"):
            text = refused_by_proxy(self._address, f"CONNECT {self._authority}", int(found[1]))
            self.opened.set_exception(TunnelError(text))
        elif rest:
            self._fail("sent something before the server was asked")
        else:
            self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if not self.opened.done():
            self._fail("closed the connection without an answer to CONNECT")

    def _fail(self, why: str) -> None:
        self.opened.set_exception(TunnelError(f"{proxy_at(self._address)} {why}"))


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
    hand_over(found, protocol)
    return found


def hand_over(transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
    """Give an open way to a protocol that has not heard of it."""
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
