"""The sidecar's own API over real ports: health, metadata, shutdown, the app's health, its concurrency, the public port."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.mesh.standing import Standing, eventually, invoke, standing
from tests.support.http_client import connect, request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_port

PROBES = (
    "--enable-app-health-check",
    "--app-health-check-path",
    "/status",
    "--app-health-probe-interval",
    "1",
    "--app-health-probe-timeout",
    "900",
    "--app-health-threshold",
    "2",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Standing]:
    """The module's mesh: `shop` takes two calls at once, has a public port, a Resiliency, a middleware and two Configurations."""
    files = tmp_path_factory.mktemp("own-api")
    (files / "resources").mkdir()
    (files / "resources" / "retries.yaml").write_text("kind: Resiliency\nmetadata: {name: retries}\n")
    (files / "resources" / "limit.yaml").write_text(
        "kind: Component\nmetadata: {name: limit}\nspec: {type: middleware.http.ratelimit, version: v1}\n"
    )
    for name in ("one", "two"):
        (files / f"{name}.yaml").write_text(
            f"kind: Configuration\nspec: {{features: [{{name: {name}, enabled: true}}, {{name: off, enabled: false}}]}}\n"
        )
    shop = (
        "--config",
        str(files / "one.yaml"),
        "--config",
        str(files / "two.yaml"),
        "--resources-path",
        str(files / "resources"),
        "--app-max-concurrency",
        "2",
        "--dapr-public-port",
        "0",
        "--dapr-public-listen-address",
        "127.0.0.1",
    )
    async with standing(files, shop=shop) as started:
        await started.shop.wait_app()
        yield started


async def ask(sidecar: Sidecar, method: str, target: str, body: bytes | None = None) -> Response:
    """Ask a sidecar's HTTP port."""
    return await request(sidecar.http_port, method, target, body=body)


def error_of(answer: Response) -> str:
    """The errorCode of an answer."""
    code: str = json.loads(answer.body)["errorCode"]
    return code


async def until(sidecar: Sidecar, target: str, status: int) -> None:
    """Ask until the answer is so; every look is a call."""

    async def is_so() -> bool:
        return (await ask(sidecar, "GET", target)).status == status

    await eventually(is_so)


# --- health ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", ["http", "grpc"])
async def test_health_is_answered_on_both_ports(mesh: Standing, listener: str) -> None:
    port = mesh.shop.http_port if listener == "http" else mesh.shop.grpc_port
    for target in ("/v1.0/healthz", "/v1.0/healthz/", "/v1.0/healthz/outbound", "/v1.0/healthz?appid=shop"):
        answer = await request(port, "GET", target)
        assert (answer.status, answer.body) == (204, b""), target
    other = await request(port, "GET", "/v1.0/healthz?appid=cart")
    assert (other.status, error_of(other)) == (500, "ERR_HEALTH_APPID_NOT_MATCH")


async def test_wrong_verb_on_health_is_no_health(mesh: Standing) -> None:
    answer = await ask(mesh.shop, "POST", "/v1.0/healthz", b"")
    assert (answer.status, error_of(answer)) == (404, "ERR_DIRECT_INVOKE")
    called = await request(mesh.web.http_port, "POST", "/v1.0/healthz", headers=[("dapr-app-id", "shop")])
    assert json.loads(called.body)["target"] == "/v1.0/healthz"


async def test_sidecar_calls_out_before_its_app_listens(mesh: Standing) -> None:
    port = free_port()
    late = await mesh.mesh.sidecar("late", app_port=port)
    assert (await ask(late, "GET", "/v1.0/healthz/outbound")).status == 204
    early = await ask(late, "GET", "/v1.0/healthz")
    assert (early.status, error_of(early)) == (500, "ERR_HEALTH_NOT_READY")
    assert "app" in json.loads(early.body)["message"]
    assert (await ask(late, "GET", invoke("shop", "/echo"))).status == 200
    refused = await ask(mesh.web, "GET", invoke("late", "/echo"))
    assert (refused.status, error_of(refused)) == (500, "ERR_DIRECT_INVOKE")
    assert f"its app does not listen yet on port {port}" in json.loads(refused.body)["message"]
    app = await mesh.mesh.http_app("late", "--port", str(port))
    await late.wait_app()
    await until(mesh.web, invoke("late", "/echo"), 200)  # its caller polls the registry
    assert await late.end() == 0
    await app.process.end()


