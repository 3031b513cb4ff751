"""Which calls have attempts at once."""

from typing import Any

import pytest
from msgspec.structs import replace

from policies.rules.resiliency import ResiliencyRules, RetryRule, TargetRules
from policies.rules.retries import HedgeRule, TargetRetries
from policies.rules.traffic import TargetTraffic, TrafficRules
from proxy.contract.plan import Cause, Hedge, Plan
from proxy.deciding.hedging import HedgedMethods
from proxy.engine.portable.retrying import covers
from tests.unit.proxy.heads import asking, head, outbound

RULE = HedgeRule(attempts=3, delay_s=0.05, methods=frozenset({"/shop.CartService/Get"}))
HEDGE = Hedge(attempts=3, delay_s=0.05)
GRPC: dict[str, Any] = {"protocol": "grpc", "method": "POST", "framing": "stream"}
HTTP = "/v1.0/invoke/cart/method/x"


def planned(target: str = HTTP, rule: HedgeRule = RULE, **changes: Any) -> Plan:
    traffic = TrafficRules(default=TargetTraffic(retries=TargetRetries(hedging=rule)))
    found = outbound(traffic=traffic).decide(asking(head(target, **changes)))
    assert isinstance(found, Plan)
    return found


@pytest.mark.parametrize(
    ("changes", "hedge"),
    [
        ({}, HEDGE),
        ({"method": "PUT", "framing": "length"}, HEDGE),
        ({"method": "PUT", "framing": "stream"}, None),
        ({"method": "POST", "framing": "length"}, None),
        ({"method": "POST", "framing": "length", "headers": ((b"idempotency-key", b"1"),)}, HEDGE),
        ({"protocol": "websocket"}, None),
    ],
)
def test_http_calls_are_hedged_where_they_may_be_carried_out_twice(
    changes: dict[str, Any], hedge: Hedge | None
) -> None:
    found = planned(**changes)
    assert found.hedge == hedge
    assert (found.budget is not None) is (hedge is not None)


def test_calls_are_hedged_by_how_long_they_took_once_that_is_known() -> None:
    traffic = TrafficRules(default=TargetTraffic(retries=TargetRetries(hedging=replace(RULE, delay_s=None))))
    for delays, hedge in (({}, None), ({"cart.shop": 0.02}, replace(HEDGE, delay_s=0.02))):
        found = outbound(traffic=traffic, hedge_delays=delays).decide(asking(head(HTTP)))
        assert isinstance(found, Plan)
        assert found.hedge == hedge


@pytest.mark.parametrize(
    ("target", "headers", "hedge"),
    [
        ("/shop.CartService/Get", (), HEDGE),
        ("/shop.CartService/Add", (), None),
        ("/shop.CartService/Get", ((b"dapr-stream", b"true"),), None),
    ],
)
def test_grpc_calls_are_hedged_where_their_method_is_listed(
    target: str, headers: tuple[tuple[bytes, bytes], ...], hedge: Hedge | None
) -> None:
    assert planned(target, **GRPC, headers=headers).hedge == hedge
    assert planned(target, replace(RULE, methods=frozenset()), **GRPC, headers=headers).hedge is None


def test_calls_have_hedging_or_retries() -> None:
    rules = ResiliencyRules(targets={"cart": TargetRules(retry=RetryRule(name="few"), builtin_retry=None)})
    traffic = TrafficRules(default=TargetTraffic(retries=TargetRetries(hedging=RULE)))
    decider = outbound(traffic=traffic, resiliency=rules)
    hedged, plain = (decider.decide(asking(head(HTTP, method=method))) for method in ("GET", "PATCH"))
    assert isinstance(hedged, Plan)
    assert isinstance(plain, Plan)
    (rule,) = hedged.retries
    assert (rule.attempts, next(rule.delays_s())) == (3, 0.0)
    assert (hedged.hedge, plain.hedge) == (HEDGE, None)
    assert plain.retries[0].attempts is None


@pytest.mark.parametrize(
    ("codes", "statuses"),
    [
        ({14}, {429, 502, 503, 504}),
        ({7, 16}, {401, 403}),
        (set(), set()),
        ({2, 14}, {429, 500, 502, 503, 504}),
    ],
)
def test_failures_that_are_not_fatal_are_those_of_the_codes(codes: set[int], statuses: set[int]) -> None:
    *_, rule = planned(rule=replace(RULE, grpc_codes=frozenset(codes))).retries
    seen = {
        status
        for status in (401, 403, 404, 429, 500, 502, 503, 504)
        if covers(rule, Cause.STATUS, status, None)
    }
    assert seen - {404} == statuses
    assert {code for code in range(1, 17) if covers(rule, Cause.STATUS, 200, code)} == codes
    assert covers(rule, Cause.TIMEOUT, 0, None)


def test_table_tells_listed_methods_apart() -> None:
    table = HedgedMethods(RULE.methods)
    assert [table.classify(path) for path in ("/shop.CartService/Get", "/shop.CartService/Add", "/")] == [
        "/shop.CartService/Get",
        "",
        "",
    ]
