"""Builds what a Configuration says about tracing: the sampling rate and the exporters, each imported only where it is used."""

from msgspec.structs import replace

from policies.rules.configuration import OtelConfig, TracingConfig
from proxy.errors import ConfigError
from proxy.settings.values import Profile
from telemetry.errors import ExporterConfigError
from telemetry.exporting import Exporter


def exporters(tracing: TracingConfig, service: str) -> tuple[Exporter, ...]:
    """Zipkin, OTLP and stdout, as configured. Raises ConfigError for one that can't be made."""
    made: list[Exporter] = []
    try:
        if tracing.zipkin_endpoint:
            from telemetry.zipkin import ZipkinExporter  # noqa: PLC0415

            made.append(ZipkinExporter(tracing.zipkin_endpoint))
        if tracing.otel is not None:
            from telemetry.bridge import BridgeExporter  # noqa: PLC0415

            name, options = otlp(tracing.otel)
            made.append(BridgeExporter(name, service, options=options))
    except ExporterConfigError as error:
        raise ConfigError((f"spec.tracing: {_with_remedy(error)}",)) from error
    if tracing.stdout:
        from telemetry.stdout import StdoutExporter  # noqa: PLC0415

        made.append(StdoutExporter())
    return tuple(made)


def are_exports_equal(one: TracingConfig, other: TracingConfig) -> bool:
    """Whether spans go to the same places: all but the sampling rate."""
    rate = {"sampling_rate": 0.0, "is_rate_given": False}
    return replace(one, **rate) == replace(other, **rate)


def sampling_rate(tracing: TracingConfig, profile: Profile) -> float:
    """As configured; else everything while developing (`postern trace --last` has something to show), Dapr's default elsewhere."""
    return 1.0 if profile == "dev" and not tracing.is_rate_given else tracing.sampling_rate


def otlp(otel: OtelConfig) -> tuple[str, dict[str, object]]:
    """The name under which OpenTelemetry's packages announce the OTLP exporter, and its arguments."""
    scheme = "https" if otel.is_secure else "http"
    endpoint = f"{scheme}://{otel.endpoint}" + ("/v1/traces" if otel.protocol == "http" else "")
    options: dict[str, object] = {"endpoint": endpoint, "headers": dict(otel.headers)}
    if otel.timeout_s is not None:
        options["timeout"] = otel.timeout_s
    return f"otlp_proto_{otel.protocol}", options


def _with_remedy(error: ExporterConfigError) -> str:
    if not error.exporter.startswith("otlp_proto_"):
        return str(error)
    package = f"opentelemetry-exporter-{error.exporter.replace('_', '-')}"
    return f"{error}; install postern with its extra `otlp` (pipx install '.[otlp]'), or {package} beside it"
