"""Limits of Traffic resources: what they hold, how they add up, and where their faults are."""

from pathlib import Path

import pytest

from policies.rules.access_policies import Asked
from policies.rules.caller import Caller
from policies.rules.limits import ConcurrencyRule, LagRule, Limits, RateRule, ThrottleRule
from tests.unit.policies.reading.test_compile_traffic import faults, loaded, traffic

CART, OTHER = Caller("public", "default", "cart"), Caller("far", "away", "other")
RATES = """
inbound:
  rates:
    - {name: all, requests: 1000, burst: 50, each: all}
    - {name: writes, requests: 100, per: 1m, from: {apps: [ca*]}, to: {methods: [POST], paths: ["/orders/{**}"]}}
    - {name: gets, requests: 3, to: {grpc: {services: [shop.Cart], methods: [Get]}}}
    - {name: strangers, requests: 1, from: anonymous}
"""


def limits(folder: Path, *texts: str) -> Limits:
    return loaded(folder, *map(traffic, texts)).traffic.inbound


def meeting(
    found: Limits, path: str, method: str = "GET", caller: Caller | None = CART, *, is_grpc: bool = False
) -> list[str]:
    assert found.matching is not None
    paths = found.matching.table.classes(path)
    asked = Asked(caller, False, method, is_grpc, paths, lambda _: False)
    return sorted(rule.name for rule in found.matching.meeting(asked))


def test_call_meets_all_rates_that_speak_of_it(tmp_path: Path) -> None:
    found = limits(tmp_path, RATES)
    assert found.rates == {
        "all": RateRule(name="all", requests=1000, per_s=1.0, burst=50, is_shared=True),
        "writes": RateRule(name="writes", requests=100, per_s=60.0, burst=100),
        "gets": RateRule(name="gets", requests=3, per_s=1.0, burst=3),
        "strangers": RateRule(name="strangers", requests=1, per_s=1.0, burst=1),
    }
    assert meeting(found, "/orders/1", "POST") == ["all", "writes"]
    assert meeting(found, "/ORDERS/1", "POST") == ["all", "writes"]  # an app may take no notice of case
    assert meeting(found, "/x/../orders/1", "POST") == ["all", "writes"]
    assert meeting(found, "/orders/1", "GET") == ["all"]
    assert meeting(found, "/orders/1", "POST", OTHER) == ["all"]
    assert meeting(found, "/shop.Cart/Get", "POST", OTHER, is_grpc=True) == ["all", "gets"]
    assert meeting(found, "/x", caller=None) == ["all", "strangers"]


def test_call_whose_path_can_t_be_read_meets_the_rates_of_all_paths(tmp_path: Path) -> None:
    found = limits(tmp_path, RATES)
    assert found.matching is not None
    asked = Asked(CART, False, "POST", False, None, lambda _: False)
    assert {rule.name for rule in found.matching.meeting(asked)} == {"all", "writes", "gets"}


def test_without_limits_there_are_none(tmp_path: Path) -> None:
    assert limits(tmp_path, "inbound: {}") == Limits()


def test_other_limits_have_defaults(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        traffic("""
inbound:
  connections: {perCaller: 10}
  concurrency: {limit: adaptive}
  lag: {}
targets:
  default: {throttle: {}}
  apps:
    cart: {concurrency: {limit: 7, queue: 0, queueTimeout: 1s}, throttle: {ratio: 1.5, window: 30s}}
    stock: {concurrency: {limit: adaptive, minLimit: 5, maxLimit: 50}}
"""),
    ).traffic
    assert found.inbound == Limits(
        connections=10,
        concurrency=ConcurrencyRule(limit=None, least=3, most=1000, queue=128, wait_s=0.1),
        lag=LagRule(above_s=0.25, for_s=2.0),
    )
    assert found.default.throttle == ThrottleRule(ratio=2.0, window_s=120.0)
    named = {name.partition(".")[0]: target for name, target in found.targets.items()}
    assert named["cart"].concurrency == ConcurrencyRule(limit=7, queue=0, wait_s=1.0)
    assert named["cart"].throttle == ThrottleRule(ratio=1.5, window_s=30.0)
    assert named["stock"].concurrency == ConcurrencyRule(limit=None, least=5, most=50)


