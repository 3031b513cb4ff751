"""What a sidecar asks its own app: is it healthy, which gRPC services does it serve, and under the name daprd for its configuration.

Its HTTP/1.1 and HTTP/2 clients are loaded when there is an app to ask, not at startup.
Reflection is asked in v1, then v1alpha; `grpc.*` and `dapr.*` are never learnt.
"""

import re
import time
from collections.abc import Iterable, Iterator
from itertools import islice

from msgspec import Struct

from proxy.contract.addresses import join_address
from proxy.contract.head import Headers
from proxy.settings.values import AppHealth, Settings
from proxy.wire.http_client import LocalHttpError, request
from proxy.wire.tls import TlsContexts
from proxy.wire.unary import UnaryError, status_of, unary
from sentry.wire import sized_fields
from telemetry.logs import get_logger
from telemetry.names import grpc_code_label

_REFLECT_S = 3.0
_CONFIG_S = 10.0
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
_UNANSWERED = "500"  # as Dapr counts an HTTP probe that got no answer


class Probe(Struct, frozen=True):
    """One question and its answer: `status` is HTTP's, or the gRPC code's name."""

    is_healthy: bool
    status: str
    took_ms: float


class AppClient:
    """Asks one app. Mutable state: its TLS context, made for the first question."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = get_logger("postern.app")
        self._tls = TlsContexts()

    async def probe(self, health: AppHealth) -> Probe:
        """Ask for its health once."""
        began = time.monotonic()
        is_healthy, status = await self._health(health)
        return Probe(is_healthy, status, (time.monotonic() - began) * 1000)

    async def _health(self, health: AppHealth) -> tuple[bool, str]:
        settings = self._settings
        assert settings.app_port is not None
        host, port = settings.app_channel_address, settings.app_port
        try:
            if settings.app_speaks_grpc:
                await unary(
                    host, port, _HEALTH, b"", tls=settings.app_protocol == "grpcs", timeout_s=health.timeout_s
                )
                return True, "OK"
            status = await self._get(health.path, timeout_s=health.timeout_s)
        except UnaryError as error:
            return False, grpc_code_label(_UNAVAILABLE if error.code is None else error.code)
        except (OSError, LocalHttpError):
            return False, _UNANSWERED
        return 200 <= status < 300, str(status)

    async def _get(self, path: str, *, headers: Headers = (), timeout_s: float) -> int:
        """The status of a GET of an HTTP app. Raises UnaryError, LocalHttpError, OSError."""
        settings = self._settings
        assert settings.app_port is not None
        host, port = settings.app_channel_address, settings.app_port
        if settings.app_protocol == "h2c":
            return await status_of(host, port, path, headers=headers, timeout_s=timeout_s)
        tls = self._tls.app("http1") if settings.app_protocol == "https" else None
        where = join_address(host, port)
        return (await request(where, "GET", path, headers=headers, timeout_s=timeout_s, tls=tls)).status

    async def configuration(self, path: str) -> Probe | None:
        """Ask for it at a path, as Dapr does, which wants to know of actors. Any answer is good; None: there was none."""
        began = time.monotonic()
        settings = self._settings
        token = settings.app_api_token
        headers: Headers = (
            (b"dapr-app-id", settings.app_id.encode()),
            (b"content-type", b"application/json"),
            *(((b"dapr-api-token", token.encode()),) if token else ()),
        )
        try:
            status = await self._get(path, headers=headers, timeout_s=_CONFIG_S)
        except (UnaryError, OSError) as error:  # a TimeoutError is an OSError
            self._log.debug("the app did not answer GET /dapr/config", reason=str(error))
            return None
        return Probe(True, str(status), (time.monotonic() - began) * 1000)

    async def services(self) -> tuple[str, ...] | None:
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
    """Those that callers may be routed by, sorted and bounded: neither infrastructure nor invalid service names."""
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
