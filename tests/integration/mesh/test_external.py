"""Calls that leave the mesh: HTTPEndpoints by name and services by URL, over both engines, to real servers with real certificates."""

import asyncio
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from tests.integration.mesh.standing import eventually
from tests.support.dapr_client import DaprClient
from tests.support.engines import ENGINES
from tests.support.http_client import connect, request
from tests.support.http_wire import Head, Response
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_port
from tests.support.web_pki import WebCa
from tests.support.web_server import web_server

APP_TOKEN, API_TOKEN = "token-of-the-app", "token-of-the-api"
pytestmark = pytest.mark.asyncio(loop_scope="module")
CA, CLIENTS, STRANGERS = WebCa(), WebCa("clients' root"), WebCa("a stranger's root")
RESILIENCY = """
kind: Resiliency
metadata: {name: outside}
spec:
  policies:
    timeouts: {short: 300ms}
    retries: {two: {duration: 10ms, maxRetries: 2, matching: {httpStatusCodes: "503"}}}
  targets:
    apps:
      retried: {retry: two}
      hasty: {timeout: short}
      "http://localhost:%d": {retry: two}
"""


def endpoint(
    name: str,
    url: str,
    *,
    tls: Mapping[str, bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    """An HTTPEndpoint; JSON is YAML."""
    given = [{"name": key, "value": value} for key, value in (headers or {}).items()]
    spec: dict[str, object] = {"baseUrl": url, "headers": given}
    if tls:
        spec["clientTLS"] = {part: {"value": pem.decode()} for part, pem in tls.items()}
    kind = {"apiVersion": "dapr.io/v1alpha1", "kind": "HTTPEndpoint", "metadata": {"name": name}}
    return json.dumps({**kind, "spec": spec})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A sidecar, and what it calls: `ports` of servers by name."""

    web: Sidecar
    ports: Mapping[str, int]
    resources: Path
    token: tuple[tuple[str, str], ...] = field(default=(("dapr-api-token", API_TOKEN),))

    async def call(
        self, target: str, *headers: tuple[str, str], method: str = "GET", **how: object
    ) -> Response:
        """A call by the app."""
        return await request(
            self.web.http_port,
            method,
            target,
            headers=[*self.token, *headers],
            **how,  # type: ignore[arg-type]
        )


async def echoed(response: Response) -> tuple[str, dict[str, str]]:
    """Target and headers as they arrived."""
    assert response.status == 200, response.body
    content = json.loads(response.body)
    return content["target"], {name.lower(): value for name, value in content["headers"]}


async def no_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Nothing that comes is a request."""
    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """One for each engine: what is called keeps no state that tests share."""
    tls = {
        "good": CA.server_context("localhost", "127.0.0.1"),
        "old": CA.server_context("localhost", newest=ssl.TLSVersion.TLSv1_2),
        "expired": CA.server_context("localhost", life=timedelta(hours=-1)),
        "other": CA.server_context("other.example"),
        "stranger": STRANGERS.server_context("localhost"),
        "wary": CA.server_context("localhost", clients=CLIENTS),
    }
    async with AsyncExitStack() as stack:
        ports = {name: await stack.enter_async_context(web_server(one)) for name, one in tls.items()}
        ports["plain"] = await stack.enter_async_context(web_server())
        server = await asyncio.start_server(no_tls, "127.0.0.1", 0)
        stack.callback(server.close)
        ports["no-tls"] = server.sockets[0].getsockname()[1]
        certificate, key = CLIENTS.leaf()
        root = {"rootCA": CA.root_pem}
        resources = [
            *(
                endpoint(name, f"https://localhost:{port}/v1/", tls=root)
                for name, port in ports.items()
                if name in tls
            ),
            endpoint(
                "known",
                f"https://localhost:{ports['wary']}",
                tls={**root, "certificate": certificate, "privateKey": key},
            ),
            endpoint("by-address", f"https://127.0.0.1:{ports['good']}", tls=root),
            endpoint("system", f"https://localhost:{ports['good']}"),
            endpoint(
                "plain",
                f"http://localhost:{ports['plain']}",
                headers={"X-Key": "ours", "Authorization": "Bearer x"},
            ),
            endpoint("retried", f"http://localhost:{ports['plain']}/"),
            endpoint("hasty", f"http://localhost:{ports['plain']}/"),
            endpoint("web", f"http://localhost:{ports['plain']}/own"),
            endpoint("nowhere", "http://nowhere.invalid"),
            endpoint("closed", f"http://localhost:{free_port()}"),
            endpoint("no-tls", f"https://localhost:{ports['no-tls']}"),
        ]
        folder = tmp_path_factory.mktemp("external")
        (folder / "resources").mkdir()
        (folder / "resources" / "a.yaml").write_text("\n---\n".join(resources))
        (folder / "resources" / "r.yaml").write_text(RESILIENCY % ports["plain"])
        mesh = await stack.enter_async_context(Mesh(folder, with_sentry=False))
        app = await mesh.http_app("own")
        flags = (
            *("--engine", request.param, "--enable-mtls=false", "--egress", "localhost"),
            *("--resources-path", str(folder / "resources")),
        )
        env = {"DAPR_API_TOKEN": API_TOKEN, "APP_API_TOKEN": APP_TOKEN}
        web = await mesh.sidecar("web", app=app, flags=flags, env=env)
        yield Scene(web=web, ports=ports, resources=folder / "resources")


@pytest.mark.parametrize(
    ("target", "headers", "arrives"),
    [
        ("/v1.0/invoke/good/method/items/1?x=%zz&y", (), "/v1/items/1?x=%zz&y"),
        ("/v1.0/invoke/good.default/method//a/../items/", (), "/v1/items/"),
        ("/v1.0/invoke/good/method/../../%2e%2e/..%2fx", (), "/v1/x"),
        ("/v1.0/invoke/good/method/", (), "/v1/"),
        ("/items?x=1", (("dapr-app-id", "good"),), "/v1/items?x=1"),
        ("/a/./b", (("Host", "good.localhost"),), "/v1/a/b"),
        ("http://good/items", (("Host", "good"),), "/v1/items"),
        ("/v1.0/invoke/old/method/items", (), "/v1/items"),
        ("/v1.0/invoke/known/method/items", (), "/items"),
        ("/v1.0/invoke/by-address/method/items", (), "/items"),
        ("/v1.0/invoke/web/method/items", (), "/own/items"),
    ],
)
async def test_endpoint_is_called_by_its_name(
    scene: Scene, target: str, headers: tuple[tuple[str, str], ...], arrives: str
) -> None:
    found, _ = await echoed(await scene.call(target, *headers))
    assert found == arrives


async def test_request_carries_the_endpoints_headers_and_nothing_of_ours(scene: Scene) -> None:
    sent = [
        *(
            ("X-Key", "theirs"),
            ("Authorization", "Basic mine"),
            ("X-Other", "kept"),
            ("dapr-caller-app-id", "forged"),
        ),
        *(
            ("dapr-anything", "x"),
            ("postern-callee", "x"),
            ("X-Hop", "x"),
            ("Connection", "x-hop"),
            ("TE", "trailers"),
        ),
    ]
    _, headers = await echoed(await scene.call("/v1.0/invoke/plain/method/echo", *sent))
    assert (headers["x-key"], headers["authorization"], headers["x-other"]) == ("ours", "Bearer x", "kept")
    assert headers["host"] == f"localhost:{scene.ports['plain']}"
    assert headers["traceparent"].startswith("00-")
    known = {"host", "x-key", "authorization", "x-other", "traceparent", "connection"}
    assert set(headers) <= known
    assert APP_TOKEN not in json.dumps(headers)
    assert API_TOKEN not in json.dumps(headers)


@pytest.mark.parametrize("form", ["http://localhost:{}/base", "http%3A%2F%2Flocalhost%3A{}%2Fbase"])
async def test_service_is_called_by_its_url(scene: Scene, form: str) -> None:
    target = f"/v1.0/invoke/{form.format(scene.ports['plain'])}/method/items/1?x=1"
    found, headers = await echoed(await scene.call(target, ("X-Other", "kept")))
    assert (found, headers["x-other"]) == ("/base/items/1?x=1", "kept")
    assert headers["host"] == f"localhost:{scene.ports['plain']}"
    assert "dapr-api-token" not in headers
    by_header = ("dapr-app-id", f"http://localhost:{scene.ports['plain']}/base")
    assert (await echoed(await scene.call("/items", by_header)))[0] == "/base/items"


@pytest.mark.parametrize(
    ("callee", "words"),
    [
        ("expired", "its certificate has expired, or is not valid yet"),
        ("other", "its certificate is not for localhost"),
        ("stranger", "its certificate is signed by no trusted root"),
        ("system", "its certificate is signed by no trusted root"),
        ("no-tls", "it does not speak TLS"),
    ],
)
async def test_server_that_does_not_prove_its_name_gets_no_request(
    scene: Scene, callee: str, words: str
) -> None:
    response = await scene.call(f"/v1.0/invoke/{callee}/method/echo")
    content = json.loads(response.body)
    assert (response.status, content["errorCode"]) == (500, "ERR_DIRECT_INVOKE")
    assert content["message"].startswith(
        f"failed to invoke, id: {callee}, err: TLS with the HTTPEndpoint {callee} (https://localhost:"
    )
    assert words in content["message"]
    assert response.get("postern-error") == "tls-identity"


async def test_url_is_trusted_by_the_systems_roots_alone(scene: Scene) -> None:
    response = await scene.call(f"/v1.0/invoke/https://localhost:{scene.ports['good']}/method/echo")
    assert response.get("postern-error") == "tls-identity"
    assert "no trusted root" in response.body.decode()


async def test_server_that_wants_a_certificate_gets_no_answer_through_without(scene: Scene) -> None:
    response = await scene.call("/v1.0/invoke/wary/method/echo")
    assert response.status == 500
    assert "the HTTPEndpoint wary (https://localhost" in response.body.decode()


@pytest.mark.parametrize(
    ("callee", "error", "words"),
    [
        (
            "nowhere",
            "no-endpoint",
            "no address of the HTTPEndpoint nowhere (http://nowhere.invalid) is known: nowhere.invalid was not found",
        ),
        ("closed", "connect", "could not connect to the HTTPEndpoint closed (http://localhost:"),
        ("http://user:x@localhost", "bad-request", "it contains user information"),
        ("http://localhost:99999", "bad-request", "port 99999 is out of range"),
    ],
)
async def test_call_that_reaches_nobody_says_why(scene: Scene, callee: str, error: str, words: str) -> None:
    response = await scene.call("/echo", ("dapr-app-id", callee))
    assert response.get("postern-error") == error
    assert words in json.loads(response.body)["message"]
    assert response.status == (400 if error == "bad-request" else 500)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "http://127.0.0.1",
        "http://169.254.169.254",
        "http://localhost.example.com",
        "http://[::1]",
    ],
)
async def test_url_that_is_not_listed_is_denied(scene: Scene, url: str) -> None:
    response = await scene.call(f"/v1.0/invoke/{url}/method/latest/meta-data")
    assert (response.status, response.get("postern-error")) == (403, "denied")
    assert "is not among the URLs that may be called" in response.body.decode()


