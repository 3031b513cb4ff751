"""Traffic resources: whom they are about, how they add up, and where their faults are."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from policies.errors import DocumentError
from policies.reloading.loading import PolicySnapshot, load
from policies.rules.traffic import BalancingRule, OutlierRule, TargetTraffic
from tests.unit.policies.writing import OWN, sources

HEAD = "apiVersion: postern.dev/v1alpha1\nkind: Traffic\nmetadata: {name: shop}\n"


def traffic(body: str, head: str = HEAD) -> str:
    return head + "spec:\n" + "".join(f"  {line}\n" for line in body.strip().splitlines())


def loaded(folder: Path, *texts: str, lenient: bool = False) -> PolicySnapshot:
    files = {f"{number}.yaml": text for number, text in enumerate(texts)}
    return load(sources(folder, resources=files, lenient=lenient))


def faults(folder: Path, *texts: str) -> list[str]:
    """Each with its line."""
    with pytest.raises(DocumentError) as raised:
        loaded(folder, *texts, lenient=True)
    return [f"{fault.line}: {fault.field}: {fault.problem}" for fault in raised.value.faults]


def test_target_is_found_however_it_is_spelt_and_others_get_the_default(tmp_path: Path) -> None:
    rules = loaded(
        tmp_path,
        traffic("""
targets:
  default: {balancing: {policy: random}}
  apps:
    inventory: {balancing: {policy: round-robin}}
    inventory.eu: {balancing: {policy: ring-hash, hash: {header: X-User}}}
    stock: {balancing: {policy: ring-hash, hash: {caller: true}}}
    plain: {}
"""),
    ).traffic
    found = rules.for_app("inventory", OWN.namespace)
    assert (found.balancing.policy, found.source) == ("round-robin", "targets.apps.inventory")
    by_user = BalancingRule(policy="ring-hash", header="x-user")
    assert rules.for_app("inventory", "eu").balancing == by_user
    assert rules.for_app("stock", OWN.namespace).balancing == BalancingRule(policy="ring-hash")
    assert rules.for_app("plain", OWN.namespace).balancing.policy == "latency"
    other = rules.for_app("other", OWN.namespace)
    assert (other.balancing.policy, other.source) == ("random", "targets.default")


@pytest.mark.parametrize(("profile", "outliers"), [("daprd", None), ("dev", OutlierRule())])
def test_what_is_not_said_is_the_profiles(tmp_path: Path, profile: str, outliers: OutlierRule | None) -> None:
    expected = TargetTraffic(outliers=outliers)
    bare = traffic("targets: {apps: {a: {}}}")
    assert load(sources(tmp_path, profile=profile)).traffic.for_app("a", "b") == expected
    rules = load(sources(tmp_path, resources={"x.yaml": bare}, profile=profile)).traffic
    assert rules.for_app("b", OWN.namespace) == expected
    assert rules.for_app("a", OWN.namespace) == replace(expected, source="targets.apps.a")


def test_outliers_are_as_they_are_written(tmp_path: Path) -> None:
    rules = loaded(
        tmp_path,
        traffic("""
targets:
  default: {outliers: {}, slowStart: 0s}
  apps:
    a:
      outliers:
        consecutiveFailures: 3
        successRate: {endpoints: 2, requests: 10, factor: 1}
        ejection: 1s
        maxEjection: 1m
        maxEjectedPercent: 50
        interval: 250ms
      slowStart: 5s
    b: {outliers: {enabled: false}}
