"""`postern dashboard` over HTTP: who may ask, what is told, and that it ends."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.cli.live.service import MAX_STREAMS
from tests.integration.cli.dashboards import Dashboard, dashboard
from tests.integration.mesh.standing import NO_SECRET_FOR_WEB, Standing, eventually, invoke, standing
from tests.support.errors import ProcessEndedError
from tests.support.fake_sidecars import FakeSidecar, fake_sidecars, tell
from tests.support.http_client import connect, request
from tests.support.mesh import SharedSentry
from tests.support.ports import free_ports

API = (
    "/api/about",
    "/api/events",
    "/api/sidecar?instance=x",
    "/api/edge?src=a&dst=b",
    "/api/traces",
    "/api/trace?id=1",
)
FILES = ("/", "/main.js", "/base.css")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Standing]:
    """One for the module: nobody changes it."""
    folder = tmp_path_factory.mktemp("mesh")
    rules = folder / "rules.yaml"
    rules.write_text(NO_SECRET_FOR_WEB)
    async with standing(
        folder, shop=("--config", str(rules)), flags=("--log-file", str(folder / "log"))
    ) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def board(mesh: Standing) -> AsyncIterator[Dashboard]:
    async with dashboard(mesh.mesh.root) as made:
        yield made


async def heard(board: Dashboard, name: str, query: str, is_enough: Callable[[list[Any]], bool]) -> list[Any]:
    """What the stream tells under a name, until it is enough."""
    found: list[Any] = []
    async with asyncio.timeout(20), connect(board.port) as connection:
        await connection.send_head(
            "GET", f"/api/events?{query}", [("Authorization", f"Bearer {board.token}")]
        )
        assert (await connection.read_response_head()).second == "200"
        while not is_enough(found):
            line = await connection.reader.readline()
            if line.strip() == f"event: {name}".encode():
                told = json.loads((await connection.reader.readline()).removeprefix(b"data: "))
                found += told.get("events", [told])
    return found


async def picture_of(board: Dashboard) -> Any:
    """The next picture."""
    return (await heard(board, "mesh", "", bool))[0]


@pytest.mark.parametrize("target", API)
async def test_without_the_token_nothing_is_told(board: Dashboard, target: str) -> None:
    for given in ((), (("Authorization", "Bearer wrong"),), (("Authorization", f"Bearer {board.token}x"),)):
        answer = await board.bare(target, *given)
        assert answer.status == 401
        assert b"open the link" in answer.body


@pytest.mark.parametrize("target", [*API, *FILES])
async def test_host_of_a_rebound_name_is_refused(board: Dashboard, target: str) -> None:
    for host in ("evil.example", f"evil.example:{board.port}", f"127.0.0.1.evil.example:{board.port}"):
        assert (await board.ask(target, ("Host", host))).status == 421


@pytest.mark.parametrize("target", API)
async def test_pages_of_other_sites_are_refused_and_get_no_leave(board: Dashboard, target: str) -> None:
    for foreign in (
        ("Origin", "https://evil.example"),
        ("Origin", "http://127.0.0.1:1"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ):
        answer = await board.ask(target, foreign)
        assert answer.status == 403, foreign
        assert not answer.get("access-control-allow-origin")
    preflight = await board.bare(
        target,
        ("Origin", "https://evil.example"),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "authorization"),
        method="OPTIONS",
    )
    assert preflight.status == 403
    assert not preflight.get("access-control-allow-origin")


async def test_files_of_the_page_need_no_token_and_carry_a_strict_policy(board: Dashboard) -> None:
    for target in FILES:
        answer = await board.bare(target)
        assert answer.status == 200
        assert "default-src 'none'" in answer.get("content-security-policy")
        assert answer.get("x-frame-options") == "DENY"
        assert answer.get("cache-control") == "no-store"
        assert board.token.encode() not in answer.body


async def test_only_get_is_answered(board: Dashboard) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert (await board.ask("/api/about", method=method)).status == 405
    assert (await board.ask("/nowhere")).status == 404
    assert (await board.bare("/../main.js")).status in (
        200,
        400,
    )  # cleaned, or refused: never a file beyond the page's


async def test_it_listens_on_loopback_alone(board: Dashboard, mesh: Standing) -> None:
    advertised = str((await mesh.web.status())["addresses"]["advertised"])  # type: ignore[index]
    if advertised.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(advertised, board.port)


async def test_edge_is_told_after_a_call_with_both_identities(board: Dashboard, mesh: Standing) -> None:
    answer = await request(mesh.web.http_port, "GET", invoke("shop", "/items"))
    assert answer.status == 200
    found: list[Any] = []

    async def is_told() -> bool:
        picture = await picture_of(board)
        found[:] = [edge for edge in picture["edges"] if edge["dst"] == "shop.default"]
        return bool(found)

    await eventually(is_told)
    (edge,) = found
    assert edge["secured"] is True
    assert edge["state"] not in ("idle", "unknown")  # others may have been denied meanwhile
    assert (edge["srcId"], edge["dstId"]) == (
        "spiffe://public/ns/default/web",
        "spiffe://public/ns/default/shop",
    )
    told = await board.told("/api/edge?src=web.default&dst=shop.default")
    assert told["routes"][0]["method"] == "GET"


async def test_picture_has_every_sidecar_with_its_certificate(board: Dashboard, mesh: Standing) -> None:
    picture = await picture_of(board)
    rows = {row["app"]: row for row in picture["sidecars"]}
    assert rows.keys() == {"web", "shop", "echo"}
    assert all(row["identity"]["secondsLeft"] > 0 for row in rows.values())
    assert picture["layout"]["nodes"].keys() >= {"web.default", "shop.default"}


async def test_sidecar_is_told_with_endpoints_decisions_and_settings(
    board: Dashboard, mesh: Standing
) -> None:
    for path, status in (("/items", 200), ("/secret", 403)):
        assert (await request(mesh.web.http_port, "GET", invoke("shop", path))).status == status
    picture = await picture_of(board)
    instances = {row["app"]: row["instance"] for row in picture["sidecars"]}
    web = await board.told(f"/api/sidecar?instance={instances['web']}")
    (end,) = [row for row in web["endpoints"] if row["app"] == "shop.default"]
    assert end["load"]["proven"] is True
    assert {"app-id", "log-file"} <= {row["name"] for row in web["settings"]}
    shop = await board.told(f"/api/sidecar?instance={instances['shop']}")
    assert {row["decision"] for row in shop["policies"]["access"]} == {"allowed", "denied"}
    assert any(row["name"] == "spec.accessControl.defaultAction" for row in shop["configuration"])
    assert (await board.ask("/api/sidecar?instance=gone")).status == 404


async def test_calls_are_told_as_they_end(board: Dashboard, mesh: Standing) -> None:
    def has_call(events: list[Any]) -> bool:
        return any(event["event"] == "end" for event in events)

    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(heard(board, "calls", "tap=1&path=/tapped", has_call))

        async def is_heard() -> bool:
            await request(mesh.web.http_port, "GET", invoke("shop", "/tapped"))
            return looking.done()

        await eventually(is_heard, within_s=20.0)
    assert {event["path"] for event in looking.result() if event["event"] == "end"} == {"/tapped"}


async def test_filter_that_is_none_is_refused_in_words(board: Dashboard) -> None:
    answer = await board.ask("/api/events?tap=1&slower-than=soon")
    assert answer.status == 400
    assert b"slower-than" in answer.body


async def test_log_is_told_from_its_file(board: Dashboard, mesh: Standing) -> None:
    picture = await picture_of(board)
    (instance,) = [row["instance"] for row in picture["sidecars"] if row["app"] == "web"]
    told = await heard(board, "logs", f"log={instance}", lambda events: len(events) > 1)
    files, lines = told[:2]
    assert files["files"][0]["kind"] == "sidecar"
    assert any("postern" in line for line in lines["lines"])
    assert (await board.ask("/api/events?log=gone")).status == 404


async def test_trace_is_told_as_a_waterfall(board: Dashboard, mesh: Standing) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    parent = ("traceparent", f"00-{trace_id}-b7ad6b7169203331-01")
    assert (
        await request(mesh.web.http_port, "GET", invoke("shop", "/items"), headers=[parent])
    ).status == 200

    async def is_whole() -> bool:
        told = await board.told(f"/api/trace?id={trace_id}")
        return [(row["service"], row["depth"]) for row in told["rows"]] == [("web", 0), ("shop", 1)]

    await eventually(is_whole)
    assert (await board.ask("/api/trace?id=x")).status == 400


async def test_more_pages_than_anybody_opens_are_refused(board: Dashboard) -> None:
    async with asyncio.TaskGroup() as tasks:
        enough = asyncio.Event()
        all_open = asyncio.Barrier(MAX_STREAMS + 1)

        async def look() -> None:
            async with connect(board.port) as connection:
                await connection.send_head("GET", "/api/events", [("Authorization", f"Bearer {board.token}")])
                assert (await connection.read_response_head()).second == "200"
                await all_open.wait()
                await enough.wait()

        for _ in range(MAX_STREAMS):
            tasks.create_task(look())
        async with asyncio.timeout(20):
            await all_open.wait()
        assert (await board.ask("/api/events")).status == 429
        enough.set()

    async def is_free() -> bool:
        return bool(await picture_of(board))

    await eventually(is_free)


async def test_stopped_sidecar_is_told_and_nothing_of_it_shown_as_live(
    tmp_path: Path, shared: SharedSentry
) -> None:
    async with standing(tmp_path, shared=shared) as made, dashboard(made.mesh.root) as board:
        assert (await request(made.web.http_port, "GET", invoke("shop", "/items"))).status == 200
        edge = {"src": "web.default", "dst": "shop.default"}

        async def state(app: str) -> tuple[str, str]:
            picture = await picture_of(board)
            states = [row["state"] for row in picture["sidecars"] if row["app"] == app]
            edges = [one["state"] for one in picture["edges"] if edge.items() <= one.items()]
            return states[0], (edges or ["none"])[0]

        async def is_live() -> bool:
            return await state("web") == ("ready", "ok")

        async def is_silent() -> bool:
            return (await state("web"))[0] == "silent"

        async with asyncio.TaskGroup() as tasks:
            holding = tasks.create_task(
                heard(board, "mesh", "", lambda found: len(found) > 1_000)
            )  # somebody looks all the time
            await eventually(is_live)
            made.web.process.send_signal(signal.SIGSTOP)
            try:
                await eventually(is_silent)
                picture = await picture_of(board)
            finally:
                made.web.process.send_signal(signal.SIGCONT)
            await eventually(is_live)
            holding.cancel()
        (row,) = [row for row in picture["sidecars"] if row["app"] == "web"]
        assert (row["withinMs"], "identity" in row) == (300, False)
        assert row["heardAt"] <= picture["at"]


async def test_forty_sidecars_are_told_in_one_picture(tmp_path: Path) -> None:
    names = [f"app{number:02}" for number in range(40)]
    edges = [(one, other, 5.0, 0.0, 0.01) for one, other in pairwise(names)]
    root = tmp_path
    async with fake_sidecars(root, names) as fakes, dashboard(root) as board:
        tell(fakes, edges)

        async def is_whole() -> bool:
            picture = await picture_of(board)
            heard = sum(row["state"] == "ready" for row in picture["sidecars"])
            return heard == 40 and len(picture["edges"]) == 39 and picture["layout"]["columns"] == 40

        await eventually(is_whole)


async def test_answers_of_a_broken_sidecar_end_nothing(tmp_path: Path) -> None:
    odd: list[Any] = [[], None, 1, "x", {"routes": 1, "bounds_s": "x", "window_s": {}}]
    async with fake_sidecars(tmp_path, ["odd", "good"]) as fakes, dashboard(tmp_path) as board:
        for answer in odd:
            break_all(fakes["odd"], answer)
            picture = await picture_of(board)
            assert {row["app"] for row in picture["sidecars"]} == {"odd", "good"}
            assert (await board.ask(f"/api/sidecar?instance={fakes['odd'].instance}")).status == 200
            assert (await board.ask("/api/trace?id=1")).status == 200


def break_all(fake: FakeSidecar, answer: Any) -> None:
    """Have it answer everything with this."""
    for path in fake.pages:
        fake.pages[path] = answer


async def test_it_ends_when_asked_and_its_link_with_it(tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        async with dashboard(tmp_path) as board:
            assert (await board.ask("/api/about")).status == 200
            board.process.send_signal(number)
            assert await board.process.ended() == 0
            assert board.process.output.count("\n") == 0  # the link alone was printed


async def test_port_that_is_taken_is_told(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with dashboard(tmp_path, ("--no-open", "--port", str(port))):
        with pytest.raises(ProcessEndedError, match=rf"postern dashboard: can't listen on 127.0.0.1:{port}"):
            async with dashboard(tmp_path, ("--no-open", "--port", str(port))):
                pass
