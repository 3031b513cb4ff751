"""Edges merged from what sidecars report."""

import math
from typing import Any

import pytest
from msgspec.structs import replace

from telemetry.edges import Route, identities, merged, percentile, routes_of, secured, seen_once, sums

WEB, CART = "spiffe://public/ns/default/web", "spiffe://public/ns/default/cart"
OUT = Route(
    direction="outbound",
    src="web.default",
    dst="cart.default",
    protocol="http",
    method="GET",
    path="",
    code_class="2xx",
    peer=CART,
    last_seen=7.0,
    calls=(10, 0, 0),
    recent=(3, 0, 0),
    bounds_s=(0.001, 0.01),
    window_s=60.0,
    own_id=WEB,
)
IN = replace(OUT, direction="inbound", peer=WEB, own_id=CART)


def test_report_is_read_as_routes() -> None:
    report: dict[str, Any] = {
        "bounds_s": [0.001],
        "window_s": 30,
        "spiffe_id": WEB,
        "routes": [
            {
                **{
                    label: label
                    for label in ("direction", "src", "dst", "protocol", "method", "path", "peer")
                },
                "code_class": "2xx",
                "last_seen": 1,
                "calls": [1, 2],
                "recent": [],
            }
        ],
    }
    (route,) = routes_of(report)
    assert (route.calls, route.recent, route.own_id, route.window_s) == ((1, 2), (), WEB, 30.0)
    with pytest.raises((KeyError, TypeError)):
        routes_of({**report, "routes": [{"odd": 1}]})


def test_call_that_both_ends_saw_counts_once() -> None:
    other = replace(IN, src="far.default")
    assert seen_once([OUT, IN, other]) == [OUT, other]


def test_success_leaves_out_server_errors_and_what_proxies_failed() -> None:
    failed = [replace(OUT, code_class=code, recent=(1, 0, 0)) for code in ("5xx", "timeout", "acl", "none")]
    good = [replace(OUT, code_class=code, recent=(1, 0, 0)) for code in ("2xx", "3xx", "4xx", "caller-left")]
    found = sums([*failed, *good], is_recent=True)
    assert (found.calls, found.success) == (8, 0.5)
    assert found.rps == pytest.approx(8 / 60)


def test_attempts_that_the_callees_end_saw_do_not_lower_the_success_of_calls() -> None:
    answered = replace(OUT, calls=(5, 0, 0))
    denied = replace(OUT, code_class="acl", calls=(2, 0, 0))
    at_callee = [replace(IN, calls=(5, 0, 0)), replace(IN, code_class="acl", calls=(8, 0, 0))]
    found = merged([answered, denied, *at_callee], is_recent=False)
    assert (found.calls, found.success) == (7, 5 / 7)
    assert merged(at_callee, is_recent=False).success == 5 / 13  # the caller's end is not known
    assert merged([], is_recent=False).success is None


def test_sums_since_the_start_have_no_rate() -> None:
    found = sums([OUT, OUT], is_recent=False)
    assert (found.calls, found.success, found.rps) == (20, 1.0, None)


def test_nothing_comes_to_nothing() -> None:
    found = sums([], is_recent=True)
    assert (found.calls, found.success, found.rps, found.p50_s) == (0, None, None, None)


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [((10, 0, 0), 0.5, 0.0005), ((0, 10, 0), 0.5, 0.0055), ((5, 5, 0), 0.95, 0.0091), ((0, 0, 4), 0.5, 0.01)],
)
def test_percentile_is_read_evenly_within_its_bucket(
    counts: tuple[int, ...], share: float, expected: float
) -> None:
    found = percentile(counts, (0.001, 0.01), share)
    assert found is not None
    assert math.isclose(found, expected)


def test_percentile_is_no_longer_than_the_longest_call() -> None:
    assert percentile((0, 1, 0), (0.001, 0.01), 0.99, 0.003) == 0.003
    assert percentile((0, 0, 9), (0.001, 0.01), 0.99, 0.5) == 0.01


def test_percentile_of_no_call_is_unknown() -> None:
    assert percentile((0, 0, 0), (0.001, 0.01), 0.5) is None


def test_edge_is_secured_by_what_was_proven_and_else_says_why_not() -> None:
    plain_out, plain_in = replace(OUT, peer=""), replace(IN, peer="")
    assert secured([OUT, IN], is_mtls_off=False) == (True, "")
    assert secured([OUT, replace(plain_out, code_class="no-app")], is_mtls_off=False) == (True, "")
    assert secured([replace(plain_out, code_class="connect")], is_mtls_off=False) == (
        None,
        "nothing was sent",
    )
    shed = replace(OUT, code_class="shed")
    assert secured([shed], is_mtls_off=False) == (None, "nothing was sent")
    assert secured([replace(shed, made_by="peer-proxy")], is_mtls_off=False) == (True, "")
    assert secured([plain_out], is_mtls_off=True) == (False, "mutual TLS is off")
    assert secured([plain_out], is_mtls_off=False) == (False, "the callee is outside of the mesh")
    assert secured([OUT, plain_in], is_mtls_off=False) == (False, "the caller showed no certificate")
    own = replace(plain_out, dst="web.default")
    assert secured([own], is_mtls_off=False) == (None, "an app's call to itself, which stays on its host")


def test_identities_come_from_either_end() -> None:
    assert identities([OUT]) == identities([IN]) == (WEB, CART)
    assert identities([replace(OUT, own_id="", peer=""), IN]) == (WEB, CART)
