"""Spans as Zipkin JSON v2."""

import json

import pytest

from telemetry.errors import ExporterConfigError
from telemetry.zipkin import ZipkinExporter, encode_spans, zipkin_span
from tests.unit.telemetry.building import BEGAN, SAMPLED, a_span


def test_zipkin_span_is_exactly_what_zipkin_wants() -> None:
    span = a_span(
        context=SAMPLED._replace(parent_id=0xB2),
        events=((BEGAN + 1_000_000, "retry attempt=2"),),
        error="bad",
    )
    assert zipkin_span(span) == {
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
        "id": "00000000000000a1",
        "parentId": "00000000000000b2",
        "kind": "CLIENT",
        "name": "calllocal/checkout/orders",
        "timestamp": BEGAN // 1000,
        "duration": 2000,
        "localEndpoint": {"serviceName": "cart"},
        "remoteEndpoint": {"serviceName": "checkout", "ipv4": "10.0.0.7", "port": 5000},
        "tags": {
            "dapr.protocol": "http",
            "service.name": "cart",
            "otel.scope.name": "dapr-diagnostics",
            "otel.status_code": "ERROR",
            "error": "bad",
        },
        "annotations": [{"timestamp": BEGAN // 1000 + 1000, "value": "retry attempt=2"}],
    }


def test_zipkin_span_of_a_root_that_went_well_has_no_more_than_it_needs() -> None:
    encoded = zipkin_span(a_span(remote_service="", remote_host="", remote_port=0))
    assert {"parentId", "remoteEndpoint", "annotations", "shared", "debug"}.isdisjoint(encoded)
    assert "error" not in encoded["tags"]


@pytest.mark.parametrize(("took_ns", "micros"), [(-5, 1), (0, 1), (999, 1), (1000, 1), (2999, 2)])
def test_zipkin_span_duration_is_at_least_one_microsecond(took_ns: int, micros: int) -> None:
    assert zipkin_span(a_span(end_ns=BEGAN + took_ns))["duration"] == micros


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("::1", 80, {"serviceName": "checkout", "ipv6": "::1", "port": 80}),
        ("10.0.0.1", 0, {"serviceName": "checkout", "ipv4": "10.0.0.1"}),
        ("checkout.local", 80, {"serviceName": "checkout"}),
    ],
)
def test_zipkin_span_remote_address_by_family(host: str, port: int, expected: dict[str, object]) -> None:
    assert zipkin_span(a_span(remote_host=host, remote_port=port))["remoteEndpoint"] == expected


def test_zipkin_span_service_names_are_lower_case() -> None:
    encoded = zipkin_span(a_span(service="Cart", remote_service="CheckOut"))
    assert encoded["localEndpoint"]["serviceName"] == "cart"
    assert encoded["remoteEndpoint"]["serviceName"] == "checkout"


def test_encode_spans_is_one_json_array() -> None:
    assert json.loads(encode_spans([])) == []
    assert len(json.loads(encode_spans([a_span(), a_span(name='"\n\u2028é')]))) == 2


@pytest.mark.parametrize(
    "bad", ["", "localhost:9411", "/api/v2/spans", "ftp://x/", "http://", "http://x:99999/"]
)
def test_exporter_address_without_scheme_or_host_is_refused(bad: str) -> None:
    with pytest.raises(ExporterConfigError, match="zipkin: address"):
        ZipkinExporter(bad)


def test_text_beyond_ascii_and_half_a_surrogate_pair_are_valid_json() -> None:
    for path in ("/bücher/漢", "/\ud800"):
        [found] = json.loads(encode_spans([a_span(attributes=(("url.path", path),))]))
        assert found["tags"]["url.path"] == path
