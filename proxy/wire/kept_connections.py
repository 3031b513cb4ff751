"""Short HTTP/1.1 calls to one server, on connections that are kept between them. Bodies are whole and bounded, see `http_client`."""

import asyncio
import ssl
from collections.abc import Iterable
from ipaddress import ip_address
from typing import NamedTuple

from proxy.contract.addresses import join_address, split_address
from proxy.contract.plan import Cause
from proxy.errors import os_reason
from proxy.wire.http1_client import Http1Client
from proxy.wire.http_client import LocalHttpError, LocalResponse, dial, exchange, make_head
from proxy.wire.lookup import SharedLookup
from proxy.wire.streams import RawHead, UpstreamConnection

# A server that closes a connection while a call is on its way may not have seen it: nothing of an answer has come.
_CLOSED_ON = (Cause.REFUSED, Cause.RESET_EARLY)


class _Kept(NamedTuple):
    transport: asyncio.Transport
    client: Http1Client
    tls: ssl.SSLContext | None


class KeptConnections:
    """One server's. Mutable state: connections without a call, the newest last, and whether more are kept.

    Each ends when nobody has wanted it for a while, see `http1_client`.
    """

    def __init__(self, address: str, *, server_name: str = "", at_most: int) -> None:
        """address: `unix:/path` or `host:port`. server_name: whom its certificate must be for. at_most: connections; further calls wait."""
        self._address = address
        self._port, self._lookup = _named(address)
        self._server_name = server_name
        self._room = asyncio.Semaphore(at_most)
        self._idle: list[_Kept] = []
        self._is_closed = False

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        timeout_s: float,
        tls: ssl.SSLContext | None = None,
        limit_bytes: int,
    ) -> LocalResponse:
        """One call that may safely be made twice: where a kept connection turns out to be closed, it is made again on a new one.

        Raises: LocalHttpError (an OSError), a TooLargeError beyond `limit_bytes`; TimeoutError after `timeout_s` seconds.
        """
        head = make_head(self._address, method, target, headers, body)
        async with asyncio.timeout(timeout_s), self._room:
            kept = self._take(tls)
            if kept is not None:
                try:
                    return await self._call(kept, head, body, limit_bytes)
                except LocalHttpError as error:
                    if error.cause not in _CLOSED_ON:
                        raise
            return await self._call(await self._dial(tls), head, body, limit_bytes)

    def close(self) -> None:
        """Close those without a call now, and the others once theirs has ended."""
        self._is_closed = True
        for kept in tuple(self._idle):
            kept.client.close()
        self._idle.clear()

    async def _dial(self, tls: ssl.SSLContext | None) -> _Kept:
        """A new one, to the first address that takes it. Raises: LocalHttpError."""
        if self._lookup is None:
            return _Kept(*await dial(self._address, tls, self._server_name, owner=self), tls)
        try:
            found = await self._lookup.addresses()
        except OSError as error:
            raise LocalHttpError(self._address, os_reason(error)) from error
        reason = "its name leads to no address"
        for ip in found:
            try:
                where = join_address(ip, self._port)
                return _Kept(*await dial(where, tls, self._server_name, owner=self), tls)
            except LocalHttpError as error:
                reason = error.reason
        raise LocalHttpError(self._address, reason)

    def _take(self, tls: ssl.SSLContext | None) -> _Kept | None:
        """The newest one, as the others are more likely to end soon. Those made with other roots are given up."""
        while self._idle:
            kept = self._idle.pop()
            if kept.tls is tls and kept.client.capacity and not kept.transport.is_closing():
                return kept
            kept.transport.abort()
        return None

    async def _call(self, kept: _Kept, head: RawHead, body: bytes, limit_bytes: int) -> LocalResponse:
        is_kept = False
        try:
            response = await exchange(kept.client, self._address, head, body, limit_bytes)
            # Where a server sends a body though there is none in an answer to HEAD, the next call would take that for its answer.
            is_kept = kept.client.capacity > 0 and not self._is_closed and head.method != b"HEAD"
            if is_kept:
                self._idle.append(kept)
            return response
        finally:
            if not is_kept:
                kept.transport.abort()

    def capacity_changed(self, connection: UpstreamConnection) -> None:
        """See ConnectionOwner."""

    def connection_closed(self, connection: UpstreamConnection, detail: str) -> None:
        """See ConnectionOwner."""
        self._idle = [kept for kept in self._idle if kept.client is not connection]


def _named(address: str) -> tuple[int, SharedLookup | None]:
    """The port, and what looks the host up, where it is a name."""
    if address.startswith("unix:"):
        return 0, None
    host, port = split_address(address)
    try:
        ip_address(host)
    except ValueError:
        return port, SharedLookup(host or "localhost", port)
    return port, None
