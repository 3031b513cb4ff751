"""The least that can stand between a downstream and an upstream end: every event becomes the other end's command."""

import asyncio
from collections.abc import Callable

from proxy.contract.engine import Limits
from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.wire.http1_client import Http1Client
from proxy.wire.streams import Downstream, RawHead, UpstreamCall, UpstreamConnection


class Relay:
    """An AcceptCall onto one HTTP/1.1 address, with one fresh connection a call. Owner of those connections, too."""

    def __init__(self, group: asyncio.TaskGroup, host: str, port: int, limits: Limits) -> None:
        self._group = group
        self._host = host
        self._port = port
        self._limits = limits
        self.lost: list[tuple[Cause, str]] = []
        self.dialled = 0

    def __call__(self, down: Downstream, head: RawHead) -> "_RelayedCall":
        call = _RelayedCall(down, self.lost, bodiless=head.framing == "none")
        self._group.create_task(self._dial(call, head))
        return call

    async def _dial(self, call: "_RelayedCall", head: RawHead) -> None:
        try:
            async with asyncio.timeout(30):
                _, client = await asyncio.get_running_loop().create_connection(
                    lambda: Http1Client(self, self._limits, lambda _: None), self._host, self._port
                )
        except OSError:
            call.down.respond(502, (), end=True)
            return
        self.dialled += 1
        call.connect(client, head)

    def capacity_changed(self, connection: UpstreamConnection) -> None:
        """See ConnectionOwner."""
        connection.retire()

    def connection_closed(self, connection: UpstreamConnection, detail: str) -> None:
        """See ConnectionOwner."""


class _RelayedCall:
    """Both kinds of events. What came before the connection waits in `_early`."""

    def __init__(self, down: Downstream, lost: list[tuple[Cause, str]], *, bodiless: bool) -> None:
        self.down = down
        self._lost = lost
        self._up: UpstreamCall | None = None
        self._bodiless = bodiless
        self._early: list[Callable[[UpstreamCall], None]] = []

    def connect(self, client: Http1Client, head: RawHead) -> None:
        """Begin."""
        up = self._up = client.open(self)
        up.start(head, end=self._bodiless)
        for command in self._early:
            command(up)

    def _tell(self, command: Callable[[UpstreamCall], None]) -> None:
        if self._up is None:
            self._early.append(command)
        else:
            command(self._up)

    def request_data(self, data: bytes) -> None:
        self._tell(lambda up: up.send(data))

    def request_end(self, trailers: Headers) -> None:
        if not self._bodiless:
            self._tell(lambda up: up.finish(trailers))

    def request_gone(self, detail: str) -> None:
        self._tell(lambda up: up.abort())

    def response_drained(self, count: int) -> None:
        self._tell(lambda up: up.ack(count))

    def response_inform(self, status: int, headers: Headers) -> None:
        self.down.inform(status, headers)

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        self.down.respond(status, headers, end=end)

    def response_data(self, data: bytes) -> None:
        self.down.send(data)

    def response_end(self, trailers: Headers) -> None:
        self.down.finish(trailers)

    def response_lost(self, cause: Cause, detail: str) -> None:
        self._lost.append((cause, detail))
        self.down.abort(cause)

    def request_drained(self, count: int) -> None:
        self.down.ack(count)
