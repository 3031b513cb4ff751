"""An HTTP proxy for tests: CONNECT, and requests for whole URLs. Whatever the name, it goes to one server of the test's."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.support.http_wire import Head, format_head, read_head


class WebProxy:
    """`asked` holds each head that came. status: of its own answers. opening: to CONNECT, other bytes than those of a good answer, or none.

    is_silent: it answers nothing until its client leaves.
    """

    def __init__(self, port: int) -> None:
        self.asked: list[Head] = []
        self.status = 200
        self.opening: bytes | None = None
        self.is_silent = False
        self.address = ""
        self._port = port
        self._serving: set[asyncio.Task[None]] = set()

    async def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both of its ends are closed."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            with suppress(ConnectionError):  # its client left
                await self._serve(reader, writer)
        finally:
            writer.close()
            self._serving.remove(task)

    async def ended(self) -> None:
        """Wait for those that are open. Raises TimeoutError."""
        async with asyncio.timeout(10):
            while self._serving:
                await asyncio.wait(set(self._serving))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if head is None:
            return
        self.asked.append(head)
        if self.is_silent:
            await reader.read()
            return
        if self.status != 200:
            writer.write(b"HTTP/1.1 %d Said\r\ncontent-length: 0\r\n\r\n" % self.status)
            await writer.drain()
            return
        if self.opening is not None:
            writer.write(self.opening)
            await writer.drain()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        if head.first == "CONNECT":
            writer.write(b"HTTP/1.1 200 Said\r\nx-proxy: yes\r\n\r\n")
        else:
            parts = urlsplit(head.second)
            fields = [(name, text) for name, text in head.headers if name.lower() != "proxy-authorization"]
            query = f"?{parts.query}" if parts.query else ""
            far_writer.write(format_head(f"{head.first} {parts.path or '*'}{query} HTTP/1.1", fields))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_relay(reader, far_writer))
            tasks.create_task(_relay(far_reader, writer))


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def running_proxy(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[WebProxy]:
    """A proxy on loopback to the server on that port of it."""
    proxy = WebProxy(port)
    server = await asyncio.start_server(proxy.begin, "127.0.0.1", 0, ssl=tls)
    proxy.address = f"localhost:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield proxy
        await proxy.ended()
