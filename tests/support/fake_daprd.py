"""A daprd's internal port of our own making, for what the real one of these tests doesn't do: newer ones stream answers, older ones know
no streams, and any may break off.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from proxy.api.daprd.framing import HEAD, Messages, ending, framed
from proxy.api.daprd.internals_pb2 import (
    InternalInvokeRequest,
    InternalInvokeRequestStream,
    InternalInvokeResponse,
    InternalInvokeResponseStream,
)
from proxy.contract.engine import Limits
from proxy.contract.head import Headers
from proxy.wire.http2_server import Http2Server
from proxy.wire.streams import Downstream, RawHead

_MESSAGE_BYTES: Final = 8 << 20


class Call:
    """One call of the fake: its messages as they come, and its answer. Mutable state: what came, and what was numbered."""

    def __init__(self, down: Downstream, head: RawHead) -> None:
        self.method = head.target.rpartition(b"/")[2].decode()
        self.head = head
        self.gone = asyncio.Event()
        self._down = down
        self._messages = Messages(_MESSAGE_BYTES)
        self._came: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._has_begun = False
        self._seq = 0

    def request_data(self, data: bytes) -> None:
        """See RequestEvents."""
        self._down.ack(len(data))
        for message in self._messages.feed(data):
            self._came.put_nowait(message)

    def request_end(self, trailers: Headers) -> None:
        """See RequestEvents."""
        self._came.put_nowait(None)

    def request_gone(self, detail: str) -> None:
        """See RequestEvents."""
        self.gone.set()
        self._came.put_nowait(None)

    def response_drained(self, count: int) -> None:
        """See RequestEvents."""

    async def message(self) -> bytes | None:
        """The next message, whichever; None at the request's end."""
        return await self._came.get()

    async def part(self) -> InternalInvokeRequestStream | None:
        """The next message of a stream; None at its end."""
        message = await self.message()
        return None if message is None else InternalInvokeRequestStream.FromString(message)

    async def whole(self) -> InternalInvokeRequest:
        """The message of CallLocal."""
        return InternalInvokeRequest.FromString(await self.message() or b"")

    def send(
        self,
        data: bytes | None = None,
        *,
        response: InternalInvokeResponse | None = None,
        seq: int | None = None,
    ) -> None:
        """A message of the answer's stream."""
        part = InternalInvokeResponseStream(response=response)
        if data is not None:
            part.payload.data, part.payload.seq = data, self._seq if seq is None else seq
            self._seq += 1
        self.send_message(part.SerializeToString())

    def send_whole(self, response: InternalInvokeResponse) -> None:
        """The answer of CallLocal."""
        self.send_message(response.SerializeToString())

    def send_message(self, message: bytes) -> None:
        """A message, whichever."""
        if not self._has_begun:
            self._has_begun = True
            self._down.respond(200, HEAD, end=False)
        self._down.send(framed(message))

    def end(self, code: int = 0, text: str = "") -> None:
        """The status."""
        if self._has_begun:
            self._down.finish(ending(code, text))
        else:
            self._down.respond(200, (*HEAD, *ending(code, text)), end=True)


def http(status: int, content_type: str = "text/plain") -> InternalInvokeResponse:
    """The envelope of an HTTP app's answer."""
    response = InternalInvokeResponse()
    response.status.code = status
    response.message.content_type = content_type
    return response


@asynccontextmanager
async def fake_daprd(
    context: ssl.SSLContext, answer: Callable[[Call], Awaitable[None]]
) -> AsyncIterator[int]:
    """Serve on a port of loopback, each call by `answer`; the port."""
    async with asyncio.TaskGroup() as tasks:
        running: set[asyncio.Task[None]] = set()

        def accept(down: Downstream, head: RawHead) -> Call:
            call = Call(down, head)

            async def run() -> None:
                await answer(call)

            running.add(tasks.create_task(run()))
            return call

        def made() -> Http2Server:
            return Http2Server(accept, Limits(), lambda _: None, lambda _: None)

        server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0, ssl=context)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in running:
                task.cancel()
