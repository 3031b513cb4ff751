"""Resiliency documents, and which rules a target gets from them."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from policies.errors import DocumentError
from policies.reading.trip import compile_trip
from policies.reloading.loading import PolicySnapshot, load
from policies.rules.access import Profile
from policies.rules.resiliency import BUILTIN_RETRY, BreakerRule, ResiliencyRules, RetryRule, TargetRules
from policies.rules.trip import NEVER
from tests.unit.policies.writing import sources

HEAD = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: mesh}\n"


def resiliency(body: str, head: str = HEAD) -> str:
    return head + "spec:\n" + "".join(f"  {line}\n" for line in body.strip().splitlines())


def of(folder: Path, *bodies: str, lenient: bool = False) -> PolicySnapshot:
    resources = {f"r{number}.yaml": body for number, body in enumerate(bodies)}
    return load(replace(sources(folder, resources=resources, lenient=lenient), profile="production"))


@pytest.mark.parametrize(("profile", "heeds"), [("dev", True), ("production", True), ("daprd", False)])
@pytest.mark.parametrize("resources", [{}, {"r.yaml": HEAD}])
def test_answers_are_heeded_and_retries_have_a_budget_but_with_daprds(
    tmp_path: Path, profile: Profile, heeds: bool, resources: dict[str, str]
) -> None:
    found = load(replace(sources(tmp_path, resources=resources), profile=profile)).resiliency
    rules = found.for_app("a", "own")
    assert (rules.heeds_answers, rules.budget is not None) == (heeds, heeds)


FULL = resiliency("""
policies:
  timeouts: {quick: 2s, never: 0s}
  retries:
    few:
      policy: Exponential
      maxInterval: 5s
      maxRetries: 4
      matching: {httpStatusCodes: "429,500-504", gRPCStatusCodes: 14}
    plain: {}
targets:
  apps:
    inventory: {timeout: quick, retry: few}
    slow: {timeout: never, retry: plain}
    bare: {}
    shop.prod: {retry: plain}
""")


def test_no_document_leaves_the_built_in_retry() -> None:
    assert ResiliencyRules().for_app("a", "own") == TargetRules(
        builtin_retry=BUILTIN_RETRY, source="built-in"
    )


def test_target_gets_its_named_policies_and_no_built_in(tmp_path: Path) -> None:
    rules = of(tmp_path, FULL).resiliency
    assert rules.resources == (("mesh", ""),)
    assert rules.for_app("inventory", "own") == TargetRules(
        timeout_s=2.0,
        retry=RetryRule(
            name="few",
            kind="exponential",
            max_interval_s=5.0,
            max_retries=4,
            http_codes=frozenset({429, 500, 501, 502, 503, 504}),
            grpc_codes=frozenset({14}),
        ),
        builtin_retry=None,
        source="targets.apps.inventory",
        resource=("mesh", ""),
    )
    assert rules.for_app("slow", "own").timeout_s is None
    assert rules.for_app("slow", "own").retry == RetryRule(name="plain")
    assert rules.for_app("bare", "own") == TargetRules(
        builtin_retry=None, source="targets.apps.bare", resource=("mesh", "")
    )


def test_namespaced_target_goes_by_its_spelling_and_the_built_in_by_the_app(tmp_path: Path) -> None:
    rules = of(tmp_path, FULL).resiliency
    assert rules.for_app("inventory.prod", "own") == TargetRules(builtin_retry=None)
    assert rules.for_app("shop.prod", "own").builtin_retry == BUILTIN_RETRY
    assert rules.for_app("shop.prod", "own").retry == RetryRule(name="plain")
    assert rules.for_app("shop", "own") == TargetRules()


def test_own_app_never_gets_the_built_in() -> None:
    assert ResiliencyRules().for_app("own", "own").builtin_retry is None
    assert ResiliencyRules().for_app("own.ns", "own").builtin_retry is None


@pytest.mark.parametrize("suffix", ["App", ""])
def test_default_policies_stand_round_the_built_in(tmp_path: Path, suffix: str) -> None:
    text = resiliency(f"""
policies:
  timeouts: {{Default{suffix}TimeoutPolicy: 1s}}
  retries: {{Default{suffix}RetryPolicy: {{maxRetries: 1}}}}
