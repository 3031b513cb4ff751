"""What each field of the resources does in postern: one table, the source of the warnings at loading and of the reference page.

Paths are written as in YAML; `*` stands for any key or entry, and a path without effect for all that is below it. A test checks that no
field of a schema is missing here.
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.findings import Findings


class Effect(Struct, frozen=True):
    """`does`: for readers of the reference; of a field without effect, what to use instead, or empty. It is then named in a warning."""

    does: str
    has_effect: bool = True


def _none(instead: str = "") -> Effect:
    return Effect(instead, has_effect=False)


_EVERY_KIND: Mapping[str, Effect] = {
    "kind": Effect("which kind of resource this is; other kinds are left alone"),
    "apiVersion": Effect("must be `dapr.io/v1alpha1`, or be left out"),
    "metadata.name": Effect("the resource's name, for people and metrics"),
    "metadata.namespace": Effect("for people: files are read whatever namespace they name"),
    "metadata.labels": Effect("for people and other tools"),
    "metadata.annotations": Effect("for people and other tools"),
}
_METRICS: Mapping[str, str] = {
    "enabled": "false: serve no metrics, as `--enable-metrics=false` (true)",
    "recordErrorCodes": "count errors by code in `dapr_error_code_total`",
    "latencyDistributionBuckets": "upper bounds of the buckets of `dapr_*` latencies, in milliseconds",
    "http.increasedCardinality": (
        "true: paths that no pattern matches are labels as they are; false: they are empty, and"
        " `dapr_http_server_response_count` is not kept (true in the `daprd` profile, else false)"
    ),
    "http.pathMatching": "patterns such as `/orders/{id}`: the values of the label `path`",
    "http.excludeVerbs": "leave the label `method` of HTTP metrics empty",
    "rules.*.name": "the metric whose labels are rewritten",
    "rules.*.labels.*.name": "the label that is rewritten",
    "rules.*.labels.*.regex.*": "replacement: pattern; what the pattern finds in the label's value is replaced",
}
_CALLER = "spec.accessControl.policies.*"
CONFIGURATION: Mapping[str, Effect] = {
    **_EVERY_KIND,
    "auth": _none(),
    "spec.accessControl.defaultAction": Effect(
        "allow or deny for callers and operations that no policy names; allow is for our own trust domain and those that policies name"
        " (every one in the `daprd` profile)"
    ),
    "spec.accessControl.trustDomain": Effect(
        "the trust domain of our own identity, unless `--trust-domain` is given (public)"
    ),
    f"{_CALLER}.appId": Effect("the caller, as its certificate names it"),
    f"{_CALLER}.trustDomain": Effect(
        "the caller's trust domain: TLS handshakes of peers in others than our own and those named here are refused; the app named is"
        " also called there"
    ),
    f"{_CALLER}.namespace": Effect("the caller's namespace"),
    f"{_CALLER}.defaultAction": Effect("allow or deny for this caller where no operation fits"),
    f"{_CALLER}.operations.*.name": Effect(
        "a path or gRPC method; `*` one segment, `**` any number; every way to read a path is judged; as in Dapr, denying a path denies"
        " all below it too"
    ),
    f"{_CALLER}.operations.*.httpVerb": Effect('verbs that the operation is for; `["*"]` is every verb'),
    f"{_CALLER}.operations.*.action": Effect("allow or deny"),
    "spec.tracing.samplingRate": Effect(
        "share of new traces that are recorded, 0 to 1 (OTEL_TRACES_SAMPLER; else 0.0001, 1 under `postern run`)"
    ),
    "spec.tracing.tail.latency": Effect(
        "a call that is not sampled keeps its span all the same, tagged `sampling.promoted`, if its answer takes at least this long; 0:"
        " only if it fails (1s)"
    ),
    "spec.tracing.tail.callable": Effect(
        "`package.module:function`, installed beside postern, that is told of each other call that is not sampled and says whether its span"
        " is kept (none)"
    ),
    "spec.tracing.accept": Effect(
        "which headers name a caller's span: `w3c` (always, with gRPC's `grpc-trace-bin`), and `b3` ([w3c, b3]); W3C's alone are written"
    ),
    "spec.tracing.conventions": Effect(
        "whose names attributes of spans have: Dapr's (`dapr`, where `server.address` and `server.port` of HTTP calls are the caller's, as"
        " with daprd), those of OpenTelemetry's semantic conventions (`otel`), or `both` (both)"
    ),
    "spec.tracing.captureQuery": Effect("true: the attribute `url.full` has the query (false)"),
    "spec.tracing.baggage": Effect(
        "`strict`: calls with invalid baggage are refused (HTTP 400, gRPC INVALID_ARGUMENT); `lenient`: its invalid members are dropped"
        " (strict as daprd, else lenient)"
    ),
    "spec.tracing.baggageAllowed": Effect(
        "the only keys of baggage that calls keep across a trust boundary: to and from other trust domains, and out of the mesh (all)"
    ),
    "spec.tracing.rules.*.samplingRate": Effect(
        "share of new traces that are recorded where this rule is the first to fit; a caller's own decision holds whatever it says"
    ),
    "spec.tracing.rules.*.target": Effect("the callee: app-id, app-id.namespace or HTTPEndpoint; none: any"),
    "spec.tracing.rules.*.method": Effect(
        "path of the app, or gRPC method, as a template: `{*}` is any one segment, `{**}` at the end any number; none: any"
    ),
    "spec.tracing.rules.*.verb": Effect("HTTP method, upper case; none: any"),
    "spec.tracing.rules.*.header.*": Effect("a header of which one line must be one of these values"),
    "spec.tracing.rules.*.maxPerSecond": Effect(
        "new traces that it records in a second, at most (unlimited)"
    ),
    "spec.tracing.forceFrom": Effect(
        "apps, as app-id or app-id.namespace, whose requests are recorded where they carry `postern-trace: 1`, whatever else decides:"
        " the sidecar's own app, or a caller by its certificate"
    ),
    "spec.tracing.baggageAttributes": Effect(
        "keys of baggage whose values are attributes of spans, as `baggage.<key>`; at most 16, and 256 characters of each value"
    ),
    "spec.tracing.stdout": Effect("a log line for each finished span"),
    "spec.tracing.zipkin.endpointAddress": Effect("URL that spans are posted to as Zipkin JSON v2"),
    "spec.tracing.otel.endpointAddress": Effect("host:port of an OTLP collector"),
    "spec.tracing.otel.protocol": Effect("grpc, or http for protobuf over HTTP"),
    "spec.tracing.otel.isSecure": Effect("TLS to the collector (true)"),
    "spec.tracing.otel.headers": Effect("headers for the collector, as `name=value`"),
    "spec.tracing.otel.headers.*.name": Effect("the same, as a mapping"),
    "spec.tracing.otel.headers.*.value": Effect("the same, as a mapping"),
    "spec.tracing.otel.headers.*.secretKeyRef": _none(
        "write the value, or `$VARIABLE` for one of the environment"
    ),
    "spec.tracing.otel.timeout": Effect("of one export, as `5s` (10s)"),
    "spec.mtls.enabled": _none("`--enable-mtls` decides"),
    "spec.mtls.workloadCertTTL": _none("`postern sentry --config` reads it"),
    "spec.mtls.allowedClockSkew": _none("`postern sentry --config` reads it"),
    "spec.mtls.sentryAddress": _none("`--sentry-address` decides"),
    "spec.mtls.controlPlaneTrustDomain": _none("`--control-plane-trust-domain` decides"),
    "spec.mtls.tokenValidators": _none("`postern sentry --config` reads it"),
    "spec.nameResolution.component": Effect(
        "`mdns`, `file`, `sqlite` or `consul`, in place of the host's registry and mDNS together"
    ),
    "spec.nameResolution.version": Effect("of the component; `v1` is all there is, another is refused"),
    "spec.nameResolution.configuration": Effect(
        "what the component asks for: `path` of `file`; `include`, `exclude` and `budget` of `mdns`; of `sqlite` and"
        " `consul` the keys of Dapr's components"
    ),
    **{
        f"spec.{section}.{field}": Effect(does + also)
        for section, also in (("metrics", ""), ("metric", ", where `spec.metrics` says nothing"))
        for field, does in _METRICS.items()
    },
    "spec.logging.apiLogging.enabled": Effect(
        "log each call of the app, unless `--enable-api-logging` is given"
    ),
    "spec.logging.apiLogging.obfuscateURLs": Effect(
        "name the callee there instead of the path; spans, metrics, taps, the access log, log lines and the text of denials have no path "
        "of HTTP calls then. Methods of gRPC stay; circuit breakers have none in `postern status`, log lines and metrics, as theirs may be "
        "paths"
    ),
    "spec.logging.apiLogging.omitHealthChecks": Effect("leave health checks out there"),
    "spec.logging.accessLog.format": Effect(
        "as `--access-log-format`, which wins, as do the flags of the next four; `--access-log` says where the lines go"
    ),
    "spec.logging.accessLog.headers": Effect("as `--access-log-headers`"),
    "spec.logging.accessLog.minStatus": Effect("as `--access-log-min-status`"),
    "spec.logging.accessLog.slowerThan": Effect("as `--access-log-slower`: a duration such as `250ms`"),
    "spec.logging.accessLog.sample": Effect("as `--access-log-sample`"),
    **{
        f"spec.api.{key}.*.{field}": Effect(does)
        for key, name in (
            (
                "allowed",
                "an API that the app may call, such as `invoke`; all others of the protocol are closed, but health",
            ),
            (
                "denied",
                "an API that the app may not call, whatever is allowed; proxied gRPC calls are always open",
            ),
        )
        for field, does in (
            ("name", name),
            ("version", "of the API: `v1`, or `v1.0`"),
            ("protocol", "http or grpc"),
        )
    },
    **{
        f"spec.{pipeline}.handlers.*.{field}": effect
        for pipeline, whose in (
            (
                "httpPipeline",
                "HTTP requests of the app, those about the sidecar's health left out, pass it at its own sidecar",
            ),
            (
                "appHttpPipeline",
                "requests to an HTTP app pass it at the app's sidecar, and those that leave the mesh at their caller's",
            ),
        )
        for field, effect in (
            ("name", Effect(f"a component, see below; {whose}, the first listed outermost")),
            ("type", Effect("its type")),
            ("version", Effect("its version (v1)")),
            ("selector", _none()),
        )
    },
    "spec.features": _none("the metadata lists those that are enabled"),
    **{
        f"spec.{name}": _none()
        for name in (
            "components",
            "secrets",
            "wasm",
            "workflow",
        )
    },
}
_RETRY = "spec.policies.retries.*"
_TARGET = "spec.targets.apps.*"
_BREAKER = "spec.policies.circuitBreakers.*"
RESILIENCY: Mapping[str, Effect] = {
    **_EVERY_KIND,
    "scopes": Effect("callers that the resource is for; none: all"),
    "spec.policies.timeouts.*": Effect(
        "of one attempt, as `2s`; a bare number counts milliseconds; 0s: none"
    ),
    f"{_RETRY}.policy": Effect("constant or exponential (constant)"),
    f"{_RETRY}.duration": Effect("pause of a constant policy (5s)"),
    f"{_RETRY}.maxInterval": Effect(
        "largest pause of an exponential policy (60s); it ends after 15 minutes in all"
    ),
    f"{_RETRY}.maxRetries": Effect("attempts after the first; -1: no limit (-1)"),
    f"{_RETRY}.matching.httpStatusCodes": Effect(
        "which of the callee's HTTP statuses are retried, see below (all failures)"
    ),
    f"{_RETRY}.matching.gRPCStatusCodes": Effect(
        "which of the callee's gRPC statuses are retried, see below (all failures)"
    ),
    f"{_BREAKER}.maxRequests": Effect("calls that probe a half-open breaker; so many successes close it (1)"),
    f"{_BREAKER}.interval": Effect("after which a closed breaker counts from zero again; 0s: never (0s)"),
    f"{_BREAKER}.timeout": Effect("how long it stays open before calls may probe (60s)"),
    f"{_BREAKER}.trip": Effect(
        "a condition in CEL over `requests`, `totalSuccesses`, `totalFailures`, `consecutiveSuccesses` and `consecutiveFailures`, asked"
        " after each failure: true opens it; numbers, `double()`, `int()` and operators are known (`consecutiveFailures > 5`). A call"
        " that its caller gives up is a failure too: a callee that hangs may show itself by nothing else"
    ),
    f"{_TARGET}.timeout": Effect("name of the timeout for calls to this app"),
    f"{_TARGET}.retry": Effect("name of the retry policy for calls to this app"),
    f"{_TARGET}.circuitBreaker": Effect(
        "name of the circuit breaker for calls to this app, one for each method"
    ),
    f"{_TARGET}.circuitBreakerCacheSize": Effect(
        "methods whose breakers are remembered, those used last (100)"
    ),
    "spec.targets.actors": _none(),
    "spec.targets.components": _none(),
}
_REFUSED = Effect("is refused: there are no secret stores; write the value, or name a variable with `envRef`")
_SETTING = "spec.metadata.*"
COMPONENT: Mapping[str, Effect] = {
    **_EVERY_KIND,
    "metadata.name": Effect("what handlers name it by"),
    "scopes": Effect("the apps that it is for; none: all"),
    "auth": _none("write values, or name variables with `envRef`"),
    "spec.type": Effect(
        "`middleware.http.` and one of those below; components of other types have no effect"
    ),
    "spec.version": Effect("`v1`"),
    "spec.ignoreErrors": _none("a handler that can't be used is refused"),
    "spec.initTimeout": _none(),
    f"{_SETTING}.name": Effect("a setting, see below; upper and lower case count alike"),
    f"{_SETTING}.value": Effect("its value"),
    f"{_SETTING}.envRef": Effect(
        "the variable that holds it; not APP_API_TOKEN, and none that begins with DAPR_"
    ),
    f"{_SETTING}.secretKeyRef": _REFUSED,
}
_PATH_FILTER = "regular expression (RE2): for requests whose path an app may read as one that it finds; needs the extra `re2` (all)"
MIDDLEWARE: Mapping[str, Mapping[str, str]] = {
    "bearer": {
        "issuer": "whose tokens count, a URL: `iss` of the token (also `issuerURL`); others are answered 401",
        "audience": "for whom: among `aud` of the token (also `clientID`)",
        "jwksURL": (
            "where the issuer's keys are; else OpenID discovery tells. Fetched in the background every 15 minutes, and for a token with an"
            " unknown key, at most every 10; until they are had calls are answered 500"
        ),
    },
    "oauth2": {
        "clientId": "our id at the provider",
        "clientSecret": "our secret there",
        "scopes": "what to ask for, with commas between",
        "authURL": "where browsers log in: they are sent there with 302",
        "tokenURL": "where the code that they bring back becomes a token; that fails with 500",
        "redirectURL": "where the provider sends them back: any URL that leads here",
        "authHeaderName": "the header of requests that takes the token, in the place of the caller's (authorization)",
        "forceHTTPS": "browsers come by https: cookies are for that alone, and so is the way back (cookies: as `redirectURL`)",
        "pathFilter": _PATH_FILTER,
    },
    "oauth2clientcredentials": {
        "clientId": "our id at the token server",
        "clientSecret": "our secret there",
        "scopes": "what to ask for, with commas between",
        "tokenURL": "where tokens are fetched; one is renewed before it expires, and without a valid one calls are answered 503",
        "headerName": "the header of requests that takes the token, in the place of the caller's",
        "endpointParamsQuery": "more for the token server, as `a=b&c=d`",
        "authStyle": "2: id and secret in a header, 1: in the form, 0: whichever is taken (0)",
        "pathFilter": _PATH_FILTER,
    },
    "opa": {
        "rego": (
            "a policy in Rego, of `package http`, whose rule `allow` is true, or an object with `allow`, `status_code` and"
            " `additional_headers`: for the answer, or where it allows for the request. It may not name `data.http`"
        ),
        "defaultStatus": "of the answer to what it refuses (403)",
        "includedHeaders": "headers of requests that it sees, with commas between (none)",
        "readBody": "must be false: bodies are not read",
        "postern.dev/opa-address": (
            "the URL of an OPA server, which is given the policy, in a package named by its text, and judges by it; it is asked for a"
            " second at most, and calls that it gives no answer about end with 503 and `postern-error: authorizer`"
        ),
    },
    "ratelimit": {
        "maxRequestsPerSecond": (
            "requests of each caller, by its certificate or else its address: so many at once (one at least) and in each second; others"
            " are answered 429 with `Retry-After` (100)"
        ),
    },
    "routeralias": {
        "routes": (
            "a mapping, or one in YAML or JSON: path, of which a segment may be `{name}`, to the path that it stands for; what stands in"
            " braces goes before the query"
        ),
    },
    "routerchecker": {
        "rule": "regular expression (RE2) that is to be found in path and query, else the answer is 400; needs the extra `re2`",
    },
    "uppercase": {
        "direction": (
            "whose bodies go on in upper case: `request`, `response` or `both` (request). ASCII letters alone, so that lengths stay, and"
            " compressed bodies are not spared; bodies of gRPC, gRPC-Web and WebSockets pass unchanged"
        ),
    },
}


_TLS = "spec.clientTLS"
HTTP_ENDPOINT: Mapping[str, Effect] = {
    **_EVERY_KIND,
    "metadata.name": Effect("what it is called by, as an app by its app-id; goes before an app of that name"),
    "scopes": Effect("callers that the resource is for; none: all"),
    "auth.secretStore": _none("write the value, or name a variable with `envRef`"),
    "spec.baseUrl": Effect(
        "http or https URL without a query; the path of each request is put behind its own"
    ),
    "spec.version": Effect("taken, as files of Dapr's have it; says nothing"),
    "spec.headers.*.name": Effect("a header of every request, in the place of the caller's"),
    "spec.headers.*.value": Effect("its value"),
    "spec.headers.*.envRef": Effect("the variable that holds it; none that begins with DAPR_"),
    "spec.headers.*.secretKeyRef": _REFUSED,
    **{
        f"{_TLS}.{part}.{field}": effect
        for part, about in (
            ("rootCA", "roots that the server's certificate may chain to, in PEM (the system's)"),
            ("certificate", "our certificate and its chain, in PEM"),
            ("privateKey", "its key, in PEM without a password"),
        )
        for field, effect in (
            ("value", Effect(about)),
            ("envRef", Effect("the variable that holds it")),
            ("secretKeyRef", _REFUSED),
        )
    },
    f"{_TLS}.renegotiation": Effect("`Never`; the others are taken for it with a warning: TLS 1.3 has none"),
}


def warn_of_nothing(document: Document, effects: Mapping[str, Effect], findings: Findings) -> None:
    """Name each written field that has no effect, once for all entries of a mapping or list."""
    for path, effect in effects.items():
        if effect.has_effect:
            continue
        place = next(_written(document.value, path.split(".")), None)
        if place is not None:
            instead = f": {effect.does}" if effect.does else ""
            findings.warn(document, place, f"is known and has no effect in postern{instead}")


def _written(value: object, parts: list[str], place: Place = ()) -> Iterator[Place]:
    """The places of a document that a path stands for."""
    if not parts:
        yield place
    elif isinstance(value, dict):
        for key in value if parts[0] == "*" else [parts[0]] if parts[0] in value else []:
            yield from _written(value[key], parts[1:], (*place, key))
    elif isinstance(value, list) and parts[0] == "*":
        for number, item in enumerate(value):
            yield from _written(item, parts[1:], (*place, number))
