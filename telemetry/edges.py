"""Edges and routes from what sidecars report of the last minute (`recent`): merged, with success, rates and percentiles. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from telemetry.names import CALLER_LEFT_CAUSE, PEER_PROXY
from telemetry.recent import ROUTE_LABELS

Json = Mapping[str, Any]
_GOOD = frozenset({"1xx", "2xx", "3xx", "4xx", CALLER_LEFT_CAUSE})
# Classes of failures made by the caller's proxy by which nothing was sent to the callee, so that nothing was proven either.
_NEVER_SENT = frozenset({"connect", "no-app", "acl", "breaker", "shed", "not-ready", "bad-request"})
_TAKEN = frozenset(ROUTE_LABELS) | {"last_seen", "longest_s", "recent_longest_s"}


class Route(Struct, frozen=True, kw_only=True):
    """One route as one sidecar saw it. calls, recent: in each bucket of `bounds_s`, since its start and in the last `window_s` seconds.

    own_id: the SPIFFE ID of that sidecar, empty without mutual TLS. longest_s, recent_longest_s: what no call of these took longer than;
    None where the sidecar does not say. made_by: which proxy answered in the app's place, `this-proxy` or `peer-proxy`.
    """

    direction: str
    src: str
    dst: str
    protocol: str
    method: str
    path: str
    code_class: str
    peer: str
    last_seen: float
    calls: tuple[int, ...]
    recent: tuple[int, ...]
    bounds_s: tuple[float, ...]
    window_s: float
    own_id: str = ""
    made_by: str = ""
    longest_s: float | None = None
    recent_longest_s: float | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """Caller and callee."""
        return self.src, self.dst

    @property
    def is_good(self) -> bool:
        """Whether its calls count as successes: not those that ended in 5xx, or codes of gRPC like it, nor those a proxy failed."""
        return self.code_class in _GOOD

    @property
    def was_sent(self) -> bool:
        """Whether its calls reached the callee's proxy."""
        is_heard = self.direction == "inbound" or self.made_by == PEER_PROXY
        return is_heard or self.code_class not in _NEVER_SENT


class Sums(Struct, frozen=True, kw_only=True):
    """Calls of some routes: count, successes, rate, and the 50th, 95th and 99th percentile of their time in seconds."""

    calls: int
    success: float | None
    rps: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


def routes_of(report: Json) -> tuple[Route, ...]:
    """The routes in one sidecar's answer. Raises: KeyError, TypeError, ValueError where it is malformed."""
    shared: dict[str, Any] = {
        "bounds_s": tuple(map(float, report["bounds_s"])),
        "window_s": float(report["window_s"]),
        "own_id": str(report.get("spiffe_id") or ""),
    }
    return tuple(
        Route(
            **{key: value for key, value in route.items() if key in _TAKEN},
            calls=tuple(map(int, route["calls"])),
            recent=tuple(map(int, route["recent"])),
            **shared,
        )
        for route in report["routes"]
    )


def seen_once(routes: Iterable[Route]) -> list[Route]:
    """Without what callees' sidecars say of callers whose own sidecars were asked, too: each call once."""
    listed = list(routes)
    told_by_callers = {route.pair for route in listed if route.direction == "outbound"}
    return [route for route in listed if route.direction == "outbound" or route.pair not in told_by_callers]


def sums(routes: Sequence[Route], *, is_recent: bool) -> Sums:
    """The sums of routes, of the last minute or since their sidecars started."""

    def column(some: Iterable[Route]) -> list[int]:
        found = [route.recent if is_recent else route.calls for route in some]
        size = max(map(len, found), default=0)
        return [sum(counts[bucket] for counts in found if counts) for bucket in range(size)]

    counts = column(routes)
    calls = sum(counts)
    good = sum(column(route for route in routes if route.is_good))
    window_s = max((route.window_s for route in routes), default=0.0)
    bounds = routes[0].bounds_s if routes else ()
    longest_s = _longest(routes, is_recent=is_recent)
    return Sums(
        calls=calls,
        success=good / calls if calls else None,
        rps=calls / window_s if is_recent and window_s else None,
        p50_s=percentile(counts, bounds, 0.5, longest_s),
        p95_s=percentile(counts, bounds, 0.95, longest_s),
        p99_s=percentile(counts, bounds, 0.99, longest_s),
    )


def _longest(routes: Iterable[Route], *, is_recent: bool) -> float | None:
    """What no call took longer than; None where a sidecar whose calls count does not say."""
    longest = 0.0
    for route in routes:
        if any(route.recent if is_recent else route.calls):
            found = route.recent_longest_s if is_recent else route.longest_s
            if found is None:
                return None
            longest = max(longest, found)
    return longest


def merged(routes: Sequence[Route], *, is_recent: bool) -> Sums:
    """The same of calls that both ends may have seen: as the caller's end saw them where there is one, retries within a call and all.

    What the callee's proxy denies counts as failed there, too, where mutual TLS proved that proxy; else it is an answer like any other.
    """
    return sums(seen_once(routes), is_recent=is_recent)


def percentile(
    counts: Sequence[int], bounds: Sequence[float], share: float, longest_s: float | None = None
) -> float | None:
    """The seconds within which a share of calls ended, even within a bucket; the highest bound for what lies above it.

    longest_s: no call took longer, so that none of one or few is said to.
    Source: Prometheus, histogram_quantile.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    below, found = 0, bounds[-1]
    for bucket, count in enumerate(counts[: len(bounds)]):
        if below + count >= rank:
            low = bounds[bucket - 1] if bucket else 0.0
            found = low + (bounds[bucket] - low) * (rank - below) / count
            break
        below += count
    return found if longest_s is None else min(found, longest_s)


def secured(routes: Sequence[Route], *, is_mtls_off: bool) -> tuple[bool | None, str]:
    """Whether the calls of an edge went over mutual TLS; if not, why not. None: there was nothing to secure."""
    sent = [route for route in routes if route.was_sent]
    plain = [route for route in sent if not route.peer]
    if sent and not plain:
        return True, ""
    if not sent:
        return None, "nothing was sent"
    if sent[0].src == sent[0].dst:
        return None, "an app's call to itself, which stays on its host"
    if is_mtls_off:
        return False, "mutual TLS is off"
    if any(route.direction == "inbound" for route in plain):
        return False, "the caller showed no certificate"
    return False, "the callee is outside of the mesh"


def identities(routes: Iterable[Route]) -> tuple[str, str]:
    """The SPIFFE IDs of an edge's caller and callee, where proven or expected."""
    src = dst = ""
    for route in routes:
        if route.direction == "outbound":
            src, dst = src or route.own_id, dst or route.peer
        else:
            src, dst = src or route.peer, dst or route.own_id
    return src, dst
