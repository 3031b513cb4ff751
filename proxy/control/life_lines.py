"""What a sidecar logs of its own life: in our words, or under the name daprd in Dapr's, for which its users' scripts and tests wait."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from policies.reloading.loading import PolicySnapshot
from proxy.api.admin import BY_API
from proxy.contract.addresses import join_address
from proxy.settings.units import go_duration
from proxy.settings.values import Settings
from proxy.settings.version import runtime_version
from telemetry.logs import get_logger

Ports = Mapping[str, int | None]


class LifeLines:
    """In our words. Made as the sidecar begins: `ready` counts from there."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._settings = settings
        self._log = get_logger("postern")
        self._app = get_logger("postern.app")

    def starting(self) -> None:
        """The process runs."""

    def loaded(self, policy: PolicySnapshot) -> None:
        """Configurations and resources have been read."""

    def naming(self, component: str) -> None:
        """Names are resolved by this component; "": by none that is configured."""

    def fetching_identity(self) -> None:
        """A first certificate is asked for."""

    def identified(self, until: datetime, *, is_first: bool) -> None:
        """A certificate has come."""

    def listening(self, ports: Ports, engine: str) -> None:
        """All ports are bound; None: it is a socket, or was not asked for."""
        bound = {name: port for name, port in ports.items() if port}
        self._log.info("listening", engine=engine, **bound)

    def waiting_for_app(self, address: str, reason: str) -> None:
        """The app's port does not accept yet, or any more."""
        self._app.info("waiting for the app", address=address, reason=reason)

    def app_listens(self, address: str) -> None:
        """The app's port accepts."""
        self._app.info("the app is listening", address=address)

    def app_configured(self) -> None:
        """The app has answered for its configuration."""

    def app_health(self, *, healthy: bool) -> None:
        """Its health turned."""
        if healthy:
            self._app.info("the app is healthy")
        else:
            self._app.warning("the app is not healthy")

    def ready(self) -> None:
        """All parts are ready for the first time."""

    def leaving(self, reason: str) -> None:
        """The shutdown begins: why."""
        self._log.info("shutting down", reason=reason)

    def aborting(self) -> None:
        """The process ends at once."""
        self._log.warning("ending at once, as the shutdown API asks")

    def delaying(self, for_s: float) -> None:
        """The shutdown waits."""
        self._log.info("delaying the shutdown", for_s=for_s)

    def delayed(self, *, healthy: bool) -> None:
        """It goes on: the time is over, or the app is not healthy."""

    def cut(self, calls: int, after_s: float | None) -> None:
        """Calls did not end in time."""
        self._log.warning("calls were cut at shutdown", calls=calls, after_s=after_s)

    def failed(self, causes: Sequence[str]) -> None:
        """It can't start or go on; people were told on stderr."""

    def stopped(self) -> None:
        """The end, without a call that was cut."""
        self._log.info("stopped")