async def test_url_of_an_endpoint_is_listed(scene: Scene) -> None:
    response = await scene.call(f"/v1.0/invoke/https://127.0.0.1:{scene.ports['good']}/x/method/echo")
    assert response.get("postern-error") == "tls-identity"  # it was called, without the endpoint's roots


async def test_sidecar_does_not_call_itself(scene: Scene) -> None:
    response = await scene.call(f"/v1.0/invoke/http://localhost:{scene.web.http_port}/method/v1.0/healthz")
    assert response.get("postern-error") == "no-endpoint"
    assert "is a port of this proxy itself" in response.body.decode()


@pytest.mark.parametrize("header", [("Origin", "https://evil.example"), ("Host", "evil.example")])
@pytest.mark.parametrize("callee", ["plain", "http://localhost:{}"])
async def test_page_in_a_browser_calls_nobody(scene: Scene, callee: str, header: tuple[str, str]) -> None:
    target = f"/v1.0/invoke/{callee.format(scene.ports['plain'])}/method/echo"
    response = await request(scene.web.http_port, "GET", target, headers=[header])
    assert response.get("postern-error") == "forbidden-origin"


async def test_call_without_the_token_reaches_no_url(scene: Scene) -> None:
    target = f"/v1.0/invoke/http://localhost:{scene.ports['plain']}/method/echo"
    assert (await request(scene.web.http_port, "GET", target)).status == 401


