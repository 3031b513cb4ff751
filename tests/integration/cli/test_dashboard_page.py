"""The dashboard's page in a real Chromium: what it shows, what it never runs, and that the keyboard reaches it."""

import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.cli.dashboards import Dashboard, dashboard
from tests.integration.mesh.standing import Standing, invoke, standing
from tests.support.browser import CHROMIUM, Browser, Page, chromium
from tests.support.fake_sidecars import FakeSidecar, fake_sidecars, route, tell
from tests.support.http_client import request

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
    pytest.mark.asyncio(loop_scope="module"),  # that of the browser
]

EVIL = "<img src=x onerror=\"document.title='owned'\">"
EVILS = (
    EVIL,
    "<script>document.title='owned'</script>",
    "javascript:document.title='owned'",
    "\"'><svg onload=document.title='owned'>",
    "__proto__",
)
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
LIVE = "document.querySelector('#live').dataset.state"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    async with chromium(tmp_path_factory.mktemp("chromium")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Standing]:
    async with standing(tmp_path_factory.mktemp("mesh")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def board(mesh: Standing) -> AsyncIterator[Dashboard]:
    async with dashboard(mesh.mesh.root) as made:
        yield made


Open = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="module")
async def opened(browser: Browser) -> AsyncIterator[Open]:
    """Opens tabs with a dashboard, live ones, and closes them at the end of the test."""
    pages: list[Page] = []

    async def open_page(board: Dashboard, width: int = 1280, link: str = "") -> Page:
        pages.append(page := await browser.page())
        await page.look(width, 900)
        await page.open(link or board.link)
        if not link:
            await page.until(f"['live', 'partly'].includes({LIVE})")
        return page

    yield open_page
    for page in pages:
        await page.close()


async def go(page: Page, where: str) -> None:
    """Follow a link of the page's own."""
    await page.evaluate(f"location.hash = {json.dumps(where)}")


async def test_graph_shows_an_edge_after_a_call_and_its_lock_once_chosen(
    opened: Open, board: Dashboard, mesh: Standing
) -> None:
    page = await opened(board)
    assert (await request(mesh.web.http_port, "GET", invoke("shop", "/items"))).status == 200
    await page.until(
        "document.querySelector('.edge[data-state=ok]')?.getAttribute('aria-label').startsWith('web calls shop')"
    )
    assert "mutual TLS" in await page.evaluate("document.querySelector('.edge').getAttribute('aria-label')")
    await page.evaluate("document.querySelector('.edge').dispatchEvent(new MouseEvent('click'))")
    await page.until("document.querySelector('.selected .routes tbody tr')")
    shown = await page.text(".selected")
    assert "spiffe://public/ns/default/web" in shown
    assert "spiffe://public/ns/default/shop" in shown
    assert page.said == []


async def test_token_leaves_the_address_and_lasts_for_the_tab(opened: Open, board: Dashboard) -> None:
    page = await opened(board)
    assert board.token not in await page.evaluate("location.href + document.documentElement.outerHTML")
    await page.call("Page.reload")
    await page.until(f"{LIVE} === 'live'")
    assert await page.evaluate("location.hash") == "#/mesh"


@pytest.mark.parametrize("fragment", ["", "#token=wrong"])
async def test_page_without_its_link_says_where_to_find_it(
    opened: Open, board: Dashboard, fragment: str
) -> None:
    page = await opened(board, link=f"http://127.0.0.1:{board.port}/{fragment}")
    await page.until("document.querySelector('main').innerText.includes('This page needs its link')")
    assert "postern dashboard" in await page.text()
    assert "web" not in await page.text()


async def test_page_of_another_site_learns_and_frames_nothing(opened: Open, board: Dashboard) -> None:
    page = await opened(board, link=f"http://localhost:{board.port}/theme.js")  # another origin
    script = f"""fetch("http://127.0.0.1:{board.port}/api/about", {{headers: {{authorization: "Bearer {board.token}"}}}})
        .then(answer => answer.status, error => "blocked")"""
    assert await page.evaluate(script) == "blocked"
    assert await page.evaluate(script.replace("{headers:", "{mode: 'no-cors', headers:")) in (
        "blocked",
        0,
        403,
    )


