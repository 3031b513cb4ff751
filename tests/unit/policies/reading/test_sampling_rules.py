"""`spec.tracing.rules`: read, and refused with its place."""

from pathlib import Path

import pytest

from policies.errors import DocumentError
from policies.rules.configuration import SamplingRule
from tests.unit.policies.writing import Json, configuration, loaded


def of(folder: Path, *rules: Json) -> tuple[SamplingRule, ...]:
    return loaded(folder, configuration({"tracing": {"rules": rules}})).configuration.tracing.rules


def test_rules_are_read_in_order(tmp_path: Path) -> None:
    first = {
        "target": "cart.shop",
        "method": "/orders/{*}",
        "verb": "GET",
        "header": {"X-Debug": ["1", "yes"]},
        "samplingRate": "2",
        "maxPerSecond": 5,
    }
    assert of(tmp_path, first, {"samplingRate": 0.5}) == (
        SamplingRule(
            rate=1.0,
            target="cart.shop",
            method="/orders/{*}",
            verb="GET",
            headers=((b"x-debug", frozenset({b"1", b"yes"})),),
            per_s=5.0,
        ),
        SamplingRule(rate=0.5),
    )


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ({}, "samplingRate"),
        ({"samplingRate": "often"}, "samplingRate: `often` is not a sampling rate"),
        ({"samplingRate": "1", "target": "a b"}, "target: `a b` is not a callee"),
        ({"samplingRate": "1", "method": "orders"}, "method: `orders` is not a path template"),
        ({"samplingRate": "1", "verb": "get"}, "verb: `get` is not a verb"),
        ({"samplingRate": "1", "maxPerSecond": 0}, "maxPerSecond: `0` is not a number of traces"),
        (
            {"samplingRate": "1", "header": {"authorization": ["x"]}},
            "header: `authorization` cannot be asked for",
        ),
        ({"samplingRate": "1", "header": {"x": []}}, "header: x has no values"),
        ({"samplingRate": "1", "header": {f"x{n}": ["1"] for n in range(5)}}, "header: names 5 headers"),
    ],
)
def test_rule_that_cannot_be_meant_is_a_fault(tmp_path: Path, rule: Json, fault: str) -> None:
    with pytest.raises(DocumentError, match=fault):
        of(tmp_path, rule)


def test_too_many_rules_are_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="has 65 rules"):
        of(tmp_path, *({"samplingRate": "1"} for _ in range(65)))
