"""Resiliency documents -> ResiliencyRules; every fault at once."""

from collections.abc import Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from policies.errors import CodesError, DurationError
from policies.reading import schema
from policies.reading.codes import parse_codes
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.durations import is_bare, parse_duration
from policies.reading.effects import RESILIENCY, warn_of_nothing
from policies.reading.findings import Findings
from policies.reading.trip import TripError, compile_trip
from policies.rules.resiliency import (
    BUILTIN_MIN_RETRIES,
    BUILTIN_NAME,
    BUILTIN_RETRY,
    BreakerRule,
    ResiliencyRules,
    RetryRule,
    TargetRules,
)
from policies.rules.trip import NEVER, Program
from policies.rules.written import Written

_POLICIES: Place = ("spec", "policies")
_APPS: Place = ("spec", "targets", "apps")
_DEFAULT_RETRIES = ("DefaultAppRetryPolicy", "DefaultRetryPolicy")
_DEFAULT_TIMEOUTS = ("DefaultAppTimeoutPolicy", "DefaultTimeoutPolicy")
_DEFAULT_BREAKERS = ("DefaultAppCircuitBreakerPolicy", "DefaultCircuitBreakerPolicy")
_TRIP = "consecutiveFailures > 5"
_OPEN_S = 60.0
_CACHE_SIZE = 100


class _Merged(Struct):
    """One table of all documents in force; a later policy or target replaces the earlier of its name whole."""

    timeouts: dict[str, float | None] = field(default_factory=dict)
    retries: dict[str, RetryRule] = field(default_factory=dict)
    breakers: dict[str, BreakerRule] = field(default_factory=dict)
    targets: dict[str, tuple[Document, schema.AppTarget]] = field(default_factory=dict)
    resources: list[tuple[str, str]] = field(default_factory=list)
    homes: dict[int, tuple[str, str]] = field(default_factory=dict)  # by the document's identity
    defaults_home: tuple[str, str] = ("", "")
    written: dict[tuple[str, str], Written] = field(
        default_factory=dict
    )  # by the kind of policy and its name

    def place(self, document: Document, resource: str, place: Place) -> None:
        """Remember where a policy or an entry is written: `spec.policies.<kind>.<name>`, or `spec.targets.apps.<name>`."""
        *_, kind, name = map(str, place)
        policy = "targets.apps" if kind == "apps" else f"policies.{kind}"
        at = f"{document.path}:{document.line_of(place)}"
        self.written[kind, name] = Written(policy=policy, name=name, resource=resource, at=at)

    def of(self, *keys: tuple[str, str]) -> tuple[Written, ...]:
        """Where those are that there are."""
        return tuple(self.written[key] for key in keys if key in self.written)


