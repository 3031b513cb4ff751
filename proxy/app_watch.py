"""Looks after the own app: is its port open, is it healthy, which gRPC services does it serve.

Source: spec/invocation.md §6.3, §6.4; design §4 (reflection v1, then v1alpha; `grpc.*` and `dapr.*` never).
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from proxy.engine.portable.tls import TlsContexts
from proxy.engine.portable.unary import UnaryError, status_of, unary
from proxy.local_http import LocalHttpError, request
from proxy.settings import AppHealth, Settings, address
from sentry.wire import sized_fields
from telemetry.logs import get_logger

_PROBE_S = 0.1  # between looks at a port that is not open yet
_DIAL_S = 1.0
_REFLECT_S = 3.0
_RELEARN_S = 30.0  # an app may add services as it goes
_REFLECTION = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
_LIST_SERVICES = b"\x3a\x00"  # ServerReflectionRequest{list_services: ""}: field 7, empty string
_HEALTH = "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck"
_HIDDEN = ("grpc.", "dapr.")
_NAME = re.compile(r"[A-Za-z0-9._]{1,256}")
_MAX_SERVICES = 512  # they travel in the host registry's entry, which is bounded
_UNAVAILABLE = 14


class AppWatch:
    """Mutable state: `is_open`, `healthy` (None while nobody probes) and `services`, each told to `changed` when it turns."""

    def __init__(self, settings: Settings, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._changed = changed
        self._log = get_logger("postern.app")
        self._tls = TlsContexts()
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
        async with asyncio.TaskGroup() as tasks:
            if settings.app_health is not None:
                tasks.create_task(self._probe(settings.app_health))
            if (
                settings.learn_names
                and not settings.grpc_services
                and settings.app_protocol in ("grpc", "grpcs")
            ):
                tasks.create_task(self._learn())

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

    async def _probe(self, health: AppHealth) -> None:
        failures = 0
        while True:
            good = await self._is_good(health)
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

    async def _is_good(self, health: AppHealth) -> bool:
        settings = self._settings
        assert settings.app_port is not None
        host, port = settings.app_channel_address, settings.app_port
        try:
            if settings.app_protocol in ("grpc", "grpcs"):
                await unary(
                    host, port, _HEALTH, b"", tls=settings.app_protocol == "grpcs", timeout_s=health.timeout_s
                )
                return True
            if settings.app_protocol == "h2c":
                status = await status_of(host, port, health.path, timeout_s=health.timeout_s)
                return 200 <= status < 300
            tls = self._tls.app("http1") if settings.app_protocol == "https" else None
            answer = await request(
                address(host, port), "GET", health.path, timeout_s=health.timeout_s, tls=tls
            )
        except (UnaryError, OSError, LocalHttpError):
            return False
        return bool(200 <= answer.status < 300)

    # --- learning ------------------------------------------------------------------------------------------------------------

    async def _learn(self) -> None:
        pause_s = _PROBE_S
        while True:
            found = await self._reflect()
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

    async def _reflect(self) -> tuple[str, ...] | None:
        """The app's services, () where it can't say just now, None where it offers no reflection."""
        settings = self._settings
        assert settings.app_port is not None
        for path in _REFLECTION:
            try:
                answer = await unary(
                    settings.app_channel_address,
                    settings.app_port,
                    path,
                    _LIST_SERVICES,
                    tls=settings.app_protocol == "grpcs",
                    timeout_s=_REFLECT_S,
                )
            except UnaryError as error:
                if error.code in (None, _UNAVAILABLE):
                    return ()  # not up, or gone for the moment
                continue
            except TimeoutError:
                return ()
            try:
                return visible_services(services_in(answer))
            except ValueError as error:
                self._log.warning("the app's reflection can't be read", reason=str(error))
                return ()
        return None


def visible_services(names: Iterable[str]) -> tuple[str, ...]:
    """Those that callers may be routed by, sorted and bounded: neither infrastructure nor what is no service name."""
    fitting = (name for name in names if _NAME.fullmatch(name) and not name.startswith(_HIDDEN))
    return tuple(sorted(set(islice(fitting, _MAX_SERVICES))))


def services_in(answer: bytes) -> Iterator[str]:
    """The names in a ServerReflectionResponse{list_services_response=6{service=1{name=1}}}; raises ValueError where malformed."""
    for number, listed in sized_fields(answer):
        if number != 6:
            continue
        for inner, service in sized_fields(listed):
            if inner == 1:
                yield from (
                    name.decode("utf-8", "replace") for field, name in sized_fields(service) if field == 1
                )
