"""Which calls a tap shows."""

from typing import Any

import pytest
from msgspec.structs import replace

from proxy.control.tap_filters import TapFilter, parse_filter
from tests.unit.telemetry.building import a_call

WEB_TO_CART = replace(
    a_call(), src="web", src_namespace="shop", dst="cart", dst_namespace="far", protocol="http"
)
GRPC = replace(WEB_TO_CART, protocol="grpc", verb="POST", path="/shop.Cart/Get", status=200, grpc_code=14)


def shows(call: Any, **query: str) -> bool:
    return parse_filter({key.replace("_", "-"): [text] for key, text in query.items()}).lets_through(call)


def test_no_filter_lets_every_call_through() -> None:
    assert parse_filter({}) == TapFilter()
    assert shows(WEB_TO_CART)
    assert shows(GRPC)


@pytest.mark.parametrize(
    ("key", "met", "missed"),
    [
        ("from", "web", "cart"),
        ("from", "web.shop,other", "web.far"),
        ("to", "cart", "web"),
        ("to", "cart.far", "cart.shop"),
        ("method", "get", "POST"),
        ("path", "/orders", "/items"),
        ("status", "4xx", "5xx"),
        ("status", "500,404", "403"),
        ("slower-than", "5ms", "6s"),
    ],
)
def test_call_over_http_is_shown_where_it_meets_the_filter(key: str, met: str, missed: str) -> None:
    call = replace(
        WEB_TO_CART, verb="GET", path="/orders/7", status=404, started_ns=0, ended_ns=5_000_000_000
    )
    assert shows(call, **{key: met})
    assert not shows(call, **{key: missed})


@pytest.mark.parametrize("code", ["14", "Unavailable", "UNAVAILABLE", "not_found,unavailable"])
def test_codes_of_grpc_are_read_as_people_write_them(code: str) -> None:
    assert shows(GRPC, grpc_status=code)
    assert not shows(replace(GRPC, grpc_code=0), grpc_status=code)


@pytest.mark.parametrize("method", ["Get", "/shop.Cart/Get", "post"])
def test_grpc_method_is_named_by_name_path_or_verb(method: str) -> None:
    assert shows(GRPC, method=method)
    assert not shows(GRPC, method="List")


def test_statuses_of_both_protocols_are_alternatives() -> None:
    assert not shows(GRPC, status="200")
    assert shows(GRPC, status="5xx", grpc_status="14")
    assert shows(replace(WEB_TO_CART, status=503), status="5xx", grpc_status="14")
    assert not shows(replace(WEB_TO_CART, status=503), grpc_status="14")


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("status", "6xx", "expected statuses such as 404 or 5xx"),
        ("status", "", "expected statuses"),
        ("grpc-status", "Sad", "expected gRPC codes"),
        ("slower-than", "long", "a duration such as"),
        ("slower-than", "-1s", "from 0 to a day"),
        ("path", "orders", "expected one path"),
        ("max-rps", "0", "above 0"),
        ("max-rps", "nan", "above 0"),
        ("max-rps", "many", "above 0"),
        ("from", ",", "expected a name"),
        ("form", "web", "no such filter, expected from, grpc-status"),
    ],
)
def test_filter_that_can_not_be_read_says_what_was_expected(key: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as met:
        parse_filter({key: [text]})
    assert str(met.value).startswith(key)
