"""Pages in a browser at every port of a sidecar, and the gateways that pass a browser's headers on, on each engine."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import pytest
import pytest_asyncio

from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.http_wire import Response, format_head, read_head
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_ports
from tests.support.proto.echo_pb2 import EchoRequest
from tests.support.websocket import new_key

CHROMIUM: Final = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
TOKEN: Final = "open-sesame"
SHOP: Final = "https://shop.example"
EVIL: Final = ("Origin", "https://evil.example")
CROSS: Final = ("Sec-Fetch-Site", "cross-site")
PREFLIGHT: Final = (
    ("Access-Control-Request-Method", "PUT"),
    ("Access-Control-Request-Headers", "content-type,dapr-api-token"),
)
DAPR: Final = "/v1.0/invoke/cart/method"
SCRAPER: Final = ("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """`plain` as it comes, `open` lists origins and wants a token; `daprd` and `listed` are the same as daprd; `own`: ports for one app."""

    plain: Sidecar
    open: Sidecar
    daprd: Sidecar
    listed: Sidecar
    own: tuple[int, int]
    public: int

    @property
    def ways(self) -> tuple[tuple[int, str, tuple[tuple[str, str], ...]], ...]:
        """Port, prefix of the path and headers of each way from `plain` to cart."""
        port = self.plain.http_port
        return ((port, DAPR, ()), (port, "", (("dapr-app-id", "cart"),)), (self.own[0], "", ()))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def pages(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Pages]:
    """One for the module and engine: nobody changes it."""
    engine = ("--engine", str(request.param))
    async with Mesh(tmp_path_factory.mktemp("pages")) as mesh:
        http, echo = await mesh.http_app(), await mesh.grpc_app()
        *own, public = free_ports(3)
        origins = ("--allowed-origins", f"{SHOP},https://*.test,http://127.0.0.1:*")
        await mesh.start_sentry()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(mesh.sidecar("cart", app=http, flags=engine))
            tasks.create_task(mesh.sidecar("echo", app=echo, flags=engine))
            ports = ("--upstream", f"cart={own[0]}", "--dapr-public-port", str(public))
            plain = tasks.create_task(mesh.sidecar("plain", flags=(*engine, *ports)))
            opened = tasks.create_task(
                mesh.sidecar("open", flags=(*engine, *origins), env={"DAPR_API_TOKEN": TOKEN})
            )
            compat = ("--profile", "daprd", "--upstream", f"daprd={own[1]}")
            daprd = tasks.create_task(mesh.sidecar("daprd", app=http, flags=(*engine, *compat)))
            listing = (*engine, "--profile", "daprd", *origins)
            listed = tasks.create_task(
                mesh.sidecar("listed", app=http, flags=listing, env={"DAPR_API_TOKEN": TOKEN})
            )
        yield Pages(
            plain=plain.result(),
            open=opened.result(),
            daprd=daprd.result(),
            listed=listed.result(),
            own=(own[0], own[1]),
            public=public,
        )


def refused(answer: Response) -> bool:
    """Whether a page was told off, without leave to read even that."""
    if answer.status != 403:
        return False
    assert answer.get("postern-error") == "forbidden-origin", answer.body
    assert b"--allowed-" in answer.body
    assert not answer.get("access-control-allow-origin")
    return True


# --- strangers and gateways --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["GET", "HEAD", "POST", "OPTIONS"])
async def test_page_of_another_site_is_refused(pages: Pages, verb: str) -> None:
    for port, prefix, headers in pages.ways:
        for foreign in (EVIL, CROSS, ("Sec-Fetch-Site", "same-site"), ("Origin", "null")):
            answer = await request(port, verb, f"{prefix}/echo", headers=[*headers, foreign])
            by_header = bool(headers)  # which no page can send without a preflight
            assert (answer.status == 200) if by_header else (answer.status == 403), (verb, foreign)


@pytest.mark.parametrize(
    "gateway",
    [
        ("X-Forwarded-For", "203.0.113.9"),
        ("Forwarded", "for=203.0.113.9"),
        ("Via", "1.1 gateway"),
        ("X-Request-Id", "1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("Authorization", "Bearer abc"),
        ("Content-Type", "Application/JSON; charset=utf-8"),
    ],
)
async def test_gateway_that_passes_a_browsers_headers_on_is_let_in(
    pages: Pages, gateway: tuple[str, str]
) -> None:
    for port, prefix, headers in pages.ways:
        for foreign in (EVIL, CROSS):
            verb = "POST" if gateway[0] == "Content-Type" else "GET"
            answer = await request(
                port, verb, f"{prefix}/echo", headers=[*headers, foreign, gateway], body=b""
            )
            assert answer.status == 200, (gateway, foreign, answer.body)
            assert not answer.get(
                "access-control-allow-origin"
            )  # whether the page may read it is the app's to say


async def test_methods_and_content_types_of_forms_are_no_excuse(pages: Pages) -> None:
    port = pages.plain.http_port
    for kind in ("text/plain", "text/plain; application/json", "application/x-www-form-urlencoded"):
        answer = await request(
            port, "POST", f"{DAPR}/echo", headers=[EVIL, ("Content-Type", kind)], body=b"{}"
        )
        assert refused(answer), kind
    for verb in ("PUT", "DELETE", "PATCH"):
        assert (await request(port, verb, f"{DAPR}/echo", headers=[EVIL], body=b"")).status == 200


async def test_own_origin_is_not_foreign(pages: Pages) -> None:
    for host in ("localhost", "127.0.0.1", "cart.localhost"):
        own = f"{host}:{pages.plain.http_port}"
        target = "/echo" if host == "cart.localhost" else f"{DAPR}/echo"
        headers = [("Host", own), ("Origin", f"http://{own}")]
        assert (await request(pages.plain.http_port, "GET", target, headers=headers)).status == 200
        headers = [("Host", own), ("Origin", f"https://{own}")]
        assert refused(await request(pages.plain.http_port, "GET", target, headers=headers))


async def test_websocket_of_another_site_is_refused_whatever_it_carries(pages: Pages) -> None:
    gateway = ("X-Forwarded-For", "203.0.113.9")
    assert await _upgrade(pages.own[0], [gateway]) == "101"
    assert await _upgrade(pages.own[0], [gateway, ("Origin", f"http://127.0.0.1:{pages.own[0]}")]) == "101"
    assert await _upgrade(pages.own[0], [gateway, EVIL]) == "403"
    assert await _upgrade(pages.own[1], [EVIL]) == "101"


async def _upgrade(port: int, headers: list[tuple[str, str]]) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        ask = [("Host", f"127.0.0.1:{port}"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
        ask += [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", new_key()), *headers]
        writer.write(format_head("GET /ws HTTP/1.1", ask))
        async with asyncio.timeout(10):
            head = await read_head(reader)
        assert head is not None
        return head.second
    finally:
        writer.close()


async def test_daprd_lets_everybody_in_and_leaves_cors_to_the_app(pages: Pages) -> None:
    for port, target in ((pages.daprd.http_port, "/v1.0/invoke/daprd/method/cors"), (pages.own[1], "/cors")):
        for foreign in (EVIL, CROSS, ("Host", "cart-dapr:3500"), ("Host", "evil.example")):
            answer = await request(port, "GET", target, headers=[foreign])
            assert answer.status == 200, answer.body
            assert answer.get("access-control-allow-origin") == "*"
        preflight = await request(port, "OPTIONS", target, headers=[EVIL, *PREFLIGHT])
        assert json.loads(preflight.body) == {"app": "app"}


async def test_daprd_answers_every_preflight_once_origins_are_listed_and_lets_others_call_without_leave(
    pages: Pages,
) -> None:
    port, target = pages.listed.http_port, "/v1.0/invoke/listed/method/echo"
    for origin, leave in ((SHOP, SHOP), ("https://evil.example", None)):
        preflight = await request(port, "OPTIONS", target, headers=[("Origin", origin), *PREFLIGHT])
        assert (preflight.status, preflight.body) == (200, b"")
        assert (preflight.get("access-control-allow-origin") or None) == leave
        assert bool(preflight.get("access-control-allow-methods")) is (leave is not None)
        assert not preflight.get("access-control-allow-credentials")
        assert "Origin" in preflight.get("vary")
        call = [("Origin", origin), ("dapr-api-token", TOKEN)]
        answer = await request(port, "GET", target, headers=call)
        assert answer.status == 200
        assert (answer.get("access-control-allow-origin") or None) == leave
        assert answer.get("vary") == "Origin"
        assert (await request(port, "GET", target, headers=[("Origin", origin)])).status == 401
    asked = [("Origin", SHOP), ("Access-Control-Request-Method", "TRACE")]
    assert not (await request(port, "OPTIONS", target, headers=asked)).get("access-control-allow-methods")
    plain = await request(port, "OPTIONS", target, headers=[("dapr-api-token", TOKEN)])
    assert json.loads(plain.body)["method"] == "OPTIONS"  # no preflight: the app's
    assert plain.get("vary") == "Origin"


# --- CORS --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [SHOP, "https://a.test"])
@pytest.mark.parametrize("target", [f"{DAPR}/echo", "/v1.0/metadata", "/nowhere"])
async def test_preflight_of_a_listed_origin_is_answered_here_without_a_token(
    pages: Pages, origin: str, target: str
) -> None:
    answer = await request(pages.open.http_port, "OPTIONS", target, headers=[("Origin", origin), *PREFLIGHT])
    assert (answer.status, answer.body) == (200, b"")
    assert answer.get("access-control-allow-origin") == origin
    assert "PUT" in answer.get("access-control-allow-methods")
    assert answer.get("access-control-allow-headers") == "content-type,dapr-api-token"
    assert not answer.get("postern-error")
    assert "Origin" in answer.get("vary")


@pytest.mark.parametrize("port", ["plain", "open", "own"])
async def test_preflight_of_another_origin_is_answered_without_leave_and_never_forwarded(
    pages: Pages, port: str
) -> None:
    number = pages.own[0] if port == "own" else getattr(pages, port).http_port
    target = "/cors" if port == "own" else f"{DAPR}/cors"  # an app that lets everybody in
    assert refused(await request(number, "OPTIONS", target, headers=[EVIL, *PREFLIGHT]))
    token = ("dapr-api-token", TOKEN)  # a gateway's
    answer = await request(number, "OPTIONS", target, headers=[EVIL, *PREFLIGHT, token])
    assert (answer.status, json.loads(answer.body)) == (200, {"app": "app"})


@pytest.mark.parametrize("path", ["/echo", "/cors"])
async def test_listed_origin_may_read_the_answer_once(pages: Pages, path: str) -> None:
    token = ("dapr-api-token", TOKEN)
    for origin, target in ((SHOP, f"{DAPR}{path}"), ("https://a.test", "/v1.0/metadata")):
        headers = [token, ("Origin", origin)]
        answer = await request(pages.open.http_port, "GET", target, headers=headers)
        assert answer.status == 200
        names = [name.lower() for name, _ in answer.headers]
        assert names.count("access-control-allow-origin") == 1
        assert answer.get("access-control-allow-origin") == origin
        vary = [
            part.strip().lower()
            for name, text in answer.headers
            if name.lower() == "vary"
            for part in text.split(",")
        ]
        assert vary.count("origin") == 1
    without = await request(pages.open.http_port, "GET", f"{DAPR}{path}", headers=[token])
    assert "origin" in ",".join(text.lower() for name, text in without.headers if name.lower() == "vary")


async def test_listed_origin_may_read_why_it_was_refused(pages: Pages) -> None:
    for headers, target in (
        ([], f"{DAPR}/echo"),
        ([("dapr-api-token", TOKEN)], "/v1.0/nowhere"),
    ):
        answer = await request(
            pages.open.http_port, "POST", target, headers=[*headers, ("Origin", SHOP)], body=b""
        )
        assert answer.status in (401, 404)
        assert answer.get("access-control-allow-origin") == SHOP


@pytest.mark.parametrize("origin", ["https://shop.example.evil", "http://shop.example", "https://atest"])
async def test_origin_is_listed_whole_or_not_at_all(pages: Pages, origin: str) -> None:
    headers = [("Origin", origin)]
    assert refused(await request(pages.open.http_port, "GET", f"{DAPR}/echo", headers=headers))


# --- hosts -------------------------------------------------------------------------------------------------------------------


async def test_host_is_checked_first_and_for_grpc_too(pages: Pages) -> None:
    for authority, code in (
        ("evil.example", grpc.StatusCode.PERMISSION_DENIED),
        ("localhost", grpc.StatusCode.OK),
        ("192.0.2.7:50001", grpc.StatusCode.OK),
    ):
        options = (("grpc.default_authority", authority),)
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{pages.plain.grpc_port}", options=options
        ) as channel:
            call = EchoClient(channel, metadata=(("dapr-app-id", "echo"),)).unary(EchoRequest())
            assert await call.code() is code
    web = [("Host", "evil.example"), ("Content-Type", "application/grpc-web+proto"), ("dapr-app-id", "cart")]
    answer = await request(pages.plain.grpc_port, "POST", "/echo", headers=web, body=b"\0\0\0\0\0")
    assert answer.get("postern-error") == "forbidden-origin"


async def test_metrics_and_public_ports_are_for_programs(pages: Pages) -> None:
    metrics, public = pages.plain.metrics_port, pages.public
    for port, target in ((metrics, "/metrics"), (public, "/v1.0/healthz"), (public, "/v1.0/metadata")):
        for own in ("localhost", "127.0.0.1:9", "192.0.2.7", "[::1]"):
            assert (await request(port, "GET", target, headers=[("Host", own)])).status in (200, 204)
        for foreign in (("Host", "evil.example"), EVIL, CROSS):
            assert refused(await request(port, "GET", target, headers=[foreign])), (target, foreign)
    elsewhere = ("Host", "metrics.example.com:9090")
    assert (await request(metrics, "GET", "/metrics", headers=[elsewhere, SCRAPER])).status == 200
    browser = [elsewhere, SCRAPER, ("Accept-Language", "en")]
    assert refused(await request(metrics, "GET", "/metrics", headers=browser))
    assert (
        await request(public, "GET", "/v1.0/healthz", headers=[("Host", "web.shop.svc:3501")])
    ).status == 204


async def test_peer_port_in_the_clear_takes_calls_from_proxies_alone(pages: Pages) -> None:
    """A page reaches it too, and a preflight must not come through to an app that lets everybody in."""
    port = pages.daprd.peer_port
    for verb, headers in (("GET", [EVIL]), ("POST", []), ("OPTIONS", [EVIL, *PREFLIGHT])):
        answer = await request(port, verb, "/cors", headers=headers, body=b"" if verb == "POST" else None)
        assert (answer.status, answer.get("postern-error")) == (400, "bad-request"), answer.body
        assert not answer.get("access-control-allow-origin")
    named = await request(port, "GET", "/cors", headers=[("postern-callee", "daprd.default")])
    assert named.status == 200


# --- a real browser ----------------------------------------------------------------------------------------------------------

_PAGE = """<!doctype html><pre id=out>waiting</pre><script>
const ports = %s, json = {method: "PUT", body: "{}", headers: {"content-type": "application/json", "dapr-api-token": "%s"}};
const tries = {
  simple: [ports.plain, {method: "POST", body: "text"}],
  preflighted: [ports.plain, json],
  opaque: [ports.plain, {method: "POST", mode: "no-cors", body: "text"}],
  listed: [ports.open, json],
  anonymous: [ports.open, {}],
};
(async () => {
  const found = {};
  for (const [name, [port, init]] of Object.entries(tries)) {
    try {
      const answer = await fetch(`http://127.0.0.1:${port}/v1.0/invoke/cart/method/cors?${name}`, init);
      found[name] = answer.type === "opaque" ? "opaque" : answer.status;
    } catch (error) { found[name] = "blocked"; }
  }
  document.getElementById("out").textContent = JSON.stringify(found);
})();
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
async def test_fetch_of_a_real_browser(pages: Pages, tmp_path: Path) -> None:
    ports = {"plain": pages.plain.http_port, "open": pages.open.http_port}
    page = (_PAGE % (json.dumps(ports), TOKEN)).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        headers = [("content-type", "text/html"), ("content-length", str(len(page))), ("connection", "close")]
        writer.write(format_head("HTTP/1.1 200 OK", headers) + page)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--dump-dom", origin),
    ]
    async with server:
        ran = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
        )
    told = ran.stdout.partition('<pre id="out">')[2].partition("</pre>")[0]
    assert told, (ran.stdout, ran.stderr)
    assert json.loads(told) == {
        "simple": "blocked",
        "preflighted": "blocked",
        "opaque": "opaque",  # sent, and refused: the page never learns which
        "listed": 200,
        "anonymous": 401,
    }
