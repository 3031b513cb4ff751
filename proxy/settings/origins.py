"""Each setting as it is in force, and what decided it: a flag, a variable or the default. Secrets are told as set or unset."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from proxy.settings.values import PortWish, Settings
from telemetry.line_form import headers_of, text_of

SET, UNSET = "(set)", "(unset)"
# Flag -> the variable that counts where it is not given.
VARIABLES: Final[Mapping[str, str]] = {
    "access-log": "POSTERN_ACCESS_LOG",
    "access-log-format": "POSTERN_ACCESS_LOG_FORMAT",
    "host-ip": "DAPR_HOST_IP",
    "keep-open-calls": "POSTERN_KEEP_OPEN_CALLS",
    "no-decision-cache": "POSTERN_NO_DECISION_CACHE",
    "engine": "POSTERN_ENGINE",
    "threads": "POSTERN_THREADS",
    "namespace": "NAMESPACE",
    "control-plane-trust-domain": "DAPR_CONTROLPLANE_TRUST_DOMAIN",
    "control-plane-namespace": "DAPR_CONTROLPLANE_NAMESPACE",
    "trust-anchors-file": "DAPR_TRUST_ANCHORS",
    "runtime-path": "POSTERN_HOME",
}
# Flags that say the same in other words: the setting's own, and those beside it.
_ALSO: Final[Mapping[str, tuple[str, ...]]] = {
    "app-protocol": ("app-ssl",),
    "max-body-size": ("dapr-http-max-request-size",),
    "read-buffer-size": ("dapr-http-read-buffer-size",),
    "resources-path": ("components-path",),
    "enable-mtls": ("insecure-plaintext",),
}


class Row(Struct, frozen=True, kw_only=True):
    """One setting. variable: for what only the environment can say."""

    flag: str
    value: Callable[[Settings], object]
    variable: str = ""
    is_secret: bool = False


def _row(flag: str, value: Callable[[Settings], object]) -> Row:
    return Row(flag=flag, value=value)


def _env(variable: str, value: Callable[[Settings], object], *, is_secret: bool = False) -> Row:
    return Row(flag="", variable=variable, value=value, is_secret=is_secret)


ROWS: Final = (
    _row("app-id", lambda s: s.app_id),
    _row("namespace", lambda s: s.namespace),
    _row("profile", lambda s: s.profile),
    _row("app-port", lambda s: s.app_port),
    _row("app-protocol", lambda s: s.app_protocol),
    _row("app-channel-address", lambda s: s.app_channel_address),
    _row("app-max-concurrency", lambda s: s.app_max_concurrency),
    _row("enable-app-health-check", lambda s: s.app_health is not None),
    _row("app-health-check-path", lambda s: s.app_health and s.app_health.path),
    _row("app-health-probe-interval", lambda s: s.app_health and s.app_health.interval_s),
    _row("app-health-probe-timeout", lambda s: s.app_health and s.app_health.timeout_s),
    _row("app-health-threshold", lambda s: s.app_health and s.app_health.threshold),
    _row("dapr-http-port", lambda s: s.http_port),
    _row("dapr-grpc-port", lambda s: s.grpc_port),
    _row("dapr-internal-grpc-port", lambda s: s.peer_port),
    _row("dapr-public-port", lambda s: s.public_port),
    _row("metrics-port", lambda s: s.metrics_port),
    _row("dapr-listen-addresses", lambda s: s.listen_addresses),
    _row("dapr-internal-grpc-listen-address", lambda s: s.peer_listen_address),
    _row("dapr-public-listen-address", lambda s: s.public_listen_address),
    _row("metrics-listen-address", lambda s: s.metrics_listen_address),
    _row("metrics-tls-cert", lambda s: s.metrics_tls and s.metrics_tls[0]),
    _row("metrics-tls-key", lambda s: s.metrics_tls and s.metrics_tls[1]),
    _row("metrics-token-file", lambda s: s.metrics_token_file),
    _row("unix-domain-socket", lambda s: s.unix_domain_socket),
    _row("host-ip", lambda s: s.host_ip),
    _row("upstream", lambda s: [f"{own.app}={own.port}" for own in s.upstreams]),
    _row("route", lambda s: s.routes),
    _row("grpc-service", lambda s: s.grpc_services),
    _row("no-learn-names", lambda s: not s.learn_names),
    _row("config", lambda s: s.config_paths),
    _row("resources-path", lambda s: s.resources_paths),
    _row("config-lenient", lambda s: s.config_lenient),
    _row("access-policy-mode", lambda s: s.access_policy_mode),
    _row("enable-fault-injection", lambda s: s.injects_faults),
    _row("keep-open-calls", lambda s: s.keep_open_calls),
    _row("enable-mtls", lambda s: s.mtls),
    _row("sentry-address", lambda s: s.sentry_address),
    Row(flag="trust-anchors-file", value=lambda s: s.trust_anchors_pem, is_secret=True),
    _row("trust-domain", lambda s: s.trust_domain),
    _row("control-plane-trust-domain", lambda s: s.control_plane_trust_domain),
    _row("control-plane-namespace", lambda s: s.control_plane_namespace),
    _env("SENTRY_LOCAL_IDENTITY", lambda s: s.sentry_local_identity),
    _env("DAPR_SENTRY_TOKEN_FILE", lambda s: s.sentry_token_file),
    _env("DAPR_API_TOKEN", lambda s: s.api_token, is_secret=True),
    _env("APP_API_TOKEN", lambda s: s.app_api_token, is_secret=True),
    _row("allowed-origins", lambda s: s.allowed_origins),
    _row("allowed-hosts", lambda s: s.allowed_hosts),
    _row("egress", lambda s: s.egress),
    _row("max-body-size", lambda s: s.max_body_bytes),
    _row("read-buffer-size", lambda s: s.read_buffer_bytes),
    _row("replay-buffer-size", lambda s: s.replay_bytes),
    _row("replay-buffer-total", lambda s: s.limits.replay_bytes),
    _row("max-connections", lambda s: s.limits.connections),
    _row("max-streams", lambda s: s.limits.streams),
    _row("max-headers", lambda s: s.limits.header_count),
    _row("head-timeout", lambda s: s.limits.head_s),
    _row("idle-timeout", lambda s: s.limits.idle_s),
    _row("stall-timeout", lambda s: s.limits.stall_s),
    _row("keepalive-time", lambda s: s.limits.ping_s),
    _row("keepalive-timeout", lambda s: s.limits.pong_s),
    _row("connect-timeout", lambda s: s.connect_s),
    _row("drain", lambda s: s.drain_s),
    _row("dapr-graceful-shutdown-seconds", lambda s: s.graceful_shutdown_s),
    _row("dapr-block-shutdown-duration", lambda s: s.block_shutdown_s),
    _row("log-level", lambda s: s.log_level),
    _row("log-as-json", lambda s: s.log_json),
    _row("log-file", lambda s: s.log_file),
    _row(
        "access-log",
        lambda s: s.access_log and (s.access_log.path or ("otlp" if s.access_log.is_otlp else "-")),
    ),
    _row("access-log-format", lambda s: s.access_log and text_of(s.access_log.form)),
    _row("access-log-headers", lambda s: s.access_log and headers_of(s.access_log.form)),
    _row("access-log-min-status", lambda s: s.access_log and s.access_log.chosen.min_status),
    _row("access-log-slower", lambda s: s.access_log and s.access_log.chosen.slower_ns / 1e9),
    _row("access-log-sample", lambda s: s.access_log and s.access_log.chosen.every),
    _row("access-log-max-size", lambda s: s.access_log and s.access_log.max_bytes),
    _row("access-log-keep", lambda s: s.access_log and s.access_log.keep),
    _row("enable-api-logging", lambda s: s.api_logging),
    _row("no-otlp-receiver", lambda s: not s.takes_otlp),
    _row("no-response-traceparent", lambda s: not s.tells_trace),
    _env("OTEL_SDK_DISABLED", lambda s: s.otel.is_disabled),
    _env("OTEL_TRACES_SAMPLER", lambda s: s.otel.sampling_rate),
    _env(
        "OTEL_TRACES_EXPORTER",
        lambda s: [
            *(["otlp"] if s.otel.traces else []),
            *(["zipkin"] if s.otel.zipkin else []),
            *s.otel.exporters,
        ],
    ),
    _env("OTEL_LOGS_EXPORTER", lambda s: ["otlp"] if s.otel.exports_log else []),
    _env("OTEL_EXPORTER_ZIPKIN_ENDPOINT", lambda s: s.otel.zipkin),
    _env("OTEL_EXPORTER_OTLP_ENDPOINT", lambda s: s.otel.traces and s.otel.traces.address),
    _env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", lambda s: s.otel.metrics and s.otel.metrics.address),
    _env("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", lambda s: s.otel.app_logs and s.otel.app_logs.address),
    _env("OTEL_METRIC_EXPORT_INTERVAL", lambda s: round(s.otel.metrics_every_s * 1000)),
    _env("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", lambda s: s.otel.metrics_temporality),
    _env("OTEL_SERVICE_NAME", lambda s: s.otel.service_name),
    _env("OTEL_RESOURCE_ATTRIBUTES", lambda s: [f"{name}={value}" for name, value in s.otel.resource]),
    _env("OTEL_BSP_MAX_QUEUE_SIZE", lambda s: s.otel.limits.queue),
    _env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", lambda s: s.otel.limits.batch),
    _env("OTEL_BSP_SCHEDULE_DELAY", lambda s: round(s.otel.limits.flush_s * 1000)),
    _env("OTEL_BSP_EXPORT_TIMEOUT", lambda s: round(s.otel.limits.export_s * 1000)),
    _env("OTEL_BLRP_MAX_QUEUE_SIZE", lambda s: s.otel.log_limits.queue),
    _env("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", lambda s: s.otel.log_limits.batch),
    _env("OTEL_BLRP_SCHEDULE_DELAY", lambda s: round(s.otel.log_limits.flush_s * 1000)),
    _env("OTEL_BLRP_EXPORT_TIMEOUT", lambda s: round(s.otel.log_limits.export_s * 1000)),
    _row("enable-metrics", lambda s: s.metrics_port is not None),
    _row("metrics-compat", lambda s: s.metrics_compat),
    _row("metrics-resiliency-paths", lambda s: s.metrics_resiliency_paths),
    _row("disable-init-endpoints", lambda s: [] if s.asks_config else ["config"]),
    _row("engine", lambda s: s.engine),
    _row("threads", lambda s: s.threads),
    _row("no-decision-cache", lambda s: not s.keep_decisions),
    _row("runtime-path", lambda s: s.runtime_root),
)


def effective(settings: Settings, listening: Mapping[str, int]) -> list[dict[str, Any]]:
    """Every setting by the flag or variable that sets it. listening: the ports that were taken, by listener."""
    taken = {
        "dapr-http-port": "http",
        "dapr-grpc-port": "grpc",
        "dapr-internal-grpc-port": "peer",
        "dapr-public-port": "public",
        "metrics-port": "metrics",
    }
    told = []
    for row in ROWS:
        value = listening.get(taken.get(row.flag, ""), row.value(settings))
        told.append(
            {
                "name": row.flag or row.variable,
                "value": (SET if value else UNSET) if row.is_secret else _plain(value),
                **_source(row, settings),
            }
        )
    return told


def _source(row: Row, settings: Settings) -> dict[str, str]:
    """by: what to write to change it."""
    flags = (row.flag, *_ALSO.get(row.flag, ())) if row.flag else ()
    given = next((flag for flag in flags if flag in settings.given), None)
    if given is not None:
        return {"source": "flag", "by": f"--{given}"}
    variable = row.variable or VARIABLES.get(row.flag, "")
    if variable in settings.variables:
        return {"source": "environment", "by": variable}
    return {"source": "default", "by": f"--{row.flag}" if row.flag else row.variable}


def _plain(value: object) -> object:
    if isinstance(value, PortWish):
        return value.number
    if isinstance(value, Path):
        return str(value.absolute())  # the command that asks may run elsewhere
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