async def test_redirect_is_passed_on(scene: Scene) -> None:
    target = "/v1.0/invoke/plain/method/status?code=302&header=location:http://169.254.169.254/"
    response = await scene.call(target)
    assert (response.status, response.get("location")) == (302, "http://169.254.169.254/")


async def test_answer_cannot_pass_for_the_proxys(scene: Scene) -> None:
    response = await scene.call("/v1.0/invoke/plain/method/status?code=500&header=postern-error:denied")
    assert (response.status, response.get("postern-error")) == (500, "")


@pytest.mark.parametrize("callee", ["retried", "http://localhost:{}"])
async def test_retries_go_by_the_endpoints_name_or_the_url(scene: Scene, callee: str) -> None:
    named = ("dapr-app-id", callee.format(scene.ports["plain"]))
    response = await scene.call(f"/script?key={uuid.uuid4()}&codes=503,503,200", named)
    assert (response.status, response.body) == (200, b"attempt 3")
    response = await scene.call(f"/script?key={uuid.uuid4()}&codes=500,200", named)
    assert (response.status, response.body) == (500, b"attempt 1")


async def test_attempt_times_out_by_the_endpoints_name(scene: Scene) -> None:
    response = await scene.call("/v1.0/invoke/hasty/method/slow?s=30")
    assert response.get("postern-error") == "timeout"


