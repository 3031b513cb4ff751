"""Builds what a Configuration and OpenTelemetry's variables say about tracing: the sampling rate, and the exporters, imported on use."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from policies.rules.configuration import OtelConfig, TracingConfig
from proxy.contract.addresses import split_address
from proxy.contract.engine import SamplingRule
from proxy.control.hop_tracing import HopTracing
from proxy.errors import ConfigError
from proxy.settings.values import OtelSettings, Settings
from telemetry.calls import CallRecorder
from telemetry.context import Sampler
from telemetry.errors import ExporterConfigError, TailCallableError
from telemetry.exporting import Exporter
from telemetry.logs import get_logger
from telemetry.metrics import Meters
from telemetry.otlp.log_items import LogItem
from telemetry.otlp.received import Received
from telemetry.otlp.relays import Relays
from telemetry.otlp.target import OtlpTarget, Signal
from telemetry.spans import Span, SpanForm
from telemetry.tail import TailHook, load
from telemetry.tracing import Tracer

if TYPE_CHECKING:
    from telemetry.otlp.log_export import LogExport, OtlpLogExporter
    from telemetry.otlp.pushing import MetricsPusher

RELAYED: tuple[Signal, ...] = ("metrics", "logs")  # what the app sends and does not stay in memory
INSTANCE_HEADER = "postern-instance"  # with what we export, so that a receiver that is our own notices


_log = get_logger("postern.tracing")


class Exporters(Struct, frozen=True):
    """Where our own spans go, what the app sends of its, what it sends of metrics and logs, and our own logs."""

    own: tuple[Exporter[Span], ...]
    app: tuple[Exporter[Received], ...]
    relayed: Mapping[Signal, Exporter[Received]]
    logs: Exporter[LogItem] | None


def exporters(
    tracing: TracingConfig, settings: Settings, own_ports: frozenset[int] = frozenset()
) -> Exporters:
    """Zipkin, OTLP, stdout and installed exporters, as configured; no OTLP to a port of ours. Raises ConfigError for one of a Configuration
    that can't be made.
    """
    own: list[Exporter[Span]] = []
    app: list[Exporter[Received]] = []
    tracing = with_variables(tracing, settings.otel)
    target = otlp_target(tracing, settings)
    service = settings.otel.service_name or settings.app_id
    marks = ((INSTANCE_HEADER, settings.instance),)
    try:
        if tracing.zipkin_endpoint:
            from telemetry.zipkin import ZipkinExporter, ZipkinForwarder  # noqa: PLC0415

            own.append(ZipkinExporter(tracing.zipkin_endpoint))
            app.append(ZipkinForwarder(ZipkinExporter(tracing.zipkin_endpoint)))
        if target is not None and not leads_back(target, own_ports):
            from telemetry.otlp.exporter import OtlpExporter, OtlpForwarder  # noqa: PLC0415

            own.append(OtlpExporter(target, service, settings.otel.resource, marks))
            app.append(OtlpForwarder(target, marks))
        relayed = _relayed(tracing, settings, own_ports, marks) if settings.takes_otlp else {}
        logs = _logs(tracing, settings, own_ports, marks)
    except ExporterConfigError as error:
        raise ConfigError((f"spec.tracing: {error}",)) from error
    if tracing.stdout:
        from telemetry.stdout import StdoutExporter  # noqa: PLC0415

        own.append(StdoutExporter())
    own += _installed(settings, service)
    return Exporters(tuple(own), tuple(app) if settings.takes_otlp else (), relayed, logs)


def _relayed(
    tracing: TracingConfig, settings: Settings, own_ports: frozenset[int], marks: tuple[tuple[str, str], ...]
) -> dict[Signal, Exporter[Received]]:
    found: dict[Signal, Exporter[Received]] = {}
    for signal in RELAYED:
        target = app_target(signal, tracing, settings)
        if target is not None and not leads_back(target, own_ports):
            from telemetry.otlp.exporter import OtlpForwarder  # noqa: PLC0415 - as above

            found[signal] = OtlpForwarder(target, marks, signal)
    return found


def _logs(
    tracing: TracingConfig, settings: Settings, own_ports: frozenset[int], marks: tuple[tuple[str, str], ...]
) -> "OtlpLogExporter | None":
    target = app_target("logs", tracing, settings)
    if not _exports_logs(settings) or target is None or leads_back(target, own_ports):
        return None
    from telemetry.otlp.log_export import OtlpLogExporter  # noqa: PLC0415 - as above

    service, resource = settings.otel.service_name or settings.app_id, settings.otel.resource
    return OtlpLogExporter(target, service, (("service.instance.id", settings.instance), *resource), marks)


def _exports_logs(settings: Settings) -> bool:
    access_log = settings.access_log
    return settings.otel.exports_log or (access_log is not None and access_log.is_otlp)


def log_export(tracing: TracingConfig, settings: Settings, meters: Meters) -> "LogExport | None":
    """What sends our logs to a collector, where that is wanted. Raises ConfigError as `exporters`."""
    if not _exports_logs(settings):
        return None
    from telemetry.otlp.log_export import LogExport  # noqa: PLC0415 - as above

    made = LogExport(exporters(tracing, settings).logs, meters, settings.otel.log_limits)
    if settings.otel.exports_log:
        made.follow_log()
    return made


def with_variables(tracing: TracingConfig, otel: OtelSettings) -> TracingConfig:
    """What a Configuration leaves out, from OTEL_TRACES_EXPORTER; no exporters at all with OTEL_SDK_DISABLED."""
    if otel.is_disabled:
        return replace(tracing, zipkin_endpoint=None, stdout=False, otel=None)
    return replace(
        tracing,
        zipkin_endpoint=tracing.zipkin_endpoint or otel.zipkin or None,
        stdout=tracing.stdout or otel.to_stdout,
    )


def _installed(settings: Settings, service: str) -> Iterator[Exporter[Span]]:
    """OpenTelemetry's exporters by their names; one that can't be made is told and left out, as the variable may be meant for the app."""
    for name in settings.otel.exporters:
        from telemetry.bridge import BridgeExporter  # noqa: PLC0415 - 20 MB, and few ask

        try:
            yield BridgeExporter(name, service, resource=dict(settings.otel.resource))
        except ExporterConfigError as error:
            _log.warning("an exporter of OTEL_TRACES_EXPORTER is left out", exporter=name, reason=str(error))


def tracer(tracing: TracingConfig, settings: Settings, meters: Meters) -> tuple[Tracer, Relays]:
    """What takes spans, and what takes the app's metrics and logs. Raises ConfigError as `exporters`."""
    made, limits = exporters(tracing, settings), settings.otel.limits
    taker = Tracer(settings.app_id, made.own, forwarders=made.app, limits=limits)
    return taker, Relays(made.relayed, meters, limits)


