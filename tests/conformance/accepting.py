"""A server socket whose connections are tasks of its scope: at the scope's end none is left, and what one raises fails the test."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def accepting(
    script: Script,
    *,
    quiet: tuple[type[Exception], ...],
    limit: int,
    tls: ssl.SSLContext | None = None,
    port: int = 0,
) -> AsyncIterator[int]:
    """Run `script` on each connection; yields the port. An exception of `quiet` ends its script without further notice."""
    running: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except quiet:
            pass
        finally:
            writer.close()

    async with asyncio.TaskGroup() as tasks:

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = tasks.create_task(run(reader, writer))
            running[task] = writer
            task.add_done_callback(running.pop)

        server = await asyncio.start_server(connected, "127.0.0.1", port, ssl=tls, limit=limit)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await asyncio.sleep(0)  # of a connection that was just accepted, uvloop tells in the next turn
            for task, writer in tuple(running.items()):
                writer.transport.abort()  # a script that has not begun never will
                task.cancel()
