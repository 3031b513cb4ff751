"""Kept decisions, found again by what their deciders read.

A tree per listener: at each node the facet that the decider asked for next, an edge per answer, a `Kept` at the end. As deciders are
pure, heads with equal answers so far are asked the same next question. Bounded in bytes: when Plans run
out of room everything is dropped, when ready-made answers do only those are, so that callers who are refused can't push out the decisions
of others.
"""

import random
from collections.abc import Hashable, Sequence

from msgspec import Struct, field

from proxy.contract.engine import MAX_PLAN_BYTES, MAX_REPLY_BYTES
from proxy.contract.head import RequestHead
from proxy.contract.plan import Decide, Decision, Hold, Plan, Reply, Route
from proxy.contract.recording import Read, RecordingHead, Tables
from proxy.wire import answers
from proxy.wire.edits import Compiled, compile_edits

_PLAN_BYTES = 16 << 10
_REPLY_BYTES = 3 << 10
_EDGE_BYTES = 64


class Kept(Struct):
    """A decision with its routes' edits made ready; `dead` once a scope was invalidated."""

    decision: Plan | Reply
    edits: tuple[Compiled, ...] = ()
    reply_edits: Compiled | None = None
    dead: bool = False


class _Node(Struct):
    read: Read | None = None
    edges: "dict[Hashable, _Node]" = field(default_factory=dict)
    kept: Kept | None = None


class PlanCache:
    """Mutable state: the trees, how many are kept, the bytes they take, and which belong to a scope.

    keep: False, and every head is decided afresh, for whoever follows a decider.
    """

    def __init__(self, tables: Tables, *, keep: bool = True) -> None:
        self._tables = tables
        self._is_keeping = keep
        self._roots: dict[str, _Node] = {}
        self._scopes: dict[str, list[Kept]] = {}
        self.size = 0
        self._plan_bytes = self._reply_bytes = 0  # made since they were last dropped: dead ones take up room

    def find(self, head: RequestHead) -> Kept | None:
        """The kept decision that covers a head."""
        return answers.recalled(lambda: self._find(head))

    def _find(self, head: RequestHead) -> Kept | None:
        node = self._roots.get(head.listener)
        while node is not None:
            if node.read is None:
                kept = node.kept
                return kept if kept is not None and not kept.dead else None
            node = node.edges.get(self._tables.facet_value(node.read, head))
        return None

    def decide(self, decide: Decide, head: RequestHead) -> Kept | Hold:
        """Ask the decider, and keep what it says."""
        asking = RecordingHead(head, self._tables)
        decision: Decision = answers.decided(decide, asking)
        if isinstance(decision, Hold):
            return decision
        kept = _ready(decision)
        if self._is_keeping and asking.may_keep:
            self._keep(head.listener, asking, kept)
        return kept

    def _keep(self, listener: str, asking: RecordingHead, kept: Kept) -> None:
        if self._plan_bytes > MAX_PLAN_BYTES:
            self.clear()
        elif self._reply_bytes > MAX_REPLY_BYTES:
            self._drop_replies()
        node = self._roots.setdefault(listener, _Node())
        for read, answer in zip(asking.vary, asking.key, strict=True):
            if node.read is None:
                node.read, node.kept = read, None
            elif node.read != read:
                # Only a decider that changed its mind (a new snapshot) asks something else here: the old branch is stale.
                node.read, node.edges = read, {}
            node = node.edges.setdefault(answer, _Node())
        node.read, node.edges, node.kept = None, {}, kept
        self.size += 1
        key_bytes = sum(_EDGE_BYTES + (len(a) if isinstance(a, str) else 0) for a in asking.key)
        if isinstance(kept.decision, Reply):
            texts = len(kept.decision.body) + len(kept.decision.grpc_message)
            self._reply_bytes += key_bytes + _REPLY_BYTES + 2 * texts
        else:
            self._plan_bytes += key_bytes + _PLAN_BYTES
        for scope in kept.decision.scopes:
            self._scopes.setdefault(scope, []).append(kept)

    def invalidate(self, scope: str) -> None:
        """Drop every kept decision of a scope."""
        for kept in self._scopes.pop(scope, ()):
            if not kept.dead:
                kept.dead = True
                self.size -= 1

    def clear(self) -> None:
        """Start afresh."""
        self._roots.clear()
        self._scopes.clear()
        self.size = self._plan_bytes = self._reply_bytes = 0

    def _drop_replies(self) -> None:
        for root in self._roots.values():
            _prune(root)
        self._scopes = {
            scope: [one for one in kept if isinstance(one.decision, Plan)]
            for scope, kept in self._scopes.items()
        }
        self.size = sum(map(_count, self._roots.values()))
        self._reply_bytes = 0


def _prune(node: _Node) -> bool:
    """Let go of ready-made answers and of what is dead; True where nothing is left."""
    node.edges = {answer: after for answer, after in node.edges.items() if not _prune(after)}
    kept = node.kept
    if kept is not None and (kept.dead or isinstance(kept.decision, Reply)):
        node.kept = None
    return not node.edges and node.kept is None


def _count(node: _Node) -> int:
    return (node.kept is not None) + sum(map(_count, node.edges.values()))


def _ready(decision: Plan | Reply) -> Kept:
    if isinstance(decision, Reply):
        return Kept(decision)
    return Kept(
        decision,
        tuple(compile_edits(route.edits) for route in decision.routes),
        compile_edits(decision.reply_edits) if decision.reply_edits else None,
    )


def draw_route(routes: Sequence[Route], rng: random.Random) -> int:
    """The place of one of them, by their weights."""
    weights = [route.weight for route in routes]
    if not any(weights[1:]):
        return 0
    return rng.choices(range(len(weights)), weights)[0]