def compile_resiliency(
    documents: Sequence[tuple[Document, schema.Resiliency]],
    own_app_id: str,
    findings: Findings,
) -> ResiliencyRules:
    """The rules of documents in load order. Those scoped to other apps are checked and left out."""
    merged = _Merged()
    for document, resiliency in documents:
        into = merged
        merged.homes[id(document)] = (resiliency.metadata.name, resiliency.metadata.namespace)
        if resiliency.scopes and own_app_id not in resiliency.scopes:
            into = _Merged()
        else:
            merged.resources.append((resiliency.metadata.name, resiliency.metadata.namespace))
        name = resiliency.metadata.name
        _read_policies(document, resiliency.spec.policies, name, into, findings)
        _read_targets(document, resiliency.spec.targets, name, into)
        if {*_DEFAULT_RETRIES, *_DEFAULT_TIMEOUTS, *_DEFAULT_BREAKERS} & {
            *resiliency.spec.policies.retries,
            *resiliency.spec.policies.timeouts,
            *resiliency.spec.policies.circuit_breakers,
        }:
            into.defaults_home = (resiliency.metadata.name, resiliency.metadata.namespace)
        warn_of_nothing(document, RESILIENCY, findings)
    builtin = _builtin(merged, documents, findings)
    targets = {
        name: _target(document, name, target, merged, findings)
        for name, (document, target) in merged.targets.items()
    }
    timeout_s = next((merged.timeouts[name] for name in _DEFAULT_TIMEOUTS if name in merged.timeouts), None)
    retry = next((merged.retries[name] for name in _DEFAULT_RETRIES if name in merged.retries), None)
    breaker = next((merged.breakers[name] for name in _DEFAULT_BREAKERS if name in merged.breakers), None)
    has_default = timeout_s is not None or retry is not None or breaker is not None
    written = {
        name: merged.of(
            ("apps", name),
            ("timeouts", target.timeout),
            ("retries", target.retry),
            ("circuitBreakers", target.circuit_breaker),
            ("retries", BUILTIN_NAME),
        )
        for name, (_, target) in merged.targets.items()
    }
    written[""] = merged.of(
        *_first("timeouts", _DEFAULT_TIMEOUTS, merged.timeouts),
        *_first("retries", _DEFAULT_RETRIES, merged.retries),
        *_first("circuitBreakers", _DEFAULT_BREAKERS, merged.breakers),
        ("retries", BUILTIN_NAME),
    )
    return ResiliencyRules(
        resources=tuple(merged.resources),
        targets={name: replace(rules, builtin_retry=builtin) for name, rules in targets.items()},
        default=TargetRules(
            timeout_s=timeout_s,
            retry=retry,
            breaker=breaker,
            builtin_retry=builtin,
            source="default" if has_default else "built-in",
            resource=merged.defaults_home,
        ),
        written={name: places for name, places in written.items() if places},
    )


def _first(kind: str, names: Sequence[str], known: Mapping[str, object]) -> list[tuple[str, str]]:
    """The first of the names that there is a policy of."""
    return [(kind, name) for name in names if name in known][:1]


def _read_policies(
    document: Document,
    policies: schema.ResiliencyPolicies,
    resource: str,
    merged: _Merged,
    findings: Findings,
) -> None:
    for name, text in policies.timeouts.items():
        timeout_s = _duration(document, (*_POLICIES, "timeouts", name), text, findings)
        merged.timeouts[name] = timeout_s if timeout_s > 0 else None
    for name, retry in policies.retries.items():
        merged.retries[name] = _retry(document, name, retry, findings)
    for name, breaker in policies.circuit_breakers.items():
        merged.breakers[name] = _breaker(document, name, breaker, findings)
    for kind, named in (
        ("timeouts", policies.timeouts),
        ("retries", policies.retries),
        ("circuitBreakers", policies.circuit_breakers),
    ):
        for name in named:
            merged.place(document, resource, (*_POLICIES, kind, name))


def _duration(document: Document, place: Place, text: str, findings: Findings) -> float:
    if is_bare(text):
        problem = f"`{text}` has no unit and counts milliseconds (write {text}ms, or {text}s for seconds)"
        findings.fault(document, place, problem, is_lenient=True)
    try:
        return parse_duration(text)
    except DurationError as error:
        findings.fault(document, place, str(error))
        return 0.0


def _retry(document: Document, name: str, retry: schema.Retry, findings: Findings) -> RetryRule:
    place: Place = (*_POLICIES, "retries", name)
    kind = retry.policy.lower()
    if kind not in {"constant", "exponential"}:
        problem = f"`{retry.policy}` is not a kind of retry (expected constant or exponential)"
        findings.fault(document, (*place, "policy"), problem)
    matching: Place = (*place, "matching")
    http, grpc = retry.matching.http_status_codes, retry.matching.grpc_status_codes
    return RetryRule(
        name=name,
        kind="exponential" if kind == "exponential" else "constant",
        duration_s=_duration(document, (*place, "duration"), retry.duration, findings),
        max_interval_s=_duration(document, (*place, "maxInterval"), retry.max_interval, findings),
        max_retries=max(retry.max_retries, -1),
        http_codes=_codes(document, (*matching, "httpStatusCodes"), http, (100, 599), findings),
        grpc_codes=_codes(document, (*matching, "gRPCStatusCodes"), grpc, (0, 16), findings),
    )


