"""Edges, nodes and routes as the page draws them."""

import pytest
from msgspec.structs import replace

from telemetry.dashboard.graph import edge_views, node_views, route_views, state_of
from telemetry.edges import Sums, merged
from tests.unit.telemetry.test_edges import CART, IN, OUT, WEB

FAILED = replace(OUT, code_class="5xx", calls=(1, 0, 0), recent=(1, 0, 0))


@pytest.mark.parametrize(
    ("calls", "success", "state"),
    [
        (0, None, "idle"),
        (10, 1.0, "ok"),
        (100, 0.99, "ok"),
        (100, 0.98, "warn"),
        (100, 0.95, "warn"),
        (100, 0.94, "bad"),
        (1, 0.0, "bad"),
    ],
)
def test_state_follows_the_share_that_succeeds(calls: int, success: float | None, state: str) -> None:
    sums = Sums(calls=calls, success=success, rps=1.0, p50_s=None, p95_s=None, p99_s=None)
    assert state_of(sums) == state


def test_edge_has_the_last_minute_its_lock_and_both_identities() -> None:
    (edge,) = edge_views([OUT, IN, FAILED], without_mtls=(), now=9.0)
    assert (edge["src"], edge["dst"], edge["state"]) == ("web.default", "cart.default", "bad")
    assert (edge["calls"], edge["total"], edge["success"]) == (4, 11, 0.75)
    assert (edge["secured"], edge["srcId"], edge["dstId"]) == (True, WEB, CART)
    assert edge["lastSeenAgoS"] == 2.0


def test_edge_without_mutual_tls_says_why() -> None:
    (edge,) = edge_views([replace(OUT, peer="")], without_mtls={"web.default"}, now=7.0)
    assert (edge["secured"], edge["reason"]) == (False, "mutual TLS is off")


def test_node_shows_calls_to_it_as_its_own_sidecar_saw_them() -> None:
    nodes = {node["id"]: node for node in node_views([OUT, IN], {"cart.default"}, ["old.default"])}
    assert nodes.keys() == {"cart.default", "web.default", "old.default"}
    assert (nodes["cart.default"]["isHere"], nodes["cart.default"]["calls"]) == (True, 3)
    assert (nodes["web.default"]["isHere"], nodes["web.default"]["state"]) == (False, "idle")


def test_routes_of_an_edge_are_told_once_the_busiest_first() -> None:
    slow = replace(OUT, path="/slow", recent=(0, 0, 1))
    other = replace(OUT, dst="stock.default")
    rows = route_views([slow, OUT, IN, FAILED, other], "web.default", "cart.default")
    assert [row["path"] for row in rows] == ["", "/slow"]
    assert rows[0]["codes"] == {"2xx": 10, "5xx": 1}
    assert rows[0]["total"] == 11
    assert merged([OUT, IN], is_recent=True).calls == 3
