"""What targets of a Traffic say of retries."""

from pathlib import Path

import pytest

from policies.rules.budgets import RetryShare, RetryThrottle
from policies.rules.retries import BackoffRule, HedgeRule, TargetRetries
from tests.unit.policies.reading.test_compile_traffic import faults, loaded, traffic
from tests.unit.policies.writing import OWN


def of_a(folder: Path, body: str) -> TargetRetries:
    found = loaded(folder, traffic(f"targets: {{apps: {{a: {body}}}}}")).traffic
    return found.for_app("a", OWN.namespace).retries


def test_retries_of_a_target_beyond_what_a_resiliency_says(tmp_path: Path) -> None:
    found = of_a(
        tmp_path,
        "{retryBudget: {ratio: 0.5, minRetriesPerSecond: 1, ttl: 5s}, retryOn: idempotent, overallTimeout: 1500ms,"
        " backoff: {jitter: full, initialInterval: 250ms, multiplier: 2}}",
    )
    assert found == TargetRetries(
        budget=RetryShare(ratio=0.5, min_per_s=1.0, ttl_s=5.0),
        on="idempotent",
        overall_s=1.5,
        backoff=BackoffRule(jitter="full", first_s=0.25, multiplier=2.0),
    )


@pytest.mark.parametrize(
    ("written", "budget"),
    [
        ("off", "off"),
        ("'off'", "off"),
        ("{}", RetryShare()),
        ("{ratio: 1}", RetryShare(ratio=1.0)),
        ("{ttl: 60s}", RetryShare(ttl_s=60.0)),
        ("{maxTokens: 20}", RetryThrottle(max_tokens=20.0)),
        ("{tokenRatio: 0.5}", RetryThrottle(token_ratio=0.5)),
    ],
)
def test_budget_is_a_share_a_throttle_or_none(tmp_path: Path, written: str, budget: object) -> None:
    assert of_a(tmp_path, f"{{retryBudget: {written}}}").budget == budget


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ("{delay: 50ms}", HedgeRule(attempts=2, delay_s=0.05)),
        (
            '{maxAttempts: 5, delay: 1s, methods: [/a.B/C], nonFatalStatusCodes: "2,14"}',
            HedgeRule(attempts=5, delay_s=1.0, methods=frozenset({"/a.B/C"}), grpc_codes=frozenset({2, 14})),
        ),
        (
            '{delay: 5ms, nonFatalStatusCodes: ""}',
            HedgeRule(attempts=2, delay_s=0.005, grpc_codes=frozenset()),
        ),
    ],
)
def test_hedging_is_read(tmp_path: Path, written: str, rule: HedgeRule) -> None:
    assert of_a(tmp_path, f"{{hedging: {written}}}").hedging == rule


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("retryBudget: {ratio: -1}", "retryBudget.ratio: -1 is out of range (expected 0 to 1000)"),
        ("retryBudget: {ratio: 0.1, maxTokens: 1}", "retryBudget: is a share and a throttle"),
        ("retryBudget: {ttl: 61s}", "retryBudget.ttl: `61s` is out of range (expected 1s to 60s)"),
        ("retryBudget: {ttl: 10h}", "retryBudget.ttl: `10h` is out of range"),
        ("retryBudget: {maxTokens: 0}", "retryBudget.maxTokens: 0 is out of range (expected 1 to 1000)"),
        ("retryBudget: on", "retryBudget"),
        ("retryOn: all", "retryOn"),
        ("backoff: {jitter: half}", "backoff.jitter"),
        ("backoff: {multiplier: 0.5}", "backoff.multiplier: 0.5 is out of range (expected 1 to 100)"),
        ("backoff: {initialInterval: soon}", "backoff.initialInterval: `soon` is not a duration"),
        ("overallTimeout: 0s", "overallTimeout: `0s` is out of range"),
        ("overallTimeout: -1s", "overallTimeout: `-1s` is out of range"),
        ("overalTimeout: 1s", "overalTimeout"),
        ("hedging: {}", "hedging.delay: is missing"),
        ("hedging: {delay: p99}", "hedging.delay: `p99` is not a duration"),
        ("hedging: {delay: 1ms}", "hedging.delay: `1ms` is too short"),
        ("hedging: {delay: 1s, maxAttempts: 6}", "hedging.maxAttempts: 6 is out of range (expected 2 to 5)"),
        ("hedging: {delay: 1s, maxAttempts: 1}", "hedging.maxAttempts: 1 is out of range"),
        ("hedging: {delay: 1s, methods: [Get]}", "hedging.methods[0]: `Get` is not a method of gRPC"),
        (
            'hedging: {delay: 1s, nonFatalStatusCodes: "17"}',
            "hedging.nonFatalStatusCodes: `17` is out of range",
        ),
    ],
)
def test_fault_is_told_with_its_field(tmp_path: Path, written: str, told: str) -> None:
    (found,) = faults(tmp_path, traffic(f"targets:\n  apps:\n    a:\n      {written}"))
    assert found.startswith("8: spec.targets.apps.a.")
    assert told in found
