"""`postern edges`, `postern stat` and `postern top`: who talks to whom, how well, how often and how fast, merged over the sidecars here."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from enum import Enum
from typing import Annotated, TypeVar

import typer
from msgspec import Struct

from nameresolution.host_registry import Entry
from proxy.cli.completion import app_ids
from proxy.cli.errors import FAILED, CliError
from proxy.cli.fleet import SidecarAnswer, ask, entries, nothing_runs, root_of
from proxy.cli.options import Output, OutputFormat, RuntimePath
from proxy.cli.tables import (
    Column,
    Row,
    format_age,
    format_data,
    format_table,
    put,
    put_table,
    tell,
    terminal_width,
)
from telemetry.edges import Route, Sums, identities, merged, routes_of, secured, seen_once
from telemetry.printable import printable

TARGET = "/postern/v1/edges"
_REFRESH_S = 1.0
_DEFAULT = ".default"  # the namespace that goes without saying
_CLEAR = "\x1b[H\x1b[2J"
_TOP = 30  # routes that `top` shows, the busiest
_TIMES = (Column("latency_p50"), Column("latency_p95"), Column("latency_p99"))
_EDGES = (
    *(Column("src"), Column("dst"), Column("secured")),
    *(Column("calls"), Column("success"), Column("p95"), Column("last seen", rank=1)),
    *(Column("src id", rank=3), Column("dst id", rank=2)),
)
_STAT = (Column("name"), Column("success"), Column("rps"), *_TIMES, Column("connections", rank=1))
_ROUTES = (
    *(Column("src"), Column("dst"), Column("method"), Column("path")),
    *(Column("rps"), Column("success"), *_TIMES),
)
Key = TypeVar("Key", bound=Hashable)


class EdgesOutput(Enum):
    """How edges are printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    DOT = "dot"


class Mesh(Struct, frozen=True, kw_only=True):
    """What the sidecars told: their routes, connections of each app, those without mutual TLS, and who did not answer."""

    routes: tuple[Route, ...]
    connections: dict[str, int]
    without_mtls: frozenset[str]
    apps: tuple[str, ...]
    unresponsive: tuple[Entry, ...]


