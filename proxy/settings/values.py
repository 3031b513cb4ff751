"""What one sidecar was told to be: frozen values, made by `parsing` from flags and environment.

This module holds no defaults and reads nothing; of ours it imports values alone: the engines' contract, and where OTLP goes.
"""

from pathlib import Path
from typing import Literal

from msgspec import Struct

from proxy.contract.engine import Limits
from telemetry.exporting import ExportLimits
from telemetry.line_form import LineFilter, LineForm
from telemetry.otlp.target import OtlpTarget, Signal

Profile = Literal["dev", "production", "daprd"]
PolicyMode = Literal["off", "audit", "enforce"]
EngineChoice = Literal["auto", "native", "portable"]
AppProtocol = Literal["http", "https", "h2c", "grpc", "grpcs"]
LogLevel = Literal["debug", "info", "warn", "error", "fatal"]


class PortWish(Struct, frozen=True):
    """A TCP port to listen on: 0 is any free one; with `fallback` a taken number becomes any free one instead of an error."""

    number: int
    fallback: bool = False


class AppHealth(Struct, frozen=True, kw_only=True):
    """How to probe the app: `threshold` failures in a row make it unhealthy; `path` is for HTTP apps only."""

    path: str
    interval_s: float
    timeout_s: float
    threshold: int


class OwnPort(Struct, frozen=True):
    """A local port that leads to one callee: `app` is an app-id, or `app.namespace`. Port 0 is any free one."""

    app: str
    port: int

    @property
    def variable(self) -> str:
        """The name under which the app finds the address: `cart` gives `CART_ADDR`."""
        return "".join(c if c.isascii() and c.isalnum() else "_" for c in self.app).upper() + "_ADDR"


class AccessLogSettings(Struct, frozen=True, kw_only=True):
    """A line for each call, to a file; path None: to standard output, or to a collector. max_bytes 0: the file is never put aside."""

    path: Path | None
    is_otlp: bool
    form: LineForm
    chosen: LineFilter
    max_bytes: int
    keep: int


class RunMetadata(Struct, frozen=True, kw_only=True):
    """Who started this sidecar, for `list` and `stop`; empty if the user did."""

    command: str = ""
    run_template: str = ""
    run_template_name: str = ""
    app_log: str = ""
    sidecar_log: str = ""
    cli_pid: int | None = None


class OtelSettings(Struct, frozen=True, kw_only=True):
    """What OpenTelemetry's environment variables say. traces: where a Configuration names no collector; metrics: where they are pushed.

    app_metrics, app_logs: where the app's go, and our logs: exports_log says whether our own log does.
    named: signals with a variable of their own, which Configurations don't change.
    zipkin: where spans go if no Configuration names a Zipkin, or empty; to_stdout: as lines of the log, too; exporters: installed ones, by
    the names of their entry points. service_name: in the app-id's place, or empty; resource: further attributes of it.
    limits: of each exporter's queue; log_limits: of that of log records.
    sampling_rate: of new traces, 0 to 1, where a Configuration has none; None: not said.
    is_disabled: nothing is exported, whatever a Configuration says.
    """

    traces: OtlpTarget | None
    zipkin: str
    to_stdout: bool
    exporters: tuple[str, ...]
    metrics: OtlpTarget | None
    metrics_every_s: float
    metrics_temporality: Literal["cumulative", "delta"]
    app_metrics: OtlpTarget | None
    app_logs: OtlpTarget | None
    named: frozenset[Signal]
    exports_log: bool
    service_name: str
    resource: tuple[tuple[str, str], ...]
    limits: ExportLimits
    log_limits: ExportLimits
    sampling_rate: float | None = None
    is_disabled: bool = False


