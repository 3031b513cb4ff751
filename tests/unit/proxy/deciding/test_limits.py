"""Limits as gates: which ones a call passes, and what each holds."""

from policies.rules.access_policies import Callers, Pattern, PolicyRule, policy_rules
from policies.rules.caller import Caller
from policies.rules.limits import ConcurrencyRule, LagRule, Limits, RateRule, ThrottleRule
from policies.rules.templates import Template, template_table
from policies.rules.traffic import TargetTraffic, TrafficRules
from proxy.contract.gates import AdaptiveGate, ConcurrencyGate, EachGate, LagGate, RateGate, ThrottleGate
from proxy.contract.plan import Route
from proxy.contract.recording import RecordingHead, Tables
from proxy.control.explaining import inbound_head
from proxy.deciding.limits import InboundLimits, gates_of, inbound_limits, limited, target_of

CART = Caller(trust_domain="public", namespace="default", app_id="cart")


def rated() -> InboundLimits:
    """Two rates: of writes, and of cart's calls of a path."""
    rules = (
        PolicyRule(policy="p", name="writes", is_allow=False, methods=frozenset({"POST"})),
        PolicyRule(
            policy="p",
            name="carts",
            is_allow=False,
            callers=Callers(apps=(Pattern("cart"),)),
            templates=frozenset({0}),
        ),
    )
    matching = policy_rules(
        rules,
        default_allow=True,
        table=template_table((Template("/orders/{**}", folds=True),)),
        headers=(),
        aliases=frozenset(),
        own_trust_domain=None,
    )
    rates = {name: RateRule(name=name, requests=6, per_s=60.0, burst=2) for name in ("writes", "carts")}
    return inbound_limits(TrafficRules(inbound=Limits(rates=rates, matching=matching)))


def asked(limits: InboundLimits, path: str, method: str = "GET", caller: Caller | None = CART) -> list[str]:
    """The gates of a call."""
    tables = Tables()
    for number, table in limits.tables():
        tables.put_paths(number, table)
    head = inbound_head(method, path, (), is_grpc=False, peer="")
    return sorted(limits.rates_of(RecordingHead(head, tables), caller, is_grpc=False))


def test_call_passes_the_gates_of_all_rates_that_speak_of_it() -> None:
    limits = rated()
    assert asked(limits, "/orders/1", "POST") == ["rate:carts", "rate:writes"]
    assert asked(limits, "/Orders/1") == ["rate:carts"]
    assert asked(limits, "/x") == []
    assert asked(limits, "/orders/1", caller=None) == []
    assert asked(InboundLimits(), "/orders/1") == []


def test_rate_is_told_with_its_window_where_that_is_whole_seconds() -> None:
    rates = {
        "a": RateRule(name="a", requests=6, per_s=60.0, burst=2, is_shared=True),
        "b": RateRule(name="b", requests=1, per_s=0.5, burst=1),
    }
    assert inbound_limits(TrafficRules(inbound=Limits(rates=rates))).gates == {
        "rate:a": RateGate(per_s=0.1, burst=2, is_shared=True, name="a", policy='"a";q=6;w=60'),
        "rate:b": RateGate(per_s=2.0, burst=1, name="b", policy='"b";q=1'),
    }


def test_limits_before_the_app_are_those_that_there_are() -> None:
    limits = Limits(connections=4, concurrency=ConcurrencyRule(limit=None, least=5), lag=LagRule(above_s=0.5))
    made = inbound_limits(TrafficRules(inbound=limits))
    assert made.of_the_app == ("inbound-lag", "inbound-concurrency")
    assert made.gates == {
        "inbound-lag": LagGate(above_s=0.5, for_s=2.0),
        "inbound-concurrency": AdaptiveGate(min_limit=5),
        "connections:peer": EachGate(limit=4),
    }
    assert InboundLimits().of_the_app == ()


def test_attempts_at_a_target_pass_its_limit_and_then_its_throttle() -> None:
    target = TargetTraffic(concurrency=ConcurrencyRule(limit=7), throttle=ThrottleRule(ratio=1.5))
    assert list(gates_of(target, "peer:shop.default").items()) == [
        (
            "concurrency:peer:shop.default",
            ConcurrencyGate(limit=7, queue=128, wait_s=0.1, newest_first=True),
        ),
        ("throttle:peer:shop.default", ThrottleGate(ratio=1.5)),
    ]
    route = limited(Route(cluster="peer:shop.default"), target)
    assert route.gates == ("concurrency:peer:shop.default", "throttle:peer:shop.default")
    assert limited(route, TargetTraffic()).gates == ()


def test_target_of_a_cluster_is_found_by_its_key() -> None:
    named, other = TargetTraffic(source="named"), TargetTraffic(source="default")
    rules = TrafficRules(targets={"shop.eu": named, "pay.default": named}, default=other)
    for key, expected in (
        ("peer:shop.eu", "named"),
        ("peer:shop.default", "default"),
        ("http-endpoint:pay", "named"),
        ("url:https://a.example", "default"),
        ("dapr-api", ""),
    ):
        assert target_of(rules, key, "default").source == expected, key