def edges(
    output: Annotated[
        EdgesOutput, typer.Option("--output", "-o", help="table, wide, json, yaml or dot (for Graphviz)")
    ] = EdgesOutput.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Show who talks to whom, whether over mutual TLS, and how that goes.

    Calls are those since the sidecars' start, each once however often it was retried: as the caller's sidecar saw them, or the callee's
    where that one was not asked. SUCCESS is the share that did not fail: a 5xx, or a gRPC code like it, counts as
    failed, and so does a call that a proxy failed.

    Example: postern edges -o dot
    """
    mesh = asyncio.run(_told(_all(runtime_path)))
    rows = edge_rows(mesh, time.time())
    if output is EdgesOutput.DOT:
        put(to_dot(rows))
    elif output in (EdgesOutput.JSON, EdgesOutput.YAML):
        put(format_data(rows, output.value))
    elif rows:
        put_table(_EDGES, [_edge_for_people(row) for row in rows], is_wide=output is EdgesOutput.WIDE)
    else:
        tell("no call yet")
    _end(mesh)


def stat(
    app_id: Annotated[str | None, typer.Argument(help="one app; none: all", autocompletion=app_ids)] = None,
    caller: Annotated[
        str | None, typer.Option("--from", help="calls of this app alone", autocompletion=app_ids)
    ] = None,
    callee: Annotated[
        str | None,
        typer.Option("--to", help="calls that the app makes, to this one alone", autocompletion=app_ids),
    ] = None,
    output: Output = OutputFormat.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Show how calls to each app went in the last minute, as its own sidecar saw them.

    There SUCCESS and RPS count each attempt of a retried call. With --to, calls that the app makes, each once however often it was retried.
    A 5xx, or a gRPC code like it, counts as failed in SUCCESS, and so does a call that a proxy failed.
    Latencies are read from histogram buckets, each twice as long as the one before. CONNECTIONS are those open at its sidecars.

    Example: postern stat --to cart
    """
    mesh = asyncio.run(_told(_all(runtime_path)))
    rows = stat_rows(mesh, app_id=app_id, caller=caller, callee=callee)
    if output.is_data:
        put(format_data(rows, output.value))
    elif rows:
        put_table(_STAT, [_for_people(row) for row in rows], is_wide=output is OutputFormat.WIDE)
    else:
        tell("no matching calls in the last minute")
    _end(mesh)


def top(
    app_id: Annotated[
        str | None, typer.Argument(help="calls of and to this app; none: all", autocompletion=app_ids)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="print once instead of going on")] = False,
    output: Output = OutputFormat.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Show the busiest routes of the last minute, again each second, until Ctrl-C.

    PATH is the pattern that a Configuration's pathMatching has for it, and the method of gRPC; without patterns, HTTP calls to an app
    are one route for each verb.

    Example: postern top
    """
    found = _all(runtime_path)
    is_live = not once and not output.is_data and sys.stdout.isatty()
    try:
        while True:
            mesh = asyncio.run(_told(found))
            rows = route_rows(mesh, app_id)
            if output.is_data:
                put(format_data(rows, output.value))
            else:
                put_routes(rows, mesh, is_live=is_live, is_wide=output is OutputFormat.WIDE)
            if not is_live:
                break
            time.sleep(_REFRESH_S)
            found = _all(runtime_path)
    except KeyboardInterrupt:  # the usual end
        return
    _end(mesh)


def _all(runtime_path: str | None) -> tuple[Entry, ...]:
    root = root_of(runtime_path, os.environ)
    found = entries(root)
    if not found:
        raise CliError(nothing_runs(root))
    return found


async def _told(found: Sequence[Entry]) -> Mesh:
    return mesh_of(await ask(found, TARGET))


def mesh_of(answers: Sequence[SidecarAnswer]) -> Mesh:
    """The answers merged; a sidecar whose answer is missing or malformed counts as unresponsive."""
    routes: list[Route] = []
    connections: dict[str, int] = {}
    without_mtls, unresponsive = set(), []
    for sidecar in answers:
        name = f"{sidecar.entry.app_id}.{sidecar.entry.namespace}"
        told = sidecar.answer or {}
        try:
            routes += routes_of(told)
        except (KeyError, TypeError, ValueError):
            unresponsive.append(sidecar.entry)
            continue
        count = told.get("connections")
        connections[name] = connections.get(name, 0) + (count if isinstance(count, int) else 0)
        if told.get("mtls") is False:
            without_mtls.add(name)
    return Mesh(
        routes=tuple(routes),
        connections=connections,
        without_mtls=frozenset(without_mtls),
        apps=tuple(sorted(connections)),
        unresponsive=tuple(unresponsive),
    )


def _end(mesh: Mesh) -> None:
    """Say who did not answer; 1 where nobody did."""
    for entry in mesh.unresponsive:
        tell(
            f"{entry.app_id} ({entry.pid}): unresponsive: its calls are missing, but for what others saw of them"
        )
    if mesh.unresponsive and not mesh.apps:
        raise typer.Exit(FAILED)


def edge_rows(mesh: Mesh, now: float) -> list[Row]:
    """One row for each caller and callee, by the keys of `-o json`."""
    found: list[Row] = []
    for (src, dst), both in sorted(_by(mesh.routes, lambda route: route.pair).items()):
        total = merged(both, is_recent=False)
        is_off = bool({src, dst} & mesh.without_mtls)
        is_secured, reason = secured(both, is_mtls_off=is_off)
        src_id, dst_id = identities(both)
        last_seen = max(route.last_seen for route in both)
        found.append(
            {
                "src": src,
                "dst": dst,
                "srcId": src_id,
                "dstId": dst_id,
                "secured": is_secured,
                "reason": reason,
                "calls": total.calls,
                "success": _rounded(total.success),
                "p95Ms": _ms(total.p95_s),
                "lastSeen": round(last_seen, 3),
                "lastSeenAgoS": round(max(now - last_seen, 0.0), 1),
            }
        )
    return found


def stat_rows(mesh: Mesh, *, app_id: str | None, caller: str | None, callee: str | None) -> list[Row]:
    """One row for each app: of calls to it, or with a callee of those that it makes."""
    makes = callee is not None
    if makes:
        routes = [route for route in mesh.routes if _is(callee, route.dst)]
    else:
        own = {route.dst for route in mesh.routes if route.direction == "inbound"}
        routes = [r for r in mesh.routes if r.direction == "inbound" or r.dst not in own or r.src == r.dst]
    routes = [route for route in routes if _is(caller, route.src)]
    grouped = _by(routes, lambda route: route.src if makes else route.dst)
    names = sorted(grouped if makes or caller else {*grouped, *mesh.apps})
    return [
        {
            "name": name,
            **_sums(merged(grouped.get(name, []), is_recent=True)),
            "connections": mesh.connections.get(name),
        }
        for name in names
        if _is(app_id, name)
    ]


def route_rows(mesh: Mesh, app_id: str | None) -> list[Row]:
    """One row for each route with calls in the last minute, the busiest first."""
    routes = [r for r in mesh.routes if any(r.recent) and (_is(app_id, r.src) or _is(app_id, r.dst))]
    counted = set(map(_route, seen_once(routes)))
    rows: list[Row] = [
        {"src": src, "dst": dst, "method": method, "path": path, **_sums(merged(some, is_recent=True))}
        for (src, dst, method, path), some in _by(routes, _route).items()
        if (src, dst, method, path) in counted
    ]
    return sorted(rows, key=lambda row: (-float(str(row["rps"])), str(row["src"]), str(row["dst"])))


def _route(route: Route) -> tuple[str, str, str, str]:
    return (*route.pair, route.method, route.path)


def to_dot(rows: Iterable[Row]) -> str:
    """A graph for Graphviz: an arrow for each edge, dashed where it is not secured."""
    lines = ["digraph mesh {", "  rankdir=LR;", "  node [shape=box];"]
    for row in rows:
        shown = _edge_for_people(row)
        style = ", style=dashed" if row["secured"] is False else ""
        noun = "call" if shown["calls"] == 1 else "calls"
        label = f"{shown['calls']} {noun}, {shown['success'] or '-'}, p95 {shown['p95'] or '-'}"
        lines.append(f"  {_quoted(shown['src'])} -> {_quoted(shown['dst'])} [label={_quoted(label)}{style}];")
    return "\n".join([*lines, "}"])


def _quoted(text: object) -> str:
    escaped = printable(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _by(routes: Iterable[Route], key: Callable[[Route], Key]) -> dict[Key, list[Route]]:
    found: dict[Key, list[Route]] = {}
    for route in routes:
        found.setdefault(key(route), []).append(route)
    return found


def _is(wanted: str | None, name: str) -> bool:
    return wanted is None or wanted in (name, name.partition(".")[0])


def _sums(found: Sums) -> dict[str, object]:
    return {
        "calls": found.calls,
        "success": _rounded(found.success),
        "rps": None if found.rps is None else round(found.rps, 2),
        "p50Ms": _ms(found.p50_s),
        "p95Ms": _ms(found.p95_s),
        "p99Ms": _ms(found.p99_s),
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 5)


def _ms(length_s: float | None) -> float | None:
    return None if length_s is None else round(length_s * 1e3, 2)


def _edge_for_people(row: Row) -> Row:
    return {
        "src": _short(row["src"]) or "(unknown)",
        "dst": _short(row["dst"]) or "(unknown)",
        "secured": "yes"
        if row["secured"]
        else f"{'no' if row['secured'] is False else '-'}: {row['reason']}",
        "calls": row["calls"],
        "success": _percent(row["success"]),
        "p95": _length(row["p95Ms"]),
        "last seen": f"{format_age(float(str(row['lastSeenAgoS'])))} ago",
        "src id": row["srcId"],
        "dst id": row["dstId"],
    }


def _for_people(row: Row) -> Row:
    names = {key: _short(row[key]) for key in ("name", "src", "dst") if key in row}
    times = {f"latency_{part}": _length(row[f"{part}Ms"]) for part in ("p50", "p95", "p99")}
    return {**row, **names, **times, "success": _percent(row["success"]), "rps": _rate(row["rps"])}


def put_routes(rows: Sequence[Row], mesh: Mesh, *, is_live: bool, is_wide: bool) -> None:
    """Print the routes; live, in place of what the terminal showed before, and no more than fit on most."""
    shown = [_for_people(row) for row in (rows if is_wide or not is_live else rows[:_TOP])]
    if not is_live:
        if shown:
            put_table(_ROUTES, shown, is_wide=is_wide)
        else:
            tell("no matching calls in the last minute")
        return
    text = (
        format_table(_ROUTES, shown, None if is_wide else terminal_width())[0]
        if shown
        else "no matching calls in the last minute"
    )
    missing = (
        f"; unresponsive: {', '.join(sorted({e.app_id for e in mesh.unresponsive}))}"
        if mesh.unresponsive
        else ""
    )
    sys.stdout.write(
        f"{_CLEAR}the last minute, {len(rows)} {'route' if len(rows) == 1 else 'routes'}{printable(missing)}; Ctrl-C ends it\n\n{text}\n"
    )
    sys.stdout.flush()


def _short(name: object) -> str:
    return str(name).removesuffix(_DEFAULT)


def _percent(share: object) -> str | None:
    if not isinstance(share, float):
        return None
    # Rounded down: what failed once is not shown as 100 %.
    return f"{int(share * 10_000) / 100:.2f}%"


def _rate(rps: object) -> str | None:
    return f"{rps:.1f}" if isinstance(rps, float) else None


def _length(took_ms: object) -> str | None:
    if not isinstance(took_ms, float):
        return None
    return f"{took_ms:.1f}ms" if took_ms < 1_000 else f"{took_ms / 1e3:.1f}s"
