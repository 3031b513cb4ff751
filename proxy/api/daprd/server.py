"""The two private sockets where the engine hands over what is for daprds, or from them. What translates is loaded with the first call."""

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from proxy.api.http2_sockets import Http2Sockets
from proxy.wire.streams import Downstream, RawHead, RequestEvents

if TYPE_CHECKING:
    from proxy.api.daprd.way import Way


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

    Mutable state: the ways into the engine once used.
    """

    def __init__(self, base: Path, own: Translating) -> None:
        self.inbound, self.outbound = base.with_suffix(".din"), base.with_suffix(".dout")
        self.inbound_way, self.outbound_way = base.with_suffix(".dinw"), base.with_suffix(".doutw")
        self._own = own
        self._sockets = Http2Sockets("daprd")
        self._ways: dict[Path, Way] = {}

    async def listen(self) -> None:
        """Listen on both sockets. Raises ListenError."""
        await self._sockets.listen(self.inbound, self._accept_inbound)
        await self._sockets.listen(self.outbound, self._accept_outbound)

    async def run(self) -> None:
        """Carry calls until cancelled, then close everything."""
        try:
            await self._sockets.run()
        finally:
            for way in self._ways.values():
                way.close()
            for path in (self.inbound_way, self.outbound_way):
                path.unlink(missing_ok=True)

    def _way(self, path: Path) -> "Way":
        from proxy.api.daprd.way import Way  # noqa: PLC0415 - see above

        return self._ways.setdefault(path, Way(str(path), self._sockets.spawn, self._sockets.rota))

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