async def test_bodies_stream_both_ways(scene: Scene) -> None:
    async with asyncio.timeout(20.0), connect(scene.web.http_port) as connection:
        headers = [*scene.token, ("Transfer-Encoding", "chunked")]
        await connection.send_head("POST", "/v1.0/invoke/plain/method/duplex", headers)
        await connection.send(b"5\r\nfirst\r\n")
        head: Head = await connection.read_response_head()
        body = connection.body("POST", head, [])
        assert await anext(body) == b"first"
        await connection.send(b"6\r\nsecond\r\n0\r\n\r\n")
        assert b"".join([part async for part in body]) == b"second"


async def test_large_body_arrives_whole(scene: Scene) -> None:
    response = await scene.call("/v1.0/invoke/known/method/sink", method="POST", body=b"x" * 3_000_000)
    assert json.loads(response.body)["bytes"] == 3_000_000


async def test_endpoints_are_listed_in_the_metadata(scene: Scene) -> None:
    content = json.loads((await scene.call("/v1.0/metadata")).body)
    assert {"name": "good"} in content["httpEndpoints"]


async def test_dapr_grpc_api_calls_endpoints_and_urls_and_lists_them(scene: Scene) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{scene.web.grpc_port}") as channel:
        client = DaprClient(channel, (("dapr-api-token", API_TOKEN),))
        for callee in ("plain", f"http://localhost:{scene.ports['plain']}"):
            ended = await client.invoke(callee, "items", verb="POST", data=b"body")
            assert ended.code is grpc.StatusCode.OK, ended
            content = json.loads(ended.response.data.value)
            assert (content["target"], content["body"]) == ("/items", "body")
            verbless = await client.invoke(callee, "items", verb="")
            assert verbless.code is grpc.StatusCode.INTERNAL
            assert "set http_extension.verb" in verbless.text
        listed = (await client.get_metadata()).response
        assert "good" in [one.name for one in listed.http_endpoints]


async def test_edit_of_an_endpoint_takes_effect_and_a_fault_does_not(scene: Scene) -> None:
    file = scene.resources / "edited.yaml"

    async def until(status: int, base: str = "") -> None:
        async def is_so() -> bool:
            response = await scene.call("/v1.0/invoke/edited/method/echo")
            return response.status == status and base in response.body.decode()

        await eventually(is_so, within_s=20.0)

    async def is_refused() -> bool:
        return bool((await scene.web.status())["policy"]["lastError"])  # type: ignore[index]

    plain = f"http://localhost:{scene.ports['plain']}"
    try:
        file.write_text(endpoint("edited", f"{plain}/one"))
        await until(200, "/one/echo")
        file.write_text(endpoint("edited", f"{plain}/two"))
        await until(200, "/two/echo")
        file.write_text(
            endpoint("edited", f"https://localhost:{scene.ports['good']}", tls={"rootCA": CA.root_pem})
        )
        await until(200, '"target": "/echo"')
        file.write_text(endpoint("edited", "nonsense"))
        await eventually(is_refused, within_s=20.0)
        status = await scene.web.status()
        assert "edited.yaml:1: spec.baseUrl: `nonsense` can't be used" in str(status["policy"])
        await until(200, '"target": "/echo"')
    finally:
        file.unlink()
    await until(500, "couldn't find service: edited")


@pytest.mark.parametrize("engine", ENGINES)
async def test_daprd_calls_any_url_by_the_systems_roots(scene: Scene, tmp_path: Path, engine: str) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(STRANGERS.root_pem + CA.root_pem)
    async with Mesh(tmp_path, with_sentry=False) as mesh:
        flags = ("--profile", "daprd", "--engine", engine, "--enable-mtls=false")
        daprd = await mesh.sidecar("d", flags=flags, env={"SSL_CERT_FILE": str(roots)})
        for name in ("good", "stranger"):
            target = f"/v1.0/invoke/https://localhost:{scene.ports[name]}/base/method/x"
            found, _ = await echoed(await request(daprd.http_port, "GET", target))
            assert found == "/base/x"
        meta = await request(daprd.http_port, "GET", "/v1.0/invoke/http://169.254.169.254/method/latest")
        assert (meta.status, meta.get("postern-error")) == (500, "no-endpoint")
        assert "169.254.169.254 is link-local" in meta.body.decode()
        counted = f'dst_app_id="https://localhost:{scene.ports["good"]}"'.encode()

        async def is_counted() -> bool:
            return counted in (await request(daprd.metrics_port, "GET", "/metrics")).body

        await eventually(is_counted, within_s=20.0)  # the native engine reports a little later
