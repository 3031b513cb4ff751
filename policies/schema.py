"""pydantic schemas of the Dapr kinds that postern reads. The edge: values are made of these at once.

Keys are Dapr's; an unknown one is a fault. What a value means, and faults that need more than one field, are for the
`compile` modules.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt
from pydantic.alias_generators import to_camel

JsonValue = object  # of sections that are passed on or only noticed


class Section(BaseModel):
    """A mapping whose keys are all known. A number where text is wanted is taken as its digits, as Dapr does."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        coerce_numbers_to_str=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )


class Metadata(Section):
    """What every resource carries about itself."""

    name: str = ""
    namespace: str = ""
    labels: JsonValue = None
    annotations: JsonValue = None


class Operation(Section):
    """One entry of `operations`."""

    name: str = ""
    http_verb: list[str] = []
    action: str = ""


class Policy(Section):
    """One entry of `accessControl.policies`: a caller."""

    app_id: str
    trust_domain: str
    namespace: str
    default_action: str = ""
    operations: list[Operation] = []


class AccessControl(Section):
    """`spec.accessControl`."""

    default_action: str = "allow"
    trust_domain: str = "public"
    policies: list[Policy] = []


class Zipkin(Section):
    """`spec.tracing.zipkin`."""

    endpoint_address: str = ""


class OtelHeader(Section):
    """A header of the OTLP exporter in its Kubernetes form."""

    name: str
    value: str = ""
    secret_key_ref: JsonValue = None


class Otel(Section):
    """`spec.tracing.otel`."""

    endpoint_address: str = ""
    protocol: str = ""
    is_secure: StrictBool = True
    headers: list[str | OtelHeader] = []
    timeout: str = ""


class Tracing(Section):
    """`spec.tracing`."""

    sampling_rate: str = ""
    stdout: StrictBool = False
    zipkin: Zipkin | None = None
    otel: Otel | None = None


class MetricLabel(Section):
    """A label that `regex` rewrites: replacement -> pattern."""

    name: str
    regex: dict[str, str] = {}


class MetricRule(Section):
    """An entry of `metrics.rules`."""

    name: str
    labels: list[MetricLabel] = []


class MetricHttp(Section):
    """`metrics.http`."""

    increased_cardinality: StrictBool = True
    path_matching: list[str] = []
    exclude_verbs: StrictBool = False


class Metrics(Section):
    """`spec.metrics`, or `spec.metric`."""

    enabled: StrictBool = True
    record_error_codes: StrictBool = False
    latency_distribution_buckets: list[StrictInt] = []
    http: MetricHttp = MetricHttp()
    rules: list[MetricRule] = []


class TokenValidator(Section):
    """An entry of `mtls.tokenValidators`."""

    name: str
    options: JsonValue = None


class Mtls(Section):
    """`spec.mtls`."""

    enabled: StrictBool | None = None
    workload_cert_ttl: Annotated[str, Field(alias="workloadCertTTL")] = ""
    allowed_clock_skew: str = ""
    sentry_address: str = ""
    control_plane_trust_domain: str = ""
    token_validators: list[TokenValidator] = []


class NameResolution(Section):
    """`spec.nameResolution`."""

    component: str = ""
    version: str = ""
    configuration: JsonValue = None


class ApiLogging(Section):
    """`spec.logging.apiLogging`."""

    enabled: StrictBool = False
    obfuscate_urls: Annotated[StrictBool, Field(alias="obfuscateURLs")] = False
    omit_health_checks: StrictBool = False


class Logging(Section):
    """`spec.logging`."""

    api_logging: ApiLogging = ApiLogging()


class ConfigurationSpec(Section):
    """`spec` of a Configuration. The sections typed `JsonValue` are known and not acted on."""

    access_control: AccessControl = AccessControl()
    tracing: Tracing = Tracing()
    metrics: Metrics = Metrics()
    metric: Metrics = Metrics()
    mtls: Mtls = Mtls()
    name_resolution: NameResolution = NameResolution()
    logging: Logging = Logging()
    api: JsonValue = None
    app_http_pipeline: JsonValue = None
    components: JsonValue = None
    features: JsonValue = None
    http_pipeline: JsonValue = None
    secrets: JsonValue = None
    wasm: JsonValue = None
    workflow: JsonValue = None


UNBUILT_SECTIONS = (
    "api",
    "appHttpPipeline",
    "components",
    "features",
    "httpPipeline",
    "secrets",
    "wasm",
    "workflow",
)


class Configuration(Section):
    """kind: Configuration."""

    api_version: Literal["dapr.io/v1alpha1"] = "dapr.io/v1alpha1"
    kind: Literal["Configuration"]
    metadata: Metadata = Metadata()
    spec: ConfigurationSpec = ConfigurationSpec()
    auth: JsonValue = None


class Matching(Section):
    """Which failures a retry policy is for."""

    http_status_codes: str = ""
    grpc_status_codes: Annotated[str, Field(alias="gRPCStatusCodes")] = ""


class Retry(Section):
    """An entry of `policies.retries`."""

    policy: str = "constant"
    duration: str = "5s"
    max_interval: str = "60s"
    max_retries: StrictInt = -1
    matching: Matching = Matching()


class CircuitBreaker(Section):
    """An entry of `policies.circuitBreakers`."""

    max_requests: Annotated[StrictInt, Field(ge=0, le=2**32 - 1)] = 1
    interval: str = "0s"
    timeout: str = "60s"
    trip: str = "consecutiveFailures > 5"


class ResiliencyPolicies(Section):
    """`spec.policies` of a Resiliency."""

    timeouts: dict[str, str] = {}
    retries: dict[str, Retry] = {}
    circuit_breakers: dict[str, CircuitBreaker] = {}


class AppTarget(Section):
    """An entry of `targets.apps`."""

    timeout: str = ""
    retry: str = ""
    circuit_breaker: str = ""
    circuit_breaker_cache_size: Annotated[StrictInt, Field(ge=0)] = 100


class Targets(Section):
    """`spec.targets` of a Resiliency."""

    apps: dict[str, AppTarget] = {}
    actors: JsonValue = None
    components: JsonValue = None


class ResiliencySpec(Section):
    """`spec` of a Resiliency."""

    policies: ResiliencyPolicies = ResiliencyPolicies()
    targets: Targets = Targets()


class Resiliency(Section):
    """kind: Resiliency."""

    api_version: Literal["dapr.io/v1alpha1"] = "dapr.io/v1alpha1"
    kind: Literal["Resiliency"]
    metadata: Metadata = Metadata()
    scopes: list[str] = []
    spec: ResiliencySpec = ResiliencySpec()
