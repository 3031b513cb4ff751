"""Which calls a tap shows."""

from typing import Any

import pytest
from msgspec.structs import replace

from proxy.control.tap_filters import MAX_HEADERS, TapFilter, parse_filter
from telemetry.context import SpanContext
from tests.unit.telemetry.building import a_call

WEB_TO_CART = replace(
    a_call(), src="web", src_namespace="shop", dst="cart", dst_namespace="far", protocol="http"
)
GRPC = replace(WEB_TO_CART, protocol="grpc", verb="POST", path="/shop.Cart/Get", status=200, grpc_code=14)


def shows(call: Any, **query: str) -> bool:
    wanted = parse_filter({key.replace("_", "-"): [text] for key, text in query.items()})
    return wanted.may_show(call) and wanted.shows_end(call)


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
        ("sample", "0", "a share of calls"),
        ("sample", "1.5", "a share of calls"),
        ("headers", "x y", "is not the name of a header"),
        ("headers", "x-a,Cookie", "cookie may hold secrets"),
        ("headers", "X-Auth-Token", "x-auth-token may hold secrets"),
        ("headers", ",".join(f"h{n}" for n in range(MAX_HEADERS + 1)), "up to 16 names"),
        ("ends", "yes", "expected true or false"),
        ("form", "web", "no such filter, expected ends, from, grpc-status"),
    ],
)
def test_filter_that_can_not_be_read_says_what_was_expected(key: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as met:
        parse_filter({key: [text]})
    assert str(met.value).startswith(key)


@pytest.mark.parametrize(
    ("query", "status", "head_ns", "is_shown"),
    [
        ({}, 200, 0, True),
        ({"status": "5xx"}, 503, 0, True),
        ({"status": "5xx"}, 200, 0, False),
        ({"grpc-status": "14"}, 200, 0, False),
        ({"slower-than": "1s"}, 200, 2_000_000_000, True),
        ({"slower-than": "1s"}, 200, 5, False),
        ({"ends": "true"}, 200, 0, False),
    ],
)
def test_answers_are_shown_where_they_meet_the_filter(
    query: dict[str, str], status: int, head_ns: int, is_shown: bool
) -> None:
    wanted = parse_filter({key: [text] for key, text in query.items()})
    assert wanted.shows_answer(replace(WEB_TO_CART, started_ns=0), status, head_ns) is is_shown
    assert wanted.is_of_requests is (not query)


def test_answers_of_grpc_are_shown_unless_their_codes_count() -> None:
    assert parse_filter({}).shows_answer(GRPC, 200, GRPC.started_ns)
    assert not parse_filter({"grpc-status": ["0"]}).shows_answer(GRPC, 200, GRPC.started_ns)
    assert not parse_filter({"status": ["2xx"]}).shows_answer(GRPC, 200, GRPC.started_ns)


def test_share_of_calls_is_the_same_at_both_ends() -> None:
    wanted = parse_filter({"sample": ["0.25"]})
    chosen = 0
    for number in range(1, 401):
        span_id = number * 0x9E3779B97F4A7C15 % 2**64
        at_caller = replace(WEB_TO_CART, context=SpanContext(9, span_id, 0, sampled=False))
        at_callee = replace(
            WEB_TO_CART, direction="inbound", context=SpanContext(9, 77, span_id, sampled=False)
        )
        assert wanted.may_show(at_caller) is wanted.may_show(at_callee)
        chosen += wanted.may_show(at_caller)
    assert 80 < chosen < 120  # spread evenly


def test_share_of_calls_whose_spans_are_not_known_goes_by_when_they_began() -> None:
    unknown = replace(WEB_TO_CART, context=SpanContext(0, 0, 0, sampled=False))
    wanted = parse_filter({"sample": ["0.5"]})
    shown = [wanted.may_show(replace(unknown, started_ns=number * 1_000)) for number in range(400)]
    assert 150 < sum(shown) < 250
