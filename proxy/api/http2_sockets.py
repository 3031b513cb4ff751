"""Private Unix sockets that speak HTTP/2: where the engine hands calls over to a part of ours, which is loaded with the first of them."""

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.api.server import bind_unix
from proxy.contract.engine import Limits
from proxy.errors import ListenError, os_reason
from proxy.wire.streams import AcceptCall
from proxy.wire.turns import Rota

if TYPE_CHECKING:
    from proxy.wire.http2_server import Http2Server

_LOG: Final = logging.getLogger("postern.local-http")
_BACKLOG: Final = 128


class Http2Sockets:
    """The sockets of one part. name: of it, for errors; rota: whose turn it is of all connections.

    Mutable state: the sockets, open connections, and the group that owns the tasks while `run` does.
    """

    def __init__(self, name: str) -> None:
        self.rota = Rota()
        self._name = name
        self._servers: dict[Path, asyncio.Server] = {}
        self._ends: set[Http2Server] = set()
        self._group: asyncio.TaskGroup | None = None

    async def listen(self, path: Path, accept: AcceptCall) -> str:
        """Listen on one more socket; its address. Raises ListenError."""
        try:
            bound = bind_unix(str(path))
            bound.setblocking(False)
            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(lambda: self._end(accept), sock=bound, backlog=_BACKLOG)
        except OSError as error:
            raise ListenError(self._name, f"unix:{path}", os_reason(error)) from error
        self._servers[path] = server
        return f"unix:{path}"

    async def run(self) -> None:
        """Carry calls until cancelled, then close everything."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            self._close()

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None] | None:
        """Run a call's work in the group of `run`; None where that has ended."""
        if self._group is None:
            work.close()
            return None
        return self._group.create_task(work)

    def _close(self) -> None:
        for path, server in self._servers.items():
            server.close()
            path.unlink(missing_ok=True)
        self._servers.clear()
        for end in list(self._ends):
            end.end()

    def _end(self, accept: AcceptCall) -> "Http2Server":
        from proxy.wire.http2_server import Http2Server  # noqa: PLC0415 - see above

        end = Http2Server(accept, Limits(), self._refused, self._ends.discard, own=True, rota=self.rota)
        self._ends.add(end)
        return end

    def _refused(self, kind: str) -> None:
        _LOG.debug("refused a message to %s: %s", self._name, kind)