# --- metadata ----------------------------------------------------------------------------------------------------------------


async def test_metadata_tells_the_app_and_keeps_what_is_put(mesh: Standing) -> None:
    assert (await ask(mesh.shop, "PUT", "/v1.0/metadata/owner%20team", "grün".encode())).status == 204
    assert (await ask(mesh.shop, "PUT", "/v1.0/metadata/owner%20team", b"blue")).status == 204
    answer = await ask(mesh.shop, "GET", "/v1.0/metadata")
    assert (answer.status, answer.get("content-type")) == (200, "application/json")
    told = json.loads(answer.body)
    assert told["id"] == "shop"
    assert told["extended"]["owner team"] == "blue"
    assert told["extended"]["daprRuntimeVersion"] == told["runtimeVersion"]
    assert told["appConnectionProperties"] == {
        "port": mesh.http_app.port,
        "protocol": "http",
        "channelAddress": "127.0.0.1",
        "maxConcurrency": 2,
    }
    assert told["resiliencies"] == [{"name": "retries"}]
    assert told["components"] == [{"name": "limit", "type": "middleware.http.ratelimit", "version": "v1"}]
    assert told["enabledFeatures"] == ["two"]  # the later Configuration's list stands, as with Dapr
    assert told["actorRuntime"] == {"runtimeStatus": "DISABLED", "hostReady": False}


async def test_metadata_is_bounded(mesh: Standing) -> None:
    assert (await ask(mesh.web, "PUT", "/v1.0/metadata/large", b"x" * 4096)).status == 204
    assert (await ask(mesh.web, "PUT", "/v1.0/metadata/large", b"x" * 4097)).status == 400
    for number in range(63):
        assert (await ask(mesh.web, "PUT", f"/v1.0/metadata/k{number}", b"v")).status == 204
    assert (await ask(mesh.web, "PUT", "/v1.0/metadata/one-too-many", b"v")).status == 400
    assert (await ask(mesh.web, "PUT", "/v1.0/metadata/k1", b"again")).status == 204


# --- the public port -----------------------------------------------------------------------------------------------------------


async def test_public_port_serves_health_and_metadata_alone(mesh: Standing) -> None:
    ports = (await mesh.shop.status())["ports"]
    assert isinstance(ports, dict)
    port = int(ports["public"])
    assert (await request(port, "GET", "/v1.0/healthz")).status == 204
    assert (await request(port, "GET", "/v1.0/healthz/outbound")).status == 204
    assert json.loads((await request(port, "GET", "/v1.0/metadata")).body)["id"] == "shop"
    for method, target in (
        ("PUT", "/v1.0/metadata/key"),
        ("POST", "/v1.0/shutdown"),
        ("GET", invoke("shop", "/echo")),
        ("GET", "/status"),
        ("GET", "/metrics"),
    ):
        answer = await request(port, method, target, body=b"x" if method != "GET" else None)
        assert answer.status == 404, (method, target, answer.body)


# --- shutdown ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
async def test_shutdown_by_the_api(mesh: Standing, force: bool) -> None:
    leaving = await mesh.mesh.sidecar("leaving")
    headers = [("dapr-force-shutdown", "true")] if force else []
    answer = await request(leaving.http_port, "POST", "/v1.0/shutdown", headers=headers)
    assert answer.status == 204
    assert await leaving.process.ended() == (1 if force else 0)


# --- the app's health ----------------------------------------------------------------------------------------------------------


