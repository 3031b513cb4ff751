"""What may be sent twice: the rows of the failure and built-in tables that are decided before a call begins."""

import random
from itertools import islice
from typing import Any

import pytest
from msgspec.structs import replace

from policies.rules import budgets
from policies.rules.resiliency import BUILTIN_RETRY, BreakerRule, ResiliencyRules, RetryRule, TargetRules
from policies.rules.retries import BackoffRule, TargetRetries
from policies.rules.traffic import TargetTraffic, TrafficRules
from proxy.contract.breakers import BreakerSpec, BreakerUse
from proxy.contract.budgets import BudgetUse, RetryShare, RetryThrottle
from proxy.contract.head import Form
from proxy.contract.plan import Cause, Plan, RetryPolicy
from proxy.deciding.repeatable import is_declared_stream
from proxy.deciding.retry_policies import (
    attempt_timeout,
    breaker_spec,
    breaker_use,
    retry_policies,
)
from proxy.engine.portable.retrying import covers
from tests.unit.proxy.heads import APP, asking, head, outbound

UNSENT = {Cause.CONNECT, Cause.REFUSED, Cause.TLS_IDENTITY, Cause.NO_ENDPOINT, Cause.NOT_READY}
NEVER = {
    Cause.CALLER_LEFT,
    Cause.BREAKER,
    Cause.PROBING,
    Cause.DENIED,
    Cause.RESET_LATE,
    Cause.SHED,
    Cause.RATE,
}
STREAM = ((b"dapr-stream", b"true"),)
GRPC: dict[str, Any] = {"protocol": "grpc", "method": "POST", "framing": "stream"}
ENTRY = TargetRules(builtin_retry=None)  # `targets.apps.<id>: {}`


def few(**changes: Any) -> RetryRule:
    return RetryRule(**{"name": "few", "duration_s": 0.1, "max_retries": 3, **changes})


def rules_of(rules: TargetRules, **changes: Any) -> tuple[RetryPolicy, ...]:
    return retry_policies(asking(head("/x", **changes)), rules, lambda: random.Random(1))


def pauses(policy: RetryPolicy, most: int = 10) -> list[float]:
    return list(islice(policy.delays_s(), most))  # type: ignore[call-overload]


def retried(rules: tuple[RetryPolicy, ...], cause: Cause, status: int = 0, code: int | None = None) -> bool:
    return any(covers(policy, cause, status, code) for policy in rules)


# --- the built-in retry


@pytest.mark.parametrize(
    ("changes", "broken_too"),
    [
        ({}, True),
        ({"method": "HEAD"}, True),
        ({"method": "DELETE"}, True),
        ({"method": "PUT", "framing": "length"}, False),
        ({"method": "POST", "framing": "length"}, False),
        ({"method": "POST"}, False),
        ({"method": "PATCH"}, False),
        ({"method": "QUERY"}, False),
    ],
)
def test_builtin_covers_what_did_not_reach_the_app(changes: dict[str, Any], broken_too: bool) -> None:
    (policy,) = rules_of(TargetRules(), **changes)
    assert policy.on == UNSENT | ({Cause.RESET_EARLY} if broken_too else set())
    assert pauses(policy) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("status", "code"), [(500, None), (404, None), (503, None), (0, 13), (0, 14), (0, 7)]
)
def test_builtin_never_repeats_an_apps_own_answer(status: int, code: int | None) -> None:
    assert not retried(rules_of(TargetRules()), Cause.STATUS, status, code)


def test_builtin_does_not_hold_for_an_entry_or_grpc() -> None:
    assert rules_of(ENTRY) == ()
    (policy,) = rules_of(TargetRules(), **GRPC)
    assert pauses(policy) == [0.0, 0.05]  # redialled at once, not the built-in
    assert policy.on == UNSENT


def test_builtin_is_as_slow_as_its_own_policy_says() -> None:
    rules = TargetRules(builtin_retry=few(name=BUILTIN_RETRY.name, duration_s=0.02))
    assert pauses(rules_of(rules)[0]) == [0.02, 0.02, 0.02]


