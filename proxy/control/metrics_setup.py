"""Builds the metrics, the API log and taps that a Configuration asks for."""

from msgspec.structs import replace

from policies.rules.configuration import ConfigurationValues, LoggingConfig, MetricsConfig, TracingConfig
from proxy.control.tapping import Taps
from proxy.control.tracing_setup import span_form, tail_hook
from proxy.errors import ANSWERS, ConfigError
from proxy.settings.values import Profile, Settings
from telemetry.access_log import ApiLog
from telemetry.calls import CallRecorder
from telemetry.errors import MetricError
from telemetry.logs import get_logger
from telemetry.metrics import LabelRule, Meters, MetricOptions
from telemetry.path_labels import PathLabels
from telemetry.tracing import Tracer


def has_raw_paths(metrics: MetricsConfig, profile: Profile) -> bool:
    """Whether paths are labels as they are: as written, else as daprd only under its name, since any caller can make series by it."""
    written = metrics.increased_cardinality
    return profile == "daprd" if written is None else written


def metric_options(metrics: MetricsConfig, settings: Settings) -> MetricOptions:
    """How metrics are kept."""
    profile = settings.profile
    codes = {cause.value: answer.code for cause, answer in ANSWERS.items()}
    return MetricOptions(
        latency_buckets_ms=metrics.latency_buckets_ms,
        counts_answers=has_raw_paths(metrics, profile),
        has_verbs=not metrics.exclude_verbs,
        times_api=profile == "daprd",
        is_compat=settings.metrics_compat,
        has_resiliency_paths=settings.metrics_resiliency_paths,
        error_codes=codes if metrics.record_error_codes else {},
        rules=tuple(
            LabelRule(metric=rule.metric, label=rule.label, replacements=rule.replacements)
            for rule in metrics.rules
        ),
    )


class MetricShapes:
    """The shape of the metrics in force: their buckets, labels and rules. Mutable state: from which part of the Configuration."""

    def __init__(
        self, settings: Settings, metrics: MetricsConfig, meters: Meters, recorder: CallRecorder
    ) -> None:
        self._settings = settings
        self._meters = meters
        self._recorder = recorder
        self._log = get_logger("postern")
        self.in_force = metrics

    def change(self, metrics: MetricsConfig) -> None:
        """Have metrics be of this shape from now on; series of another begin anew. One that can't be made changes nothing."""
        before, profile = self.in_force, self._settings.profile
        if replace(metrics, enabled=before.enabled) == before:
            return
        try:
            labels = path_labels(metrics, profile)
        except ConfigError as error:
            self._log.error("metrics not changed, the old ones stay in force", reason=str(error))
            return
        self.in_force = metrics
        has_other_paths = (metrics.path_matching, has_raw_paths(metrics, profile)) != (
            before.path_matching,
            has_raw_paths(before, profile),
        )
        options = metric_options(metrics, self._settings)
        begun = self._meters.reshape(options, has_other_paths=has_other_paths)
        self._recorder.reshape(labels)
        self._log.info("metrics changed: the series of these begin anew", metrics=", ".join(begun) or "none")
        warn_of_misfits(self._meters)


def warn_of_misfits(meters: Meters) -> None:
    """Say which rules have no effect."""
    for rule in meters.misfits:
        get_logger("postern").warning(
            "a rule of spec.metrics.rules has no effect: no metric has that name and label",
            metric=rule.metric,
            label=rule.label,
        )


def path_labels(metrics: MetricsConfig, profile: Profile) -> PathLabels | None:
    """The labels of HTTP paths; None: all are empty. Raises: ConfigError for an invalid pattern."""
    raw = has_raw_paths(metrics, profile)
    if not raw and not metrics.path_matching:
        return None
    try:
        return PathLabels(metrics.path_matching, raw=raw)
    except MetricError as error:
        raise ConfigError((f"spec.metrics.http.pathMatching: {error}",)) from error


def meters(settings: Settings, configuration: ConfigurationValues) -> Meters:
    """The meters of a sidecar."""
    options = metric_options(configuration.metrics, settings)
    return Meters(settings.app_id, settings.namespace, options=options)


def recorder(
    settings: Settings,
    configuration: ConfigurationValues,
    meters: Meters,
    tracer: Tracer,
) -> CallRecorder:
    """What records finished calls in them, and in the access log where there is one. Raises: ConfigError."""
    labels = path_labels(configuration.metrics, settings.profile)
    made = CallRecorder(
        settings.app_id,
        settings.namespace,
        meters,
        tracer,
        path_label=labels,
        slow_ns=slow_ns(configuration.tracing),
        form=span_form(configuration.tracing),
    )
    made.tail = tail_hook(configuration.tracing, made, meters)
    return made


def slow_ns(tracing: TracingConfig) -> int:
    """Until its answer, from which on a call that is not sampled is kept in memory."""
    return int(tracing.slow_s * 1e9)


def taps(settings: Settings, logging: LoggingConfig, meters: Meters) -> Taps:
    """Who looks at calls: nobody yet."""
    about = {"app_id": settings.app_id, "namespace": settings.namespace, "instance": settings.instance}
    return Taps(meters.taps, meters.tap_dropped, about, obfuscate=logging.obfuscate_urls)


def api_log(settings: Settings, logging: LoggingConfig) -> ApiLog | None:
    """The log of calls on the APIs, where it is wanted: the flag wins over the file."""
    wanted = settings.api_logging if settings.api_logging is not None else logging.api_enabled
    if not wanted:
        return None
    return ApiLog(get_logger, obfuscate=logging.obfuscate_urls, omit_health_checks=logging.omit_health_checks)