def pusher(
    settings: Settings, meters: Meters, report: Callable[[], Awaitable[None]]
) -> "MetricsPusher | None":
    """What pushes metrics, where a variable says so. report: has the engine count all calls that are over. Raises ConfigError."""
    otel = settings.otel
    if otel.metrics is None:
        return None
    from telemetry.otlp.exporter import Delivery  # noqa: PLC0415
    from telemetry.otlp.pushing import MetricsPusher  # noqa: PLC0415

    try:
        delivery = Delivery(otel.metrics, "metrics", ((INSTANCE_HEADER, settings.instance),))
    except ExporterConfigError as error:
        raise ConfigError((f"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: {error}",)) from error
    return MetricsPusher(
        *(meters, delivery, otel.service_name or settings.app_id),
        # Several instances of an app count each for itself.
        (("service.instance.id", settings.instance), *otel.resource),
        every_s=otel.metrics_every_s,
        temporality=otel.metrics_temporality,
        report=report,
        log=get_logger("postern.metrics"),
    )


def are_exports_equal(one: TracingConfig, other: TracingConfig) -> bool:
    """Whether spans go to the same places: all but which calls are traced."""
    return _exports(one) == _exports(other)


def _exports(tracing: TracingConfig) -> TracingConfig:
    """The part that says where spans go."""
    return TracingConfig(stdout=tracing.stdout, zipkin_endpoint=tracing.zipkin_endpoint, otel=tracing.otel)


