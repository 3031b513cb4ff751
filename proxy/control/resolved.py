"""The policies in force as they are resolved for each target, and where they are written, for status; pure. Rules hold no secrets."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict
from msgspec.structs import fields as fields_of

from policies.rules.resiliency import TargetRules
from policies.rules.traffic import TargetTraffic
from proxy.contract.budgets import BudgetGlance
from proxy.control.ejections import callee_of
from proxy.deciding.callee import parse_callee, parse_key
from proxy.deciding.inbound import InboundView
from proxy.deciding.outbound_view import OutboundView

Json = dict[str, Any]
MOST_TARGETS = 500
#: The spelling of the row for targets that nothing names.
OTHERS = "*"


def resolved(view: OutboundView, inbound: InboundView) -> Json:
    """Of each target, then of the calls that come to the app."""
    spelled = sorted(_spelled(view))
    rows = [_target(view, text) for text in (*spelled[:MOST_TARGETS], OTHERS)]
    return {
        "targets": rows,
        "targetsLeftOut": max(0, len(spelled) - MOST_TARGETS),
        "inbound": _inbound(view, inbound),
    }


def _spelled(view: OutboundView) -> Iterator[str]:
    """Every target that rules, HTTPEndpoints or calls so far have named, each once; apps of the own namespace by their app-id alone."""
    own = f".{view.app.namespace}"
    named = {
        *view.resiliency.targets,
        *(name.removesuffix(own) for name in view.traffic.targets),
        *view.http_endpoints,
    }
    for key in view.known:
        if key.startswith("peer:"):
            named.add(".".join(parse_key(key)).removesuffix(own))
        elif key.startswith("url:"):
            named.add(key.removeprefix("url:"))
    yield from named - {OTHERS}


def _kind(view: OutboundView, text: str) -> str:
    if text == OTHERS:
        return "others"
    if text in view.http_endpoints:
        return "httpEndpoint"
    return "url" if text.startswith(("http://", "https://")) else "app"


def _traffic_key(view: OutboundView, text: str, kind: str) -> str:
    """By which entry of a Traffic a target goes; "": the default's."""
    if kind == "httpEndpoint":
        return f"{text}.{view.app.namespace}"
    callee = parse_callee(text, view.app.namespace) if kind == "app" else None
    return "" if callee is None else f"{callee.app_id}.{callee.namespace}"


def _target(view: OutboundView, text: str) -> Json:
    kind = _kind(view, text)
    key = _traffic_key(view, text, kind)
    traffic = view.traffic.targets.get(key, view.traffic.default)
    rules = view.resiliency.for_app(text, view.app.app_id)
    written = view.resiliency.written.get(text if text in view.resiliency.targets else "", ())
    entry = view.traffic.written.get(key if key in view.traffic.targets else "")
    return {
        "target": text,
        "kind": kind,
        **_resiliency(rules),
        **_of_traffic(rules, traffic),
        "from": [asdict(one) for one in (*written, *((entry,) if entry is not None else ()))],
    }


def _resiliency(rules: TargetRules) -> Json:
    return {
        "timeoutS": rules.timeout_s,
        "retry": told(rules.retry),
        "builtInRetry": told(rules.builtin_retry),
        "circuitBreaker": told(rules.breaker),
        "heedsRetryAfter": rules.heeds_answers,
    }


def _of_traffic(rules: TargetRules, traffic: TargetTraffic) -> Json:
    retries = traffic.retries
    budget = retries.budget or rules.budget
    return {
        "overallTimeoutS": retries.overall_s,
        "retryOn": retries.on,
        "backoff": told(retries.backoff),
        "retryBudget": None if budget == "off" else told(budget),
        "hedging": told(retries.hedging),
        "balancing": told(traffic.balancing),
        "outlierDetection": told(traffic.outliers),
        "concurrency": told(traffic.concurrency),
        "throttle": told(traffic.throttle),
    }


def _inbound(view: OutboundView, inbound: InboundView) -> Json:
    limits = inbound.limits.limits
    return {
        "rates": [told(rate) for rate in limits.rates.values()],
        "connectionsPerCaller": limits.connections,
        "concurrency": told(limits.concurrency),
        "lag": told(limits.lag),
        "from": [asdict(one) for one in view.traffic.inbound_written.values()],
    }


def budgets_status(glances: Iterable[BudgetGlance]) -> list[Json]:
    """Each budget of retries that calls had: what is left of it, and of how much."""
    return [
        {
            "target": callee_of(one.target),
            "kind": one.kind,
            "left": round(one.left, 2),
            "full": round(one.full, 2),
        }
        for one in sorted(glances)
    ]


def endpoints_status(
    named: Mapping[str, Any], external: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Json]:
    """Each known address of each target, with what the balancer knows of it: `score` is what `latency` goes by, and the lowest is best."""
    rows: list[Json] = []
    for target, known in sorted(named.items()):
        loads = {load["address"]: load for load in known["loads"]}
        rows += [
            _endpoint(target, end["address"], end["instance"], end["source"], loads.get(end["address"], {}))
            for end in known["endpoints"]
        ]
    for key, all_loads in sorted(external.items()):
        rows += [_endpoint(callee_of(key), load["address"], "", "dns", load) for load in all_loads]
    return rows


def _endpoint(target: str, address: str, instance: str, source: str, load: Mapping[str, Any]) -> Json:
    rtt_ms, in_flight = load.get("rttMs"), load.get("inFlight", 0)
    return {
        "target": target,
        "address": address,
        "instance": instance,
        "source": source,
        "inFlight": in_flight,
        "rttMs": rtt_ms,
        "score": None if rtt_ms is None else round(rtt_ms * (in_flight + 1), 2),
        "proven": load.get("proven", False),
        "ejectedForS": load.get("ejectedForS", 0.0),
        "ejectedAs": load.get("outlier", ""),
    }


def told(rule: Struct | None) -> Json | None:
    """A rule as JSON has it: its fields in camel case, sets in order, and no field that is for engines or tables alone."""
    if rule is None:
        return None
    return {
        _camel(field.name): _value(getattr(rule, field.name))
        for field in fields_of(type(rule))
        if field.name not in _UNTOLD
    }


_UNTOLD = frozenset({"trip", "owner"})
_NAMES = {"is_shared": "shared", "trip_text": "trip", "per_s": "perS", "for_s": "forS"}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return _NAMES.get(name) or head + "".join(part.capitalize() for part in rest)


def _value(value: object) -> object:
    if isinstance(value, Struct):
        return told(value)
    return sorted(value) if isinstance(value, frozenset) else value