async def test_sidecar_that_is_stopped_is_told_and_comes_back(
    opened: Open, board: Dashboard, mesh: Standing
) -> None:
    page = await opened(board)
    mesh.echo.process.send_signal(signal.SIGSTOP)
    try:
        await page.until(f"{LIVE} === 'partly'")
        await page.until(
            "document.querySelector('.attention').innerText.includes('echo did not answer for 300 ms')"
        )
        assert await page.evaluate(
            "document.querySelector('.node[data-state=silent]').getAttribute('aria-label')"
        ) == ("echo: its sidecar does not answer. no call to it in the last minute")
        await page.until("document.querySelector('#announcer').textContent === 'echo does not answer'")
        await go(page, "#/sidecars")
        await page.until("document.querySelector('main').innerText.includes('did not answer for 300 ms')")
    finally:
        mesh.echo.process.send_signal(signal.SIGCONT)
    await page.until(f"{LIVE} === 'live'")
    await page.until("document.querySelector('#announcer').textContent === 'echo answers again'")


async def test_dashboard_that_is_stopped_leaves_nothing_that_looks_live(opened: Open, mesh: Standing) -> None:
    async with dashboard(mesh.mesh.root) as board:
        page = await opened(board)
        board.process.send_signal(signal.SIGSTOP)
        try:
            await page.until(f"{LIVE} === 'lost'", timeout_s=30)
        finally:
            board.process.send_signal(signal.SIGCONT)
        assert "does not answer" in await page.text("#outage")
        assert await page.evaluate("'stale' in document.body.dataset")
        await page.until(f"{LIVE} === 'live' && document.querySelector('#outage').hidden", timeout_s=30)


async def test_trace_opens_as_a_waterfall(opened: Open, board: Dashboard, mesh: Standing) -> None:
    parent = ("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01")
    assert (
        await request(mesh.web.http_port, "GET", invoke("shop", "/items"), headers=[parent])
    ).status == 200
    page = await opened(board)
    await go(page, f"#/traces/{TRACE_ID}")
    await page.until("document.querySelectorAll('.waterfall .bar-span').length === 2", timeout_s=30)
    assert [
        await page.evaluate(f"document.querySelectorAll('.waterfall .app')[{at}].textContent")
        for at in (0, 1)
    ] == ["web", "shop"]
    await page.evaluate("document.querySelector('.waterfall button').click()")
    await page.until("document.querySelector('.waterfall tr.details:not([hidden])')")
    await go(page, f"#/traces/{'f' * 32}")
    await page.until("document.querySelector('main').innerText.includes('It is gone')")


async def test_calls_appear_as_they_end(opened: Open, board: Dashboard, mesh: Standing) -> None:
    page = await opened(board)
    await go(page, "#/calls")
    await page.until("document.querySelector('main').innerText.includes('No call yet')")
    calls = "document.querySelectorAll('.calls tbody tr').length"
    for _ in range(100):
        assert (await request(mesh.web.http_port, "GET", invoke("shop", "/items"))).status == 200
        if await page.evaluate(calls):
            break
    await page.until(calls)
    await page.evaluate("document.querySelector('.calls tbody button').click()")
    details = "document.querySelector('.calls tr.details')?.innerText"
    await page.until(f"{details}?.includes('spiffe://public/ns/default/shop, mutual TLS')")
    await page.evaluate(
        "document.querySelector('input[name=slower-than]').value = 'soon'; document.querySelector('form').requestSubmit()"
    )
    await page.until("document.querySelector('#outage').innerText.includes('slower-than')")


async def test_log_without_a_file_comes_from_the_sidecars_memory(opened: Open, board: Dashboard) -> None:
    page = await opened(board)
    await go(page, "#/logs")
    await page.until("document.querySelector('main').innerText.includes('kept in memory')")
    await page.until("document.querySelector('main').innerText.includes('msg=\"listening\"')")
    assert "appLogDestination" in await page.text()


