"""Which Host and which Origin are let in, and what pages are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.contract.addresses import join_address
from proxy.contract.fields import carries
from proxy.contract.head import Headers
from proxy.deciding.browsers import BEYOND_PAGES, Browsers, refused_page
from telemetry.hosts import own_names, split_authority


def let_in(authority: str, hostname: str) -> bool:
    """Whether a Host is that of a machine of this name."""
    return Browsers(hosts=own_names(hostname, beyond=False)).host_refused(authority) is None


# --- hosts


@given(st.ip_addresses(), st.integers(0, 65535))
def test_authority_of_any_address_splits_back_and_is_own(ip: object, port: int) -> None:
    authority = join_address(str(ip), port)
    assert split_authority(authority) == (str(ip), str(port))
    assert let_in(authority, "box")


@pytest.mark.parametrize(
    "authority",
    [
        *("", ":3500", "localhost", "localhost:3500", "localhost.", "127.0.0.1:1", "10.1.2.3", "[::1]:3500"),
        *("[fe80::1%25eth0]:80", "box", "box:3500", "cart.localhost:3500"),
    ],
)
def test_own_host_is_this_machine_beyond_doubt(authority: str) -> None:
    assert let_in(authority, "Box")


@pytest.mark.parametrize(
    "authority",
    [
        "evil.example",
        "evil.example:3500",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io:3500",
        "evillocalhost",
        "box.evil.example",
        "boxx",
        "2130706433",
        "0x7f.1",
        "127.1",
        "::1",
    ],
)
def test_host_that_a_foreign_name_server_may_rebind_is_not_own(authority: str) -> None:
    assert not let_in(authority, "box")


# --- origins


@pytest.mark.parametrize(
    ("origin", "allowed", "expected"),
    [
        ("http://a.example", (), False),
        ("http://a.example", ("*",), True),
        ("null", ("http://a.example",), False),
        ("http://a.example", ("http://a.example",), True),
        ("http://a.example:80", ("http://a.example",), False),
        ("https://a.example", ("http://a.example",), False),
        ("http://dev.example:3000", ("http://*.example:3000",), True),
        ("http://example:3000", ("http://*.example:3000",), False),
        ("http://x", ("http://nobody", "http://*"), True),
        ("ab", ("abc*abc",), False),
        ("aba", ("ab*ba",), False),
        ("abba", ("ab*ba",), True),
        ("http://a.evil", ("http://a.*.evil",), False),
        ("", ("",), True),
    ],
)
def test_origin_is_matched_whole(origin: str, allowed: tuple[str, ...], expected: bool) -> None:
    assert Browsers(origins=allowed).listed(origin) is expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (b"dapr-app-id", b"cart", True),
        (b"forwarded", b"for=1", True),
        (b"x-forwarded-for", b"", True),
        (b"x-request-id", b"1", True),
        (b"traceparent", b"x", True),
        (b"authorization", b"bearer abc", True),
        (b"authorization", b"Bearer", True),
        (b"authorization", b"Basic abc", False),
        (b"authorization", b"Basic bearer", False),
        (b"content-type", b"Application/JSON;charset=utf-8", True),
        (b"content-type", b"application/grpc-web+proto", True),
        (b"content-type", b"text/plain; application/json", False),
        (b"content-type", b"text/plain", False),
        (b"content-type", b"application/jsonp", False),
        (b"content-type", b"multipart/form-data", False),
        (b"x-forwarded", b"1", False),
        (b"xdapr-app-id", b"1", False),
        (b"accept", b"application/json", False),
        (b"sec-fetch-site", b"cross-site", False),
    ],
)
def test_fields_that_no_page_can_send_without_a_preflight(name: bytes, value: bytes, expected: bool) -> None:
    assert carries(((b"host", b"x"), (name, value)), BEYOND_PAGES) is expected


# --- the metrics and public ports

PROMETHEUS: Headers = (
    (b"accept", b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"),
    (b"x-prometheus-scrape-timeout-seconds", b"10"),
)
BROWSER: Headers = ((b"accept-language", b"en"), (b"accept", b"*/*"))
BEYOND = own_names("node1", beyond=True)


@pytest.mark.parametrize(
    ("authority", "headers", "names", "expected"),
    [
        ("localhost:9090", (), None, True),
        ("10.1.2.3:9090", (), None, True),
        ("evil.example", (), None, False),
        ("evil.example", BROWSER, BEYOND, False),
        ("evil.example", (*BROWSER, *PROMETHEUS), BEYOND, False),
        ("metrics.example.com", PROMETHEUS, BEYOND, True),
        ("metrics.example.com", PROMETHEUS, None, True),
        ("node1.prod.example.com:9090", BROWSER, BEYOND, True),
        ("NODE1", (), BEYOND, True),
        ("host.docker.internal:9090", (), BEYOND, True),
        ("web.shop.svc.cluster.local:9090", (), BEYOND, True),
        ("web.shop.svc", (), BEYOND, True),
        ("web.shop.svc.evil.example", (), BEYOND, False),
        ("x.internal.evil.example", (), BEYOND, False),
        ("localhost.evil.example", (), own_names("localhost.localdomain", beyond=True), False),
        ("compose-name:9090", (), BEYOND, True),
        ("compose-name:9090", (), None, False),
        ("localhost:9090", ((b"origin", b"http://evil.example"),), BEYOND, False),
        ("localhost:9090", ((b"origin", b"http://localhost:9090"),), None, True),
        ("localhost:9090", ((b"sec-fetch-site", b"same-site"),), None, False),
        ("localhost:9090", ((b"sec-fetch-site", b"none"),), None, True),
    ],
)
def test_metrics_are_for_scrapers_and_not_for_pages(
    authority: str, headers: Headers, names: tuple[str, ...] | None, expected: bool
) -> None:
    why = refused_page(Browsers(), authority, headers, names=names, scraped=True)
    assert (why is None) is expected
    assert expected or "--allowed-" in str(why)