# --- a written policy


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((200, False), (204, False), (302, False), (304, False), (399, False)),
        *((101, True), (400, True), (401, True), (404, True), (409, True), (500, True), (599, True)),
    ],
)
def test_http_failure_is_any_status_outside_200_to_399(status: int, expected: bool) -> None:
    made = rules_of(TargetRules(retry=few(), builtin_retry=None))
    assert retried(made, Cause.STATUS, status) is expected


@pytest.mark.parametrize(("code", "expected"), [(0, False), (1, True), (5, True), (13, True), (14, True)])
def test_grpc_failure_is_any_code_but_ok(code: int, expected: bool) -> None:
    made = rules_of(TargetRules(retry=few(), builtin_retry=None), **GRPC)
    assert retried(made, Cause.STATUS, 200, code) is expected


def test_matching_filters_answers_with_a_status_only() -> None:
    rule = few(http_codes=frozenset({503}), grpc_codes=frozenset({14}))
    made = rules_of(TargetRules(retry=rule, builtin_retry=None))
    assert retried(made, Cause.STATUS, 503)
    assert not retried(made, Cause.STATUS, 404)
    assert retried(made, Cause.STATUS, 200, 14)
    assert not retried(made, Cause.STATUS, 200, 5)
    for cause in (Cause.CONNECT, Cause.TIMEOUT, Cause.RESET_EARLY, Cause.NO_ENDPOINT):
        assert retried(made, cause)


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_written_policy_does_what_it_says_for_every_method(method: str) -> None:
    made = rules_of(TargetRules(retry=few(), builtin_retry=None), method=method, framing="length")
    for cause in UNSENT | {Cause.RESET_EARLY, Cause.TIMEOUT}:
        assert retried(made, cause)


@pytest.mark.parametrize("cause", sorted(NEVER, key=str))
def test_what_ends_a_call_is_never_repeated(cause: Cause) -> None:
    for changes in ({}, GRPC):
        for rules in (TargetRules(), TargetRules(retry=few())):
            assert not retried(rules_of(rules, **changes), cause)


@pytest.mark.parametrize(
    ("max_retries", "attempts", "count"), [(0, 1, 0), (1, 2, 1), (3, 4, 3), (-1, None, 10)]
)
def test_retries_are_counted_after_the_first_attempt(
    max_retries: int, attempts: int | None, count: int
) -> None:
    (policy,) = rules_of(TargetRules(retry=few(max_retries=max_retries), builtin_retry=None))
    assert policy.attempts == attempts
    assert pauses(policy) == [0.1] * count


def test_pauses_of_an_exponential_rule_are_drawn_for_each_call() -> None:
    rule = few(kind="exponential", max_retries=5)
    rng = random.Random(7)
    (policy,) = retry_policies(asking(head("/x")), TargetRules(retry=rule, builtin_retry=None), lambda: rng)
    first, second = pauses(policy), pauses(policy)
    assert len(first) == len(second) == 5
    assert first != second
    assert 0.25 <= first[0] <= 0.75


def test_builtin_goes_on_within_each_attempt_of_a_default_policy() -> None:
    builtin, written = rules_of(TargetRules(retry=few(max_retries=1), source="default"))
    assert builtin.on == UNSENT | {Cause.RESET_EARLY}
    assert (builtin.is_inner, pauses(builtin)) == (True, [1.0] * 3)
    assert (written.is_inner, written.attempts) == (False, 2)
    (alone,) = rules_of(TargetRules(retry=few(max_retries=1)), **GRPC)
    assert not alone.is_inner  # proxied gRPC has no built-in retry


def test_answers_are_heeded_by_a_written_policy_where_the_rules_say_so() -> None:
    rules = TargetRules(retry=few(), source="default")
    assert [policy.heeds_answer for policy in rules_of(rules)] == [False, True]
    assert not any(policy.heeds_answer for policy in rules_of(replace(rules, heeds_answers=False)))
    as_daprd = ResiliencyRules(default=rules, is_as_daprd=True)
    assert not as_daprd.for_app("cart", "web").heeds_answers


