"""Retry budgets: what calls deposit and retries take, by target.

Kept in step with `crates/core/src/call/budgets.rs` by `tests/vectors/budgets.json`.
"""

from collections import OrderedDict
from typing import Final

from proxy.contract.budgets import MAX_BUDGETS, BudgetGlance, BudgetUse, RetryShare, RetryThrottle

_SLOTS = 10  # of a share's time: what a call deposits is gone a tenth of it too early at most


class Share:
    """Mutable state: what was deposited and taken in each part of the time, and which of them is the newest."""

    __slots__ = ("_newest", "_ratio", "_slot_s", "_slots", "full")
    kind: Final = "share"

    def __init__(self, rule: RetryShare) -> None:
        self._ratio = rule.ratio
        self.full = rule.min_per_s * rule.ttl_s
        self._slot_s = rule.ttl_s / _SLOTS
        self._slots = [0.0] * _SLOTS
        self._newest = 0

    def _turn(self, now: float) -> int:
        newest = int(now / self._slot_s)
        for slot in range(max(self._newest + 1, newest - _SLOTS + 1), newest + 1):
            self._slots[slot % _SLOTS] = 0.0
        self._newest = max(self._newest, newest)
        return self._newest % _SLOTS

    def begun(self, now: float) -> None:
        """A call begins."""
        self._slots[self._turn(now)] += self._ratio

    def failed(self, now: float) -> None:
        """An attempt failed."""

    def succeeded(self, now: float) -> None:
        """A call went well."""

    def take(self, now: float) -> bool:
        """Whether a retry may be made; it is counted."""
        slot = self._turn(now)
        if self.full + sum(self._slots) < 1.0:
            return False
        self._slots[slot] -= 1.0
        return True

    def left(self, now: float) -> float:
        """How many retries it would let through now."""
        self._turn(now)
        return max(0.0, self.full + sum(self._slots))


class Throttle:
    """Mutable state: the tokens that are left."""

    __slots__ = ("_ratio", "_tokens", "full")
    kind: Final = "throttle"

    def __init__(self, rule: RetryThrottle) -> None:
        self.full = self._tokens = rule.max_tokens
        self._ratio = rule.token_ratio

    def begun(self, now: float) -> None:
        """A call begins."""

    def failed(self, now: float) -> None:
        """An attempt failed."""
        self._tokens = max(0.0, self._tokens - 1.0)

    def succeeded(self, now: float) -> None:
        """A call went well."""
        self._tokens = min(self.full, self._tokens + self._ratio)

    def take(self, now: float) -> bool:
        """Whether a retry may be made."""
        return self._tokens > self.full / 2

    def left(self, _: float) -> float:
        """The tokens that are left."""
        return self._tokens


Budget = Share | Throttle


class Budgets:
    """Mutable state: the budgets of the targets called, those used last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[RetryShare | RetryThrottle, Budget]] = OrderedDict()

    def find(self, use: BudgetUse) -> Budget:
        """The budget of a target, begun anew where its rule is another."""
        rule, budget = self._known.get(use.target, (None, None))
        if budget is None or rule != use.rule:
            budget = Share(use.rule) if isinstance(use.rule, RetryShare) else Throttle(use.rule)
            if use.target not in self._known and len(self._known) >= MAX_BUDGETS:
                self._known.popitem(last=False)
            self._known[use.target] = use.rule, budget
        self._known.move_to_end(use.target)
        return budget

    def glances(self, now: float) -> tuple[BudgetGlance, ...]:
        """Each of them."""
        return tuple(
            BudgetGlance(target, budget.kind, budget.left(now), budget.full)
            for target, (_, budget) in self._known.items()
        )