async def test_unhealthy_app_is_spared_and_comes_back(mesh: Standing) -> None:
    app = await mesh.mesh.http_app("sick")
    sick = await mesh.mesh.sidecar("sick", app=app, flags=PROBES)
    await until(mesh.web, invoke("sick", "/echo"), 200)
    app.process.send_signal(signal.SIGSTOP)
    try:

        async def is_unhealthy() -> bool:
            return _app(await sick.status())["healthy"] is False

        await eventually(is_unhealthy, within_s=20.0)
        refused = await ask(mesh.web, "GET", invoke("sick", "/echo"))
        # The callee's proxy says so while it is still announced; then its entry in the registry does.
        assert (refused.status, refused.get("postern-error")) in (
            (500, "app-unhealthy"),
            (500, "no-endpoint"),
        )
        assert "health" in json.loads(refused.body)["message"]
        own = await request(mesh.web.http_port, "GET", "/echo", headers=[("Host", "sick.localhost")])
        assert own.status == 503
        assert (await ask(sick, "GET", "/v1.0/healthz")).status == 204
        assert (await ask(sick, "GET", invoke("shop", "/echo"))).status == 200
    finally:
        app.process.send_signal(signal.SIGCONT)
    await until(mesh.web, invoke("sick", "/echo"), 200)
    stats = json.loads((await request(app.port, "GET", "/stats")).body)
    assert stats["requests"]["/status"] >= 3
    assert await sick.end() == 0
    await app.process.end()


def _app(status: dict[str, object]) -> dict[str, object]:
    app = status["app"]
    assert isinstance(app, dict)
    return app


# --- concurrency -----------------------------------------------------------------------------------------------------------------


async def test_app_takes_no_more_calls_at_once_than_it_was_said_to(mesh: Standing) -> None:
    async with asyncio.timeout(20.0), connect(mesh.web.http_port) as one, connect(mesh.web.http_port) as two:
        for connection in (one, two):
            await connection.send_head("POST", invoke("shop", "/duplex"), [("Content-Length", "4")])
            await connection.send(b"ab")
            assert (await connection.read_response_head()).second == "200"
        third = asyncio.timeout(0.6)
        with pytest.raises(TimeoutError):
            async with third:
                await ask(mesh.web, "GET", invoke("shop", "/echo"))
        assert (await ask(mesh.shop, "GET", "/v1.0/healthz")).status == 204
        await one.send(b"cd")
        assert (await ask(mesh.web, "GET", invoke("shop", "/echo"))).status == 200


# --- unix sockets ----------------------------------------------------------------------------------------------------------------


async def test_api_on_unix_sockets_replaces_the_ports(mesh: Standing) -> None:
    folder = mesh.mesh.root / "uds"
    folder.mkdir()
    hidden = await mesh.mesh.sidecar("hidden", flags=("--unix-domain-socket", str(folder)))
    assert (hidden.http_port, hidden.grpc_port) == (0, 0)
    path = str(folder / "dapr-hidden-http.socket")
    assert os.stat(path).st_mode & 0o777 == 0o600

    async def is_ready() -> bool:
        return (await request(0, "GET", "/v1.0/healthz", unix=path)).status == 204

    await eventually(is_ready)
    answer = await request(0, "GET", invoke("shop", "/echo"), unix=path, headers=[("Host", "localhost")])
    assert json.loads(answer.body)["app"] == "shop"
    assert await hidden.end() == 0
    assert list(folder.iterdir()) == []


# --- what stops a start ------------------------------------------------------------------------------------------------------------


async def test_taken_port_ends_the_start_and_names_the_flag(mesh: Standing) -> None:
    taken = mesh.web.http_port
    args = Mesh.arguments(mesh.mesh, "twin", flags=("--dapr-http-port", str(taken)))
    process = mesh.mesh.processes.start_python("proxy", *args, name="sidecar twin")
    assert await process.ended() != 0
    assert f":{taken} for the HTTP API" in process.output
    assert "--dapr-http-port" in process.output