def span_form(tracing: TracingConfig) -> SpanForm:
    """What spans say of calls."""
    return SpanForm(
        conventions=tracing.conventions,
        captures_query=tracing.captures_query,
        baggage=tracing.baggage_attributes,
    )


def tail_hook(tracing: TracingConfig, recorder: CallRecorder, meters: Meters) -> TailHook | None:
    """What is asked about calls that are not sampled. Raises ConfigError where it can't be loaded."""
    reference = tracing.tail_callable
    if not reference:
        return None
    try:
        wants = load(reference)
    except TailCallableError as error:
        raise ConfigError((f"spec.tracing.tail.callable: {error}",)) from error
    return TailHook(reference, wants, recorder.trace, meters, _log)


def sampling_rate(tracing: TracingConfig, settings: Settings) -> float:
    """As configured; else as OTEL_TRACES_SAMPLER says; else everything where a variable names a collector or an exporter, or while
    developing (`postern trace` can show something then); elsewhere Dapr's default.
    """
    if tracing.is_rate_given:
        return tracing.sampling_rate
    otel = settings.otel
    if otel.sampling_rate is not None:
        return otel.sampling_rate
    is_otlp = tracing.otel is None and otel.traces is not None
    is_by_variable = is_otlp or bool(otel.zipkin or otel.to_stdout or otel.exporters)
    return 1.0 if is_by_variable or settings.profile == "dev" else tracing.sampling_rate


def hop_tracing(tracing: TracingConfig, settings: Settings, random_source: Random) -> HopTracing:
    """What begins spans. random_source: for ids, which are no secrets."""
    sampler = Sampler(sampling_rate(tracing, settings), random_source)
    rules = [SamplingRule(rule.rate, rule.per_s) for rule in tracing.rules]
    return HopTracing(sampler, is_b3_read=tracing.is_b3_read, rules=rules)


def otlp_target(tracing: TracingConfig, settings: Settings) -> OtlpTarget | None:
    """The collector that a Configuration names, else that of the variables; none with OTEL_SDK_DISABLED."""
    tracing = with_variables(tracing, settings.otel)
    return settings.otel.traces if tracing.otel is None else configured_target(tracing.otel)


def app_target(signal: Signal, tracing: TracingConfig, settings: Settings) -> OtlpTarget | None:
    """The collector of what the app sends: by the signal's own variable, a Configuration, or the common one."""
    otel = settings.otel
    tracing = with_variables(tracing, otel)
    if signal == "traces":
        return otlp_target(tracing, settings)
    target = otel.app_metrics if signal == "metrics" else otel.app_logs
    return target if tracing.otel is None or signal in otel.named else configured_target(tracing.otel)


def collectors(tracing: TracingConfig, settings: Settings) -> dict[str, str]:
    """`host:port` by the names of exporters of OTLP."""
    from telemetry.otlp.exporter import forwarder_name  # noqa: PLC0415 - as above

    signals: tuple[Signal, ...] = ("traces", *RELAYED)
    targets = {forwarder_name(signal): app_target(signal, tracing, settings) for signal in signals}
    targets["otlp"] = otlp_target(tracing, settings)
    targets["otlp-logs"] = targets[forwarder_name("logs")]
    return {name: target.address for name, target in targets.items() if target is not None}


def leads_back(target: OtlpTarget, own_ports: frozenset[int]) -> bool:
    """Whether a collector is our own receiver, as where a variable that is meant for the app reaches its sidecar, too."""
    return target.is_loopback and split_address(target.address)[1] in own_ports


def configured_target(otel: OtelConfig) -> OtlpTarget:
    """The collector that a Configuration names. Raises ConfigError for an address that is none."""
    try:
        parts = urlsplit(f"//{otel.endpoint}")
        host, port = "" if parts.path else parts.hostname, parts.port or 0
    except ValueError:
        host, port = None, 0
    if not host:
        raise ConfigError((f"spec.tracing.otel.endpointAddress: {otel.endpoint!r}, expected host:port",))
    target = OtlpTarget(
        host=host,
        port=port,
        protocol="http" if otel.protocol == "http" else "grpc",
        is_secure=otel.is_secure,
        headers=otel.headers,
    )
    return target if otel.timeout_s is None else replace(target, timeout_s=otel.timeout_s)
