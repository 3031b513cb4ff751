"""The sidecar's own API: health, metadata and shutdown for the app; status, traces and endpoints for the `postern` command.

Both live on private unix sockets (0600); the engine forwards `/v1.0/…` here, so that one port serves all.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from msgspec.structs import replace

from proxy.api import traces
from proxy.api.log_level import LogLevel
from proxy.api.server import LocalRequest
from proxy.errors import TooManyTapsError
from proxy.settings.origins import effective
from proxy.settings.units import go_duration
from proxy.settings.values import Settings
from proxy.settings.version import runtime_version
from proxy.wire.http_client import LocalResponse, LocalStream
from proxy.wire.target import BadTargetError, clean, parse
from telemetry.decisions import decisions
from telemetry.log_ring import MAX_FOLLOWERS, LogRing
from telemetry.metrics import Meters
from telemetry.tracing import Tracer

Json = dict[str, Any]
Query = Mapping[str, list[str]]
_PUBLIC = frozenset({"/v1.0/healthz", "/v1.0/healthz/outbound", "/v1.0/metadata"})
BY_API = "shutdown API"  # the reason of a shutdown that the app asked for
_BUT_APP = ("app",)  # what calling out does without
MAX_METADATA = 64  # keys that an app may set; each is kept in memory
MAX_METADATA_BYTES = 4_096


class Health:
    """What must be true to be ready. Mutable state: the parts that are not ready yet, those last seen lost, whether we are leaving, and
    whom to wake when that changes.

    `lost` names the parts that were ready and are not now; `started` is called once, when the last part is ready.
    """

    def __init__(
        self,
        parts: tuple[str, ...],
        lost: Callable[[], tuple[str, ...]] = tuple,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        self._missing = dict.fromkeys(parts)
        self._lost = lost
        self._started = started
        self._known_lost: tuple[str, ...] = ()
        self._news: set[asyncio.Event] = set()
        self.leaving = False

    def ready(self, part: str) -> None:
        """A part is ready."""
        if part in self._missing:
            del self._missing[part]
            if not self._missing:
                self._started()
            self._tell()

    def leave(self) -> None:
        """We are shutting down: not ready any more."""
        self.leaving = True
        self._tell()

    def look(self) -> None:
        """Look at what can be lost with time, about which nobody tells us."""
        lost = self._lost()
        if lost != self._known_lost:
            self._known_lost = lost
            self._tell()

    async def changes(self, *, but: tuple[str, ...] = ()) -> AsyncGenerator[bool]:
        """Whether nothing is missing: now, and each time that changes; what came and went between two reads is skipped. Ends with us."""
        news = asyncio.Event()
        self._news.add(news)
        told = None
        try:
            while True:
                news.clear()
                leaving, ready = self.leaving, not self.missing(but=but)
                if ready is not told:
                    told = ready
                    yield ready
                if leaving:
                    return
                await news.wait()
        finally:
            self._news.remove(news)

    def _tell(self) -> None:
        for news in self._news:
            news.set()

    def missing(self, *, but: tuple[str, ...] = ()) -> list[str]:
        """What is not ready."""
        found = [part for part in dict.fromkeys((*self._missing, *self._lost())) if part not in but]
        return ["leaving", *found] if self.leaving else found


class Admin:
    """Answers requests on both sockets. Mutable state: `extended`, what the app set as metadata."""

    def __init__(
        self,
        settings: Settings,
        health: Health,
        meters: Meters,
        tracer: Tracer,
        *,
        engine: str,
        report: Callable[[], Awaitable[None]],
        status: Callable[[], Json],
        dump: Callable[[], Json],
        compared: Callable[[], Awaitable[Json]],
        reload: Callable[[], Awaitable[Json]],
        listening: Callable[[], Mapping[str, int]],
        explain: Callable[[list[str]], list[str]],
        endpoints: Callable[[str | None], Json],
        decision: Callable[[Query], Json],
        resolve: Callable[[str], Awaitable[Json]],
        resources: Callable[[], Mapping[str, Sequence[Json | str]]],
        tap: Callable[[Query], AsyncGenerator[bytes]],
        log_level: LogLevel,
        log_ring: LogRing,
        is_closed: Callable[[str], bool],
        shutdown: Callable[[str], None],
        abort: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._health = health
        self._meters = meters
        self._tracer = tracer
        self._engine = engine
        self._report = report
        self._status = status
        self._explain = explain
        self._endpoints = endpoints
        self._decision = decision
        self._resolve = resolve
        self._resources = resources
        self._open_tap = tap
        self._log_level = log_level
        self._log_ring = log_ring
        self._is_closed = is_closed
        self._shutdown = shutdown
        self._abort = abort
        logs = {
            "appLogPath": settings.run.app_log,
            "daprdLogPath": settings.run.sidecar_log or str(settings.log_file or ""),
        }
        self.extended = {key: path for key, path in logs.items() if path}
        self._pages: dict[str, Callable[[Query], LocalResponse]] = {
            "/status": lambda _: _json(200, self._status()),
            "/postern/v1/dump": lambda _: _json(200, dump()),
            "/metadata": lambda _: _json(200, self.metadata()),
            "/settings": lambda _: _json(
                200, {"settings": log_level.among(effective(settings, listening()))}
            ),
            "/postern/v1/log-level": lambda _: _json(200, log_level.told()),
            "/endpoints": lambda query: _json(200, self._endpoints(query.get("app", [None])[0])),
            "/explain": self._explained,
        }
        self._slow: dict[tuple[str, str], Callable[[Query], Awaitable[LocalResponse]]] = {
            ("GET", "/resolve"): lambda query: self._resolved(query.get("app", [""])[0]),
            ("GET", "/postern/v1/config"): lambda _: self._read_anew(compared),
            ("POST", "/postern/v1/reload"): lambda _: self._read_anew(reload),
        }
        self._streams: dict[str, Callable[[Query], LocalResponse | LocalStream]] = {
            "/postern/v1/tap": self._tap,
            "/postern/v1/logs": self._logs,
        }
        self._changing: dict[str, Callable[[Query], LocalResponse]] = {
            "/postern/v1/log-level": self._set_log_level,
            "/shutdown": self._stop,
        }
        # With calls that were answered before the request.
        self._reported: dict[str, Callable[[Query], Awaitable[LocalResponse]]] = {
            "/postern/v1/edges": self._edges,
            "/postern/v1/traces": self._traces,
            "/postern/v1/policies": self._policies,
            "/trace": self._trace,
        }

    async def api(self, request: LocalRequest) -> LocalResponse:
        """What the app may ask: `/v1.0/…`."""
        path, query = _asked(request)
        if path == "/v1.0/healthz":
            return self._healthz(query)
        if path == "/v1.0/healthz/outbound":
            return self._not_ready("ERR_OUTBOUND_HEALTH_NOT_READY", self._health.missing(but=_BUT_APP))
        if path == "/v1.0/metadata" and request.method == "GET":
            return _json(200, self.metadata())
        if path.startswith("/v1.0/metadata/") and request.method == "PUT":
            return self._set_metadata(path.removeprefix("/v1.0/metadata/"), request.body)
        if path == "/v1.0/shutdown" and request.method == "POST":
            asked = (data.lower() for name, data in request.headers if name == b"dapr-force-shutdown")
            self.shut_down(force=b"true" in asked)
            return LocalResponse(204)
        return _error(404, "ERR_DIRECT_INVOKE", f"{request.method} {path} is not part of this API")

    async def admin(self, request: LocalRequest) -> LocalResponse | LocalStream:
        """What the `postern` command may ask, and all that the app may."""
        path, query = _asked(request)
        if request.method == "GET" and path in self._pages:
            return self._pages[path](query)
        if request.method == "GET" and path in self._streams:
            return self._streams[path](query)
        if request.method == "GET" and path in self._reported:
            await self._report()
            return await self._reported[path](query)
        if (request.method, path) in self._slow:
            return await self._slow[request.method, path](query)
        match request.method, path:
            case "GET", "/metrics":
                return await self.metrics(request)
            case "POST", _ if path in self._changing:
                return self._changing[path](query)
            case "PUT", _ if path.startswith("/metadata/"):
                return self._set_metadata(path.removeprefix("/metadata/"), request.body)
        return await self.api(request)

    async def public(self, request: LocalRequest) -> LocalResponse:
        """The public port: health and metadata only, if `spec.api` does not close it; unlike Dapr's, nothing is set there."""
        path = _asked(request)[0]
        if path == "/v1.0/metadata" and self._is_closed("metadata"):
            return LocalResponse(
                404, ((b"content-type", b"text/plain; charset=utf-8"),), b"404 page not found"
            )
        if request.method in ("GET", "HEAD") and path in _PUBLIC:
            return await self.api(replace(request, method="GET"))
        return _error(404, "ERR_NOT_FOUND", "this port serves health and metadata only")

    async def metrics(self, request: LocalRequest) -> LocalResponse:
        """Prometheus text. Calls that were answered before the request are in it."""
        await self._report()
        accept = next((data.decode("latin-1") for name, data in request.headers if name == b"accept"), "")
        body, kind = await self._meters.scrape(accept)
        return LocalResponse(200, ((b"content-type", kind.encode()),), body)

    def shut_down(self, *, force: bool) -> None:
        """Ask for the end; force: at once, without order."""
        if force:
            self._abort()
        else:
            self._shutdown(BY_API)

    def is_ready(self, *, with_app: bool) -> bool:
        """Whether it can call out and, with the app, be called."""
        return not self._health.missing(but=() if with_app else _BUT_APP)

    def readiness(self, *, with_app: bool) -> AsyncGenerator[bool]:
        """The same now, and each time that it changes."""
        return self._health.changes(but=() if with_app else _BUT_APP)

    def put_metadata(self, key: str, value: str) -> str | None:
        """Keep a value that the app set; why not, where there are too many or it is too large."""
        if key not in self.extended and len(self.extended) >= MAX_METADATA:
            return f"more than {MAX_METADATA} metadata keys"
        if len(value.encode()) > MAX_METADATA_BYTES:
            return f"a metadata value is at most {MAX_METADATA_BYTES} bytes"
        self.extended[key] = value
        return None

    def _healthz(self, query: Query) -> LocalResponse:
        wanted = query.get("appid", [self._settings.app_id])[0]
        if wanted != self._settings.app_id:
            return _error(
                500,
                "ERR_HEALTH_APPID_NOT_MATCH",
                f"this is the proxy of {self._settings.app_id}, not of {wanted}",
            )
        return self._not_ready("ERR_HEALTH_NOT_READY", self._health.missing())

    def _not_ready(self, code: str, missing: list[str]) -> LocalResponse:
        if not missing:
            return LocalResponse(204)
        return _error(500, code, f"not ready: {'; '.join(self._explain(missing)) or ', '.join(missing)}")

    def _set_metadata(self, key: str, body: bytes) -> LocalResponse:
        # a form-encoded key, as Dapr reads it
        fault = self.put_metadata(unquote_plus(key), body.decode("utf-8", "replace"))
        return LocalResponse(204) if fault is None else _error(400, "ERR_BAD_REQUEST", fault)

    def metadata(self) -> Json:
        """What this sidecar says of itself, as Dapr has it: lists without an entry are left out."""
        settings = self._settings
        version = runtime_version(as_daprd=settings.profile == "daprd")
        found: Json = {
            "id": settings.app_id,
            "runtimeVersion": version,
            "extended": {"daprRuntimeVersion": version, "posternEngine": self._engine, **self.extended},
            "appConnectionProperties": _app_connection(settings),
            "actorRuntime": {"runtimeStatus": "DISABLED", "hostReady": False},
        }
        return {**found, **{key: list(entries) for key, entries in self._resources().items() if entries}}

    def _explained(self, query: Query) -> LocalResponse:
        try:
            return _json(200, self._decision(query))
        except ValueError as error:
            return _error(400, "ERR_BAD_REQUEST", str(error))

    def _stop(self, _: Query) -> LocalResponse:
        self._shutdown("postern stop")
        return LocalResponse(204)

    def _set_log_level(self, query: Query) -> LocalResponse:
        try:
            self._log_level.change(query.get("level", [""])[0], query.get("for", [""])[0])
        except ValueError as error:
            return _error(400, "ERR_BAD_REQUEST", str(error))
        return _json(200, self._log_level.told())

    async def _resolved(self, app: str) -> LocalResponse:
        try:
            return _json(200, await self._resolve(app))
        except ValueError as error:
            return _error(400, "ERR_BAD_REQUEST", str(error))

    def _tap(self, query: Query) -> LocalResponse | LocalStream:
        """What calls come to, a line of JSON for each event, for as long as they are read."""
        try:
            lines = self._open_tap(query)
        except ValueError as error:
            return _error(400, "ERR_BAD_REQUEST", str(error))
        except TooManyTapsError as error:
            return _error(429, "ERR_TOO_MANY_TAPS", str(error))
        return LocalStream(lines, ((b"content-type", b"application/x-ndjson"),))

    async def _read_anew(self, ask: Callable[[], Awaitable[Json]]) -> LocalResponse:
        try:
            return _json(200, await ask())
        except TimeoutError:
            return _error(504, "ERR_NOT_READ", "the documents were not read in time: try again")

    def _logs(self, query: Query) -> LocalResponse | LocalStream:
        """The latest lines of our own log, and the number of the next; with `follow` those from the number `from` on, as they come."""
        if "follow" not in query:
            lines, number, _ = self._log_ring.since(0)
            kind = (b"content-type", b"text/plain; charset=utf-8")
            body = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
            return LocalResponse(200, (kind, (b"postern-next-line", b"%d" % number)), body)
        start = query.get("from", [""])[0]
        if not start.isascii() or not start.isdigit():
            return _error(400, "ERR_BAD_REQUEST", f"from: expected the number of a line, got {start!r}")
        if self._log_ring.followers >= MAX_FOLLOWERS:
            most = f"{MAX_FOLLOWERS} readers follow this log, which is the most: end one of them first"
            return _error(429, "ERR_TOO_MANY_READERS", most)
        return LocalStream(
            self._log_ring.follow(int(start)), ((b"content-type", b"text/plain; charset=utf-8"),)
        )

    async def _edges(self, _: Query) -> LocalResponse:
        """Every route with its calls, in all and in the last minute."""
        settings, status = self._settings, self._status()
        about: Json = {
            "app_id": settings.app_id,
            "namespace": settings.namespace,
            "instance": settings.instance,
            "mtls": settings.mtls,
            "spiffe_id": status["identity"]["spiffeId"],
            "connections": status["engineStats"]["connections"],
        }
        return _json(200, about | self._meters.recent.report())

    async def _policies(self, _: Query) -> LocalResponse:
        """What policies decided so far."""
        return _json(200, decisions(self._meters))

    async def _trace(self, query: Query) -> LocalResponse:
        try:
            return _json(200, await traces.spans_of(self._tracer, query.get("id", [""])[0]))
        except ValueError as error:
            return _error(400, "ERR_BAD_REQUEST", str(error))

    async def _traces(self, query: Query) -> LocalResponse:
        settings = self._settings
        about = {"app_id": settings.app_id, "namespace": settings.namespace, "instance": settings.instance}
        try:
            return _json(200, about | await traces.listing(self._tracer, query))
        except ValueError as error:
            return _error(400, "ERR_BAD_REQUEST", str(error))


