"""The mesh as the page draws it: edges and nodes with the last minute's numbers, from the routes that sidecars told. Pure."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

from telemetry.edges import Route, Sums, identities, merged, secured, seen_once

Json = dict[str, Any]
State = Literal["idle", "ok", "warn", "bad"]

WARN_BELOW = 0.99
BAD_BELOW = 0.95
MAX_ROUTES = 50  # of one edge that are told, the busiest


def state_of(recent: Sums) -> State:
    """How calls went in the last minute."""
    if not recent.calls or recent.success is None:
        return "idle"
    if recent.success < BAD_BELOW:
        return "bad"
    return "warn" if recent.success < WARN_BELOW else "ok"


def edge_views(routes: Iterable[Route], *, without_mtls: Collection[str], now: float) -> list[Json]:
    """One for each caller and callee, by name; now: epoch seconds."""
    found = []
    for (src, dst), both in sorted(_by(routes, lambda route: route.pair).items()):
        recent = merged(both, is_recent=True)
        is_secured, reason = secured(both, is_mtls_off=src in without_mtls or dst in without_mtls)
        src_id, dst_id = identities(both)
        found.append(
            {
                "src": src,
                "dst": dst,
                "state": state_of(recent),
                **numbers(recent),
                "total": merged(both, is_recent=False).calls,
                "secured": is_secured,
                "reason": reason,
                "srcId": src_id,
                "dstId": dst_id,
                "lastSeenAgoS": round(max(now - max(route.last_seen for route in both), 0.0), 1),
            }
        )
    return found


def node_views(routes: Iterable[Route], here: Collection[str], others: Iterable[str] = ()) -> list[Json]:
    """One for each app that has a sidecar `here`, is in a route or among the `others`, with the calls to it; by name."""
    listed = list(routes)
    own = {route.dst for route in listed if route.direction == "inbound"}
    towards = _by(
        (r for r in listed if r.direction == "inbound" or r.dst not in own or r.src == r.dst),
        lambda route: route.dst,
    )
    names = sorted({*here, *others, *(end for route in listed for end in route.pair)})
    found = []
    for name in names:
        recent = merged(towards.get(name, []), is_recent=True)
        found.append({"id": name, "isHere": name in here, "state": state_of(recent), **numbers(recent)})
    return found


def route_views(routes: Iterable[Route], src: str, dst: str) -> list[Json]:
    """The routes of one edge, the busiest first: as the caller's end names them, where it was asked."""
    grouped = _by(
        seen_once(route for route in routes if route.pair == (src, dst)),
        lambda route: (route.protocol, route.method, route.path),
    )
    found = []
    for (protocol, method, path), some in grouped.items():
        recent = merged(some, is_recent=True)
        facts = {"protocol": protocol, "method": method, "path": path, "state": state_of(recent)}
        total = merged(some, is_recent=False)
        found.append({**facts, **numbers(recent), "total": total.calls, "codes": _codes(some)})
    return sorted(found, key=lambda row: (-(row["rps"] or 0.0), -row["total"], row["path"]))[:MAX_ROUTES]


def numbers(sums: Sums) -> Json:
    """Sums by the keys that the page reads; None where there was no call."""
    return {
        "calls": sums.calls,
        "rps": None if sums.rps is None else round(sums.rps, 3),
        "success": None if sums.success is None else round(sums.success, 5),
        "p50Ms": _ms(sums.p50_s),
        "p95Ms": _ms(sums.p95_s),
        "p99Ms": _ms(sums.p99_s),
    }


def _codes(routes: Iterable[Route]) -> dict[str, int]:
    """Calls by class of their answer."""
    found: dict[str, int] = {}
    for route in routes:
        found[route.code_class] = found.get(route.code_class, 0) + sum(route.calls)
    return found


def _ms(length_s: float | None) -> float | None:
    return None if length_s is None else round(length_s * 1e3, 2)


def _by(routes: Iterable[Route], key: Callable[[Route], Any]) -> Mapping[Any, list[Route]]:
    found: dict[Any, list[Route]] = defaultdict(list)
    for route in routes:
        found[key(route)].append(route)
    return found
