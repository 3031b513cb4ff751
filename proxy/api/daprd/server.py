"""The two private sockets where the engine hands over what is for daprds, or from them. What translates is loaded with the first call."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from proxy.api.server import bind_unix
from proxy.contract.engine import Limits
from proxy.errors import ListenError, os_reason
from proxy.wire.streams import Downstream, RawHead, RequestEvents
from proxy.wire.turns import Rota

if TYPE_CHECKING:
    from proxy.api.daprd.way import Way
    from proxy.wire.http2_server import Http2Server

_LOG: Final = logging.getLogger("postern.daprd")
_BACKLOG: Final = 128


class Translating(Struct, frozen=True, kw_only=True):
    """Whose sidecar it is. max_bytes: of a message, either way; head_bytes: of a head.

    replay_bytes: of a body that is kept for a second attempt.
    """

    app_id: str
    namespace: str
    speaks_grpc: bool
    max_bytes: int
    head_bytes: int
    replay_bytes: int


class Translators:
    """Both directions of one sidecar. `base`: sockets are beside it, two to be called at and two to call back by.

    Mutable state: the open connections, the ways into the engine once used, whose turn it is, and the group that owns the tasks.
    """

    def __init__(self, base: Path, own: Translating) -> None:
        self.inbound, self.outbound = base.with_suffix(".din"), base.with_suffix(".dout")
        self.inbound_way, self.outbound_way = base.with_suffix(".dinw"), base.with_suffix(".doutw")
        self._own = own
        self._ends: set[Http2Server] = set()
        self._ways: dict[Path, Way] = {}
        self._group: asyncio.TaskGroup | None = None
        self._servers: list[asyncio.Server] = []
        self._rota = Rota()

    async def listen(self) -> None:
        """Listen on both sockets. Raises ListenError."""
        loop = asyncio.get_running_loop()
        for path, accept in ((self.inbound, self._accept_inbound), (self.outbound, self._accept_outbound)):
            try:
                bound = bind_unix(str(path))
                bound.setblocking(False)
                server = await loop.create_unix_server(self._factory(accept), sock=bound, backlog=_BACKLOG)
            except OSError as error:
                raise ListenError("daprd", f"unix:{path}", os_reason(error)) from error
            self._servers.append(server)

    async def run(self) -> None:
        """Carry calls until cancelled, then close everything."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            self.close()

    def close(self) -> None:
        """Close sockets and connections now."""
        for server in self._servers:
            server.close()
        for path in (self.inbound, self.outbound, self.inbound_way, self.outbound_way):
            path.unlink(missing_ok=True)
        for end in list(self._ends):
            end.end()
        for way in self._ways.values():
            way.close()
        self._servers.clear()

    def _factory(self, accept: Callable[[Downstream, RawHead], RequestEvents]) -> "Callable[[], Http2Server]":
        def made() -> "Http2Server":
            from proxy.wire.http2_server import Http2Server  # noqa: PLC0415 - see above

            end = Http2Server(accept, Limits(), _count, self._ends.discard, own=True, rota=self._rota)
            self._ends.add(end)
            return end

        return made

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        if self._group is None:
            work.close()
        else:
            self._group.create_task(work)

    def _way(self, path: Path) -> "Way":
        from proxy.api.daprd.way import Way  # noqa: PLC0415 - see above

        return self._ways.setdefault(path, Way(str(path), self._spawn, self._rota))

    def _accept_inbound(self, down: Downstream, head: RawHead) -> RequestEvents:
        from proxy.api.daprd.inbound import Callee, accept  # noqa: PLC0415 - see above

        own = Callee(
            app_id=self._own.app_id,
            speaks_grpc=self._own.speaks_grpc,
            max_bytes=self._own.max_bytes,
            head_bytes=self._own.head_bytes,
        )
        return accept(self._way(self.inbound_way), own, down, head)

    def _accept_outbound(self, down: Downstream, head: RawHead) -> RequestEvents:
        from proxy.api.daprd.outbound import Caller, CallOut  # noqa: PLC0415 - see above

        own = Caller(
            app_id=self._own.app_id,
            namespace=self._own.namespace,
            max_bytes=self._own.max_bytes,
            head_bytes=self._own.head_bytes,
            replay_bytes=self._own.replay_bytes,
        )
        return CallOut(self._way(self.outbound_way), own, down, head)


def _count(kind: str) -> None:
    _LOG.debug("refused a message: %s", kind)