def test_later_document_takes_the_place_of_what_it_repeats(tmp_path: Path) -> None:
    made = loaded(
        tmp_path,
        traffic(
            "inbound: {connections: {perCaller: 1}, lag: {}, rates: [{name: a, requests: 1}, {name: b, requests: 2}]}"
        ),
        traffic("inbound: {connections: {perCaller: 2}, rates: [{name: a, requests: 3}]}"),
    )
    found = made.traffic.inbound
    assert (found.connections, found.lag, found.rates["a"].requests) == (2, LagRule(), 3)
    assert set(found.rates) == {"a", "b"}
    told = [warning for warning in made.warnings if "takes the place" in warning]
    assert len(told) == 2
    assert "takes the place of the rate a at" in "".join(told)


def test_limits_of_other_apps_are_checked_and_left_out(tmp_path: Path) -> None:
    head = "apiVersion: postern.dev/v1alpha1\nkind: Traffic\nmetadata: {name: x}\nscopes: [other]\n"
    assert loaded(tmp_path, traffic("inbound: {lag: {}}", head)).traffic.inbound == Limits()
    assert faults(tmp_path, traffic("inbound: {lag: {above: soon}}", head))


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("inbound: {rates: [{name: a}]}", "spec.inbound.rates[0].requests: is missing"),
        ("inbound: {rates: [{requests: 1}]}", "spec.inbound.rates[0].name: is missing"),
        ("inbound: {rates: [{name: a b, requests: 1}]}", "`a b` can't be a name"),
        ("inbound: {rates: [{name: a, requests: 0}]}", "0 is out of range (expected at least 1)"),
        (
            "inbound: {rates: [{name: a, requests: 1, per: 5}]}",
            "`5` has no unit (write 5ms, or 5s for seconds)",
        ),
        ("inbound: {rates: [{name: a, requests: 1, per: 48h}]}", "out of range (expected 1ms to 24h)"),
        (
            "inbound: {rates: [{name: a, requests: 1, each: app}]}",
            "`app` is unknown (expected caller or all)",
        ),
        ("inbound: {rates: [{name: a, requests: 1, to: {paths: [x]}}]}", "is not a path"),
        ("inbound: {rates: [{name: a, requests: 1, from: {apps: [a*b]}}]}", "is not a pattern"),
        ("inbound: {rates: [{name: a, requests: 1, when: {}}]}", "unknown key"),
        ("inbound: {concurrency: {}}", "spec.inbound.concurrency.limit: is missing"),
        ("inbound: {concurrency: {limit: fast}}", "`fast` is unknown (expected adaptive)"),
        ("inbound: {concurrency: {limit: 5, minLimit: 2}}", "is for `limit: adaptive` alone"),
        ("inbound: {concurrency: {limit: adaptive, minLimit: 9, maxLimit: 5}}", "9 is above maxLimit"),
        ("inbound: {connections: {perCaller: 0}}", "expected at least 1"),
        ("inbound: {lag: }", "spec.inbound.lag: has no value (expected one, or leave the key out)"),
        ("inbound: {rates: [{name: , requests: 1}]}", "spec.inbound.rates[0].name: has no value"),
        ("targets: {apps: {cart: {throttle: {ratio: 0.5}}}}", "expected at least 1.0"),
        ("targets: {apps: {cart: {concurrency: {limit: 5, queueTimeout: x}}}}", "`x` is not a duration"),
    ],
)
def test_faults_are_told_at_their_place(tmp_path: Path, body: str, fault: str) -> None:
    assert any(fault in one for one in faults(tmp_path, traffic(body)))
