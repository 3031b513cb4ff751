"""Schemas of the Dapr kinds that postern reads. The edge: values are made of these at once.

Keys are Dapr's; an unknown one is a fault. What a value means, and faults that need more than one field, are for the
`compile` modules.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

JsonValue = object  # of sections that are passed on or only noticed


class Section(Struct, frozen=True, rename="camel"):
    """A mapping whose keys are all known."""


class OwnSection(Section, frozen=True):
    """The same of a kind of our own: a key that is written has a value, as one without would be taken for one that is left out."""


class Metadata(Section, frozen=True):
    """What every resource carries about itself."""

    name: str = ""
    namespace: str = ""
    labels: JsonValue = None
    annotations: JsonValue = None


class Operation(Section, frozen=True):
    """One entry of `operations`."""

    name: str = ""
    http_verb: list[str] = []
    action: str = ""


class Policy(Section, frozen=True):
    """One entry of `accessControl.policies`: a caller."""

    app_id: str
    trust_domain: str
    namespace: str
    default_action: str = ""
    operations: list[Operation] = []


class AccessControl(Section, frozen=True):
    """`spec.accessControl`."""

    default_action: str = "allow"
    trust_domain: str = "public"
    policies: list[Policy] = []


class Zipkin(Section, frozen=True):
    """`spec.tracing.zipkin`."""

    endpoint_address: str = ""


class OtelHeader(Section, frozen=True):
    """A header of the OTLP exporter in its Kubernetes form."""

    name: str
    value: str = ""
    secret_key_ref: JsonValue = None


class Otel(Section, frozen=True):
    """`spec.tracing.otel`."""

    endpoint_address: str = ""
    protocol: str = ""
    is_secure: bool = True
    headers: list[str | OtelHeader] = []
    timeout: str = ""


class Tail(Section, frozen=True):
    """`spec.tracing.tail`: which calls that are not sampled keep their span."""

    latency: str = ""
    callable: str = ""


class TracingRule(Section, frozen=True):
    """An entry of `tracing.rules`: a sampling rate for the calls that fit all that is written."""

    sampling_rate: str
    target: str = ""
    method: str = ""
    verb: str = ""
    header: dict[str, list[str]] = {}
    max_per_second: str = ""


class Tracing(Section, frozen=True):
    """`spec.tracing`."""

    sampling_rate: str = ""
    tail: Tail = Tail()
    accept: list[str] = field(default_factory=lambda: ["w3c", "b3"])
    conventions: str = "both"
    capture_query: bool = False
    baggage: str = ""
    baggage_allowed: list[str] | None = None
    baggage_attributes: list[str] = []
    rules: list[TracingRule] = []
    force_from: list[str] = []
    stdout: bool = False
    zipkin: Zipkin | None = None
    otel: Otel | None = None


class MetricLabel(Section, frozen=True):
    """A label that `regex` rewrites: replacement -> pattern."""

    name: str
    regex: dict[str, str] = {}


class MetricRule(Section, frozen=True):
    """An entry of `metrics.rules`."""

    name: str
    labels: list[MetricLabel] = []


class MetricHttp(Section, frozen=True):
    """`metrics.http`."""

    increased_cardinality: bool | None = None
    path_matching: list[str] = []
    exclude_verbs: bool = False


class Metrics(Section, frozen=True):
    """`spec.metrics`, or `spec.metric`."""

    enabled: bool = True
    record_error_codes: bool = False
    latency_distribution_buckets: list[int] = []
    http: MetricHttp = MetricHttp()
    rules: list[MetricRule] = []


class TokenValidator(Section, frozen=True):
    """An entry of `mtls.tokenValidators`."""

    name: str
    options: JsonValue = None


class Mtls(Section, frozen=True):
    """`spec.mtls`."""

    enabled: bool | None = None
    workload_cert_ttl: str = field(name="workloadCertTTL", default="")
    allowed_clock_skew: str = ""
    sentry_address: str = ""
    control_plane_trust_domain: str = ""
    token_validators: list[TokenValidator] = []


class NameResolution(Section, frozen=True):
    """`spec.nameResolution`."""

    component: str = ""
    version: str = ""
    configuration: JsonValue = None


class ApiLogging(Section, frozen=True):
    """`spec.logging.apiLogging`."""

    enabled: bool = False
    obfuscate_urls: bool = field(name="obfuscateURLs", default=False)
    omit_health_checks: bool = False


class AccessLog(Section, frozen=True):
    """`spec.logging.accessLog`: what is in the access log; where it goes is each sidecar's own."""

    format: str = ""
    headers: list[str] = []
    min_status: int | None = None
    slower_than: str = ""
    sample: int | None = None


class Logging(Section, frozen=True):
    """`spec.logging`."""

    api_logging: ApiLogging = ApiLogging()
    access_log: AccessLog = AccessLog()


class ApiRule(Section, frozen=True):
    """An entry of `api.allowed` or `api.denied`."""

    name: str
    version: str
    protocol: str


class Api(Section, frozen=True):
    """`spec.api`."""

    allowed: list[ApiRule] = []
    denied: list[ApiRule] = []


class Handler(Section, frozen=True):
    """An entry of `handlers`: the component of that name, type and version."""

    name: str
    type: str
    version: str = ""
    selector: JsonValue = None