async def test_sidecars_page_has_certificate_and_settings_with_their_source(
    opened: Open, board: Dashboard
) -> None:
    page = await opened(board)
    await go(page, "#/sidecars")
    await page.until("document.querySelectorAll('main tbody tr').length === 3")
    await page.evaluate(
        "[...document.querySelectorAll('main tbody a')].find(a => a.textContent === 'shop').click()"
    )
    await page.until("document.querySelectorAll('.panel').length === 9")
    shown = await page.text()
    assert "spiffe://public/ns/default/shop" in shown
    assert "flag --app-id" in shown
    assert "no Resiliency sets one" in shown
    await page.evaluate(
        "[...document.querySelectorAll('.panel button')].find(b => b.textContent.startsWith('Show ')).click()"
    )
    await page.until("document.querySelector('main').innerText.includes('Hide defaults')")
    assert page.said == []


async def test_keyboard_reaches_the_graph_and_moves_in_it(
    opened: Open, board: Dashboard, mesh: Standing
) -> None:
    assert (await request(mesh.web.http_port, "GET", invoke("shop", "/items"))).status == 200
    page = await opened(board)
    await page.until("document.querySelector('.edge')")
    reached = []
    for _ in range(14):
        await page.press("Tab")
        name = await page.evaluate(
            "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
        )
        reached.append(name)
        if await page.evaluate("document.activeElement.matches('.node')"):
            break
    assert reached[0] == "Skip to content"
    assert {"Mesh", "Sidecars", "Traces", "Calls", "Logs", "Filter apps", "Graph", "Table"} <= set(reached)
    at = "document.activeElement.getAttribute('aria-label').split(':')[0]"
    names = set()
    for key in ("ArrowLeft", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft"):
        await page.press(key)
        names.add(await page.evaluate(at))
    assert {"web", "shop"} <= names
    chosen = await page.evaluate(at)
    await page.press("Enter")
    await page.until("!document.querySelector('.selected').hidden")
    assert await page.text(".selected h2") == chosen
    await page.press("Escape")
    await page.until("document.querySelector('.selected').hidden")


async def test_narrow_page_begins_with_the_table_and_never_scrolls_sideways(
    opened: Open, board: Dashboard, mesh: Standing
) -> None:
    assert (await request(mesh.web.http_port, "GET", invoke("shop", "/items"))).status == 200
    page = await opened(board, 390)
    await page.until("document.querySelector('.edges-table tbody tr')?.innerText.includes('mutual TLS')")
    for where in ("#/mesh", "#/sidecars", "#/traces", "#/calls", "#/logs"):
        await go(page, where)
        await page.until("document.querySelector('h1')")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), where


async def test_dark_scheme_and_the_choice_of_another_change_the_colours(
    opened: Open, board: Dashboard
) -> None:
    page = await opened(board)
    colour = "getComputedStyle(document.body).backgroundColor"
    light = await page.evaluate(colour)
    await page.look(1280, 900, scheme="dark")
    dark = await page.evaluate(colour)
    assert dark != light
    await page.evaluate("document.querySelector('#theme').click()")
    assert await page.evaluate(colour) == light
    await page.evaluate("document.querySelector('#theme').click(); document.querySelector('#theme').click()")
    assert await page.evaluate(colour) == dark


async def test_no_sidecar_is_told_with_what_to_do(opened: Open, tmp_path: Path) -> None:
    async with dashboard(tmp_path) as board:
        page = await opened(board)
        await page.until("document.querySelector('main').innerText.includes('No sidecar runs here yet')")
        assert "postern run" in await page.text()