"""),
    ).traffic
    assert rules.default.outliers == OutlierRule(slow_start_s=0.0)
    assert rules.for_app("b", OWN.namespace).outliers is None
    assert rules.for_app("a", OWN.namespace).outliers == OutlierRule(
        consecutive=3,
        rate_endpoints=2,
        rate_requests=10,
        rate_factor=1.0,
        ejection_s=1.0,
        max_ejection_s=60.0,
        max_percent=50,
        interval_s=0.25,
        slow_start_s=5.0,
    )


def test_resource_for_other_apps_is_checked_and_left_out(tmp_path: Path) -> None:
    body = "scopes: [other]\n" + traffic("targets: {apps: {a: {balancing: {policy: random}}}}")
    snapshot = loaded(tmp_path, body)
    assert (snapshot.traffic.targets, snapshot.warnings) == ({}, ())
    wrong = body.replace("policy: random", "policy: ring-hash")
    assert "hash: is missing" in faults(tmp_path, wrong)[0]


def test_later_entry_takes_the_place_of_an_earlier_one_and_says_so(tmp_path: Path) -> None:
    one = traffic("targets: {default: {balancing: {policy: random}}, apps: {a: {}, b: {}}}")
    snapshot = loaded(
        tmp_path, one, traffic("targets:\n  default: {}\n  apps: {a: {balancing: {policy: random}}}")
    )
    assert snapshot.traffic.for_app("a", OWN.namespace).balancing.policy == "random"
    assert snapshot.traffic.default.balancing.policy == "latency"
    told = [warning.partition("resources/")[2] for warning in snapshot.warnings]
    assert [text.partition(": ")[0] for text in told] == ["1.yaml:6", "1.yaml:7"]
    assert all("takes the place of what" in text and "0.yaml:5 says of" in text for text in told)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "targets: {default: {balancing: {policy: fastest}}}",
            "5: spec.targets.default.balancing.policy: `fastest` is unknown "
            "(expected latency, least-requests, round-robin, random or ring-hash)",
        ),
        (
            "targets: {apps: {a: {balancing: {policy: ring-hash}}}}",
            "5: spec.targets.apps.a.balancing.hash: is missing (expected header: NAME, or caller: true, beside ring-hash)",
        ),
        (
            "targets: {apps: {a: {balancing: {policy: random, hash: {caller: true}}}}}",
            "5: spec.targets.apps.a.balancing.hash: is for ring-hash alone (expected none beside random)",
        ),
        (
            "targets: {apps: {a: {balancing: {policy: ring-hash, hash: {caller: true, header: x}}}}}",
            "5: spec.targets.apps.a.balancing.hash: needs one key (expected header: NAME, or caller: true)",
        ),
        (
            "targets: {apps: {a: {balancing: {policy: ring-hash, hash: {}}}}}",
            "5: spec.targets.apps.a.balancing.hash: needs one key (expected header: NAME, or caller: true)",
        ),
        (
            "targets: {apps: {a: {balancing: {policy: ring-hash, hash: {header: 'x user'}}}}}",
            "5: spec.targets.apps.a.balancing.hash.header: `x user` is not a header (expected a name)",
        ),
        (
            "targets: {apps: {a/b: {}}}",
            "5: spec.targets.apps.a/b: `a/b` is not a target (expected an app-id, or app-id.namespace)",
        ),
        (
            f"targets: {{apps: {{a: {{}}, a.{OWN.namespace}: {{}}}}}}",
            f"5: spec.targets.apps.a.{OWN.namespace}: a.{OWN.namespace} is named again (first as a)",
        ),
        (
            "targets: {apps: {a: {outliers: {ejection: 30}}}}",
            "5: spec.targets.apps.a.outliers.ejection: `30` has no unit (write 30ms, or 30s for seconds)",
        ),
        (
            "targets: {apps: {a: {outliers: {interval: 0s}}}}",
            "5: spec.targets.apps.a.outliers.interval: `0s` is out of range (expected 1ms to 24h)",
        ),
        (
            "targets: {apps: {a: {outliers: {ejection: 10m}}}}",
            "5: spec.targets.apps.a.outliers.ejection: maxEjection, 300s, is less (expected 10m or more)",
        ),
        (
            "targets: {apps: {a: {outliers: {maxEjectedPercent: 101}}}}",
            "5: spec.targets.apps.a.outliers.maxEjectedPercent: 101 is out of range (expected at most 100)",
        ),
        (
            "targets: {apps: {a: {outliers: {enabled: false}, slowStart: 1s}}}",
            "5: spec.targets.apps.a.slowStart: is for endpoints that come back, and outliers are off "
            "(expected outliers: {} beside it, or none)",
        ),
        ("targets: {app: {}}", "5: spec.targets.app: unknown key (did you mean apps?)"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_never_forgiven(
    tmp_path: Path, body: str, expected: str
) -> None:
    assert faults(tmp_path, traffic(body)) == [expected]
