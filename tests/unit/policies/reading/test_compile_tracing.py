"""What `spec.tracing` says of spans: read, and refused with its place."""

from pathlib import Path

import pytest

from policies.errors import DocumentError
from policies.rules.configuration import TracingConfig
from tests.unit.policies.writing import Json, configuration, loaded


def of(folder: Path, tracing: Json) -> TracingConfig:
    return loaded(folder, configuration({"tracing": tracing})).configuration.tracing


def test_what_spans_say_is_read(tmp_path: Path) -> None:
    written = {
        "accept": ["w3c"],
        "conventions": "otel",
        "captureQuery": True,
        "baggageAttributes": ["tenant", "user", "tenant"],
        "baggage": "strict",
        "baggageAllowed": [],
        "forceFrom": ["gateway", "web.shop"],
    }
    assert of(tmp_path, written) == TracingConfig(
        is_b3_read=False,
        conventions="otel",
        captures_query=True,
        baggage_attributes=("tenant", "user"),
        is_baggage_strict=True,
        baggage_allowed=(),
        force_from=("gateway", "web.shop"),
    )


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ({"accept": ["w3c", "jaeger"]}, r"accept\[1\]: `jaeger` is unknown \(expected w3c or b3\)"),
        ({"accept": ["b3"]}, "accept: lacks w3c"),
        ({"conventions": "ecs"}, r"conventions: `ecs` is unknown \(expected dapr, otel or both\)"),
        ({"captureQuery": "yes"}, "captureQuery: is not a boolean"),
        ({"baggage": "loose"}, r"baggage: `loose` is unknown \(expected strict or lenient\)"),
        ({"forceFrom": ["10.0.0.0/8"]}, r"forceFrom\[0\]: `10.0.0.0/8` is not an app"),
        ({"baggageAllowed": ["é"]}, r"baggageAllowed\[0\]: `é` is not a key"),
        ({"baggageAttributes": ["a b"]}, r"baggageAttributes\[0\]: `a b` is not a key of baggage"),
        ({"baggageAttributes": [str(n) for n in range(17)]}, "baggageAttributes: has 17 keys"),
    ],
)
def test_what_spans_cannot_say_is_a_fault(tmp_path: Path, written: Json, fault: str) -> None:
    with pytest.raises(DocumentError, match=f"spec.tracing.{fault}"):
        of(tmp_path, written)
