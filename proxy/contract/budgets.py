"""Budgets of retries, which all calls of one target share: that a callee in trouble is not asked many times as often as before."""

from typing import Literal, NamedTuple

from msgspec import Struct

MAX_BUDGETS = 1_024  # of an engine; past it, the one that was asked for longest ago begins anew


class RetryShare(Struct, frozen=True, kw_only=True):
    """Each call deposits `ratio` of a retry, which counts for `ttl_s`; besides, `min_per_s` retries a second are free.

    Source: Linkerd's and tower's retry budgets.
    """

    ratio: float = 0.2
    min_per_s: float = 10.0
    ttl_s: float = 10.0


class RetryThrottle(Struct, frozen=True, kw_only=True):
    """Each failure takes a token of `max_tokens`, each success gives `token_ratio` back; no retry at half of them or below.

    Source: gRPC proposal A6, Throttling.
    """

    max_tokens: float = 10.0
    token_ratio: float = 0.1


class BudgetUse(Struct, frozen=True, kw_only=True):
    """The budget of calls to `target`. Where its rule changes, it begins anew."""

    target: str
    rule: RetryShare | RetryThrottle


BudgetKind = Literal["share", "throttle"]


class BudgetGlance(NamedTuple):
    """A glance at the budget of a target. left: retries that a share would let through now, or a throttle's tokens; full: where nothing was
    deposited and taken."""

    target: str
    kind: BudgetKind
    left: float
    full: float
