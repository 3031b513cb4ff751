"""What each field of postern's own kinds does: for the reference page. See `effects.py`."""

from collections.abc import Mapping
from typing import Final

from policies.reading.effects import Effect

_EVERY_KIND: Final[Mapping[str, Effect]] = {
    "apiVersion": Effect("must be `postern.dev/v1alpha1`"),
    "metadata.namespace": Effect("for people: files are read whatever namespace they name"),
    "metadata.labels": Effect("for people and other tools"),
    "metadata.annotations": Effect("for people and other tools"),
}
_RULE: Final = "spec.rules.*"
ACCESS_POLICY: Final[Mapping[str, Effect]] = {
    **_EVERY_KIND,
    "kind": Effect("AccessPolicy"),
    "metadata.name": Effect("the policy's name, in decisions, log and metrics"),
    "scopes": Effect("apps whose callers the policy is about; none: all"),
    "spec.mode": Effect(
        "`enforce`; `audit` lets by and tells what it would deny, in log, spans and `postern_acl_would_deny_total`; `off` (enforce)"
    ),
    "spec.default": Effect("allow or deny for calls that no rule is about (deny)"),
    "spec.override": Effect(
        "true: this policy's default may be allow though that of an earlier one denies (false)"
    ),
    "spec.trustDomainAliases": Effect(
        "what our own trust domain is also called, while callers move from one to the other"
    ),
    "spec.jwt.*.name": Effect("the issuer's name, for `when.jwt.issuers`"),
    "spec.jwt.*.issuer": Effect(
        "the `iss` of its tokens, which calls bring as `authorization: Bearer`: one that does not count, "
        "such as one without `exp`, is refused with 401"
    ),
    "spec.jwt.*.audiences": Effect("of which the token's `aud` must have one"),
    "spec.jwt.*.jwksUrl": Effect("where its keys are (found by OpenID discovery)"),
    "spec.jwt.*.jwksFile": Effect(
        "a file with its keys, which is read again when it changes; a set without keys withdraws them all"
    ),
    "spec.jwt.*.forwardClaims": Effect(
        "claims that the app is told in `postern-claims`, base64url of JSON, which nobody else can set; `*`: all (none)"
    ),
    f"{_RULE}.name": Effect(
        "the rule's name; in a later policy of the same mode it takes the place of an earlier rule of that name"
    ),
    "spec.authorizers.*.name": Effect("the authorizer's name, for `authorizer` of rules"),
    "spec.authorizers.*.grpc": Effect(
        "`host:port` of a server of `envoy.service.auth.v3.Authorization`, such as OPA's Envoy plugin or Authorino"
    ),
    "spec.authorizers.*.http": Effect(
        "a URL that is asked as Envoy does: with the call's verb, its Host, and its path after that of the URL. 200 lets it pass, a 5xx is"
        " no answer, anything else is the caller's answer"
    ),
    "spec.authorizers.*.opa": Effect(
        "the URL of a rule in OPA's data API, such as `http://localhost:8181/v1/data/app/allow`: true, or an object with `allowed`, as its"
        " Envoy plugin has it"
    ),
    "spec.authorizers.*.timeout": Effect("how long to wait for an answer, connecting included (250ms)"),
    "spec.authorizers.*.failOpen": Effect(
        "true: calls go on where it gives no answer (false: they end with 503, or UNAVAILABLE, and `postern-error: authorizer`)"
    ),
    "spec.authorizers.*.headers": Effect(
        "headers of the request that it is told, beside those that always are (of grpc and opa all, of http `authorization` alone)"
    ),
    "spec.authorizers.*.toApp": Effect(
        "of http: fields of its answer that the app is given; the caller's own never reach it, also where the answer has none"
    ),
    "spec.authorizers.*.cache": Effect(
        "how long an answer holds for further calls of the same caller, verb, path, query and told headers (it does not)"
    ),
    "spec.authorizers.*.tls.caFile": Effect(
        "a file of roots that its certificate must chain to (the system's)"
    ),
    "spec.authorizers.*.tls.serverName": Effect("whom its certificate must be for (the host)"),
    f"{_RULE}.action": Effect(
        "allow; deny, which comes before every allow; or authorize: whatever else allows such a call, it is asked about, for which the rule"
        " is read as a deny; and it is allowed by this rule, read as an allow, where its authorizer lets it pass"
    ),
    f"{_RULE}.authorizer": Effect(
        "of authorize: whom to ask, an entry of `spec.authorizers`, of an earlier policy too"
    ),
    f"{_RULE}.from.apps": Effect(
        "callers by app-id; here and below `*` may stand at one end. `from: anonymous`: those who prove no identity"
    ),
    f"{_RULE}.from.namespaces": Effect("their namespaces (of an allow our own, of a deny all)"),
    f"{_RULE}.from.trustDomains": Effect("their trust domains (of an allow our own, of a deny all)"),
    f"{_RULE}.from.principals": Effect("their whole SPIFFE IDs"),
    f"{_RULE}.to.methods": Effect('verbs, upper case; none or `"*"`: all'),
    f"{_RULE}.to.paths": Effect(
        "whole paths; `{*}` is any one segment, `{**}` at the end any number. An allow takes letters as written, a deny in any case"
    ),
    f"{_RULE}.to.grpc.services": Effect(
        "gRPC services as `package.Service`; `package.*` and `*` stand for several. An allow is then for gRPC calls alone"
    ),
    f"{_RULE}.to.grpc.methods": Effect("their methods; none: all"),
    f"{_RULE}.when.header.*": Effect(
        "a header of which one line must be one of these values: callers choose it, so it proves nothing"
    ),
    f"{_RULE}.when.jwt.issuers": Effect("a verified token of one of these entries of `spec.jwt` (any)"),
    f"{_RULE}.when.jwt.claims.*": Effect(
        "a claim of it that is, or as a list has, one of these values; none: any. `a.b` is b within a; words of `scope` are values"
    ),
}
_CONCURRENCY: Final[Mapping[str, Effect]] = {
    "limit": Effect(
        "calls at once: a number, or `adaptive`, which finds it by how long calls take until their answers begin: as they take longer"
        " than when they are few, it is lowered, and raised while they don't. Each minute `minLimit` alone are let in until 50 ended, to"
        " measure that again. A stream counts until it ends"
    ),
    "minLimit": Effect("of `adaptive`: the least (3)"),
    "maxLimit": Effect("of `adaptive`: the most (1000)"),
    "queue": Effect(
        "calls that wait for room; once it was full or one waited for `queueTimeout`, and until it is empty, the newest come in first,"
        " and the oldest give way to more (128)"
    ),
    "queueTimeout": Effect("how long one waits at most (100ms)"),
}
_REFUSED: Final = "; others get 503 with `Retry-After: 1`, or RESOURCE_EXHAUSTED, and `postern-error: shed`"
_FAULTS: Final[Mapping[str, Effect]] = {
    "name": Effect("told in the answer's header `postern-fault`, in metrics, the access log and spans"),
    "to.methods": Effect("verbs in upper case, or `*` (any)"),
    "to.paths": Effect(
        "path templates as of an AccessPolicy, of the path that the app gets, without regard to case (any)"
    ),
    "to.grpc.services": Effect("services, `*` at the end for all that begin so"),
    "to.grpc.methods": Effect("methods of them (any)"),
    "when.header.*": Effect("a header of which one line must be one of these values"),
    "percent": Effect("of the attempts that match, by chance (100)"),
    "times": Effect(
        "so many attempts at most, until the fault is changed; of each target counted for itself (no end)"
    ),
    "seed": Effect(
        "by which the same of the attempts that match, in their order, are hit in each run (chance)"
    ),
    "delay.min": Effect(
        "an attempt waits before it is sent: `delay` is a duration, or one is drawn between this and `max`. Each fault says one of `delay`,"
        " `abort`, `unavailable`, `reset`, `truncate` and `bandwidth`; an attempt suffers all that match it, in their order, under"
        " its time limit, as a failure of its endpoint"
    ),
    "delay.max": Effect("see `min`"),
    "abort.status": Effect("HTTP calls are answered by this status, without a body (none are)"),
    "abort.grpc": Effect(
        "gRPC calls end with this code, by name or number, such as `UNAVAILABLE` or 14 (none do)"
    ),
    "unavailable": Effect("true: its endpoint accepts no connection"),
    "reset": Effect(
        "`before-head`: the connection breaks off before its answer; `after-head`: behind the answer's head"
    ),
    "truncate": Effect("the answer breaks off behind so many bytes of a body that has more"),
    "bandwidth": Effect("the answer's body comes by so many bytes a second"),
}
_INBOUND: Final[Mapping[str, Effect]] = {
    **{f"faults.*.{name}": effect for name, effect in _FAULTS.items()},
    **{
        f"faults.*.from.{name}": Effect(f"as of `rates`: {text}")
        for name, text in {
            "apps": "calling apps by app-id",
            "namespaces": "their namespaces (any)",
            "trustDomains": "their trust domains (any)",
            "principals": "callers by SPIFFE ID",
        }.items()
    },
    "faults.*.name": Effect(
        "of calls by other apps, injected into what is sent to the app, with the flag `--enable-fault-injection` alone, for tests. "
        + _FAULTS["name"].does
    ),
    "rates.*.name": Effect("the limit's name, told to who is refused, in metrics and `postern explain`"),
    "rates.*.requests": Effect(
        "so many calls by other apps in the time of `per`. Others get 429, or RESOURCE_EXHAUSTED, with `postern-error: rate-limited`,"
        " `Retry-After`, and `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10; gRPC's retries heed"
        " `grpc-retry-pushback-ms`. Each instance of the app counts for itself; a call must pass all rates that match it"
    ),
    "rates.*.per": Effect("the time of `requests` (1s)"),
    "rates.*.burst": Effect("so many at once (`requests`)"),
    "rates.*.each": Effect(
        "`caller`: for each SPIFFE ID that is proven, of those without for each address; 8,192 callers are remembered at least. `all`: for"
        " all of them together (caller)"
    ),
    **{
        f"rates.*.from.{name}": Effect(f"as of an AccessPolicy: {text}")
        for name, text in {
            "apps": "calling apps by app-id, `*` at one end",
            "namespaces": "their namespaces (any)",
            "trustDomains": "their trust domains (any)",
            "principals": "callers by SPIFFE ID, `*` at one end",
        }.items()
    },
    "rates.*.to.methods": Effect("verbs in upper case, or `*` (any)"),
    "rates.*.to.paths": Effect(
        "path templates as of an AccessPolicy, without regard to case; a path that may be read in several ways matches by any (any)"
    ),
    "rates.*.to.grpc.services": Effect("services, `*` at the end for all that begin so"),
    "rates.*.to.grpc.methods": Effect("methods of them (any)"),
    "connections.perCaller": Effect(
        "connections that each SPIFFE ID may have open; one more is closed after its handshake, before HTTP/2 begins, and counted in"
        " `postern_handshakes_refused_total` as `too-many`. Callers take that for a dial that failed, and go on with those that they have:"
        " a sidecar needs one for each thread of its engine, and one more for each 100 calls at once"
    ),
    **{f"concurrency.{name}": effect for name, effect in _CONCURRENCY.items()},
    "concurrency.limit": Effect(
        _CONCURRENCY["limit"].does
        + f". Calls to the app by whomever{_REFUSED}; `--app-max-concurrency` stands behind it"
    ),
    "lag.above": Effect(
        "new calls are refused so while a thread of the proxy that carries calls has been later than this for the time of `for` (250ms)"
    ),
    "lag.for": Effect("see `above` (2s)"),
}
_OF_TARGETS: Final[Mapping[str, Effect]] = {
    **{f"faults.*.{name}": effect for name, effect in _FAULTS.items()},
    "faults.*.name": Effect(
        "injected into attempts at the target, with the flag `--enable-fault-injection` alone, for tests. "
        + _FAULTS["name"].does
    ),
    "balancing.policy": Effect(
        "which endpoint takes a call: `latency`, of two drawn at random the one that should answer first, by its latency and its calls in"
        " flight; `least-requests`, the one with the fewest calls of this caller in flight; `round-robin`, in turn, as daprd with mDNS;"
        " `random`, as daprd in Kubernetes; `ring-hash`, the same one for the same `hash`. Endpoints that fail are left out, and a retry"
        " takes another one (latency)"
    ),
    "balancing.hash.header": Effect(
        "of `ring-hash`: a header of the request; calls with the same value go to the same endpoint. Where endpoints come or go, few"
        " values move. Calls without it, and HTTP calls to a daprd, are balanced by latency"
    ),
    "retryBudget.ratio": Effect(
        "retries by a policy of a Resiliency, for each call to the target in the last `ttl`, for all calls together; `retryBudget: off`: no"
        " limit (0.2; under the name `daprd` off)"
    ),
    "retryBudget.minRetriesPerSecond": Effect("retries besides, for callees that are seldom called (10)"),
    "retryBudget.ttl": Effect("how long a call counts, 1s to 60s (10s)"),
    "retryBudget.maxTokens": Effect(
        "in place of a share: a failure takes a token, and at half of them or below nothing is retried (10)"
    ),
    "retryBudget.tokenRatio": Effect("of a token, what a success gives back (0.1)"),
    "retryOn": Effect(
        "`idempotent`: of HTTP calls that may have reached the app, policies repeat GET, HEAD, OPTIONS, TRACE, PUT, DELETE and those with"
        " an Idempotency-Key alone (any)"
    ),
    "backoff.jitter": Effect(
        "of the pauses of a retry policy: `full`, from none to all of one; `equal`, from half to all; `none`. Not of the built-in retry"
        " (exponential policies from half to one and a half, constant ones none, as Dapr has it)"
    ),
    "backoff.initialInterval": Effect("the first pause of an exponential policy (500ms)"),
    "backoff.multiplier": Effect(
        "by what each pause of an exponential policy is longer than the one before, from 1 (1.5)"
    ),
    "overallTimeout": Effect(
        "for all attempts of a call and the pauses between them; not of WebSockets and streams declared by `dapr-stream` (none)"
    ),
    "hedging.delay": Effect(
        "in place of retries: how long a call waits for its answer before it is made once more at another endpoint, at least 5ms, or"
        " `p95`: as long as 95 of 100 calls to the target took in the last 10 s, once there were 20. The first"
        " answer is taken, the other attempts are cancelled. Of HTTP calls that `retryOn: idempotent` would repeat, and of gRPC"
        " methods in `methods`; of complete requests that fit into the replay buffer alone. Each takes from the retry budget,"
        " and is made only where a limit of `concurrency` has room for it at once (none)"
    ),
    "hedging.maxAttempts": Effect("attempts of a call at once, with the first, 2 to 5 (2)"),
    "hedging.methods": Effect(
        "methods of gRPC that may be carried out twice, as `/package.Service/Method`; others are called once (none)"
    ),
    "hedging.nonFatalStatusCodes": Effect(
        "codes of gRPC after which the others go on, and the next attempt begins at once; of HTTP the statuses that gRPC has for them,"
        " for 14 429 and 502 to 504. Any other failure is the call's (8, 14)"
    ),
    "balancing.hash.caller": Effect(
        "of `ring-hash`, true: the calling app decides, so that all its calls, whichever instance makes them, go to one endpoint"
    ),
    **{f"concurrency.{name}": effect for name, effect in _CONCURRENCY.items()},
    "concurrency.limit": Effect(
        _CONCURRENCY["limit"].does + f". Attempts by this instance at the target{_REFUSED}"
    ),
    "throttle.ratio": Effect(
        "attempts are held back, by chance, as the target accepts fewer than one in so many of those in the time of `window`: what did not"
        f" reach it, or got 429, 503, RESOURCE_EXHAUSTED or UNAVAILABLE, was not accepted. From 10 attempts on{_REFUSED} (2)"
    ),
    "throttle.window": Effect("see `ratio` (120s)"),
    "outliers.enabled": Effect(
        "false: no endpoint is left out for what it answers; those that can't be reached always are (true; under the name `daprd` only"
        " where `outliers` is written)"
    ),
    "outliers.consecutiveFailures": Effect(
        "an endpoint is left out after so many failures in a row, whatever method they were of: a 5xx, gRPC's UNKNOWN (2),"
        " DEADLINE_EXCEEDED (4), INTERNAL (13) and UNAVAILABLE (14), no answer in time, or one that broke off; never a 4xx, nor what a"
        " proxy refused. 0: never (5)"
    ),
    "outliers.successRate.endpoints": Effect(
        "success rates are compared where at least so many endpoints had `requests` calls within `interval` (5)"
    ),
    "outliers.successRate.requests": Effect("see there (100)"),
    "outliers.successRate.factor": Effect(
        "who lies so many standard deviations below the mean is left out; 0: nobody (1.9)"
    ),
    "outliers.ejection": Effect(
        "how long, times how often it was left out, up to a tenth longer; then one call tries it (30s)"
    ),
    "outliers.maxEjection": Effect("at most (300s)"),
    "outliers.maxEjectedPercent": Effect(
        "how many of the endpoints may be left out; one always, the last that takes calls never, and none where more than half are (10)"
    ),
    "outliers.interval": Effect(
        "how often success rates are compared, and after which an endpoint that stayed well is forgiven one time (10s)"
    ),
    "slowStart": Effect("an endpoint that comes back gets fewer calls for so long (10s)"),
}
TRAFFIC: Final[Mapping[str, Effect]] = {
    **_EVERY_KIND,
    "kind": Effect("Traffic"),
    "metadata.name": Effect("for people"),
    "scopes": Effect("apps whose sidecars go by it; none: all"),
    **{f"spec.targets.default.{name}": effect for name, effect in _OF_TARGETS.items()},
    **{f"spec.targets.apps.*.{name}": effect for name, effect in _OF_TARGETS.items()},
    **{f"spec.inbound.{name}": effect for name, effect in _INBOUND.items()},
}
