"""What is valid and still hardly meant: found by looking at whole documents. Pure."""

from collections.abc import Collection, Iterator, Sequence

from policies.analysis.codes import Finding, found
from policies.reading import own_traffic, schema
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.own_schema import AccessPolicy
from policies.rules.resiliency import BUILTIN_NAME

_POLICIES: Place = ("spec", "policies")
_APPS: Place = ("spec", "targets", "apps")
_ACCESS: Place = ("spec", "accessControl")
_TRACING: Place = ("spec", "tracing")
# Policies that apply without being named.
_UNNAMED = frozenset(
    {
        BUILTIN_NAME,
        *(
            f"Default{of}{kind}Policy"
            for of in ("", "App")
            for kind in ("Retry", "Timeout", "CircuitBreaker")
        ),
    }
)
_KINDS = ("timeouts", "retries", "circuitBreakers")
_KEYS = {"timeout": "timeouts", "retry": "retries", "circuitBreaker": "circuitBreakers"}

Resiliencies = Sequence[tuple[Document, schema.Resiliency]]


def unused_policies(documents: Resiliencies) -> Iterator[Finding]:
    """Policies that no target of any document names."""
    named = {(kind, name) for document, _ in documents for kind, name in _named(document.value)}
    for document, _ in documents:
        policies = _under(document.value, "spec", "policies")
        for kind in _KINDS:
            for name in _under(policies, kind):
                if name not in _UNNAMED and not name.startswith("Default") and (kind, name) not in named:
                    problem = "no target names this policy (expected one in spec.targets, or leave it out)"
                    yield found("PST0202", document.fault((*_POLICIES, kind, name), problem))


def _named(value: object) -> Iterator[tuple[str, str]]:
    """The policies that anything below `spec.targets` names: of components, too, which have one for each direction."""
    todo: list[object] = [_under(value, "spec", "targets")]
    while todo:
        part = todo.pop()
        if not isinstance(part, dict):
            continue
        for key, inner in part.items():
            if key in _KEYS and isinstance(inner, str):
                yield _KEYS[key], inner
            else:
                todo.append(inner)


def _under(value: object, *keys: str) -> dict[str, object]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def eager_retries(documents: Resiliencies) -> Iterator[Finding]:
    """Retries of calls to apps after any failure: a POST that the app has carried out is sent again."""
    policies = {
        name: (document, retry)
        for document, resiliency in documents
        for name, retry in resiliency.spec.policies.retries.items()
    }
    used = {target.retry for _, resiliency in documents for target in resiliency.spec.targets.apps.values()}
    for name, (document, retry) in policies.items():
        is_used = name in used or name in {"DefaultAppRetryPolicy", "DefaultRetryPolicy"}
        if is_used and retry.max_retries != 0 and not _has_codes(retry):
            problem = (
                "repeats every request that failed, POST and PATCH among them, also where the app may have carried it out "
                "(expected matching: {httpStatusCodes, gRPCStatusCodes} with codes that say it has not, such as 429,503 and 14)"
            )
            yield found("PST0203", document.fault((*_POLICIES, "retries", name), problem))


def _has_codes(retry: schema.Retry) -> bool:
    return bool(retry.matching.http_status_codes or retry.matching.grpc_status_codes)


def open_callers(document: Document, configuration: schema.Configuration) -> Iterator[Finding]:
    """Callers that may do everything but a few paths."""
    access = configuration.spec.access_control
    is_open = access.default_action.lower() == "allow" and document.has((*_ACCESS, "defaultAction"))
    for number, policy in enumerate(access.policies):
        denies = [each.name for each in policy.operations if each.action.lower() == "deny"]
        allowed = policy.default_action.lower() == "allow" or (not policy.default_action and is_open)
        if allowed and denies and len(denies) == len(policy.operations):
            paths = ", ".join(denies[:3])
            problem = (
                f"{policy.app_id} may do everything but {paths}: a path that the app adds later is open "
                "(expected defaultAction: deny, and the paths that it needs)"
            )
            yield found("PST0105", document.fault((*_ACCESS, "policies", number), problem))


def open_policies(document: Document, policy: AccessPolicy) -> Iterator[Finding]:
    """Policies that allow everything but some paths."""
    denied = [
        path
        for rule in policy.spec.rules
        if rule.action == "deny"
        for path in (*rule.to.paths, *(rule.to.grpc.services if rule.to.grpc is not None else ()))
    ]
    if policy.spec.default == "allow" and denied:
        problem = (
            f"is allow, and {', '.join(denied[:3])} denied: a path that the app adds later is open "
            "(expected deny, and rules that allow what callers need)"
        )
        yield found("PST0105", document.fault(("spec", "default"), problem))


def idle_tracing(document: Document, configuration: schema.Configuration) -> Iterator[Finding]:
    """A sampling rate without an exporter, or an exporter that gets nothing."""
    tracing = configuration.spec.tracing
    exports = tracing.stdout or any(
        section is not None and section.endpoint_address for section in (tracing.zipkin, tracing.otel)
    )
    try:
        rate = float(tracing.sampling_rate) if tracing.sampling_rate else None
    except ValueError:
        return
    if rate and not exports:
        problem = "spans are sampled and exported nowhere (expected zipkin, otel or stdout beside it)"
        yield found("PST0305", document.fault((*_TRACING, "samplingRate"), problem))
    if exports and rate is not None and rate <= 0:
        problem = "is 0, so that the exporter beside it gets nothing (expected a rate above 0, up to 1)"
        yield found("PST0305", document.fault((*_TRACING, "samplingRate"), problem))


def strange_targets(
    documents: Sequence[tuple[Document, schema.Resiliency | own_traffic.Traffic]], known: Collection[str]
) -> Iterator[Finding]:
    """Targets that are not among `known`, the apps and HTTPEndpoints of a run file."""
    for document, written in documents:
        for name in written.spec.targets.apps:
            is_url = name.startswith(("http://", "https://"))
            if not is_url and name.partition(".")[0] not in known:
                problem = (
                    f"{name} is not an app of this run file (expected one of {', '.join(sorted(known))})"
                )
                yield found("PST0504", document.fault((*_APPS, name), problem))


def strange_callers(
    document: Document, configuration: schema.Configuration, known: Collection[str]
) -> Iterator[Finding]:
    """Callers of this trust domain that are not among `known`."""
    for number, policy in enumerate(configuration.spec.access_control.policies):
        if policy.app_id and policy.app_id not in known:
            problem = f"{policy.app_id} is not an app of this run file, so nothing in it is this caller"
            yield found("PST0505", document.fault((*_ACCESS, "policies", number, "appId"), problem))
