"""Calls from here into the engine, over HTTP/2 on a private socket."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Final

from proxy.contract.engine import Limits
from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.wire.http2_client import Http2Client
from proxy.wire.streams import RawHead, ResponseEvents, UpstreamCall, UpstreamConnection
from proxy.wire.turns import Rota

_LOG = logging.getLogger("postern.daprd")
_CONNECT_S: Final = 10.0
_KEPT: Final = 16  # connections without a call
_CALLS: Final = 1_024  # at once


class Way:
    """Connections to one socket. Each has one call at a time, so that nobody waits behind another's body, and is kept for the next.

    Mutable state: those that are free, and how many calls have one, or wait for one.
    """

    def __init__(
        self, path: str, spawn: Callable[[Coroutine[object, object, None]], object], rota: Rota
    ) -> None:
        self._rota = rota
        self._path = path
        self._spawn = spawn
        self._free: list[Http2Client] = []
        self._made: set[UpstreamConnection] = set()
        self._coming = 0
        self._limits = Limits()

    def open(self, events: ResponseEvents) -> UpstreamCall:
        """A new call, which may be sent at once."""
        while self._free:
            connection = self._free.pop()
            if connection.capacity > 0:
                return connection.open(events)
        call = _Coming(events)
        if len(self._made) + self._coming < _CALLS:
            self._coming += 1
            self._spawn(self._connect(call))
        else:
            text = f"{_CALLS} calls of daprds are under way"
            asyncio.get_running_loop().call_soon(call.failed, Cause.SHED, text)
        return call

    async def _connect(self, call: "_Coming") -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, client = await loop.create_unix_connection(
                    lambda: Http2Client(self, self._limits, _count, "", own=True, rota=self._rota), self._path
                )
                try:
                    await client.ready
                except asyncio.CancelledError:  # out of time, too
                    client.close()
                    raise
        except (OSError, TimeoutError) as error:
            call.failed(Cause.REFUSED, str(error) or "no connection in time")
        else:
            if not client.closing:  # else it broke as it came up, and is not told of again
                self._made.add(client)
            if call.is_wanted:
                self._free = [one for one in self._free if one is not client]
                call.connected(client)
        finally:
            self._coming -= 1

    def capacity_changed(self, connection: UpstreamConnection) -> None:
        """See ConnectionOwner."""
        assert isinstance(connection, Http2Client)
        if connection.in_flight or connection.capacity <= 0 or connection in self._free:
            return
        if len(self._free) < _KEPT:
            self._free.append(connection)
        else:
            connection.retire()

    def connection_closed(self, connection: UpstreamConnection, detail: str) -> None:
        """See ConnectionOwner."""
        self._made.discard(connection)
        self._free = [one for one in self._free if one is not connection]

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._made):
            connection.close()


class _Coming:
    """A call whose connection is being made: an UpstreamCall that keeps what it is told until then, which its caller bounds."""

    def __init__(self, events: ResponseEvents) -> None:
        self._events: ResponseEvents | None = events
        self._call: UpstreamCall | None = None
        self._told: list[Callable[[UpstreamCall], None]] = []

    @property
    def is_wanted(self) -> bool:
        """Whether nobody cancelled it."""
        return self._events is not None

    def connected(self, connection: Http2Client) -> None:
        """There it is."""
        assert self._events is not None
        self._call = call = connection.open(self._events)
        told, self._told = self._told, []
        for step in told:
            step(call)

    def failed(self, cause: Cause, detail: str) -> None:
        """There is none."""
        events, self._events = self._events, None
        if events is not None:
            events.response_lost(cause, detail)

    def _tell(self, step: Callable[[UpstreamCall], None]) -> None:
        if self._call is not None:
            step(self._call)
        elif self._events is not None:
            self._told.append(step)

    def start(self, head: RawHead, *, end: bool) -> None:
        """See UpstreamCall."""
        self._tell(lambda call: call.start(head, end=end))

    def send(self, data: bytes) -> None:
        """See UpstreamCall."""
        self._tell(lambda call: call.send(data))

    def finish(self, trailers: Headers) -> None:
        """See UpstreamCall."""
        self._tell(lambda call: call.finish(trailers))

    def ack(self, count: int) -> None:
        """See UpstreamCall."""
        self._tell(lambda call: call.ack(count))

    def abort(self) -> None:
        """See UpstreamCall."""
        self._events = None
        self._told.clear()
        if self._call is not None:
            self._call.abort()


def _count(kind: str) -> None:
    _LOG.debug("refused a message: %s", kind)
