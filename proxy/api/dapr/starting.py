"""Starts Dapr's gRPC API, and what calls a gRPC app's AppCallback, when first needed: grpcio takes 20 MB and a tenth of a second."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.api.admin import Admin
from proxy.api.dapr.leaving import Leaving
from proxy.errors import ListenError
from proxy.wire.http_client import LocalResponse, request
from telemetry.client_meters import RpcEnded
from telemetry.logs import Logger

if TYPE_CHECKING:
    from proxy.api.dapr.invocation import HttpCall
    from proxy.api.dapr.service import Refused

Open = Callable[[str], Awaitable[object]]
"""Has the engine listen at an address. Raises ListenError."""
Started = Callable[[str], None]
"""Has the engine take calls at an address."""


class OnDemand:
    """Listens on `path`, and calls back into the engine by the socket `way`. Mutable state: whether it is wanted, and that way open."""

    def __init__(self, path: Path, max_bytes: int, log: Logger) -> None:
        self.path = path
        self.way = path.with_suffix(f"{path.suffix}w")
        self.max_bytes = max_bytes
        self._log = log
        self._wanted = asyncio.Event()
        self._is_way_open = False

    def want(self) -> None:
        """Somebody calls it."""
        self._wanted.set()

    async def run(self, what: str, open_way: Open, serve: Callable[[], Awaitable[None]]) -> None:
        """Serve once it is wanted, until cancelled. A start that failed is tried again for the next call."""
        try:
            while await self._wanted.wait():
                self._wanted.clear()
                try:
                    if not self._is_way_open:
                        await open_way(f"unix:{self.way}")
                        self._is_way_open = True
                    await serve()
                except (ImportError, ListenError, OSError, RuntimeError) as error:
                    self._log.error(f"{what} did not start", reason=str(error))
                finally:
                    self.path.unlink(missing_ok=True)
        finally:
            self.way.unlink(missing_ok=True)


class DaprApi(OnDemand):
    """Dapr's gRPC API. `leaving`: of its sidecar."""

    def __init__(self, path: Path, max_bytes: int, head_bytes: int, log: Logger) -> None:
        super().__init__(path, max_bytes, log)
        self._head_bytes = head_bytes
        self.leaving = Leaving()

    async def start(self, admin: Admin, open_way: Open, started: Started, refused: "Refused") -> None:
        """See `run`. refused: see `service`."""

        async def serve() -> None:
            serving = await asyncio.to_thread(_load_api)
            own = (admin, self._invoke, self.path, self.max_bytes)
            more = {"refused": refused, "head_bytes": self._head_bytes, "leaving": self.leaving}
            await serving(*own, started, **more)

        await self.run("Dapr's gRPC API", open_way, serve)

    async def _invoke(self, call: "HttpCall", within_s: float) -> LocalResponse:
        return await request(
            *(f"unix:{self.way}", call.method, call.target),
            headers=(("host", "localhost"), *call.headers),
            body=call.body,
            timeout_s=within_s,
            limit_bytes=self.max_bytes,
        )


class Callback(OnDemand):
    """What calls OnInvoke of a gRPC app."""

    async def start(self, app_id: str, open_way: Open, started: Started, told: RpcEnded | None) -> None:
        """See `run`. told: of each call of the app."""

        async def serve() -> None:
            bridge = await asyncio.to_thread(_load_bridge)
            await bridge(app_id, self.path, self.way, self.max_bytes, started, told=told)

        await self.run("the server that calls AppCallback/OnInvoke", open_way, serve)


def _load_api() -> "Callable[..., Awaitable[None]]":
    from proxy.api.dapr.server import serve  # noqa: PLC0415 - see above

    return serve


def _load_bridge() -> "Callable[..., Awaitable[None]]":
    from proxy.api.dapr.bridge import serve  # noqa: PLC0415 - see above

    return serve
