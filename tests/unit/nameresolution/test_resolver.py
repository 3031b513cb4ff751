from __future__ import annotations

import pytest

from nameresolution.resolver import AppName, Endpoint, SourceFailure


@pytest.mark.parametrize(
    ("host", "address"),
    [("10.0.0.1", "10.0.0.1:1"), ("fd00::1", "[fd00::1]:1"), ("box.example", "box.example:1")],
)
def test_endpoint_address_brackets_ipv6_only(host: str, address: str) -> None:
    assert Endpoint(host=host, port=1).address == address


def test_endpoint_attribute_absent_is_empty() -> None:
    endpoint = Endpoint(host="a", port=1, attributes=(("m", "x"),))
    assert (endpoint.attribute("m"), endpoint.attribute("ns")) == ("x", "")


def test_name_and_failure_read_as_text() -> None:
    assert str(AppName("cart", "shop")) == "cart.shop"
    assert str(SourceFailure(reason="blocked", fix="open it")) == "blocked (fix: open it)"
    assert str(SourceFailure(reason="blocked")) == "blocked"