def _breaker(
    document: Document, name: str, breaker: schema.CircuitBreaker, findings: Findings
) -> BreakerRule:
    place: Place = (*_POLICIES, "circuitBreakers", name)
    timeout_s = _duration(document, (*place, "timeout"), breaker.timeout, findings)
    return BreakerRule(
        name=name,
        max_requests=breaker.max_requests or 1,
        interval_s=max(0.0, _duration(document, (*place, "interval"), breaker.interval, findings)),
        timeout_s=timeout_s if timeout_s > 0 else _OPEN_S,
        trip=_trip(document, (*place, "trip"), breaker.trip or _TRIP, findings),
        trip_text=breaker.trip or _TRIP,
    )


def _trip(document: Document, place: Place, text: str, findings: Findings) -> Program:
    """Where leniency is asked for, what CEL would fail at never trips."""
    try:
        return compile_trip(text)
    except TripError as error:
        never = "" if error.is_syntax else "; it never opens so"
        findings.fault(document, place, f"{error}{never}", is_lenient=not error.is_syntax)
        return NEVER


def _codes(
    document: Document,
    place: Place,
    text: str,
    bounds: tuple[int, int],
    findings: Findings,
) -> frozenset[int] | None:
    try:
        return parse_codes(text, *bounds)
    except CodesError as error:
        findings.fault(document, place, str(error))
        return None


def _read_targets(document: Document, targets: schema.Targets, resource: str, merged: _Merged) -> None:
    for name, target in targets.apps.items():
        merged.targets[name] = (document, target)
        merged.place(document, resource, (*_APPS, name))


def _builtin(
    merged: _Merged,
    documents: Sequence[tuple[Document, schema.Resiliency]],
    findings: Findings,
) -> RetryRule:
    """The built-in retry, which a policy of its name may change but not weaken."""
    override = merged.retries.get(BUILTIN_NAME)
    if override is None:
        return BUILTIN_RETRY
    if override.max_retries < BUILTIN_MIN_RETRIES:
        home = next(d for d, r in reversed(documents) if BUILTIN_NAME in r.spec.policies.retries)
        place: Place = (*_POLICIES, "retries", BUILTIN_NAME, "maxRetries")
        findings.warn(home, place, f"is raised to {BUILTIN_MIN_RETRIES}, the minimum of the built-in retry")
    return replace(
        override,
        max_retries=max(override.max_retries, BUILTIN_MIN_RETRIES),
        http_codes=BUILTIN_RETRY.http_codes,
        grpc_codes=BUILTIN_RETRY.grpc_codes,
    )


def _target(
    document: Document,
    name: str,
    target: schema.AppTarget,
    merged: _Merged,
    findings: Findings,
) -> TargetRules:
    place: Place = (*_APPS, name)
    named = (
        ("timeout", target.timeout, merged.timeouts),
        ("retry", target.retry, merged.retries),
        ("circuitBreaker", target.circuit_breaker, merged.breakers),
    )
    for key, policy, known in named:
        if policy and policy not in known:
            problem = f"unknown policy {policy!r} (expected {', '.join(sorted(known)) or 'none'})"
            findings.fault(document, (*place, key), problem, is_lenient=True)
    breaker = merged.breakers.get(target.circuit_breaker)
    if breaker is not None:
        breaker = replace(breaker, cache_size=target.circuit_breaker_cache_size or _CACHE_SIZE, owner=name)
    return TargetRules(
        timeout_s=merged.timeouts.get(target.timeout),
        retry=merged.retries.get(target.retry),
        breaker=breaker,
        source=f"targets.apps.{name}",
        resource=merged.homes[id(document)],
    )