def _app_connection(settings: Settings) -> Json:
    app: Json = {"protocol": settings.app_protocol, "channelAddress": settings.app_channel_address}
    if settings.app_port is not None:
        app["port"] = settings.app_port
    if settings.app_max_concurrency is not None:
        app["maxConcurrency"] = settings.app_max_concurrency
    if settings.app_health is not None:
        health = settings.app_health
        app["health"] = {
            "healthProbeInterval": go_duration(health.interval_s),
            "healthProbeTimeout": go_duration(health.timeout_s),
            "healthThreshold": health.threshold,
        }
        if not settings.app_speaks_grpc:
            app["health"]["healthCheckPath"] = health.path
    return app


def _asked(request: LocalRequest) -> tuple[str, Query]:
    """Clean path and query; an invalid target has the path "", which matches no route."""
    try:
        target = parse(request.target.encode("latin-1"))
    except BadTargetError:
        return "", {}
    return clean(target.path), parse_qs(target.query.decode("latin-1"))


def _json(status: int, body: Json) -> LocalResponse:
    text = json.dumps(body, separators=(",", ":"))  # as compact as Go writes it
    return LocalResponse(status, ((b"content-type", b"application/json"),), text.encode())


def _error(status: int, code: str, message: str) -> LocalResponse:
    return _json(status, {"errorCode": code, "message": message})
