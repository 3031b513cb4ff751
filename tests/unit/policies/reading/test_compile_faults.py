"""Faults of Traffic resources: which calls they are for, what they do, and where their mistakes are."""

from pathlib import Path

import pytest

from policies.reloading.loading import load
from policies.rules.access_policies import Asked, PolicyRules
from policies.rules.faults import FaultRule
from policies.rules.traffic import TrafficRules
from tests.unit.policies.reading.test_compile_limits import CART, OTHER
from tests.unit.policies.reading.test_compile_traffic import faults, loaded, traffic
from tests.unit.policies.writing import sources

ALL = """
targets:
  apps:
    shop:
      faults:
        - {name: slow, percent: 20, seed: 7, delay: {min: 100ms, max: 1s}, to: {methods: [POST], paths: ["/orders/{**}"]}}
        - {name: lame, delay: 2s}
        - {name: broken, times: 2, abort: {status: 500, grpc: 13}, when: {header: {x-test: ["1"]}}}
        - {name: gone, unavailable: true, to: {grpc: {services: [shop.Cart]}}}
        - {name: lost, reset: before-head}
        - {name: late, reset: after-head}
        - {name: cut, truncate: 100}
        - {name: thin, bandwidth: 1000}
"""


def rules(folder: Path, *texts: str) -> TrafficRules:
    return loaded(folder, *map(traffic, texts)).traffic


def meeting(found: PolicyRules | None, path: str, method: str = "GET", **asked: object) -> set[str]:
    assert found is not None
    caller, header = asked.get("caller"), bool(asked.get("header"))
    question = Asked(caller, False, method, False, found.table.classes(path), lambda _: header)  # type: ignore[arg-type]
    return {rule.name.rpartition(" ")[2] for rule in found.meeting(question)}


def test_faults_of_a_target(tmp_path: Path) -> None:
    found = rules(tmp_path, ALL)
    made = {one.name: one for one in found.for_app("shop", "default").faults}
    place = "spec.targets.apps.shop.faults"
    assert made == {
        "slow": FaultRule(
            name="slow", rule=f"{place} slow", kind="delay", share=0.2, seed=7, least_s=0.1, most_s=1.0
        ),
        "lame": FaultRule(name="lame", rule=f"{place} lame", kind="delay", least_s=2.0, most_s=2.0),
        "broken": FaultRule(
            name="broken", rule=f"{place} broken", kind="abort", times=2, status=500, code=13
        ),
        "gone": FaultRule(name="gone", rule=f"{place} gone", kind="unavailable"),
        "lost": FaultRule(name="lost", rule=f"{place} lost", kind="reset"),
        "late": FaultRule(name="late", rule=f"{place} late", kind="reset-late"),
        "cut": FaultRule(name="cut", rule=f"{place} cut", kind="truncate", bytes=100),
        "thin": FaultRule(name="thin", rule=f"{place} thin", kind="bandwidth", bytes=1000),
    }
    everywhere = {"lame", "lost", "late", "cut", "thin"}
    assert meeting(found.matching, "/x") == everywhere
    assert meeting(found.matching, "/Orders/1", "POST") == everywhere | {"slow"}
    assert meeting(found.matching, "/x", header=True) == everywhere | {"broken"}
    assert meeting(found.matching, "/shop.Cart/Get", "POST") == everywhere | {"gone"}


@pytest.mark.parametrize(
    ("written", "code"), [("UNAVAILABLE", 14), ("unavailable", 14), ("14", 14), ("CANCELLED", 1)]
)
def test_code_of_an_abort_is_a_name_or_a_number(tmp_path: Path, written: str, code: int) -> None:
    text = f"inbound: {{faults: [{{name: a, abort: {{grpc: {written}}}}}]}}"
    (made,) = rules(tmp_path, text).inbound_faults.rules
    assert (made.code, made.status) == (code, None)


def test_faults_of_callers(tmp_path: Path) -> None:
    found = rules(
        tmp_path,
        "inbound:\n  faults:\n    - {name: a, unavailable: true, from: {apps: [cart]}}\n    - {name: b, reset: after-head}",
    ).inbound_faults
    assert [one.name for one in found.rules] == ["a", "b"]
    for caller, met in ((CART, {"a", "b"}), (OTHER, {"b"}), (None, {"b"})):
        assert meeting(found.matching, "/x", caller=caller) == met


def test_later_fault_of_callers_takes_the_place_of_one_of_its_name(tmp_path: Path) -> None:
    texts = [f"inbound: {{faults: [{{name: a, {what}}}]}}" for what in ("unavailable: true", "truncate: 3")]
    found = rules(tmp_path, *texts)
    assert [(one.kind, one.bytes) for one in found.inbound_faults.rules] == [("truncate", 3)]


def test_without_the_flag_faults_are_left_out_and_named(tmp_path: Path) -> None:
    text = traffic(ALL + "inbound: {faults: [{name: own, truncate: 3}]}")
    made = load(sources(tmp_path, resources={"one.yaml": text}, injects_faults=False))
    assert made.traffic.for_app("shop", "default").faults == made.traffic.inbound_faults.rules == ()
    assert made.traffic.matching is made.traffic.inbound_faults.matching is None
    first, second = made.warnings
    assert "spec.targets.apps.shop.faults" in first
    assert "no effect without --enable-fault-injection" in first
    assert "(slow, lame, broken, gone, lost, late, cut, thin)" in first
    assert "spec.inbound.faults" in second
    assert "(own)" in second


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("{name: a}", "does nothing (expected one of delay, abort"),
        ("{name: a, unavailable: true, truncate: 3}", "says unavailable and truncate (expected one of"),
        ("{name: 'a b', truncate: 3}", "can't be a name"),
        ("{name: a, delay: {min: 2s, max: 1s}}", "2s is above max"),
        ("{name: a, delay: 2}", "delay"),
        ("{name: a, abort: {}}", "has no answer (expected status: 503"),
        ("{name: a, abort: {status: 600}}", "599"),
        (
            "{name: a, abort: {grpc: GONE}}",
            "abort.grpc: `GONE` is not the code of a failure (expected a name or number of CANCELLED (1)",
        ),
        ("{name: a, abort: {grpc: 0}}", "UNAVAILABLE (14)"),
        ("{name: a, abort: {grpc: 17}}", "UNAUTHENTICATED (16)"),
        ("{name: a, abort: {grpc: '14'}}", "`14` is not the code of a failure"),
        ("{name: a, abort: {grpc: true}}", "is not a whole number"),
        ("{name: a, percent: 101, truncate: 3}", "100"),
        ("{name: a, reset: sometimes}", "before-head"),
        ("{name: a, bandwidth: 0}", "1"),
        ("{name: a, seed: -1, truncate: 0}", "0"),
        ("{name: a, truncate: 0}, {name: a, truncate: 0}", "a is named again"),
        ("{name: a, truncate: 0, to: {paths: [x]}}", "is not a path"),
        ("{name: a, truncate: 0, when: {header: {Cookie: [x]}}}", "is not a header for rules"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, fault: str, problem: str) -> None:
    found = faults(tmp_path, traffic(f"targets: {{apps: {{shop: {{faults: [{fault}]}}}}}}"))
    assert any(problem in str(one) for one in found), found