def test_denials_are_failures_in_the_daprd_profile_alone() -> None:
    known = ResiliencyRules(default=TargetRules(retry=few(), source="default"))
    assert not planned("/v1.0/invoke/cart/method/x", known).denials_fail
    assert planned("/v1.0/invoke/cart/method/x", replace(known, is_as_daprd=True)).denials_fail


def test_retries_by_a_written_policy_have_a_budget_by_target() -> None:
    rules = TargetRules(retry=few(), builtin_retry=None)
    known = ResiliencyRules(targets={"cart": rules, "cart.other": replace(rules, budget=None), "web": rules})
    share = BudgetUse(target="peer:cart.shop", rule=RetryShare())
    assert planned("/v1.0/invoke/cart/method/x", known).budget == share
    assert planned("/shop.CartService/Get", known, **GRPC).budget == share
    assert planned("/v1.0/invoke/cart.other/method/x", known).budget is None
    assert planned("/v1.0/invoke/web/method/x", known).budget == BudgetUse(
        target="self:web", rule=RetryShare()
    )
    chunked = planned("/v1.0/invoke/cart/method/x", known, method="POST", framing="stream")
    assert chunked.budget is None  # it is never retried
    assert (
        planned("/v1.0/invoke/cart/method/x", ResiliencyRules()).budget is None
    )  # nor charged by the built-in
    assert planned("/v1.0/invoke/cart/method/x", replace(known, is_as_daprd=True)).budget is None


def test_budget_may_be_a_throttle() -> None:
    rules = TargetRules(retry=few(), budget=budgets.RetryThrottle(max_tokens=4.0, token_ratio=0.5))
    found = planned("/v1.0/invoke/cart/method/x", ResiliencyRules(targets={"cart": rules})).budget
    assert found == BudgetUse(target="peer:cart.shop", rule=RetryThrottle(max_tokens=4.0, token_ratio=0.5))


# --- what a Traffic says besides


def targeted(**traffic: Any) -> dict[str, Any]:
    """A view in which calls to cart have a retry policy, and this of a Traffic."""
    rules = ResiliencyRules(targets={"cart": TargetRules(retry=few(kind="exponential"), builtin_retry=None)})
    return {
        "resiliency": rules,
        "traffic": TrafficRules(targets={"cart.shop": TargetTraffic(retries=TargetRetries(**traffic))}),
    }


def carried(view: dict[str, Any], target: str = "/v1.0/invoke/cart/method/x", **changes: Any) -> Plan:
    found = outbound(**view).decide(asking(head(target, **changes)))
    assert isinstance(found, Plan)
    return found


@pytest.mark.parametrize(
    ("changes", "repeated"),
    [
        ({"method": "GET"}, True),
        ({"method": "DELETE"}, True),
        ({"method": "POST"}, False),
        ({"method": "PATCH"}, False),
        ({"method": "POST", "headers": ((b"idempotency-key", b"8e03978e"),)}, True),
    ],
)
def test_policy_of_idempotent_calls_repeats_others_that_reached_nobody_alone(
    changes: dict[str, Any], repeated: bool
) -> None:
    only = carried(targeted(on="idempotent"), framing="length", **changes).retries
    assert retried(only, Cause.STATUS, 503) is retried(only, Cause.TIMEOUT) is repeated
    assert retried(only, Cause.CONNECT)
    assert retried(carried(targeted(), framing="length", **changes).retries, Cause.STATUS, 503)


def test_policy_of_idempotent_calls_is_about_http() -> None:
    made = carried(targeted(on="idempotent"), "/shop.CartService/Get", **GRPC).retries
    assert retried(made, Cause.STATUS, 200, 14)


def test_backoff_shapes_the_pauses_of_a_written_policy() -> None:
    (policy,) = carried(targeted(backoff=BackoffRule(jitter="none", first_s=0.1, multiplier=3.0))).retries
    assert pauses(policy) == pytest.approx([0.1, 0.3, 0.9])


def test_overall_timeout_is_the_calls() -> None:
    view = targeted(overall_s=2.0)
    assert carried(view).total_s == 2.0
    assert carried(view, "/shop.CartService/Get", **GRPC).total_s == 2.0
    assert carried(view, "/shop.CartService/Get", **GRPC, headers=STREAM).total_s is None
    assert carried(view, protocol="websocket").total_s is None
    assert carried(view, "/v1.0/invoke/cart.other/method/x").total_s is None


