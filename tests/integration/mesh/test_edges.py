"""Edges and routes of real sidecars, on both engines: what each end saw, and what the commands make of both."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.cli.app import main
from proxy.cli.fleet import ask, entries
from proxy.cli.rates import TARGET, edge_rows, mesh_of, route_rows, stat_rows
from telemetry.edges import routes_of
from tests.integration.mesh.standing import NO_SECRET_FOR_WEB, Standing, invoke, standing
from tests.support.engines import ENGINES
from tests.support.http_client import request

IDS = "spiffe://public/ns/default"
CALLS = 4


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Standing]:
    """`web` has called `shop` as often as `CALLS`, and was denied `/secret` as often."""
    files: Path = tmp_path_factory.mktemp("edges")
    rules = files / "rules.yaml"
    rules.write_text(NO_SECRET_FOR_WEB)
    async with standing(files, flags=("--engine", request.param), shop=("--config", str(rules))) as found:
        for path in ("/bytes?n=7", "/secret") * CALLS:
            await _call(found, path)
        yield found


async def _call(shop: Standing, path: str) -> None:
    await request(shop.web.http_port, "GET", invoke("shop", path))


async def test_each_end_counts_its_calls_by_peer_and_result(shop: Standing) -> None:
    out = routes_of(json.loads((await shop.web.admin(TARGET)).body))
    into = routes_of(json.loads((await shop.shop.admin(TARGET)).body))
    assert {r.code_class: (r.made_by, r.was_sent) for r in out} == {
        "2xx": ("", True),
        "acl": ("peer-proxy", True),
    }
    assert {(r.direction, r.pair, r.code_class, r.peer, sum(r.calls)) for r in out} == {
        ("outbound", ("web.default", "shop.default"), "2xx", f"{IDS}/shop", CALLS),
        ("outbound", ("web.default", "shop.default"), "acl", f"{IDS}/shop", CALLS),
    }
    assert {(r.direction, r.code_class, r.peer, r.own_id, sum(r.recent)) for r in into} == {
        ("inbound", "2xx", f"{IDS}/web", f"{IDS}/shop", CALLS),
        ("inbound", "acl", f"{IDS}/web", f"{IDS}/shop", CALLS),
    }


async def test_commands_count_each_call_once_and_a_denial_as_no_success(shop: Standing) -> None:
    mesh = mesh_of(await ask(entries(shop.mesh.root), TARGET, timeout_s=10.0))
    (edge,) = edge_rows(mesh, now=0.0)
    assert (edge["srcId"], edge["dstId"], edge["secured"]) == (f"{IDS}/web", f"{IDS}/shop", True)
    assert (edge["calls"], edge["success"]) == (2 * CALLS, 0.5)
    (route,) = route_rows(mesh, "shop")
    assert (route["method"], route["calls"], route["success"]) == ("GET", 2 * CALLS, 0.5)
    rows = {row["name"]: row for row in stat_rows(mesh, app_id=None, caller=None, callee=None)}
    assert (rows["shop.default"]["calls"], rows["shop.default"]["success"]) == (2 * CALLS, 0.5)
    assert rows["web.default"]["calls"] == 0


@pytest.mark.parametrize("words", [("edges",), ("edges", "-o", "dot"), ("stat",), ("top", "--once")])
def test_command_prints_what_it_was_told(
    shop: Standing, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*words, "--runtime-path", str(shop.mesh.root)])
    printed = capsys.readouterr()
    assert (code, "shop" in printed.out, "50.00%" in printed.out) == (0, True, True), printed.err
