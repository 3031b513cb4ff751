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
        "the `iss` of its tokens, which calls bring as `authorization: Bearer`: one that does not count is refused with 401"
    ),
    "spec.jwt.*.audiences": Effect("of which the token's `aud` must have one"),
    "spec.jwt.*.jwksUrl": Effect("where its keys are (found by OpenID discovery)"),
    "spec.jwt.*.jwksFile": Effect("a file with its keys, which is read again when it changes"),
    "spec.jwt.*.forwardClaims": Effect(
        "claims that the app is told in `postern-claims`, base64url of JSON, which nobody else can set; `*`: all (none)"
    ),
    f"{_RULE}.name": Effect(
        "the rule's name; in a later policy of the same mode it takes the place of an earlier rule of that name"
    ),
    f"{_RULE}.action": Effect("allow, or deny, which comes before every allow"),
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
_OF_TARGETS: Final[Mapping[str, Effect]] = {
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
    "balancing.hash.caller": Effect(
        "of `ring-hash`, true: the calling app decides, so that all its calls, whichever instance makes them, go to one endpoint"
    ),
}
TRAFFIC: Final[Mapping[str, Effect]] = {
    **_EVERY_KIND,
    "kind": Effect("Traffic"),
    "metadata.name": Effect("for people"),
    "scopes": Effect("apps whose sidecars go by it; none: all"),
    **{f"spec.targets.default.{name}": effect for name, effect in _OF_TARGETS.items()},
    **{f"spec.targets.apps.*.{name}": effect for name, effect in _OF_TARGETS.items()},
}