async def test_forty_apps_are_drawn_apart_from_each_other(opened: Open, tmp_path: Path) -> None:
    names = [f"app{number:02}" for number in range(40)]
    edges = [
        (names[number], names[(number * 7 + 3) % 40], 3.0, 0.1 * (number % 9 == 0), 0.02)
        for number in range(30)
    ]
    async with fake_sidecars(tmp_path, names) as fakes, dashboard(tmp_path) as board:
        tell(fakes, edges)
        page = await opened(board)
        await page.until(
            "document.querySelectorAll('.node').length === 40 && document.querySelectorAll('.edge').length === 30"
        )
        overlaps = await page.evaluate(
            """(() => {
                const boxes = [...document.querySelectorAll('.node .box')].map(one => one.getBoundingClientRect());
                return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b =>
                    a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)).length;
            })()"""
        )
        assert overlaps == 0
        before = await page.evaluate(
            "[...document.querySelectorAll('.node')].map(one => one.getAttribute('transform')).join()"
        )
        for fake in fakes.values():
            for one in fake.routes:
                one["recent"] = [count * 3 for count in one["recent"]]
        seen = await page.text(".figures")
        await page.until(f"document.querySelector('.figures').innerText !== {json.dumps(seen)}")
        assert (
            await page.evaluate(
                "[...document.querySelectorAll('.node')].map(one => one.getAttribute('transform')).join()"
            )
            == before
        )


async def test_note_of_a_sidecar_names_its_app_once(opened: Open, tmp_path: Path) -> None:
    async with fake_sidecars(tmp_path, ["alpha"]) as fakes, dashboard(tmp_path) as board:
        fakes["alpha"].pages["/status"]["engineNotice"] = "the portable engine is in use: it's slower"
        page = await opened(board)
        await page.until("document.querySelector('.attention').innerText.includes('portable')")
        assert (await page.text(".attention")).strip() == "alpha: the portable engine is in use: it's slower"


async def test_hostile_names_are_text_wherever_they_appear(opened: Open, tmp_path: Path) -> None:
    async with fake_sidecars(tmp_path, [*EVILS, "good"]) as fakes, dashboard(tmp_path) as board:
        for fake in fakes.values():
            make_hostile(fake)
        page = await opened(board)
        await page.until("document.querySelector('.edge')")
        views = [
            "#/mesh",
            f"#/mesh/{EVIL}",
            "#/sidecars",
            "#/calls",
            "#/logs",
            "#/traces",
            f"#/traces/{EVIL}",
            "#/traces/1",
        ]
        views += [f"#/sidecars/{fakes[EVIL].instance}", f"#/logs/{fakes[EVIL].instance}", f"#/logs/{EVIL}"]
        for where in views:
            await go(page, where)
            await page.until("document.querySelector('h1')")
            await page.until(
                "performance.now() > 0 && new Promise(done => setTimeout(() => done(true), 300))"
            )
            await page.evaluate(
                "document.querySelectorAll('main button, .node, .edge').forEach(one => one.dispatchEvent(new MouseEvent('click')))"
            )
            assert not (await page.evaluate("document.title")).startswith("owned"), where
            assert (
                await page.evaluate(
                    "document.querySelectorAll('main img, main script, main [onerror], main [onload], main a[href^=javascript]').length"
                )
                == 0
            )
        await go(page, "#/mesh")
        await page.until(f"document.querySelector('main').textContent.includes({json.dumps(EVIL[:12])})")
        assert not [line for line in page.said if "Content Security Policy" in line or "TrustedHTML" in line]


