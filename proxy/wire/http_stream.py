"""A local answer that goes on, read line by line as it comes; what is not read stays with the server."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.wire.http_client import LocalHttpError, dial, make_head

_LINE_BYTES = 1_048_576


class LineStream:
    """ResponseEvents of one call. `status` is known once it is given out. Mutable state: what came and was not taken yet."""

    def __init__(self, address: str) -> None:
        self.status = 0
        self.ack: Callable[[int], None] = lambda _: None
        self._address = address
        self._came = bytearray()
        self._news = asyncio.Event()
        self._problem: str | None = None
        self._has_ended = False

    async def lines(self) -> AsyncGenerator[bytes]:
        """The lines of the answer, until it ends. Raises: LocalHttpError where it breaks off."""
        while True:
            end = self._came.find(b"\n") + 1
            if end:
                line = bytes(self._came[:end])
                del self._came[:end]
                self.ack(end)
                yield line
                continue
            if self._problem is not None:
                raise LocalHttpError(self._address, self._problem)
            if self._has_ended:
                return
            if len(self._came) > _LINE_BYTES:
                raise LocalHttpError(self._address, f"a line is longer than {_LINE_BYTES} bytes")
            self._news.clear()
            await self._news.wait()

    async def rest(self) -> bytes:
        """All of a short answer."""
        while not self._has_ended and self._problem is None and len(self._came) <= _LINE_BYTES:
            self._news.clear()
            await self._news.wait()
        return bytes(self._came)

    async def begun(self) -> None:
        """Wait for the head. Raises: LocalHttpError."""
        while not self.status:
            if self._problem is not None:
                raise LocalHttpError(self._address, self._problem)
            self._news.clear()
            await self._news.wait()

    def response_inform(self, status: int, headers: Headers) -> None:
        """See ResponseEvents. Only the final answer counts."""

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """See ResponseEvents."""
        self.status = status
        self._has_ended = end
        self._news.set()

    def response_data(self, data: bytes) -> None:
        """See ResponseEvents. It is acknowledged once it is taken."""
        self._came += data
        self._news.set()

    def response_end(self, trailers: Headers) -> None:
        """See ResponseEvents."""
        self._has_ended = True
        self._news.set()

    def response_lost(self, cause: Cause, detail: str) -> None:
        """See ResponseEvents."""
        self._problem = detail
        self._news.set()

    def request_drained(self, count: int) -> None:
        """See ResponseEvents."""


@asynccontextmanager
async def open_stream(address: str, target: str, *, timeout_s: float) -> AsyncIterator[LineStream]:
    """GET on a connection of its own to `unix:/path` or `host:port`, whose answer has begun within `timeout_s`.

    Raises: LocalHttpError (an OSError), TimeoutError.
    """
    stream = LineStream(address)
    async with asyncio.timeout(timeout_s) as until:
        transport, client = await dial(address)
        try:
            call = client.open(stream)
            stream.ack = call.ack
            call.start(make_head(address, "GET", target), end=True)
            await stream.begun()
            until.reschedule(None)
            yield stream
        finally:
            transport.abort()
