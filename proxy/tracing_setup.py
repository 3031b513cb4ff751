"""The exporters that a Configuration asks for; each is imported only where it is used."""

from policies.configuration import OtelConfig, TracingConfig
from telemetry.exporting import Exporter


def exporters(tracing: TracingConfig, service: str) -> tuple[Exporter, ...]:
    """Zipkin, OTLP and stdout, as configured. Raises ValueError for an endpoint that can't be used."""
    made: list[Exporter] = []
    if tracing.zipkin_endpoint:
        from telemetry.zipkin import ZipkinExporter  # noqa: PLC0415

        made.append(ZipkinExporter(tracing.zipkin_endpoint))
    if tracing.otel is not None:
        made.append(_otlp(tracing.otel, service))
    if tracing.stdout:
        from telemetry.stdout import StdoutExporter  # noqa: PLC0415

        made.append(StdoutExporter())
    return tuple(made)


def _otlp(otel: OtelConfig, service: str) -> Exporter:
    from telemetry.bridge import BridgeExporter  # noqa: PLC0415

    scheme = "https" if otel.is_secure else "http"
    endpoint = f"{scheme}://{otel.endpoint}" + ("/v1/traces" if otel.protocol == "http" else "")
    options: dict[str, object] = {"endpoint": endpoint, "headers": dict(otel.headers)}
    if otel.timeout_s is not None:
        options["timeout"] = otel.timeout_s
    return BridgeExporter(f"otlp_proto_{otel.protocol}", service, options=options)
