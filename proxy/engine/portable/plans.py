"""Kept decisions, found again by what their deciders read.

A tree per listener: at each node the facet that the decider asked for next, an edge per answer, a `Kept` at the end. As deciders are
pure, heads with equal answers so far are asked the same next question. Bounded: a full cache starts afresh.
"""

from collections.abc import Hashable

from msgspec import Struct, field

from proxy.engine.portable.edits import Compiled, compile_edits
from proxy.plan import Asking, Decide, Decision, Hold, Plan, Read, Reply, RequestHead, Tables

MAX_KEPT = 10_000


class Kept(Struct):
    """A decision with its routes' edits made ready; `dead` once a scope was bumped."""

    decision: Plan | Reply
    edits: tuple[Compiled, ...] = ()
    reply_edits: Compiled | None = None
    dead: bool = False


class _Node(Struct):
    read: Read | None = None
    edges: "dict[Hashable, _Node]" = field(default_factory=dict)
    kept: Kept | None = None


class PlanCache:
    """Mutable state: the trees, how many are kept, and which belong to a scope."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._roots: dict[str, _Node] = {}
        self._scopes: dict[str, list[Kept]] = {}
        self.size = 0
        self._made = 0  # since the trees were last empty; dead ones still take up a place

    def find(self, head: RequestHead) -> Kept | None:
        """The kept decision that covers a head."""
        node = self._roots.get(head.listener)
        while node is not None:
            if node.read is None:
                kept = node.kept
                return kept if kept is not None and not kept.dead else None
            node = node.edges.get(self._tables.facet_value(node.read, head))
        return None

    def decide(self, decide: Decide, head: RequestHead) -> Kept | Hold:
        """Ask the decider, and keep what it says."""
        asking = Asking(head, self._tables)
        decision: Decision = decide(asking)
        if isinstance(decision, Hold):
            return decision
        kept = _ready(decision)
        self._keep(head.listener, asking, kept)
        return kept

    def _keep(self, listener: str, asking: Asking, kept: Kept) -> None:
        if self._made >= MAX_KEPT:
            self.clear()
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
        self._made += 1
        for scope in kept.decision.scopes:
            self._scopes.setdefault(scope, []).append(kept)

    def bump(self, scope: str) -> None:
        """Drop every kept decision of a scope."""
        for kept in self._scopes.pop(scope, ()):
            if not kept.dead:
                kept.dead = True
                self.size -= 1

    def clear(self) -> None:
        """Start afresh."""
        self._roots.clear()
        self._scopes.clear()
        self.size = self._made = 0


def _ready(decision: Plan | Reply) -> Kept:
    if isinstance(decision, Reply):
        return Kept(decision)
    return Kept(
        decision,
        tuple(compile_edits(route.edits) for route in decision.routes),
        compile_edits(decision.reply_edits) if decision.reply_edits else None,
    )
