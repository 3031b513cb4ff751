"""Calls that leave the mesh through the HTTP proxy of a sidecar's environment, over both engines."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.support.engines import ENGINES
from tests.support.http_client import connect, request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_port
from tests.support.web_pki import WebCa
from tests.support.web_proxy import WebProxy, running_proxy
from tests.support.web_server import web_server
from tests.support.websocket import TEXT, Frame, accept_key, format_frame, new_key, read_frame

pytestmark = pytest.mark.asyncio(loop_scope="module")
CA = WebCa()
CREDENTIALS = "Basic YWRhOnNlY3JldA=="


def endpoint(name: str, url: str) -> str:
    """An HTTPEndpoint that trusts the test's root; JSON is YAML."""
    tls = {"rootCA": {"value": CA.root_pem.decode()}}
    kind = {"apiVersion": "dapr.io/v1alpha1", "kind": "HTTPEndpoint", "metadata": {"name": name}}
    return json.dumps({**kind, "spec": {"baseUrl": url, **({"clientTLS": tls} if url[4] == "s" else {})}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A sidecar whose environment names proxies before a server with TLS, and before one without."""

    web: Sidecar
    https: WebProxy
    http: WebProxy
    http_port: int

    async def call(self, callee: str, path: str = "/echo") -> Response:
        """A call by the app."""
        return await request(self.web.http_port, "GET", path, headers=[("dapr-app-id", callee)])


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """One for each engine."""
    folder = tmp_path_factory.mktemp("proxies")
    async with AsyncExitStack() as stack:
        secure = await stack.enter_async_context(web_server(CA.server_context("api.example")))
        plain = await stack.enter_async_context(web_server())
        https = await stack.enter_async_context(running_proxy(secure))
        http = await stack.enter_async_context(running_proxy(plain))
        resources = [
            endpoint("secure", "https://api.example/v1"),
            endpoint("plain", "http://api.example:8080/v1"),
            endpoint("secure-root", "https://api.example"),
            endpoint("plain-root", "http://api.example:8080"),
            endpoint("other", "https://other.example"),
            endpoint("direct", f"http://localhost:{plain}"),
            endpoint("unlisted", "http://nowhere.invalid"),
        ]
        (folder / "resources").mkdir()
        (folder / "resources" / "a.yaml").write_text("\n---\n".join(resources))
        mesh = await stack.enter_async_context(Mesh(folder, with_sentry=False))
        flags = (
            *("--engine", request.param, "--enable-mtls=false", "--egress", "any"),
            *("--resources-path", str(folder / "resources")),
        )
        env = {
            "HTTPS_PROXY": f"http://ada:secret@{https.address}",
            "http_proxy": f"ada:secret@{http.address}",
            "NO_PROXY": ".invalid",
        }
        web = await mesh.sidecar("web", app=await mesh.http_app("own"), flags=flags, env=env)
        yield Scene(web=web, https=https, http=http, http_port=plain)


async def test_https_goes_through_a_tunnel(scene: Scene) -> None:
    scene.https.asked.clear()
    response = await scene.call("secure")
    assert (response.status, json.loads(response.body)["target"]) == (200, "/v1/echo")
    (head,) = scene.https.asked
    assert (head.first, head.second) == ("CONNECT", "api.example:443")
    assert head.get("proxy-authorization") == CREDENTIALS
    other = await scene.call("other")
    assert other.get("postern-error") == "tls-identity"
    assert "its certificate is not for other.example" in other.body.decode()


@pytest.mark.parametrize("callee", ["plain", "http://api.example:8080/v1"])
async def test_http_is_asked_for_by_its_whole_url(scene: Scene, callee: str) -> None:
    scene.http.asked.clear()
    response = await scene.call(callee, "/echo?x=1")
    assert (response.status, json.loads(response.body)["target"]) == (200, "/v1/echo?x=1")
    (head,) = scene.http.asked
    assert (head.second, head.get("host")) == ("http://api.example:8080/v1/echo?x=1", "api.example:8080")
    assert head.get("proxy-authorization") == CREDENTIALS
    assert {name.lower() for name, _ in head.headers}.isdisjoint({"dapr-app-id", "dapr-api-token"})


@pytest.mark.parametrize("callee", ["secure-root", "plain-root", "http://api.example:8080"])
async def test_websocket_goes_through_a_tunnel_to_either(scene: Scene, callee: str) -> None:
    proxy, port = (scene.https, 443) if callee == "secure-root" else (scene.http, 8080)
    proxy.asked.clear()
    key = new_key()
    offer = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    async with asyncio.timeout(20.0), connect(scene.web.http_port) as caller:
        await caller.send_head("GET", "/ws", [*offer, ("Sec-WebSocket-Key", key), ("dapr-app-id", callee)])
        head = await caller.read_response_head()
        assert (head.second, head.get("sec-websocket-accept")) == ("101", accept_key(key))
        await caller.send(format_frame(Frame(TEXT, b"hello"), is_client=True))
        assert (await read_frame(caller.reader)).payload == b"hello"
    (asked,) = proxy.asked
    assert (asked.first, asked.second) == ("CONNECT", f"api.example:{port}")
    assert asked.get("proxy-authorization") == CREDENTIALS


async def test_loopback_and_no_proxy_are_reached_directly(scene: Scene) -> None:
    scene.http.asked.clear()
    assert (await scene.call("direct")).status == 200
    assert "nowhere.invalid was not found" in (await scene.call("unlisted")).body.decode()
    assert scene.http.asked == []


async def test_address_of_credentials_is_not_asked_for_either(scene: Scene) -> None:
    scene.http.asked.clear()
    response = await scene.call("http://169.254.169.254", "/latest/meta-data")
    assert response.get("postern-error") == "no-endpoint"
    assert "where clouds serve credentials" in response.body.decode()
    assert scene.http.asked == []


async def test_proxy_that_refuses_is_named_without_its_credentials(scene: Scene) -> None:
    scene.https.status = 403
    try:
        response = await scene.call("https://refused.example")
    finally:
        scene.https.status = 200
    text = response.body.decode()
    assert response.get("postern-error") == "connect"
    assert (
        f"the HTTP proxy at {scene.https.address} answered CONNECT refused.example:443 with status 403"
        in text
    )
    assert "secret" not in text + scene.web.process.output


@pytest.mark.parametrize("engine", ENGINES)
async def test_sidecar_is_no_proxy_before_itself(
    engine: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, port = tmp_path_factory.mktemp("itself"), free_port()
    async with web_server() as plain, Mesh(folder, with_sentry=False) as mesh:
        env = {"http_proxy": f"http://127.0.0.1:{port}"}
        flags = ("--engine", engine, "--enable-mtls=false", "--egress", "any", "--dapr-http-port", str(port))
        web = await mesh.sidecar("web", app=await mesh.http_app("own"), flags=flags, env=env)
        response = await request(
            web.http_port, "GET", "/echo", headers=[("dapr-app-id", f"http://nowhere.invalid:{plain}")]
        )
        assert "nowhere.invalid was not found" in response.body.decode()
        await web.process.line("names this sidecar itself")