class DaprLines(LifeLines):
    """In Dapr's words, with its scopes. Mutable state: whether the wait for the app has been told, as it always is."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(settings, clock)
        self._runtime = get_logger("dapr.runtime")
        self._health = get_logger("dapr.apphealth")
        self._api = get_logger("dapr.api")
        self._security = get_logger("dapr.runtime.security")
        self._is_wait_told = False

    def starting(self) -> None:
        """See LifeLines."""
        settings = self._settings
        self._runtime.info(
            f"Starting Dapr Runtime -- version {runtime_version(as_daprd=True)} -- commit postern"
        )
        self._runtime.info(f"Log level set to: {settings.log_level}")
        self._runtime.info("standalone mode configured")
        self._runtime.info(f"app id: {settings.app_id}")
        if not settings.mtls:
            self._security.warning("mTLS is disabled. Skipping certificate request and tls validation")

    def loaded(self, policy: PolicySnapshot) -> None:
        """See LifeLines. Of components those that pipelines may name; subscriptions are not read."""
        log = self._runtime
        if not self._settings.config_paths:
            log.info("loading default configuration")
        if policy.configuration.features:
            log.info(f"Enabled features: {' '.join(policy.configuration.features)}")
        log.info("Loading components…")
        for one in policy.pipelines.components:
            log.info(f"Component loaded: {one.name} ({one.type}/{one.version})")
        log.info("Waiting for all outstanding components to be processed…")
        log.info("All outstanding components processed")
        log.info("Loading endpoints…")
        for name in sorted(policy.http_endpoints):
            log.info(f"Found http endpoint: {name}")
        log.info("Waiting for all outstanding http endpoints to be processed…")
        log.info("All outstanding http endpoints processed")

    def naming(self, component: str) -> None:
        """See LifeLines. Where none is configured mDNS is among the sources, as with daprd."""
        self._runtime.info(f"Initialized name resolution to {component or 'mdns'}")

    def fetching_identity(self) -> None:
        """See LifeLines."""
        self._security.info("Fetching initial identity certificate")

    def identified(self, until: datetime, *, is_first: bool) -> None:
        """See LifeLines."""
        if is_first:
            self._security.info("Security is initialized successfully")
        else:
            moment = until.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
            self._security.info(f"Successfully renewed workload cert; new cert expires on: {moment}")

    def listening(self, ports: Ports, engine: str) -> None:
        """See LifeLines. The engine is named as well: no other line does."""
        settings = self._settings
        of_grpc, of_http = get_logger("dapr.runtime.grpc.api"), get_logger("dapr.runtime.http")
        for log, kind, name in ((of_grpc, "gRPC", "API gRPC"), (of_http, "HTTP", "HTTP")):
            port = ports[kind.lower()]
            if port is None:
                folder = settings.unix_domain_socket
                where = f"UNIX socket: {folder}/dapr-{settings.app_id}-{kind.lower()}.socket"
                log.info(f"{kind} server listening on {where}")
                self._runtime.info(f"{name} server is running on a Unix Domain Socket")
                continue
            for host in settings.listen_addresses:
                log.info(f"{kind} server listening on TCP address: {join_address(host, port)}")
            self._runtime.info(f"{name} server is running on port {port}")
        if ports.get("metrics"):
            where = join_address(settings.metrics_listen_address, ports["metrics"] or 0)
            self._runtime.info(f"metrics server started on {where}/")
        if settings.allowed_origins not in ((), ("*",)):
            of_http.info("Enabled CORS HTTP middleware")
        if settings.api_token is not None:
            of_http.info("Enabled token authentication on HTTP server")
            of_grpc.info("Enabled token authentication on gRPC server")
        if settings.max_body_bytes:
            of_http.info(f"Enabled max body size HTTP middleware with size {settings.max_body_bytes} bytes")
        limit = settings.max_body_bytes or -1
        self._runtime.info(f"The request body size parameter is: {limit} bytes")
        peer = join_address(settings.peer_listen_address, ports["peer"] or 0)
        get_logger("dapr.runtime.grpc.internal").info(f"gRPC server listening on TCP address: {peer}")
        self._runtime.info(f"Internal gRPC server is running on {peer}")
        super().listening(ports, engine)

    def waiting_for_app(self, address: str, reason: str) -> None:
        """See LifeLines."""
        settings = self._settings
        self._runtime.info(
            f"application protocol: {settings.app_protocol}. waiting on port {settings.app_port}.  "
            "This will block until the app is listening on that port."
        )
        self._is_wait_told = True

    def app_listens(self, address: str) -> None:
        """See LifeLines."""
        if not self._is_wait_told:
            self.waiting_for_app(address, "")
        self._is_wait_told = False
        self._runtime.info(f"application discovered on port {self._settings.app_port}")

    def app_configured(self) -> None:
        """See LifeLines."""
        self._runtime.info("Application configuration loaded")

    def app_health(self, *, healthy: bool) -> None:
        """See LifeLines."""
        if healthy:
            self._health.info("App entered healthy status")
        else:
            self._health.warning("App entered un-healthy status")

    def ready(self) -> None:
        """See LifeLines."""
        if self._settings.app_max_concurrency is not None:
            self._runtime.info(f"app max concurrency set to {self._settings.app_max_concurrency}")
        took_ms = round((self._clock() - self._began) * 1000)
        self._runtime.info(f"dapr initialized. Status: Running. Init Elapsed {took_ms}ms")

    def leaving(self, reason: str) -> None:
        """See LifeLines."""
        if reason == BY_API:
            self._api.info("Shutdown requested via API")
        elif reason in _SIGNALS:
            what = f"Received signal '{_SIGNALS[reason]}'; beginning shutdown"
            get_logger("dapr.signals").info(what)
        else:
            super().leaving(reason)

    def aborting(self) -> None:
        """See LifeLines."""
        self._api.warning("Force shutdown requested, exiting immediately without graceful shutdown")

    def delaying(self, for_s: float) -> None:
        """See LifeLines."""
        self._runtime.info(
            f"Blocking graceful shutdown for {go_duration(for_s)} or until app reports unhealthy..."
        )

    def delayed(self, *, healthy: bool) -> None:
        """See LifeLines."""
        why = "Block shutdown period expired" if healthy else "App reported unhealthy"
        self._runtime.info(f"{why}, entering shutdown...")

    def cut(self, calls: int, after_s: float | None) -> None:
        """See LifeLines."""
        super().cut(calls, after_s)
        self._runtime.critical("Graceful shutdown timeout exceeded, forcing shutdown")

    def failed(self, causes: Sequence[str]) -> None:
        """See LifeLines."""
        tell_fatal(causes)

    def stopped(self) -> None:
        """See LifeLines."""
        for line in ("Dapr is shutting down", "Dapr runtime stopped", "Daprd shutdown gracefully"):
            self._runtime.info(line)


_SIGNALS = {"SIGINT": "interrupt", "SIGTERM": "terminated", "SIGHUP": "hangup"}  # as Go names them


def tell_fatal(causes: Sequence[str]) -> None:
    """What daprd says last where it can't start."""
    get_logger("dapr.runtime").critical(f"Fatal error from runtime: {'; '.join(causes)}")


def life_lines(settings: Settings) -> LifeLines:
    """Those of the profile."""
    return (DaprLines if settings.profile == "daprd" else LifeLines)(settings)