async def test_call_is_one_row_that_is_under_way_until_it_ends(opened: Open, tmp_path: Path) -> None:
    async with fake_sidecars(tmp_path, ["alpha"]) as fakes, dashboard(tmp_path) as board:
        known: dict[str, Any] = {
            "time": "2026-01-01T00:00:05.000000000Z",
            "direction": "outbound",
            "protocol": "http",
        }
        known |= dict.fromkeys(("src", "dst", "src_namespace", "dst_namespace", "peer", "decision"), "a")
        known |= {"verb": "GET", "policies": [], "trace_id": None, "sampled": None, "headers": {}}
        answered: dict[str, Any] = {"status": 200, "ttfb_us": 7_000}
        over = answered | {
            "duration_us": 9_000,
            "cause": None,
            "made_by": None,
            "bytes_in": 0,
            "bytes_out": 1,
        }
        over |= {"attempts": 1, "tried": [], "timings_us": {"body": 1}, "mtls": True}
        fakes["alpha"].calls += [
            {**known, "event": "request", "id": "ab:1", "path": "/over"},
            {**known, "event": "response", "id": "ab:1", "path": "/over", **answered},
            {**known, "event": "request", "id": "ab:2", "path": "/hangs"},
            {**known, "event": "request", "id": "ab:3", "path": "/streams"},
            {**known, "event": "response", "id": "ab:3", "path": "/streams", **answered},
            {**known, "event": "end", "id": "ab:1", "path": "/over", **over},
        ]
        page = await opened(board)
        await go(page, "#/calls")
        rows = "[...document.querySelectorAll('.calls tbody tr')].map(row => row.innerText)"
        await page.until(f"{rows}.length === 3 && {rows}.some(row => row.includes('9.0 ms'))")
        shown = {row.split()[5]: row for row in await page.evaluate(rows)}
        assert "under way" not in shown["/over"]
        assert "under way" in shown["/hangs"]
        assert "200" in shown["/streams"]
        assert "answered after 7.0 ms" in shown["/streams"]
        await page.evaluate("document.querySelectorAll('.calls tbody button').forEach(one => one.click())")
        await page.until("document.querySelectorAll('.calls tr.details').length === 3")


def make_hostile(fake: FakeSidecar) -> None:
    """Names, paths, errors and settings that would be markup."""
    fake.routes.append(
        {
            **route(fake.app_id, EVIL, rps=1, code_class="2xx", took_s=0.1, path=f"/{EVIL}"),
            "method": EVIL,
            "peer": EVIL,
        }
    )
    status = fake.pages["/status"]
    status.update(ready=False, notReady=[EVIL], engine=EVIL, version=EVIL, engineNotice=EVIL)
    status["identity"].update(spiffeId=EVIL, lastError=EVIL, sentry=EVIL)
    status["policy"].update(files=[EVIL], lastError=EVIL, warnings=[EVIL])
    status["circuitBreakers"] = [
        {
            **dict.fromkeys(("target", "method", "policy", "state"), EVIL),
            "counters": {"requests": 1, "consecutiveFailures": 1},
            "probesInS": 0,
        }
    ]
    fake.pages["/postern/v1/policies"] = {
        "access": [{"src": EVIL, "policy": EVIL, "decision": EVIL, "calls": 1}],
        "resiliency": [],
        "retries": [],
    }
    fake.pages["/endpoints"] = {
        EVIL: {"endpoints": [{"address": EVIL, "source": EVIL}], "loads": [{"address": EVIL}]}
    }
    fake.pages["/settings"] = {"settings": [{"name": EVIL, "value": EVIL, "source": "flag", "by": EVIL}]}
    fake.pages["/metadata"] = {
        "extended": {"appCommand": EVIL, "appLogPath": EVIL},
        "resiliencies": [{"name": EVIL}],
    }
    span: dict[str, Any] = {
        "traceId": "1",
        "id": "1",
        "name": EVIL,
        "timestamp": 1,
        "duration": 5,
        "kind": EVIL,
    }
    span |= {"localEndpoint": {"serviceName": EVIL}, "tags": {"error": EVIL, EVIL: EVIL}}
    span |= {"annotations": [{"timestamp": 2, "value": EVIL}]}
    fake.pages["/trace"] = {"traceId": "1", "spans": [span]}
    call = dict.fromkeys(
        (
            "src",
            "dst",
            "src_namespace",
            "dst_namespace",
            "path",
            "verb",
            "decision",
            "peer",
            "cause",
            "trace_id",
        ),
        EVIL,
    )
    told = {
        "event": "end",
        "id": EVIL,
        "under_way": True,
        "direction": "outbound",
        "protocol": "http",
        "status": 200,
        "duration_us": 5,
        "attempts": 1,
    }
    more = {
        "time": "2026-01-01T00:00:00.000",
        "mtls": True,
        "policies": [EVIL],
        "tried": [],
        "timings_us": {EVIL: 1},
    }
    fake.calls.append(
        {**call, **told, **more, "made_by": "this-proxy", "bytes_in": 1, "bytes_out": 1, "sampled": True}
    )
