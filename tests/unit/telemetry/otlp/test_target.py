"""Where OTLP goes."""

import pytest

from telemetry.otlp.target import OtlpTarget


@pytest.mark.parametrize(
    ("target", "address"),
    [
        (OtlpTarget(host="c", protocol="grpc"), "c:443"),
        (OtlpTarget(host="c", protocol="grpc", is_secure=False), "c:4317"),
        (OtlpTarget(host="c", protocol="http", is_secure=False), "c:4318"),
        (OtlpTarget(host="::1", port=9, protocol="http"), "[::1]:9"),
    ],
)
def test_address_has_a_port(target: OtlpTarget, address: str) -> None:
    assert target.address == address


def test_url_has_the_usual_path_or_its_own() -> None:
    target = OtlpTarget(host="c", port=80, protocol="http", is_secure=False)
    assert target.url("traces") == "http://c:80/v1/traces"
    own = OtlpTarget(host="c", protocol="http", path="/in")
    assert own.url("metrics") == "https://c:443/in"


def test_headers_are_in_no_repr() -> None:
    assert "secret" not in repr(OtlpTarget(host="c", protocol="grpc", headers=(("api-key", "secret"),)))