class Settings(Struct, frozen=True, kw_only=True):
    """Everything a sidecar is configured with. Hosts in addresses are bare (`::1`, not `[::1]`); `join_address` adds a port."""

    # who we are
    app_id: str
    namespace: str
    instance: str  # 32 hex digits, new at each start
    profile: Profile
    run: RunMetadata
    # the app
    app_port: int | None  # None: no app channel, the sidecar only calls out
    app_protocol: AppProtocol
    app_channel_address: str
    app_max_concurrency: int | None
    app_health: AppHealth | None
    asks_config: bool  # GET /dapr/config of the app once it is healthy, as daprd does
    # where we listen
    http_port: PortWish
    grpc_port: PortWish
    peer_port: PortWish
    public_port: PortWish | None
    metrics_port: PortWish | None
    listen_addresses: tuple[str, ...]  # at least one must bind
    peer_listen_address: str
    public_listen_address: str
    metrics_listen_address: str
    metrics_tls: tuple[Path, Path] | None  # the chain and its key
    metrics_token_file: Path | None
    unix_domain_socket: Path | None  # a directory: the API listens there instead of on TCP
    host_ip: str | None  # announced as ours; None: find out
    # naming the callee
    upstreams: tuple[OwnPort, ...]
    routes: tuple[str, ...]  # raw: `shop.CartService=cart`, or a pattern
    grpc_services: tuple[str, ...]  # what our app declares to serve
    learn_names: bool
    # documents
    config_paths: tuple[Path, ...]
    resources_paths: tuple[Path, ...]
    config_lenient: bool
    access_policy_mode: PolicyMode  # the most that AccessPolicies may be in
    injects_faults: bool
    keep_open_calls: bool  # a new access policy holds for new calls alone
    # identity
    mtls: bool
    sentry_address: str | None  # `host:port` or `unix:/path`; None with mtls: a local sentry is ensured
    trust_anchors_pem: bytes | None
    sentry_token_file: Path | None
    sentry_local_identity: str | None
    control_plane_trust_domain: str
    control_plane_namespace: str
    trust_domain: str
    trust_domain_given: bool  # False: a Configuration may name another
    api_token: str | None
    app_api_token: str | None
    # limits and manners
    allowed_origins: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    egress: tuple[str, ...]  # hosts of URLs that the app may call; `*`: any
    max_body_bytes: int | None  # None: no limit on relayed bodies
    read_buffer_bytes: int
    limits: Limits  # of the engine; the size of heads is `read_buffer_bytes`
    connect_s: float
    replay_bytes: int  # of a request body, kept for another attempt
    graceful_shutdown_s: float | None  # None: no limit
    block_shutdown_s: float
    drain_s: float
    # what we say
    log_level: LogLevel
    log_json: bool
    log_file: Path | None
    access_log: AccessLogSettings | None
    api_logging: bool | None  # None: the Configuration decides
    otel: OtelSettings
    takes_otlp: bool  # what the app exports to the API ports goes on to where our own spans go
    metrics_compat: bool
    metrics_resiliency_paths: bool
    tells_trace: bool  # answers over HTTP carry traceparent
    # machinery
    engine: EngineChoice
    threads: int  # of the native engine
    keep_decisions: bool  # False: every call is decided afresh
    runtime_root: Path
    ready_fd: int | None  # a socket to our supervisor: see proxy.lifetime
    given: frozenset[str]  # the flags that were given
    variables: frozenset[str]  # the variables that were set, of those that count
    warnings: tuple[str, ...]  # accepted, but without effect; to be logged once at start

    def __repr__(self) -> str:
        return f"Settings({self.app_id})"  # tokens belong in no log

    @property
    def app_speaks_grpc(self) -> bool:
        """Whether the app speaks gRPC only."""
        return self.app_protocol in ("grpc", "grpcs")

    @property
    def advertised_host(self) -> str | None:
        """The address that naming must announce: as told, or a loopback that the peer listener is bound to; None: find out."""
        if self.host_ip:
            return self.host_ip
        return self.peer_listen_address if is_loopback(self.peer_listen_address) else None


def is_loopback(host: str) -> bool:
    """Whether a bare host reaches this machine alone."""
    return host in {"localhost", "::1"} or host.startswith("127.")