targets: {{apps: {{listed: {{}}}}}}
""")
    rules = of(tmp_path, text).resiliency
    found = rules.for_app("other", "own")
    assert (found.timeout_s, found.source, found.builtin_retry) == (1.0, "default", BUILTIN_RETRY)
    assert found.retry is not None
    assert found.retry.max_retries == 1
    assert rules.for_app("listed", "own") == TargetRules(
        builtin_retry=None, source="targets.apps.listed", resource=("mesh", "")
    )


def test_default_with_app_comes_before_the_one_without(tmp_path: Path) -> None:
    text = resiliency("policies: {timeouts: {DefaultTimeoutPolicy: 1s, DefaultAppTimeoutPolicy: 2s}}")
    assert of(tmp_path, text).resiliency.for_app("a", "own").timeout_s == 2.0


@pytest.mark.parametrize("retries", [-1, 0, 2])
def test_built_in_can_t_be_weakened(tmp_path: Path, retries: int) -> None:
    text = resiliency(
        f"policies: {{retries: {{DaprBuiltInServiceRetries: {{duration: 20ms, maxRetries: {retries},"
        ' matching: {gRPCStatusCodes: "5"}}}}',
    )
    snapshot = of(tmp_path, text)
    builtin = snapshot.resiliency.for_app("a", "own").builtin_retry
    assert builtin is not None
    assert (builtin.duration_s, builtin.max_retries, builtin.grpc_codes) == (0.02, 3, frozenset({14, 16}))
    assert "is raised to 3" in "\n".join(snapshot.warnings)


def test_built_in_can_be_strengthened(tmp_path: Path) -> None:
    text = resiliency("policies: {retries: {DaprBuiltInServiceRetries: {maxRetries: 9}}}")
    builtin = of(tmp_path, text).resiliency.for_app("a", "own").builtin_retry
    assert builtin is not None
    assert builtin.max_retries == 9


def test_later_resources_replace_and_may_use_policies_of_others(tmp_path: Path) -> None:
    first = resiliency(
        "policies: {timeouts: {t: 1s}}\ntargets: {apps: {a: {timeout: later}, b: {timeout: t}}}"
    )
    second = resiliency("policies: {timeouts: {t: 2s, later: 3s}}\ntargets: {apps: {b: {}}}")
    rules = of(tmp_path, first, second).resiliency
    assert rules.for_app("a", "own").timeout_s == 3.0
    assert rules.for_app("b", "own").timeout_s is None
    assert rules.resources == (("mesh", ""), ("mesh", ""))


def test_all_documents_of_a_file_are_read(tmp_path: Path) -> None:
    text = (
        resiliency("policies: {timeouts: {t: 1s}}")
        + "---\n"
        + resiliency("targets: {apps: {a: {timeout: t}}}")
    )
    assert of(tmp_path, text).resiliency.for_app("a", "own").timeout_s == 1.0


def test_resource_scoped_to_others_is_checked_and_left_out(tmp_path: Path) -> None:
    body = "targets: {apps: {a: {}}}"
    assert of(tmp_path, resiliency(body, HEAD + "scopes: [other]\n")).resiliency == ResiliencyRules()
    mine = of(tmp_path, resiliency(body, HEAD + "scopes: [other, callee]\n")).resiliency
    assert mine.for_app("a", "callee").source == "targets.apps.a"
    with pytest.raises(DocumentError):
        of(tmp_path, resiliency("policies: {timeouts: {t: x}}", HEAD + "scopes: [other]\n"))


BREAKERS = """
policies:
  circuitBreakers:
    plain: {}
    guard: {maxRequests: 2, interval: 10s, timeout: 30s, trip: requests > 3}
    zeros: {maxRequests: 0, interval: 0s, timeout: 0s, trip: ""}
targets:
  apps:
    a: {circuitBreaker: guard, circuitBreakerCacheSize: 5}
    b: {circuitBreaker: plain}
    c: {circuitBreaker: zeros, circuitBreakerCacheSize: 0}
    bare: {}