def test_written_budget_takes_the_place_of_the_profiles() -> None:
    share = budgets.RetryShare(ratio=1.0, min_per_s=2.0, ttl_s=3.0)
    expected = BudgetUse(target="peer:cart.shop", rule=RetryShare(ratio=1.0, min_per_s=2.0, ttl_s=3.0))
    view = targeted(budget=share)
    assert carried(view).budget == expected
    view["resiliency"] = replace(view["resiliency"], is_as_daprd=True)
    assert carried(view).budget == expected
    assert carried(targeted(budget="off")).budget is None


# --- bodies and streams


@pytest.mark.parametrize("rules", [TargetRules(), ENTRY, TargetRules(retry=few(), builtin_retry=None)])
@pytest.mark.parametrize("protocol", ["http1", "http2"])
def test_body_of_unknown_length_is_never_sent_twice(rules: TargetRules, protocol: str) -> None:
    assert rules_of(rules, protocol=protocol, method="POST", framing="stream") == ()


def test_declared_stream_is_repeated_and_timed_in_its_opening_only() -> None:
    rules = TargetRules(retry=few(), timeout_s=0.3, builtin_retry=None)
    made = rules_of(rules, **GRPC, headers=STREAM)
    assert made[0].on == UNSENT
    assert not retried(made, Cause.STATUS, 200, 14)
    assert not retried(made, Cause.RESET_EARLY)
    assert pauses(made[0]) == [0.1, 0.1, 0.1]
    assert attempt_timeout(asking(head("/x", **GRPC, headers=STREAM)), rules) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({**GRPC, "headers": STREAM}, True),
        ({**GRPC, "headers": ((b"dapr-stream", b"no"),)}, False),
        ({**GRPC}, False),
        ({"headers": STREAM}, False),
    ],
)
def test_stream_is_declared_on_grpc_only(changes: dict[str, Any], expected: bool) -> None:
    assert is_declared_stream(asking(head("/x", **changes))) is expected


@pytest.mark.parametrize(("given", "expected"), [(None, None), (0.0, None), (-1.0, None), (0.3, 0.3)])
def test_timeout_bounds_each_attempt(given: float | None, expected: float | None) -> None:
    rules = TargetRules(timeout_s=given)
    for changes in ({}, {"method": "POST", "framing": "stream"}, GRPC):
        assert attempt_timeout(asking(head("/x", **changes)), rules) == expected


# --- which rules a call gets


def planned(target: str, resiliency: ResiliencyRules, **changes: Any) -> Plan:
    found = outbound(resiliency=resiliency).decide(asking(head(target, **changes)))
    assert isinstance(found, Plan), found
    return found


CART = TargetRules(timeout_s=0.3, retry=few(), builtin_retry=None, source="targets.apps.cart")


def test_entry_is_found_by_the_very_spelling() -> None:
    known = ResiliencyRules(targets={"cart": CART})
    assert planned("/v1.0/invoke/cart/method/x", known).attempt_s == 0.3
    spelled = planned("/v1.0/invoke/cart.shop/method/x", known)
    assert spelled.attempt_s is None
    assert spelled.retries == ()  # no built-in either: that goes by the app-id alone


def test_own_spelling_of_a_namespaced_target_applies() -> None:
    known = ResiliencyRules(targets={"cart.other": CART})
    assert planned("/v1.0/invoke/cart.other/method/x", known).attempt_s == 0.3
    assert len(planned("/v1.0/invoke/cart/method/x", known).retries) == 1


def test_call_to_oneself_over_http_obeys_its_policy_but_no_builtin() -> None:
    mine = TargetRules(timeout_s=0.3, retry=few(max_retries=2), source="targets.apps.web")
    found = planned("/v1.0/invoke/web/method/x", ResiliencyRules(targets={"web": mine}))
    assert found.attempt_s == 0.3
    assert retried(found.retries, Cause.STATUS, 500)
    assert found.retries[0].attempts == 3
    plain = planned("/v1.0/invoke/web/method/x", ResiliencyRules())
    assert not retried(plain.retries, Cause.CONNECT)
    assert retried(plain.retries, Cause.REFUSED)  # a kept connection that the app had closed


