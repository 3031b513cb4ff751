"""The mesh at one moment, from what sidecars answered: what the page is told each second. Pure but for what was known before.

Numbers come from this moment's answers alone. Of a sidecar that did not answer nothing is told but that, and since when; an edge that only
silent sidecars know stays as one whose state is unknown, so that it is neither lost nor shown as live.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nameresolution.host_registry import Entry
from proxy.cli.fleet import ASK_S, SidecarAnswer
from proxy.cli.listing import notes
from proxy.cli.rates import Mesh, mesh_of
from telemetry.dashboard.graph import edge_views, node_views
from telemetry.dashboard.layout import MAX_NODES, Edge, arrange

Json = dict[str, Any]
_UNKNOWN = {"state": "unknown", "secured": None, "reason": "", "srcId": "", "dstId": "", "total": None}
_NUMBERS = dict.fromkeys(("calls", "rps", "success", "p50Ms", "p95Ms", "p99Ms", "lastSeenAgoS"))


def name_of(entry: Entry) -> str:
    """`app.namespace`, as routes have it."""
    return f"{entry.app_id}.{entry.namespace}"


class Painter:
    """Makes pictures. Mutable state: when each sidecar was last heard (epoch seconds), who told of each edge, and the last layout."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}
        self._tellers: dict[Edge, frozenset[str]] = {}
        self._laid_out: tuple[object, Json | None] = (None, None)

    def paint(
        self, told: Sequence[SidecarAnswer], statuses: Mapping[str, Mapping[str, object]], now: float
    ) -> tuple[Json, Mesh]:
        """told: what each sidecar says of its edges; statuses: of those that answered, by instance; now: epoch seconds."""
        mesh = mesh_of(told)
        silent = {sidecar.entry.instance for sidecar in told if sidecar.answer is None}
        self._heard |= {s.entry.instance: now for s in told if s.answer is not None}
        here = {sidecar.entry.instance for sidecar in told}
        self._heard = {instance: at for instance, at in self._heard.items() if instance in here}
        edges = self._edges(told, mesh, silent, now)
        apps = {name_of(sidecar.entry) for sidecar in told}
        nodes = node_views(mesh.routes, apps, (end for edge in edges for end in (edge["src"], edge["dst"])))
        sidecars = [self._sidecar(sidecar, statuses.get(sidecar.entry.instance), now) for sidecar in told]
        picture = {
            "at": round(now, 3),
            "sidecars": sorted(sidecars, key=lambda row: (row["name"], row["startedAt"])),
            "nodes": nodes,
            "edges": edges,
            "layout": self._layout([node["id"] for node in nodes], [(e["src"], e["dst"]) for e in edges]),
        }
        return picture, mesh

    def _edges(self, told: Sequence[SidecarAnswer], mesh: Mesh, silent: set[str], now: float) -> list[Json]:
        tellers: dict[Edge, set[str]] = {}
        for sidecar in told:
            for route in mesh_of([sidecar]).routes if sidecar.answer is not None else ():
                tellers.setdefault(route.pair, set()).add(sidecar.entry.instance)
        edges = edge_views(mesh.routes, without_mtls=mesh.without_mtls, now=now)
        unknown = {
            edge: who & silent for edge, who in self._tellers.items() if edge not in tellers and who & silent
        }
        self._tellers = {edge: frozenset(who) for edge, who in tellers.items()} | {
            edge: frozenset(who) for edge, who in unknown.items()
        }
        edges += [{"src": src, "dst": dst, **_NUMBERS, **_UNKNOWN} for src, dst in unknown]
        return sorted(edges, key=lambda edge: (edge["src"], edge["dst"]))

    def _sidecar(self, sidecar: SidecarAnswer, status: Mapping[str, object] | None, now: float) -> Json:
        entry = sidecar.entry
        row: Json = {
            "instance": entry.instance,
            "name": name_of(entry),
            "app": entry.app_id,
            "namespace": entry.namespace,
            "pid": entry.pid,
            "profile": entry.profile,
            "startedAt": entry.started_at,
            "heardAt": self._heard.get(entry.instance),
        }
        if sidecar.answer is None:
            return {**row, "state": "silent", "withinMs": round(ASK_S * 1e3)}
        known = SidecarAnswer(entry=entry, answer=status) if status is not None else None
        return {**row, **_state(status), "notes": notes([known]) if known is not None else []}

    def _layout(self, nodes: list[str], edges: list[Edge]) -> Json | None:
        """The layout; None where there are too many nodes to draw."""
        if len(nodes) > MAX_NODES:
            return None
        if self._laid_out[0] != (nodes, edges):
            laid = arrange(nodes, edges)
            told: Json = {
                "nodes": {name: list(at) for name, at in laid.nodes.items()},
                "bends": [
                    [*edge, [list(bend) for bend in bends]]
                    for edge, bends in sorted(laid.bends.items())
                    if bends
                ],
                "columns": laid.columns,
                "rows": laid.rows,
            }
            self._laid_out = ((nodes, edges), told)
        return self._laid_out[1]


def _state(status: Mapping[str, object] | None) -> Json:
    """What the list of sidecars shows of one; `unknown` until it has told its status."""
    if status is None:
        return {"state": "unknown"}
    identity, app, policy = (_part(status, key) for key in ("identity", "app", "policy"))
    stats = _part(status, "engineStats")
    serving = status.get("shutdown") or "serving"
    state = serving if serving != "serving" else "ready" if status.get("ready") else "not ready"
    return {
        "state": state,
        "identity": {
            key: identity.get(key) for key in ("mtls", "state", "spiffeId", "notAfter", "secondsLeft")
        },
        "appState": {key: app.get(key) for key in ("port", "protocol", "state", "healthy")},
        "policy": {"generation": policy.get("generation"), "isFaulty": bool(policy.get("lastError"))},
        "connections": stats.get("connections"),
        "inFlight": stats.get("callsInFlight"),
        "engine": status.get("engine"),
        "version": status.get("version"),
    }


def _part(answer: Mapping[str, object], key: str) -> Mapping[str, object]:
    part = answer.get(key)
    return part if isinstance(part, dict) else {}