class Pipeline(Section, frozen=True):
    """`spec.httpPipeline` or `spec.appHttpPipeline`."""

    handlers: list[Handler] = []


class ConfigurationSpec(Section, frozen=True):
    """`spec` of a Configuration. The sections typed `JsonValue` are known and not acted on."""

    access_control: AccessControl = AccessControl()
    tracing: Tracing = Tracing()
    metrics: Metrics = Metrics()
    metric: Metrics = Metrics()
    mtls: Mtls = Mtls()
    name_resolution: NameResolution = NameResolution()
    logging: Logging = Logging()
    api: Api = Api()
    app_http_pipeline: Pipeline = Pipeline()
    components: JsonValue = None
    features: JsonValue = None
    http_pipeline: Pipeline = Pipeline()
    secrets: JsonValue = None
    wasm: JsonValue = None
    workflow: JsonValue = None


class Configuration(Section, frozen=True):
    """kind: Configuration."""

    kind: Literal["Configuration"]
    api_version: Literal["dapr.io/v1alpha1"] = "dapr.io/v1alpha1"
    metadata: Metadata = Metadata()
    spec: ConfigurationSpec = ConfigurationSpec()
    auth: JsonValue = None


class Matching(Section, frozen=True):
    """Which failures a retry policy is for."""

    http_status_codes: str = ""
    grpc_status_codes: str = field(name="gRPCStatusCodes", default="")


class Retry(Section, frozen=True):
    """An entry of `policies.retries`."""

    policy: str = "constant"
    duration: str = "5s"
    max_interval: str = "60s"
    max_retries: int = -1
    matching: Matching = Matching()


class CircuitBreaker(Section, frozen=True):
    """An entry of `policies.circuitBreakers`."""

    max_requests: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 1
    interval: str = "0s"
    timeout: str = "60s"
    trip: str = ""


class ResiliencyPolicies(Section, frozen=True):
    """`spec.policies` of a Resiliency."""

    timeouts: dict[str, str] = {}
    retries: dict[str, Retry] = {}
    circuit_breakers: dict[str, CircuitBreaker] = {}


class AppTarget(Section, frozen=True):
    """An entry of `targets.apps`."""

    timeout: str = ""
    retry: str = ""
    circuit_breaker: str = ""
    circuit_breaker_cache_size: Annotated[int, Meta(ge=0)] = 100


class Targets(Section, frozen=True):
    """`spec.targets` of a Resiliency."""

    apps: dict[str, AppTarget] = {}
    actors: JsonValue = None
    components: JsonValue = None


class ResiliencySpec(Section, frozen=True):
    """`spec` of a Resiliency."""

    policies: ResiliencyPolicies = ResiliencyPolicies()
    targets: Targets = Targets()


class Resiliency(Section, frozen=True):
    """kind: Resiliency."""

    kind: Literal["Resiliency"]
    api_version: Literal["dapr.io/v1alpha1"] = "dapr.io/v1alpha1"
    metadata: Metadata = Metadata()
    scopes: list[str] = []
    spec: ResiliencySpec = ResiliencySpec()


class NameValue(Section, frozen=True):
    """An entry of `metadata` of a Component."""

    name: str
    value: JsonValue = None
    env_ref: str = ""
    secret_key_ref: JsonValue = None


class ComponentSpec(Section, frozen=True):
    """`spec` of a Component."""

    type: str
    version: str = ""
    ignore_errors: bool = False
    init_timeout: str = ""
    metadata: list[NameValue] = []


class Component(Section, frozen=True):
    """kind: Component, of a type that begins with `middleware.http.`."""

    kind: Literal["Component"]
    spec: ComponentSpec
    api_version: Literal["dapr.io/v1alpha1"] = "dapr.io/v1alpha1"
    metadata: Metadata = Metadata()
    scopes: list[str] = []
    auth: JsonValue = None


class EndpointHeader(Section, frozen=True):
    """An entry of `headers` of an HTTPEndpoint."""

    name: str
    value: str = ""
    env_ref: str = ""
    secret_key_ref: JsonValue = None


class TlsPart(Section, frozen=True):
    """A part of `clientTLS`, as PEM."""

    value: str = ""
    env_ref: str = ""
    secret_key_ref: JsonValue = None


class ClientTls(Section, frozen=True):
    """`clientTLS` of an HTTPEndpoint."""

    root_ca: TlsPart = field(name="rootCA", default=TlsPart())
    certificate: TlsPart = TlsPart()
    private_key: TlsPart = TlsPart()
    renegotiation: Literal["", "Never", "OnceAsClient", "FreelyAsClient"] = ""


class HttpEndpointSpec(Section, frozen=True):
    """`spec` of an HTTPEndpoint."""

    base_url: str
    version: str = ""
    headers: list[EndpointHeader] = []
    client_tls: ClientTls = field(name="clientTLS", default=ClientTls())


class Auth(Section, frozen=True):
    """`auth`: where secrets are kept."""

    secret_store: str = ""


class HttpEndpoint(Section, frozen=True):
    """kind: HTTPEndpoint."""

    kind: Literal["HTTPEndpoint"]
    spec: HttpEndpointSpec
    api_version: Literal["dapr.io/v1alpha1"] = "dapr.io/v1alpha1"
    metadata: Metadata = Metadata()
    scopes: list[str] = []
    auth: Auth = Auth()