"""


def test_target_gets_its_circuit_breaker_and_its_size(tmp_path: Path) -> None:
    found = of(tmp_path, resiliency(BREAKERS))
    rules = found.resiliency
    assert not found.warnings
    assert rules.for_app("a", "own").breaker == BreakerRule(
        name="guard",
        max_requests=2,
        interval_s=10.0,
        timeout_s=30.0,
        trip=compile_trip("requests > 3"),
        cache_size=5,
        owner="a",
        trip_text="requests > 3",
    )
    usual = "consecutiveFailures > 5"
    default = BreakerRule(name="plain", trip=compile_trip(usual), owner="b", trip_text=usual)
    assert (default.max_requests, default.interval_s, default.timeout_s, default.cache_size) == (
        1,
        0,
        60,
        100,
    )
    assert rules.for_app("b", "own").breaker == default
    assert rules.for_app("c", "own").breaker == replace(default, name="zeros", owner="c")
    assert rules.for_app("bare", "own").breaker is None
    assert rules.for_app("other", "own").breaker is None
    assert [rule.owner for rule in rules.breakers] == ["a", "b", "c"]
    assert rules.for_app("a", "own").policies == ("circuitbreaker",)


@pytest.mark.parametrize("name", ["DefaultAppCircuitBreakerPolicy", "DefaultCircuitBreakerPolicy"])
def test_default_circuit_breaker_is_for_targets_without_entry(tmp_path: Path, name: str) -> None:
    text = resiliency(f"policies: {{circuitBreakers: {{{name}: {{}}}}}}\ntargets: {{apps: {{bare: {{}}}}}}")
    rules = of(tmp_path, text).resiliency
    assert rules.for_app("bare", "own").breaker is None
    found = rules.for_app("any", "own")
    usual = "consecutiveFailures > 5"
    assert found.breaker == BreakerRule(name=name, trip=compile_trip(usual), trip_text=usual)
    assert (found.source, found.resource, found.builtin_retry) == ("default", ("mesh", ""), BUILTIN_RETRY)


@pytest.mark.parametrize(
    ("trip", "fault", "is_forgiven"),
    [
        ("consecutiveFailures >", "has the end where a number or a counter is expected (column 22)", False),
        ("failures > 5", "unknown name 'failures'", True),
        ("requests", "is of type int, not a condition", True),
    ],
)
def test_trip_that_is_no_condition_is_a_fault(
    tmp_path: Path, trip: str, fault: str, is_forgiven: bool
) -> None:
    body = f"policies:\n  circuitBreakers:\n    c:\n      trip: {trip}\ntargets: {{apps: {{a: {{circuitBreaker: c}}}}}}"
    with pytest.raises(DocumentError) as caught:
        of(tmp_path, resiliency(body))
    assert f"r0.yaml:8: spec.policies.circuitBreakers.c.trip: {fault}" in str(caught.value)
    if not is_forgiven:
        with pytest.raises(DocumentError):
            of(tmp_path, resiliency(body), lenient=True)
        return
    found = of(tmp_path, resiliency(body), lenient=True)
    assert fault in "\n".join(found.warnings)
    breaker = found.resiliency.for_app("a", "own").breaker
    assert breaker is not None
    assert breaker.trip == NEVER


@pytest.mark.parametrize(
    ("body", "fault", "is_forgiven"),
    [
        ("policies: {timeouts: {t: 5}}", "r0.yaml:5: spec.policies.timeouts.t: `5` has no unit", True),
        (
            "targets: {apps: {a: {retry: nope}}}",
            "targets.apps.a.retry: unknown policy 'nope'",
            True,
        ),
        ("targets: {apps: {a: {circuitBreaker: nope}}}", "unknown policy", True),
        ("targets: {apps: {a: {retyr: x}}}", "did you mean retry?", True),
        ("policies: {retries: {r: {initialInterval: 1s}}}", "unknown key", True),
        ("policies: {timeouts: {t: soon}}", "`soon` is not a duration", False),
        ("policies: {retries: {r: {duration: 5x}}}", "is not a duration", False),
        ("policies: {retries: {r: {policy: linear}}}", "`linear` is not a kind of retry", False),
        ("policies: {retries: {r: {maxRetries: '3'}}}", "maxRetries: is not a whole number", False),
        ("policies: {retries: {r: {matching: {httpStatusCodes: '429, 500'}}}}", "without blanks", False),
        ("policies: {retries: {r: {matching: {gRPCStatusCodes: '17'}}}}", "from 0 to 16", False),
        ("policies: {circuitBreakers: {c: {maxRequests: -1}}}", "maxRequests", False),
        ("policies: {circuitBreakers: {c: {interval: x}}}", "is not a duration", False),
        ("policies: {timeouts: {y: 1s}}", "is a YAML boolean", False),
        ("targets: {apps: {a: }}", "apps.a: has no value", False),
    ],
)
def test_fault_is_told_with_its_place(tmp_path: Path, body: str, fault: str, is_forgiven: bool) -> None:
    text = resiliency(body)
    with pytest.raises(DocumentError) as caught:
        of(tmp_path, text)
    assert fault in str(caught.value)
    if is_forgiven:
        assert fault in "\n".join(of(tmp_path, text, lenient=True).warnings)
    else:
        with pytest.raises(DocumentError):
            of(tmp_path, text, lenient=True)


def test_lenient_reading_takes_bare_numbers_for_milliseconds(tmp_path: Path) -> None:
    text = resiliency("policies: {timeouts: {t: 5}}\ntargets: {apps: {a: {timeout: t, retry: nope}}}")
    found = of(tmp_path, text, lenient=True).resiliency.for_app("a", "own")
    assert (found.timeout_s, found.retry) == (0.005, None)
