"""An HTTP proxy for tests: CONNECT, and requests for whole URLs. Whatever the name, it goes to one server of the test's."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.support.http_wire import Head, format_head, read_head


class WebProxy:
    """`asked` holds each head that came. status: of its answers to CONNECT."""

    def __init__(self, port: int) -> None:
        self.asked: list[Head] = []
        self.status = 200
        self.address = ""
        self._port = port
        self._serving: set[asyncio.Task[None]] = set()

    async def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both of its ends are closed."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            self._serving.remove(task)

    async def ended(self) -> None:
        """Wait for those that are open. Raises TimeoutError."""
        async with asyncio.timeout(10):
            while self._serving:
                await asyncio.wait(set(self._serving))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if head is None:
            writer.close()
            return
        self.asked.append(head)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        if head.first == "CONNECT":
            writer.write(b"HTTP/1.1 %d Said\r\nx-proxy: yes\r\n\r\n" % self.status)
        else:
            parts = urlsplit(head.second)
            fields = [(name, text) for name, text in head.headers if name.lower() != "proxy-authorization"]
            far_writer.write(format_head(f"{head.first} {parts.path}?{parts.query} HTTP/1.1", fields))
        if self.status != 200:
            writer.close()
            far_writer.close()
            return
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
