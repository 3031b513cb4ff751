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

_LOG = logging.getLogger("postern.daprd")
_CONNECT_S: Final = 10.0
_KEPT: Final = 16  # connections without a call


class Way:
    """Connections to one socket. Each has one call at a time, so that nobody waits behind another's body, and is kept for the next.

    Mutable state: those that are free.
    """

    def __init__(self, path: str, spawn: Callable[[Coroutine[object, object, None]], object]) -> None:
        self._path = path
        self._spawn = spawn
        self._free: list[Http2Client] = []
        self._limits = Limits()

    def open(self, events: ResponseEvents) -> UpstreamCall:
        """A new call, which may be sent at once."""
        while self._free:
            connection = self._free.pop()
            if connection.capacity > 0:
                return connection.open(events)
        call = _Coming(events)
        self._spawn(self._connect(call))
        return call

    async def _connect(self, call: "_Coming") -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, client = await loop.create_unix_connection(
                    lambda: Http2Client(self, self._limits, _count, "", own=True), self._path
                )
                await client.ready
        except (OSError, TimeoutError) as error:
            call.failed(str(error) or "no connection in time")
        else:
            if call.is_wanted:
                self.connection_closed(client, "")  # no longer free
                call.connected(client)

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
        """See ConnectionOwner. Also: it is taken."""
        self._free = [one for one in self._free if one is not connection]

    def close(self) -> None:
        """Close what is free."""
        while self._free:
            self._free.pop().close()


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

    def failed(self, detail: str) -> None:
        """There is none."""
        if self._events is not None:
            self._events.response_lost(Cause.REFUSED, detail)

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
