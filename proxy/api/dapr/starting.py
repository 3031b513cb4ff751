"""Starts Dapr's gRPC API when it is first called: it takes grpcio, which costs 20 MB and a tenth of a second."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from proxy.api.admin import Admin
from proxy.errors import ListenError
from proxy.wire.http_client import LocalResponse, request
from telemetry.logs import Logger

if TYPE_CHECKING:
    from proxy.api.dapr.invocation import HttpCall


class Surroundings(Protocol):
    """What the API needs of the sidecar around it."""

    async def open_invoker(self, address: str) -> None:
        """Have the engine listen there for invocations. Raises ListenError."""

    def dapr_api_started(self, address: str) -> None:
        """Have the engine take calls of the API there."""


class DaprApi:
    """Listens on `path`, and calls apps by the socket `way`. Mutable state: whether it is wanted, and whether that way is open."""

    def __init__(self, path: Path, way: Path, max_bytes: int, log: Logger) -> None:
        self._path = path
        self._way = way
        self._max_bytes = max_bytes
        self._log = log
        self._wanted = asyncio.Event()
        self._is_way_open = False

    def want(self) -> None:
        """Somebody calls it."""
        self._wanted.set()

    async def run(self, admin: Admin, around: Surroundings) -> None:
        """Serve once it is wanted, until cancelled. A start that failed is tried again for the next call."""
        try:
            while await self._wanted.wait():
                self._wanted.clear()
                try:
                    await self._serve(admin, around)
                except (ImportError, ListenError, OSError, RuntimeError) as error:
                    self._log.error("Dapr's gRPC API did not start", reason=str(error))
        finally:
            self._way.unlink(missing_ok=True)

    async def _serve(self, admin: Admin, around: Surroundings) -> None:
        serve, service = await asyncio.to_thread(_load)
        if not self._is_way_open:
            await around.open_invoker(f"unix:{self._way}")
            self._is_way_open = True
        try:
            await serve(
                service(admin, self._invoke, self._max_bytes),
                self._path,
                self._max_bytes,
                around.dapr_api_started,
            )
        finally:
            self._path.unlink(missing_ok=True)

    async def _invoke(self, call: "HttpCall", within_s: float) -> LocalResponse:
        return await request(
            *(f"unix:{self._way}", call.method, call.target),
            headers=(("host", "localhost"), *call.headers),
            body=call.body,
            timeout_s=within_s,
            limit_bytes=self._max_bytes,
        )


def _load() -> "tuple[Callable[..., Awaitable[None]], Callable[..., object]]":
    from proxy.api.dapr.server import serve  # noqa: PLC0415 - see above
    from proxy.api.dapr.service import DaprService  # noqa: PLC0415

    return serve, DaprService
