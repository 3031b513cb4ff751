"""Looks after the own app: is its port open, is it healthy, which gRPC services does it serve.

What it asks is `app_asks`. Source: spec/invocation.md §6.3, §6.4.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.settings import AppHealth, Settings, address
from telemetry.logs import get_logger

if TYPE_CHECKING:
    from proxy.app_asks import AppAsks

_PROBE_S = 0.1  # between looks at a port that is not open yet
_DIAL_S = 1.0
_RELEARN_S = 30.0  # an app may add services as it goes


class AppWatch:
    """Mutable state: `is_open`, `healthy` (None while nobody probes) and `services`, each told to `changed` when it turns."""

    def __init__(self, settings: Settings, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._changed = changed
        self._log = get_logger("postern.app")
        self.is_open = settings.app_port is None
        self.healthy: bool | None = False if settings.app_health is not None else None
        self.services: tuple[str, ...] = settings.grpc_services

    async def run(self) -> None:
        """Watch until cancelled."""
        settings = self._settings
        if settings.app_port is None:
            return
        await self._wait_open(settings.app_channel_address, settings.app_port)
        self.is_open = True
        self._changed()
        learns = (
            settings.learn_names and not settings.grpc_services and settings.app_protocol in ("grpc", "grpcs")
        )
        if settings.app_health is None and not learns:
            return
        from proxy.app_asks import AppAsks  # noqa: PLC0415 - two HTTP clients, no part of a start

        asks = AppAsks(settings)
        async with asyncio.TaskGroup() as tasks:
            if settings.app_health is not None:
                tasks.create_task(self._probe(asks, settings.app_health))
            if learns:
                tasks.create_task(self._learn(asks))

    async def _wait_open(self, host: str, port: int) -> None:
        told = False
        while True:
            try:
                async with asyncio.timeout(_DIAL_S):
                    _, writer = await asyncio.open_connection(host, port)
            except OSError as error:
                if not told:
                    told = True
                    self._log.info(
                        "waiting for the app",
                        address=address(host, port),
                        reason=error.strerror or "no answer",
                    )
                await asyncio.sleep(_PROBE_S)
            else:
                writer.close()
                self._log.info("the app listens", address=address(host, port))
                return

    # --- health ------------------------------------------------------------------------------------------------------------

    async def _probe(self, asks: "AppAsks", health: AppHealth) -> None:
        failures = 0
        while True:
            good = await asks.is_good(health)
            failures = 0 if good else failures + 1
            if good and not self.healthy:
                self._turn(healthy=True)
            elif failures >= health.threshold and self.healthy:
                self._turn(healthy=False)
            await asyncio.sleep(health.interval_s)

    def _turn(self, *, healthy: bool) -> None:
        self.healthy = healthy
        self._log.info("the app is healthy" if healthy else "the app is not healthy")
        self._changed()

    # --- learning ------------------------------------------------------------------------------------------------------------

    async def _learn(self, asks: "AppAsks") -> None:
        pause_s = _PROBE_S
        while True:
            found = await asks.services()
            if found is None:
                self._log.info(
                    "the app offers no server reflection: name its services with --grpc-service, or routes at its callers"
                )
                return
            if found and found != self.services:
                self.services = found
                self._log.info("services learnt", services=list(found))
                self._changed()
            pause_s = _RELEARN_S if found else min(pause_s * 2, _RELEARN_S)
            await asyncio.sleep(pause_s)
