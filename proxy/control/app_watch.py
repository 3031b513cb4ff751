"""Watches the app behind this sidecar: does its port accept, who holds it, is it healthy, which gRPC services does it serve.

Its questions to the app are in `app_client`; what it sees without asking is in `app_port`.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from proxy.contract.addresses import join_address
from proxy.control.app_port import Holder, Listener, holder, listeners
from proxy.control.life_lines import LifeLines
from proxy.errors import os_reason
from proxy.settings.values import AppHealth, Settings
from telemetry.logs import get_logger

if TYPE_CHECKING:
    from proxy.control.app_client import AppClient

AppState = Literal["none", "starting", "listening", "healthy", "unhealthy", "down"]

CONFIG_PATH = "/dapr/config"
_PROBE_S = 0.1  # between looks at a port that is not open
_LOOK_S = 1.0  # between looks at one that is, which the app does not notice
_DIAL_S = 1.0
_REDIAL_S = 5.0  # between looks that it does notice, as it has to accept
_LATE_DIALS = 3  # in a row, then a port that neither accepts nor refuses is closed
_RELEARN_S = 30.0  # an app may add services as it goes


class AppWatch:
    """Mutable state: `is_open`, `healthy` (None while nobody probes) and `services`, each told to `changed` when it turns; `held_by`,
    `mismatch`; `learns`: the app is asked for its services; `awaits_config`: its answer to GET /dapr/config is waited for, as daprd
    does that probes no health, whose app would keep it waiting.

    `app_pid`: the process of the app, or one that it descends from; None where that is not known.
    `probed` and `configured` hear of the status and the milliseconds of each probe, and of the answer to GET /dapr/config.
    """

    def __init__(
        self,
        settings: Settings,
        changed: Callable[[], None],
        app_pid: Callable[[], int | None] = lambda: None,
        *,
        probed: Callable[[str, float], None] = lambda _status, _took_ms: None,
        lines: LifeLines | None = None,
        configured: Callable[[str, float], None] = lambda _status, _took_ms: None,
    ) -> None:
        self._probed = probed
        self._configured = configured
        self._lines = lines or LifeLines(settings)
        self._settings = settings
        self._changed = changed
        self._app_pid = app_pid
        self._log = get_logger("postern.app")
        self._doubted = asyncio.Event()
        self._was_healthy = asyncio.Event()
        if settings.app_health is None:
            self._was_healthy.set()
        self._was_open = False
        self._held: tuple[Listener, int | None] | None = None  # what `held_by` was found for
        self.is_open = settings.app_port is None
        self.healthy: bool | None = False if settings.app_health is not None else None
        self.services: tuple[str, ...] = settings.grpc_services
        self.awaits_config = settings.asks_config and settings.app_health is None
        self.held_by: Holder | None = None
        self.mismatch = ""  # what it speaks, where that is another protocol than we were told
        self.learns = settings.learn_names and not settings.grpc_services and settings.app_speaks_grpc

    @property
    def state(self) -> AppState:
        """All of it in one word; "none" without an app port."""
        if self._settings.app_port is None:
            return "none"
        if not self.is_open:
            return "down" if self._was_open else "starting"
        return "listening" if self.healthy is None else "healthy" if self.healthy else "unhealthy"

    @property
    def takes_calls(self) -> bool:
        """Whether callers may be told of this instance. Without an app port the proxy itself says what is missing."""
        return self.is_open and self.healthy is not False

    def doubt(self) -> None:
        """A call could not be given to the app: look now."""
        self._doubted.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        settings = self._settings
        if settings.app_port is None:
            return
        host, port = settings.app_channel_address, settings.app_port
        await self._wait_open(host, port)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(host, port))
            if settings.app_health is None and not self.learns and not settings.asks_config:
                return
            from proxy.control.app_client import AppClient  # noqa: PLC0415 - two HTTP clients, no part of a start

            client = AppClient(settings)
            if settings.app_health is not None:
                tasks.create_task(self._probe(client, settings.app_health))
            if self.learns:
                tasks.create_task(self._learn(client))
            if settings.asks_config:
                tasks.create_task(self._ask_config(client))

    # --- the port ------------------------------------------------------------------------------------------------------------

    async def _follow(self, host: str, port: int) -> None:
        while True:
            await self._wait_closed(host, port)
            await self._wait_open(host, port)

    async def _wait_open(self, host: str, port: int) -> None:
        told = False
        while (reason := await _dial(host, port)) is not None:
            if not told:
                told = True
                self._lines.waiting_for_app(join_address(host, port), reason)
            await asyncio.sleep(_PROBE_S)
        self.mismatch = await _mismatch(host, port) if self._settings.app_protocol in ("grpc", "h2c") else ""
        self.is_open = self._was_open = True
        self._lines.app_listens(join_address(host, port))
        if self.mismatch:
            self._log.warning(
                f"the app {self.mismatch}: is --app-protocol right?",
                address=join_address(host, port),
                app_protocol=self._settings.app_protocol,
            )
        self._changed()

    async def _wait_closed(self, host: str, port: int) -> None:
        late = 0
        while True:
            found = listeners(host, port)
            reason = None
            if found:
                await self._look_who(found[0], port)
            else:
                reason = await _dial(host, port)
            late = late + 1 if reason == _LATE else 0
            if reason is not None and (reason != _LATE or late >= _LATE_DIALS):
                self.is_open = False
                self._log.warning(
                    "the app stopped listening", address=join_address(host, port), reason=reason
                )
                self._changed()
                return
            self._doubted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S if found else _REDIAL_S):
                    await self._doubted.wait()

    async def _look_who(self, listener: Listener, port: int) -> None:
        app_pid = self._app_pid()
        if self._held == (listener, app_pid):
            return
        self._held = (listener, app_pid)
        found = await asyncio.to_thread(holder, listener, app_pid)
        if found == self.held_by:
            return
        self.held_by = found
        if found.is_foreign:
            self._log.warning(
                "another program, not the one started here, is listening on the app port",
                port=port,
                held_by=str(found),
            )

    # --- health ------------------------------------------------------------------------------------------------------------

    async def _probe(self, client: "AppClient", health: AppHealth) -> None:
        failures = 0
        while True:
            probe = await client.probe(health)
            good = probe.is_healthy
            self._probed(probe.status, probe.took_ms)
            failures = 0 if good else failures + 1
            if good and not self.healthy:
                self._turn(healthy=True)
            elif failures >= health.threshold and self.healthy:
                self._turn(healthy=False)
            await asyncio.sleep(health.interval_s)

    def _turn(self, *, healthy: bool) -> None:
        self.healthy = healthy
        self._lines.app_health(healthy=healthy)
        if healthy:
            self._was_healthy.set()
        self._changed()

    async def _ask_config(self, client: "AppClient") -> None:
        """Once, when the app is healthy for the first time."""
        await self._was_healthy.wait()
        found = await client.configuration(CONFIG_PATH)
        if found is not None:
            self._configured(found.status, found.took_ms)
            self._lines.app_configured()
        if self.awaits_config:
            self.awaits_config = False
            self._changed()

    # --- learning ------------------------------------------------------------------------------------------------------------

    async def _learn(self, client: "AppClient") -> None:
        pause_s = _PROBE_S
        while True:
            found = await client.services()
            if found is None:
                self.learns = False
                self._log.info(
                    "the app does not offer server reflection: declare its services with --grpc-service, or add --route at the callers"
                )
                return
            if found and found != self.services:
                self.services = found
                self._log.info("services discovered", services=list(found))
                self._changed()
            pause_s = _RELEARN_S if found else min(pause_s * 2, _RELEARN_S)
            await asyncio.sleep(pause_s)


# The preface and an empty SETTINGS frame (RFC 9113 §3.4): every HTTP/2 server answers with its own SETTINGS, and sees no request.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


async def _mismatch(host: str, port: int) -> str:
    """What an app says that should speak HTTP/2 and does not; empty where it does, or says nothing."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_DIAL_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_HELLO)
                said = await reader.read(9)
            finally:
                writer.close()
        if said.startswith(b"HTTP/1"):
            return "speaks HTTP/1.1, not HTTP/2"
        if said and said[3:4] != b"\x04":  # the type of a SETTINGS frame
            return "does not speak HTTP/2"
    return ""


_LATE = "no answer"


async def _dial(host: str, port: int) -> str | None:
    """Why the port takes no connection, None where it does."""
    try:
        async with asyncio.timeout(_DIAL_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return _LATE
    except OSError as error:
        return os_reason(error)
    writer.close()
    return None
