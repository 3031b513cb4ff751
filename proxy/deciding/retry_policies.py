"""Retry rules and circuit breakers of targets as data for engines. Pure; what may safely be sent twice is decided here.

Without a user's policy: what certainly did not reach the app is retried once (after a second, three times, as Dapr's built-in retry), and
so is a broken idempotent call without a body; never an app's own answer. A written policy does what it says. The built-in retry goes on
within each attempt of a default policy; an entry of `targets.apps` ends it.
"""

import random
from collections.abc import Callable

from msgspec.structs import replace

from policies.rules.backoff import delays, within_s
from policies.rules.budgets import RetryShare
from policies.rules.resiliency import BreakerRule, RetryRule, TargetRules
from policies.rules.retries import BackoffRule
from proxy.contract import budgets
from proxy.contract.breakers import BreakerSpec, BreakerUse
from proxy.contract.head import Form
from proxy.contract.plan import Cause, Hedge, RetryPolicy
from proxy.contract.recording import RecordingHead
from proxy.deciding.app_plan import IDEMPOTENT
from proxy.deciding.hedging import hedge_of, hedge_rule, hedged_failures
from proxy.deciding.repeatable import is_declared_stream, is_idempotent, is_unknown_length
from proxy.wire.target import as_forwarded

_UNSENT = frozenset({Cause.CONNECT, Cause.REFUSED, Cause.TLS_IDENTITY, Cause.NO_ENDPOINT, Cause.NOT_READY})
_BROKEN = _UNSENT | {Cause.RESET_EARLY, Cause.TIMEOUT}
_AS_DAPR = BackoffRule()
_REDIAL_S = (0.0, 0.05)  # a proxied gRPC call is redialled at once, then fails


def retry_policies(
    head: RecordingHead, rules: TargetRules, rng: Callable[[], random.Random]
) -> tuple[RetryPolicy, ...]:
    """What may be retried, first match first."""
    grpc = head.protocol() == "grpc"
    if is_unknown_length(head):
        return ()
    made: list[RetryPolicy] = []
    if rules.builtin_retry is not None and not grpc:
        on = _UNSENT
        if head.method() in IDEMPOTENT and head.framing() == "none":
            on = _UNSENT | {Cause.RESET_EARLY}
        made.append(replace(_of(rules.builtin_retry, on, rng), is_inner=True))
    hedged = hedge_rule(head, rules)
    if hedged is not None:
        made.append(hedged_failures(hedged))
    elif rules.retry is not None:
        made.append(_written(head, rules.retry, rules, rng))
    elif grpc:
        made.append(
            RetryPolicy(
                attempts=None,
                on=_UNSENT,
                grpc_codes=frozenset(),
                http_codes=frozenset(),
                delays_s=lambda: iter(_REDIAL_S),
                is_inner=True,
            )
        )
    return tuple(made)


def hedge(head: RecordingHead, rules: TargetRules) -> Hedge | None:
    """Whether attempts are made at once."""
    rule = hedge_rule(head, rules)
    return None if rule is None else hedge_of(rule)


def attempt_timeout(head: RecordingHead, rules: TargetRules) -> float | None:
    """Seconds for one attempt; a declared stream has none beyond its opening."""
    if rules.timeout_s is None or rules.timeout_s <= 0 or is_declared_stream(head):
        return None
    return rules.timeout_s


def budget_use(head: RecordingHead, rules: TargetRules, target: str) -> budgets.BudgetUse | None:
    """What retries by a written policy, and attempts at once, are taken from, by all calls to this target."""
    found = rules.retries.budget or rules.budget
    if found is None or found == "off" or is_unknown_length(head):
        return None
    if rules.retry is None and hedge_rule(head, rules) is None:
        return None
    if isinstance(found, RetryShare):
        share = budgets.RetryShare(ratio=found.ratio, min_per_s=found.min_per_s, ttl_s=found.ttl_s)
        return budgets.BudgetUse(target=target, rule=share)
    throttle = budgets.RetryThrottle(max_tokens=found.max_tokens, token_ratio=found.token_ratio)
    return budgets.BudgetUse(target=target, rule=throttle)


def breaker_use(
    head: RecordingHead, rules: TargetRules, target: str, form: Form, *, method: str | None = None
) -> BreakerUse | None:
    """Which breaker a call of `target` asks, as its caller spells it: that of its method, which is its path in this form.

    method: where it is none of the call's. Of a WebSocket and of a declared stream the opening counts, not how it ends.
    """
    if rules.breaker is None:
        return None
    moved = head.moved_to
    if method is None and moved is not None:
        method = as_forwarded(moved[0], form)
    return BreakerUse(
        name=rules.breaker.owner,
        target=target,
        form=form,
        method=method,
        is_opening=head.protocol() == "websocket" or is_declared_stream(head),
    )


def breaker_spec(rule: BreakerRule) -> BreakerSpec:
    """The same as data for engines."""
    return BreakerSpec(
        policy=rule.name,
        max_requests=rule.max_requests,
        interval_s=rule.interval_s,
        timeout_s=rule.timeout_s,
        trip=rule.trip,
        methods=rule.cache_size,
    )


def _written(
    head: RecordingHead, rule: RetryRule, rules: TargetRules, rng: Callable[[], random.Random]
) -> RetryPolicy:
    unsent = replace(_of(rule, _UNSENT, rng, rules.retries.backoff), heeds_answer=rules.heeds_answers)
    if is_declared_stream(head) or (rules.retries.on == "idempotent" and not is_idempotent(head)):
        return unsent
    return replace(
        unsent,
        attempts=None if rule.max_retries < 0 else rule.max_retries + 1,
        on=_BROKEN,
        http_codes=rule.http_codes,
        grpc_codes=rule.grpc_codes,
    )


def overall_limit(head: RecordingHead, rules: TargetRules) -> float | None:
    """Seconds for the whole call; a tunnel and a declared stream have no end."""
    has_end = head.protocol() != "websocket" and not is_declared_stream(head)
    return rules.retries.overall_s if has_end else None


def _of(
    rule: RetryRule,
    on: frozenset[Cause],
    rng: Callable[[], random.Random],
    backoff: BackoffRule = _AS_DAPR,
) -> RetryPolicy:
    return RetryPolicy(
        attempts=None,
        on=on,
        http_codes=frozenset(),
        grpc_codes=frozenset(),
        delays_s=lambda: delays(rule, rng(), backoff),
        within_s=within_s(rule),
    )
