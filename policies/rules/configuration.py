"""The rest of a Configuration as frozen values, with Dapr's defaults; free of YAML."""

from typing import Literal

from msgspec import Struct, field

from policies.rules.api_lists import ApiLists

LATENCY_BUCKETS_MS = (
    1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400, 500, 650, 800,
    1000, 2000, 5000, 10000, 20000, 50000, 100000,
)  # fmt: skip
DEFAULT_SAMPLING_RATE = 0.0001
DEFAULT_SLOW_S = 1.0
Conventions = Literal["dapr", "otel", "both"]
CONVENTIONS: tuple[Conventions, ...] = ("dapr", "otel", "both")


class OtelConfig(Struct, frozen=True, kw_only=True):
    """Where OTLP spans go. `protocol` is `grpc` or `http`; `timeout_s` None leaves the exporter's own."""

    endpoint: str
    protocol: str
    is_secure: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float | None = None


class SamplingRule(Struct, frozen=True, kw_only=True):
    """An entry of `spec.tracing.rules`. What is empty fits every call. `target` is an app as `app` or `app.namespace`, or an HTTPEndpoint.

    method: a path template, see `policies.rules.templates`. headers: (name in lower case, values), of each of which one must be there.
    rate: in 0 to 1. per_s: new traces a second at most.
    """

    rate: float
    target: str = ""
    method: str = ""
    verb: str = ""
    headers: tuple[tuple[bytes, frozenset[bytes]], ...] = ()
    per_s: float | None = None


class TracingConfig(Struct, frozen=True, kw_only=True):
    """`spec.tracing`. `sampling_rate` lies in 0 to 1; `is_rate_given` tells a written rate from the default.

    slow_s: an unsampled call that takes at least this long keeps its span; 0: none does. tail_callable: `module:name` of what is asked
    about the others, or empty. conventions: of the attributes of spans.
    baggage_attributes: keys of baggage whose values become attributes. is_baggage_strict: None where nothing is written.
    baggage_allowed: keys that cross a trust boundary; None: all. rules: the first that fits says a new trace's rate. force_from: apps,
    as `app` or `app.namespace`, whose requests may have their trace recorded.
    """

    sampling_rate: float = DEFAULT_SAMPLING_RATE
    is_rate_given: bool = False
    stdout: bool = False
    zipkin_endpoint: str | None = None
    slow_s: float = DEFAULT_SLOW_S
    tail_callable: str = ""
    is_b3_read: bool = True
    conventions: Conventions = "both"
    captures_query: bool = False
    is_baggage_strict: bool | None = None
    baggage_allowed: tuple[str, ...] | None = None
    baggage_attributes: tuple[str, ...] = ()
    rules: tuple[SamplingRule, ...] = ()
    force_from: tuple[str, ...] = ()
    otel: OtelConfig | None = None


class MetricRule(Struct, frozen=True, kw_only=True):
    """A label of a metric that is rewritten: (replacement, pattern) in order."""

    metric: str
    label: str
    replacements: tuple[tuple[str, str], ...]


class MetricsConfig(Struct, frozen=True, kw_only=True):
    """`spec.metrics`, field by field over `spec.metric`. increased_cardinality: None where nothing is written."""

    enabled: bool = True
    record_error_codes: bool = False
    latency_buckets_ms: tuple[int, ...] = LATENCY_BUCKETS_MS
    increased_cardinality: bool | None = None
    path_matching: tuple[str, ...] = ()
    exclude_verbs: bool = False
    rules: tuple[MetricRule, ...] = ()


class NameResolutionConfig(Struct, frozen=True, kw_only=True):
    """`spec.nameResolution`. `configuration` is JSON-like, for the component to check; don't change it."""

    component: str
    configuration: object = None


class AccessLogConfig(Struct, frozen=True, kw_only=True):
    """`spec.logging.accessLog`. `format` is for whoever writes the lines to check; None and empty: nothing is written."""

    format: str = ""
    headers: tuple[str, ...] = ()
    min_status: int | None = None
    slower_s: float | None = None
    sample: int | None = None


class LoggingConfig(Struct, frozen=True, kw_only=True):
    """`spec.logging`: of the API log, but for `access`."""

    api_enabled: bool = False
    obfuscate_urls: bool = False
    omit_health_checks: bool = False
    access: AccessLogConfig = field(default_factory=AccessLogConfig)


class ConfigurationValues(Struct, frozen=True, kw_only=True):
    """All that a Configuration says beside access control."""

    tracing: TracingConfig = field(default_factory=TracingConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    name_resolution: NameResolutionConfig | None = None
    name_resolution_at: str = ""  # FILE:LINE of the component, for faults that only the component finds
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    api: ApiLists = field(default_factory=ApiLists)
    features: tuple[str, ...] = ()  # names of spec.features that are enabled; the metadata lists them