def test_proxied_grpc_call_to_oneself_has_no_policy() -> None:
    mine = TargetRules(timeout_s=0.3, retry=few(max_retries=2), source="targets.apps.web")
    found = outbound(
        resiliency=ResiliencyRules(targets={"web": mine}), app=replace(APP, protocol="grpc")
    ).decide(asking(head("/a.B/C", **GRPC, authority="web.localhost")))
    assert isinstance(found, Plan)
    assert found.attempt_s is None
    assert not retried(found.retries, Cause.STATUS, 200, 14)


# --- circuit breakers

GUARD = BreakerRule(name="guard", trip=(("bool", 1),), owner="cart")
GUARDED = ResiliencyRules(targets={"cart": TargetRules(breaker=GUARD, resource=("r", "ns"))})


@pytest.mark.parametrize(
    ("target", "changes", "form"),
    [
        ("/v1.0/invoke/cart/method/x", {}, "method"),
        ("/x", {"authority": "cart.localhost"}, "sent"),
        ("/x", {"headers": ((b"dapr-app-id", b"cart"),)}, "whole"),
        ("/shop.CartService/Get", GRPC, "sent"),
    ],
)
def test_breaker_is_asked_by_the_method_that_the_app_is_sent(
    target: str, changes: dict[str, Any], form: Form
) -> None:
    found = planned(target, GUARDED, **changes)
    assert found.breaker == BreakerUse(name="cart", target="cart", form=form)
    assert found.labels.policies == (("r", "ns", "circuitbreaker", "app_cart"),)


def test_default_breaker_is_each_targets_own() -> None:
    rules = ResiliencyRules(default=TargetRules(breaker=replace(GUARD, owner="")))
    for target in ("cart", "cart.other"):
        found = planned(f"/v1.0/invoke/{target}/method/x", rules)
        assert found.breaker == BreakerUse(name="", target=target, form="method")
        assert [policy.is_inner for policy in found.retries] == [
            True
        ]  # the built-in's four attempts are one to it


def test_only_what_retries_by_a_written_policy_is_told_to_the_breaker() -> None:
    rules = TargetRules(retry=few(), builtin_retry=None, breaker=GUARD)
    assert [policy.is_inner for policy in rules_of(rules)] == [False]
    assert [policy.is_inner for policy in rules_of(rules, **GRPC)] == [False]
    assert [policy.is_inner for policy in rules_of(replace(rules, retry=None), **GRPC)] == [True]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({**GRPC, "headers": STREAM}, True),
        (GRPC, False),
        ({"protocol": "websocket"}, True),
        ({}, False),
        ({"headers": STREAM}, False),
    ],
)
def test_of_streams_the_opening_counts(changes: dict[str, Any], expected: bool) -> None:
    found = breaker_use(asking(head("/x", **changes)), TargetRules(breaker=GUARD), "cart", "sent")
    assert found is not None
    assert found.is_opening is expected


def test_moved_request_asks_by_where_it_goes() -> None:
    moved = asking(head("/x")).moved("//y/")
    found = breaker_use(moved, TargetRules(breaker=GUARD), "cart", "whole")
    assert found == BreakerUse(name="cart", target="cart", form="whole", method="/y/")
    assert breaker_use(moved, TargetRules(), "cart", "whole") is None


def test_call_to_oneself_asks_over_http() -> None:
    mine = ResiliencyRules(targets={"web": TargetRules(breaker=replace(GUARD, owner="web"))})
    assert planned("/v1.0/invoke/web/method/x", mine).breaker == BreakerUse(
        name="web", target="web", form="method"
    )


def test_breaker_is_data_for_engines() -> None:
    rule = replace(GUARD, max_requests=2, interval_s=1.0, timeout_s=3.0, cache_size=4)
    assert breaker_spec(rule) == BreakerSpec(
        policy="guard", max_requests=2, interval_s=1.0, timeout_s=3.0, trip=(("bool", 1),), methods=4
    )
