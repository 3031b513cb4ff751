"""All that `postern status` tells of a sidecar: its answer for scripts, and tables of its parts for people."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct

from nameresolution.host_registry import Entry
from proxy.cli.fleet import SidecarAnswer, ask
from proxy.cli.tables import Column, Row, put, put_table

DUMP = "/postern/v1/dump"
_ASK_S = 2.0  # it looks at every endpoint
Told = Mapping[str, object]


class Section(Struct, frozen=True):
    """A table below the others: its title is its first column's. rows: of one sidecar's answer."""

    columns: tuple[Column, ...]
    rows: Callable[[Told], Iterator[Row]]


async def dumped(found: Sequence[Entry]) -> tuple[SidecarAnswer, ...]:
    """What each sidecar says of itself, as far as its version tells it."""
    async with asyncio.TaskGroup() as tasks:
        whole = tasks.create_task(ask(found, DUMP, timeout_s=_ASK_S))
        short = tasks.create_task(ask(found, "/status"))
    return tuple(
        dump if dump.answer is not None else status
        for dump, status in zip(whole.result(), short.result(), strict=True)
    )


def put_sections(sidecars: Sequence[SidecarAnswer]) -> None:
    """Print a table for each part that any of them has."""
    for section in _SECTIONS:
        rows = [
            {"from": sidecar.entry.app_id, **row}
            for sidecar in sidecars
            for row in section.rows(sidecar.answer or {})
        ]
        if rows:
            put("")
            several = (Column("from"),) if len(sidecars) > 1 else ()
            put_table((*section.columns, *several), rows, is_wide=True)


def _list(told: object, key: str) -> list[Told]:
    rows = told.get(key) if isinstance(told, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _part(told: object, key: str) -> Told:
    part = told.get(key) if isinstance(told, dict) else None
    return part if isinstance(part, dict) else {}


def _certificates(told: Told) -> Iterator[Row]:
    identity = _part(told, "identity")
    if identity.get("serial"):
        yield {
            "certificate": identity["serial"],
            **{key: identity.get(key) for key in ("spiffeId", "issuer", "notAfter", "issuerNotAfter")},
        }


def _targets(told: Told) -> Iterator[Row]:
    for target in _list(told.get("policies"), "targets"):
        yield {
            "target": target.get("target"),
            "timeout": _seconds(target.get("timeoutS")),
            "whole call": _seconds(target.get("overallTimeoutS")),
            "retry": _retry(_part(target, "retry") or _part(target, "builtInRetry")),
            "breaker": _part(target, "circuitBreaker").get("name"),
            "balancing": _part(target, "balancing").get("policy"),
            "outliers": _outliers(_part(target, "outlierDetection")),
            "budget": _budget(_part(target, "retryBudget")),
            "limits": _limits(target),
            "written at": _written(target),
        }


def _inbound(told: Told) -> Iterator[Row]:
    inbound = _part(told.get("policies"), "inbound")
    at = _written(inbound)
    for rate in _list(inbound, "rates"):
        text = f"{rate.get('requests')} in {_seconds(rate.get('perS'))}, {rate.get('burst')} at once"
        each = "of all together" if rate.get("shared") else "of each caller"
        yield {"limit of calls to the app": f"rate {rate.get('name')}", "value": f"{text}, {each}", "at": at}
    for key, value in (
        ("connectionsPerCaller", inbound.get("connectionsPerCaller")),
        ("concurrency", _concurrency(_part(inbound, "concurrency"))),
        ("lag", _lag(_part(inbound, "lag"))),
    ):
        if value:
            yield {"limit of calls to the app": key, "value": value, "at": at}


def _lag(lag: Told) -> str:
    return f"late by {_seconds(lag.get('aboveS'))} for {_seconds(lag.get('forS'))}" if lag else ""


def _breakers(told: Told) -> Iterator[Row]:
    for one in _list(told, "circuitBreakers"):
        counts = _part(one, "counters")
        left = one.get("probesInS")
        yield {
            "circuit breaker": one.get("policy"),
            **{key: one.get(key) for key in ("target", "method", "state")},
            "requests": counts.get("requests"),
            "failures": counts.get("totalFailures"),
            "probes in": _seconds(left) if left else "",
        }


def _endpoints(told: Told) -> Iterator[Row]:
    for one in _list(told, "endpoints"):
        out = one.get("ejectedForS")
        yield {
            "endpoint": one.get("address"),
            **{key: one.get(key) for key in ("target", "source", "inFlight", "score")},
            "rtt": f"{one.get('rttMs')} ms" if one.get("rttMs") is not None else "",
            "ejected for": _seconds(out) if out else "",
            "as": one.get("ejectedAs"),
        }


def _budgets(told: Told) -> Iterator[Row]:
    for one in _list(told, "retryBudgets"):
        yield {
            "retry budget": one.get("target"),
            **{key: str(one.get(key)) for key in ("kind", "left", "full")},
        }


def _gates(told: Told) -> Iterator[Row]:
    for one in _list(told, "limits"):
        refused = _part(one, "refused")
        yield {
            "limit": one.get("name"),
            "inside": str(one.get("inside")),
            "waiting": str(one.get("waiting")),
            "now": one.get("limit"),
            "refused": ", ".join(f"{reason} {count}" for reason, count in refused.items() if count),
        }


def _exporters(told: Told) -> Iterator[Row]:
    for one in _list(told, "exporters"):
        yield {
            "exporter": one.get("name"),
            "collector": one.get("collector"),
            "queued": str(one.get("queued")),
            "exported": str(one.get("exported")),
            "dropped": ", ".join(f"{why} {count}" for why, count in _part(one, "dropped").items() if count),
        }


_SECTIONS = (
    Section(
        (
            Column("certificate"),
            Column("spiffe id", "spiffeId"),
            Column("issuer"),
            Column("ends", "notAfter"),
            Column("issuer ends", "issuerNotAfter"),
        ),
        _certificates,
    ),
    Section(
        tuple(
            map(
                Column,
                (
                    "target",
                    "timeout",
                    "whole call",
                    "retry",
                    "breaker",
                    "balancing",
                    "outliers",
                    "budget",
                    "limits",
                    "written at",
                ),
            )
        ),
        _targets,
    ),
    Section((Column("limit of calls to the app"), Column("value"), Column("written at", "at")), _inbound),
    Section(
        tuple(
            map(
                Column,
                ("circuit breaker", "target", "method", "state", "requests", "failures", "probes in"),
            )
        ),
        _breakers,
    ),
    Section(
        (
            Column("endpoint"),
            Column("target"),
            Column("source"),
            Column("in flight", "inFlight"),
            Column("rtt"),
            Column("score"),
            Column("ejected for"),
            Column("as"),
        ),
        _endpoints,
    ),
    Section(tuple(map(Column, ("retry budget", "kind", "left", "full"))), _budgets),
    Section(tuple(map(Column, ("limit", "inside", "waiting", "now", "refused"))), _gates),
    Section(tuple(map(Column, ("exporter", "collector", "queued", "exported", "dropped"))), _exporters),
)


def _seconds(length: object) -> str:
    return f"{length:g} s" if isinstance(length, int | float) and not isinstance(length, bool) else ""


def _retry(rule: Told) -> str:
    if not rule:
        return ""
    most = rule.get("maxRetries")
    times = "without limit" if most == -1 else f"{most} times"
    return f"{rule.get('name')}: {times}, {rule.get('kind')} {_seconds(rule.get('durationS'))}"


def _outliers(rule: Told) -> str:
    return f"after {rule.get('consecutive')} failures, {_seconds(rule.get('ejectionS'))}" if rule else "off"


def _budget(rule: Told) -> str:
    if not rule:
        return "off"
    if "ratio" in rule:
        return f"{rule['ratio']} of calls, {rule.get('minPerS')} a second"
    return f"{rule.get('maxTokens')} tokens, {rule.get('tokenRatio')} a success"


def _concurrency(rule: Told) -> str:
    if not rule:
        return ""
    return f"{rule.get('limit') or 'adaptive'} at once, {rule.get('queue')} wait"


def _limits(target: Told) -> str:
    throttle = _part(target, "throttle")
    held = f"throttled at 1 in {throttle.get('ratio')}" if throttle else ""
    return ", ".join(filter(None, (_concurrency(_part(target, "concurrency")), held)))


def _written(target: Told) -> str:
    """Each place once: `policies.retries often at r.yaml:7 (mesh)`."""
    places = [
        f"{one.get('policy')} {one.get('name')}".strip() + f" at {one.get('at')} ({one.get('resource')})"
        for one in _list(target, "from")
    ]
    return "; ".join(dict.fromkeys(places)) or "built in"
