"""Where the nodes of a call graph stand: in layers from left to right by call direction, with few crossings. Pure and deterministic.

The result depends on names alone, never on rates, so a graph whose numbers change stays where it is. Layered drawing after Sugiyama: cycles
are broken, layers are longest paths, edges over several layers get a bend in each, and each layer is ordered by the barycentres of its
neighbours.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

MAX_NODES = 150  # beyond it nobody can read a graph
_MAX_BENDS = 1_000  # beyond it long edges go straight: ordering would take seconds
_SWEEPS = 8
_BEND = 0.5  # the room that a passing edge takes in a layer; a node takes 1
_LEAST_COLUMNS = 4  # for nodes without an edge

Edge = tuple[str, str]
Point = tuple[float, float]
_Chain = list[str]


class Layout(Struct, frozen=True, kw_only=True):
    """Nodes and the bends of edges, as (layer, row); a row is a node's height. `bends`: source first, without the ends.

    columns, rows: how many of each there are.
    """

    nodes: Mapping[str, Point]
    bends: Mapping[Edge, tuple[Point, ...]]
    columns: int
    rows: float


def arrange(nodes: Iterable[str], edges: Iterable[Edge]) -> Layout:
    """Lay out a graph; the ends of edges are nodes too. Raises: ValueError beyond MAX_NODES."""
    given = set(edges)
    wanted = sorted(edge for edge in given if edge[0] != edge[1])
    names = sorted({*nodes, *(end for edge in given for end in edge)})
    if len(names) > MAX_NODES:
        raise ValueError(f"{len(names)} nodes are more than {MAX_NODES}")
    linked = {end for edge in wanted for end in edge}
    forward = _forward([name for name in names if name in linked], wanted)
    layer = _layers([name for name in names if name in linked], set(forward.values()))
    chains = _chains(set(forward.values()), layer)
    order = _ordered(layer, chains)
    row = _rows(order, _neighbours(chains, layer))
    placed = {name: (float(layer[name]), row[name]) for name in layer}
    found = {name: placed[name] for name in names if name in linked}
    bottom = max((at[1] for at in placed.values()), default=-1.0) + 1
    columns = max((layer[name] + 1 for name in found), default=0)
    loose = [name for name in names if name not in linked]
    across = max(columns, min(_LEAST_COLUMNS, len(loose)))
    for number, name in enumerate(loose):
        found[name] = (float(number % across), bottom + number // across)
    bends = {
        edge: tuple(placed[bend] for bend in chains[way][1:-1][:: 1 if way == edge else -1])
        for edge, way in forward.items()
    }
    rows = max((at[1] for at in (*found.values(), *placed.values())), default=-1.0) + 1
    return Layout(nodes=found, bends=bends, columns=across, rows=round(rows, 3))


def _forward(names: Sequence[str], edges: Sequence[Edge]) -> dict[Edge, Edge]:
    """Each edge as itself, or turned round where it closes a cycle (Eades, Lin and Smyth's greedy order)."""
    out: dict[str, set[str]] = {name: set() for name in names}
    into: dict[str, set[str]] = {name: set() for name in names}
    for src, dst in edges:
        out[src].add(dst)
        into[dst].add(src)
    first: list[str] = []
    last: list[str] = []
    left = list(names)
    while left:
        sink = next((name for name in left if not out[name]), None)
        source = next((name for name in left if not into[name]), None)
        taken = sink or source or max(left, key=lambda name: (len(out[name]) - len(into[name]), name))
        (last if taken == sink else first).append(taken)
        left.remove(taken)
        for name in out.pop(taken):
            into[name].discard(taken)
        for name in into.pop(taken):
            out[name].discard(taken)
    place = {name: number for number, name in enumerate([*first, *reversed(last)])}
    return {(src, dst): (src, dst) if place[src] < place[dst] else (dst, src) for src, dst in edges}


def _layers(names: Sequence[str], edges: set[Edge]) -> dict[str, int]:
    """Longest paths from what nobody calls; what nobody calls then stands right before the first that it calls."""
    into: dict[str, list[str]] = {name: [] for name in names}
    out: dict[str, list[str]] = {name: [] for name in names}
    for src, dst in sorted(edges):
        into[dst].append(src)
        out[src].append(dst)
    layer: dict[str, int] = {}
    ready = [name for name in names if not into[name]]
    waits = {name: len(into[name]) for name in names}
    while ready:
        name = ready.pop(0)
        layer[name] = max((layer[before] + 1 for before in into[name]), default=0)
        for after in out[name]:
            waits[after] -= 1
            if not waits[after]:
                ready.append(after)
    for name in names:
        if not into[name]:
            layer[name] = min(layer[after] for after in out[name]) - 1
    return layer


def _chains(edges: set[Edge], layer: dict[str, int]) -> dict[Edge, _Chain]:
    """Each edge as the nodes that it passes, one a layer; `layer` gets the bends. A NUL keeps their names apart from nodes'."""
    chains: dict[Edge, _Chain] = {}
    are_too_many = sum(layer[dst] - layer[src] - 1 for src, dst in edges) > _MAX_BENDS
    for src, dst in sorted(edges):
        between = range(0 if are_too_many else layer[src] + 1, 0 if are_too_many else layer[dst])
        bends = [f"\0{src}\0{dst}\0{number}" for number in between]
        layer.update(zip(bends, between, strict=True))
        chains[src, dst] = [src, *bends, dst]
    return chains


def _neighbours(
    chains: Mapping[Edge, _Chain], layer: Mapping[str, int]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What stands one layer to the left of each, and to the right."""
    left: dict[str, list[str]] = defaultdict(list)
    right: dict[str, list[str]] = defaultdict(list)
    for chain in chains.values():
        for one, other in pairwise(chain):
            if layer[other] == layer[one] + 1:  # an edge that goes straight over layers has no say
                left[other].append(one)
                right[one].append(other)
    return left, right


def _ordered(layer: Mapping[str, int], chains: Mapping[Edge, _Chain]) -> list[list[str]]:
    """The layers, each ordered so that few edges cross."""
    order: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for name in sorted(layer):
        order[layer[name]].append(name)
    left, right = _neighbours(chains, layer)
    best, fewest = [list(names) for names in order], _crossings(order, right)
    for sweep in range(_SWEEPS):
        near, numbers = (left, range(len(order))) if sweep % 2 == 0 else (right, reversed(range(len(order))))
        for number in numbers:
            place = {name: at for names in order for at, name in enumerate(names)}
            order[number].sort(key=lambda name: (_mean([place[n] for n in near[name]], place[name]), name))
        crossed = _crossings(order, right)
        if crossed < fewest:
            best, fewest = [list(names) for names in order], crossed
    return best


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _crossings(order: Sequence[Sequence[str]], right: Mapping[str, Sequence[str]]) -> int:
    """How many pairs of edges cross between neighbouring layers: inversions of their right ends, in order of the left ones."""
    count = 0
    for names, beyond in pairwise(order):
        place = {name: at for at, name in enumerate(beyond)}
        ends = [end for name in names for end in sorted(place[other] for other in right.get(name, ()))]
        seen = [0] * len(beyond)
        for end in ends:
            count += sum(seen[end + 1 :])
            seen[end] += 1
    return count


def _rows(
    order: Sequence[Sequence[str]],
    neighbours: tuple[Mapping[str, Sequence[str]], Mapping[str, Sequence[str]]],
) -> dict[str, float]:
    """Rows that keep each layer's order and its gaps, as near to those of their neighbours as that allows; the highest is 0."""
    row = {}
    for names in order:
        at = 0.0
        for one, other in zip(["", *names], names, strict=False):
            at += _gap(one, other) if one else 0.0
            row[other] = at
    left, right = neighbours
    for sweep in range(2 * _SWEEPS):
        near, listed = (left, order) if sweep % 2 == 0 else (right, list(reversed(order)))
        for names in listed:
            wished = [_mean([row[n] for n in near.get(name, ())], row[name]) for name in names]
            row.update(zip(names, _spread(names, wished), strict=True))
    top = min(row.values(), default=0.0)
    return {name: round(at - top, 3) for name, at in row.items()}


def _spread(names: Sequence[str], wished: Sequence[float]) -> list[float]:
    """The rows nearest to the wished ones that keep the order and the gaps: isotonic regression, by pooling what is too near."""
    gaps = [0.0]
    for one, other in pairwise(names):
        gaps.append(gaps[-1] + _gap(one, other))
    pools: list[tuple[float, int]] = []  # sums of wishes without the gaps, and how many
    for wish, gap in zip(wished, gaps, strict=True):
        total, count = wish - gap, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            before = pools.pop()
            total, count = total + before[0], count + before[1]
        pools.append((total, count))
    flat = [total / count for total, count in pools for _ in range(count)]
    return [at + gap for at, gap in zip(flat, gaps, strict=True)]


def _gap(one: str, other: str) -> float:
    return _BEND if one.startswith("\0") or other.startswith("\0") else 1.0
