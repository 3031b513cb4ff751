"""Retry budgets."""

import pytest

from proxy.contract.budgets import MAX_BUDGETS, BudgetUse, RetryShare, RetryThrottle
from proxy.engine.portable.budgets import Budgets, Share, Throttle
from tests.support.vectors import Vector, vectors


class Steps(Vector, frozen=True, kw_only=True):
    share: tuple[float, float, float] | None
    throttle: tuple[float, float] | None
    steps: list[tuple[str, float, int, bool | None]]


@vectors("budgets", "steps", Steps)
def test_budgets_let_as_many_retry_as_their_rule_says(vector: Steps) -> None:
    budget: Share | Throttle
    if vector.share is not None:
        ratio, min_per_s, ttl_s = vector.share
        budget = Share(RetryShare(ratio=ratio, min_per_s=min_per_s, ttl_s=ttl_s))
    else:
        assert vector.throttle is not None
        max_tokens, token_ratio = vector.throttle
        budget = Throttle(RetryThrottle(max_tokens=max_tokens, token_ratio=token_ratio))
    for what, at_s, times, may in vector.steps:
        if what == "left":
            assert budget.left(at_s) == pytest.approx(times), at_s
            continue
        for _ in range(times):
            match what:
                case "call":
                    budget.begun(at_s)
                case "failure":
                    budget.failed(at_s)
                case "success":
                    budget.succeeded(at_s)
                case "retry":
                    assert budget.take(at_s) is may, (what, at_s)
                case _:
                    pytest.fail(what)


def test_a_target_has_one_budget_until_its_rule_changes() -> None:
    budgets = Budgets()
    first = budgets.find(BudgetUse(target="a", rule=RetryThrottle()))
    assert budgets.find(BudgetUse(target="a", rule=RetryThrottle())) is first
    assert budgets.find(BudgetUse(target="b", rule=RetryThrottle())) is not first
    changed = budgets.find(BudgetUse(target="a", rule=RetryShare()))
    assert changed is not first
    assert budgets.glances(0.0) == (("b", "throttle", 10.0, 10.0), ("a", "share", 100.0, 100.0))
    for number in range(MAX_BUDGETS - 2):
        budgets.find(BudgetUse(target=str(number), rule=RetryShare()))
    assert budgets.find(BudgetUse(target="a", rule=RetryShare())) is changed
    for number in range(MAX_BUDGETS):
        budgets.find(BudgetUse(target=f"more {number}", rule=RetryShare()))
    assert budgets.find(BudgetUse(target="a", rule=RetryShare())) is not changed
