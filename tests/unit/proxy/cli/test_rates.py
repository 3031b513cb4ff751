"""What `postern edges`, `stat` and `top` make of the sidecars' answers."""

from pathlib import Path
from typing import Any

import pytest

from proxy.cli.app import main
from proxy.cli.fleet import SidecarAnswer
from proxy.cli.rates import edge_rows, mesh_of, put_routes, route_rows, stat_rows, to_dot
from tests.unit.proxy.cli.test_commands import entry

ID = "spiffe://public/ns/default/"


def route(src: str, dst: str, **facts: Any) -> dict[str, Any]:
    """One with ten calls of 0.5 ms, as its caller saw them."""
    return {
        "direction": "outbound",
        "src": f"{src}.default",
        "dst": f"{dst}.default",
        "protocol": "http",
        "method": "GET",
        "path": "",
        "code_class": "2xx",
        "peer": f"{ID}{dst}",
        "last_seen": 90.0,
        "calls": [10, 0],
        "recent": [6, 0],
        **facts,
    }


def told(app: str, *routes: dict[str, Any], **facts: Any) -> SidecarAnswer:
    answer = {
        "bounds_s": [0.001],
        "window_s": 60.0,
        "spiffe_id": f"{ID}{app}",
        "mtls": True,
        "connections": 2,
        "routes": list(routes),
        **facts,
    }
    return SidecarAnswer(entry=entry(app, namespace="default", pid=7), answer=answer)


WEB = told("web", route("web", "cart"), route("web", "cart", code_class="5xx", calls=[10, 0], recent=[0, 0]))
CART = told(
    "cart",
    route("web", "cart", direction="inbound", peer=f"{ID}web", last_seen=95.0),
    route("far", "cart", direction="inbound", peer="", method="POST", recent=[12, 0]),
)
SILENT = SidecarAnswer(entry=entry("pay", namespace="default", pid=9), answer=None)


def test_edge_is_one_row_however_many_saw_it() -> None:
    rows = {row["src"]: row for row in edge_rows(mesh_of([WEB, CART, SILENT]), now=100.0)}
    web = rows["web.default"]
    assert (web["dst"], web["srcId"], web["dstId"]) == ("cart.default", f"{ID}web", f"{ID}cart")
    assert (web["calls"], web["success"], web["secured"], web["reason"]) == (20, 0.5, True, "")
    assert (web["lastSeen"], web["lastSeenAgoS"]) == (95.0, 5.0)
    far = rows["far.default"]
    assert (far["secured"], far["reason"]) == (False, "the caller showed no certificate")


def test_edge_without_mutual_tls_says_that_it_is_off() -> None:
    plain = told("web", route("web", "cart", peer=""), mtls=False, spiffe_id="")
    (row,) = edge_rows(mesh_of([plain]), now=100.0)
    assert (row["secured"], row["reason"]) == (False, "mutual TLS is off")


def test_sidecar_that_does_not_answer_or_answers_oddly_is_unresponsive() -> None:
    mesh = mesh_of([WEB, SILENT, told("old", routes=[{"odd": 1}])])
    assert [one.app_id for one in mesh.unresponsive] == ["pay", "old"]
    assert mesh.apps == ("web.default",)


def test_stat_is_of_calls_to_an_app_as_its_own_sidecar_saw_them() -> None:
    rows = stat_rows(mesh_of([WEB, CART]), app_id=None, caller=None, callee=None)
    assert [(row["name"], row["calls"], row["rps"]) for row in rows] == [
        ("cart.default", 18, 0.3),
        ("web.default", 0, None),
    ]
    assert rows[0]["connections"] == 2
    (only,) = stat_rows(mesh_of([WEB, CART]), app_id="cart", caller="far", callee=None)
    assert only["calls"] == 12


def test_stat_of_an_app_whose_sidecar_is_elsewhere_is_what_its_callers_saw() -> None:
    rows = stat_rows(mesh_of([WEB]), app_id="cart", caller=None, callee=None)
    assert [(row["name"], row["calls"], row["connections"]) for row in rows] == [("cart.default", 6, None)]


def test_stat_with_a_callee_is_of_calls_that_apps_make() -> None:
    rows = stat_rows(mesh_of([WEB, CART]), app_id="web", caller=None, callee="cart")
    assert [(row["name"], row["calls"]) for row in rows] == [("web.default", 6)]


def test_top_has_the_busiest_route_first_and_each_call_once() -> None:
    rows = route_rows(mesh_of([WEB, CART]), None)
    assert [(row["src"], row["method"], row["calls"]) for row in rows] == [
        ("far.default", "POST", 12),
        ("web.default", "GET", 6),
    ]
    assert [row["src"] for row in route_rows(mesh_of([WEB, CART]), "web")] == ["web.default"]


def test_live_routes_take_the_place_of_those_before(capsys: pytest.CaptureFixture[str]) -> None:
    mesh = mesh_of([WEB, SILENT])
    put_routes(route_rows(mesh, None), mesh, is_live=True, is_wide=False)
    printed = capsys.readouterr().out
    assert printed.startswith("\x1b[H\x1b[2Jthe last minute, 1 route; unresponsive: pay; Ctrl-C ends it")
    assert "LATENCY_P50" in printed
    put_routes([], mesh, is_live=True, is_wide=False)
    put_routes([], mesh, is_live=False, is_wide=False)
    printed_now, told_now = capsys.readouterr()
    assert "no matching calls in the last minute" in printed_now
    assert told_now == "no matching calls in the last minute\n"


def test_graph_quotes_names_and_dashes_what_is_not_secured() -> None:
    text = to_dot(edge_rows(mesh_of([told("web", route('x"\n', "cart", peer=""))]), now=100.0))
    assert '"x\\"\\\\n" -> "cart"' in text
    assert "style=dashed" in text
    assert 'label="10 calls, ' in text
    one = route("web", "cart", calls=[1, 0])
    assert 'label="1 call, ' in to_dot(edge_rows(mesh_of([told("web", one)]), now=100.0))
    assert text.endswith("}")


@pytest.mark.parametrize("command", ["edges", "stat", "top"])
def test_without_a_sidecar_the_place_is_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--runtime-path", str(tmp_path)]) == 1
    assert f"no sidecar runs in {tmp_path}" in capsys.readouterr().err
