"""Pictures of the mesh: of this moment alone, and honest of who did not answer."""

from typing import Any

from nameresolution.host_registry import Entry
from proxy.cli.fleet import SidecarAnswer
from proxy.cli.live.picture import Painter
from telemetry.dashboard.layout import MAX_NODES
from tests.support.fake_sidecars import BOUNDS_S, route


def entry(app_id: str, number: int = 1) -> Entry:
    return Entry(app_id=app_id, instance=f"{app_id}-{number}", peer_port=1, pid=7, started_at=1.0)


def edges_of(*routes: dict[str, Any]) -> dict[str, Any]:
    return {"bounds_s": BOUNDS_S, "window_s": 60.0, "connections": 1, "mtls": True, "routes": list(routes)}


def told(app_id: str, answer: dict[str, Any] | None) -> SidecarAnswer:
    return SidecarAnswer(entry=entry(app_id), answer=answer)


CALL = route("web", "cart", rps=2.0, code_class="2xx", took_s=0.01)


def test_picture_has_nodes_edges_and_where_they_stand() -> None:
    picture, mesh = Painter().paint([told("web", edges_of(CALL)), told("cart", edges_of())], {}, 100.0)
    assert [node["id"] for node in picture["nodes"]] == ["cart.default", "web.default"]
    (edge,) = picture["edges"]
    assert (edge["rps"], edge["state"]) == (2.0, "ok")
    assert picture["layout"]["nodes"]["web.default"][0] < picture["layout"]["nodes"]["cart.default"][0]
    assert len(mesh.routes) == 1


def test_silent_sidecar_is_told_with_nothing_but_since_when() -> None:
    painter = Painter()
    status = {"cart-1": {"ready": True, "identity": {"secondsLeft": 9}}}
    first, _ = painter.paint([told("cart", edges_of())], status, 100.0)
    assert first["sidecars"][0]["state"] == "ready"
    second, _ = painter.paint([told("cart", None)], {}, 107.0)
    (row,) = second["sidecars"]
    assert (row["state"], row["heardAt"], row["withinMs"]) == ("silent", 100.0, 300)
    assert "identity" not in row


def test_edge_that_only_silent_sidecars_know_stays_as_unknown_until_they_answer_or_end() -> None:
    painter = Painter()
    painter.paint([told("web", edges_of(CALL))], {}, 100.0)
    for moment in (101.0, 102.0):
        picture, _ = painter.paint([told("web", None)], {}, moment)
        (edge,) = picture["edges"]
        assert (edge["state"], edge["rps"], edge["calls"], edge["secured"]) == ("unknown", None, None, None)
        assert {node["id"] for node in picture["nodes"]} == {"cart.default", "web.default"}
    picture, _ = painter.paint([told("web", edges_of())], {}, 103.0)
    assert picture["edges"] == []


def test_layout_stays_the_same_value_while_only_numbers_change() -> None:
    painter = Painter()
    first, _ = painter.paint([told("web", edges_of(CALL))], {}, 100.0)
    busier = route("web", "cart", rps=9.0, code_class="5xx", took_s=0.5)
    second, _ = painter.paint([told("web", edges_of(busier))], {}, 101.0)
    assert first["layout"] is second["layout"]
    assert second["edges"][0]["state"] == "bad"


def test_too_many_apps_are_told_without_a_layout() -> None:
    crowd = [told(f"app{number}", edges_of()) for number in range(MAX_NODES + 1)]
    picture, _ = Painter().paint(crowd, {}, 1.0)
    assert picture["layout"] is None
    assert len(picture["nodes"]) == MAX_NODES + 1


def test_answer_that_is_none_counts_as_an_answer_without_numbers() -> None:
    picture, mesh = Painter().paint([told("web", {"odd": 1})], {}, 1.0)
    assert picture["sidecars"][0]["state"] == "unknown"
    assert [one.app_id for one in mesh.unresponsive] == ["web"]
