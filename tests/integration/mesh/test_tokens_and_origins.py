"""Who may use the API ports, and with what the app is called: tokens, origins, hosts, unix sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
import pytest_asyncio

from tests.integration.mesh.peers import Header, h2_head, h2_request
from tests.support.echo_client import EchoClient, Metadata
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_port
from tests.support.proto.echo_pb2 import EchoRequest

TOKEN = "open-sesame"
APP_TOKEN = "from-the-proxy"
TO_CART = "/v1.0/invoke/cart/method/echo"
WITH_TOKEN: Header = ("dapr-api-token", TOKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """`guarded` wants a token, `plain` is as it comes; `cart` and `echo` send their apps a token."""

    mesh: Mesh
    guarded: Sidecar
    plain: Sidecar
    own_port: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Doors]:
    """One for the module: nobody changes it."""
    async with Mesh(tmp_path_factory.mktemp("doors")) as mesh:
        http, echo = await mesh.http_app(), await mesh.grpc_app()
        own = free_port()
        app_env = {"APP_API_TOKEN": APP_TOKEN}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(mesh.sidecar("cart", app=http, env=app_env))
            tasks.create_task(mesh.sidecar("echo", app=echo, env=app_env))
            guarded = tasks.create_task(
                mesh.sidecar("guarded", flags=("--upstream", f"cart={own}"), env={"DAPR_API_TOKEN": TOKEN})
            )
            plain = tasks.create_task(mesh.sidecar("plain"))
        yield Doors(mesh=mesh, guarded=guarded.result(), plain=plain.result(), own_port=own)


# --- the API's token ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1.0/healthz", "/v1.0/healthz/outbound"])
async def test_health_needs_no_token(doors: Doors, path: str) -> None:
    assert (await request(doors.guarded.http_port, "GET", path)).status == 204


@pytest.mark.parametrize(
    ("verb", "target", "headers", "is_daprs"),
    [
        ("GET", TO_CART, (), True),
        ("GET", TO_CART, (("dapr-api-token", ""),), True),
        ("GET", TO_CART, (("dapr-api-token", TOKEN + "x"),), True),
        ("GET", TO_CART, (("dapr-api-token", TOKEN.upper()),), True),
        ("GET", TO_CART, (("Authorization", f"Bearer {TOKEN}"),), True),
        ("GET", "/echo", (("dapr-app-id", "cart"),), True),
        ("GET", "/echo", (("Host", "cart.localhost"),), False),
        ("GET", "http://cart/echo", (("Host", "cart"),), False),
        ("GET", "/v1.0/metadata", (), True),
        ("PUT", "/v1.0/metadata/key", (), True),
        ("POST", "/v1.0/shutdown", (), True),
        ("POST", "/v1.0/healthz", (), True),
        ("GET", "/v1.0/healthz/../metadata", (), True),
        ("GET", "/nowhere", (), True),
    ],
)
async def test_call_without_the_token_is_401_in_the_words_of_its_surface(
    doors: Doors, verb: str, target: str, headers: tuple[Header, ...], is_daprs: bool
) -> None:
    for port in (doors.guarded.http_port, doors.guarded.grpc_port):
        answer = await request(port, verb, target, headers=headers)
        assert (answer.status, answer.get("postern-error")) == (401, "unauthenticated"), answer.body
        assert TOKEN not in answer.body.decode()
        assert (answer.body == b"invalid api token\n") is is_daprs
        assert answer.get("content-type") == ("text/plain; charset=utf-8" if is_daprs else "application/json")
    names = [(name.lower(), value) for name, value in headers if name != "Host"]
    if not target.startswith("http:") and not any(name == "Host" for name, _ in headers):
        over_h2 = await h2_request(doors.guarded.http_port, [*h2_head(verb, target), *names])
        assert over_h2.status == 401
    assert doors.guarded.process.is_running


async def test_own_port_needs_the_token_too(doors: Doors) -> None:
    answer = await request(doors.own_port, "GET", "/echo")
    assert (answer.status, json.loads(answer.body)["errorCode"]) == (401, "ERR_UNAUTHENTICATED")
    assert (await request(doors.own_port, "GET", "/echo", headers=[WITH_TOKEN])).status == 200


async def test_token_opens_every_way_and_travels_no_further(doors: Doors) -> None:
    port = doors.guarded.http_port
    for target, headers in (
        (TO_CART, []),
        ("/echo", [("dapr-app-id", "cart")]),
        ("/echo", [("Host", "cart.localhost")]),
    ):
        answer = await request(port, "GET", target, headers=[*headers, WITH_TOKEN])
        assert answer.status == 200, answer.body
        assert TOKEN not in answer.body.decode()
        assert tokens_in(answer) == [APP_TOKEN]
    assert (await request(port, "GET", "/v1.0/metadata", headers=[WITH_TOKEN])).status == 200
    assert TOKEN not in doors.guarded.process.output


def tokens_in(answer: Response) -> list[str]:
    """The tokens that the app was shown."""
    return [value for name, value in json.loads(answer.body)["headers"] if name.lower() == "dapr-api-token"]


async def grpc_call(port: int, metadata: Metadata) -> tuple[grpc.StatusCode, list[bytes]]:
    """The code of a unary call to `echo`, and the tokens that the app was shown."""
    async with grpc.aio.insecure_channel(f"localhost:{port}") as channel:
        call = EchoClient(channel, metadata=(("dapr-app-id", "echo"), *metadata)).unary(EchoRequest())
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            return code, []
        return code, [item.value for item in (await call).metadata if item.name == "dapr-api-token"]


@pytest.mark.parametrize("metadata", [(), (("dapr-api-token", "wrong"),)], ids=["none", "wrong"])
async def test_grpc_without_the_token_is_unauthenticated(doors: Doors, metadata: Metadata) -> None:
    assert await grpc_call(doors.guarded.grpc_port, metadata) == (grpc.StatusCode.UNAUTHENTICATED, [])


async def test_refusal_of_a_grpc_call_has_details_as_daprs(doors: Doors) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{doors.guarded.grpc_port}") as channel:
        call = EchoClient(channel, metadata=(("dapr-app-id", "echo"),)).unary(EchoRequest())
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
        details = dict(await call.trailing_metadata())["grpc-status-details-bin"]
        assert await call.details() == "Unauthorized"
    assert isinstance(details, bytes)
    assert b"google.rpc.ErrorInfo" in details
    assert b"Unauthorized" in details
    assert b"401" in details
    assert b"the header dapr-api-token is missing or wrong" in details


async def test_grpc_with_the_token_passes_and_the_app_sees_its_own(doors: Doors) -> None:
    met = await grpc_call(doors.guarded.grpc_port, (("dapr-api-token", TOKEN),))
    assert met == (grpc.StatusCode.OK, [APP_TOKEN.encode()])


async def test_app_token_replaces_whatever_the_caller_sent(doors: Doors) -> None:
    forged = ("dapr-api-token", "forged")
    answer = await request(
        doors.plain.http_port, "GET", TO_CART, headers=[forged, ("Dapr-Api-Token", "twice")]
    )
    assert tokens_in(answer) == [APP_TOKEN]
    assert await grpc_call(doors.plain.grpc_port, (forged,)) == (grpc.StatusCode.OK, [APP_TOKEN.encode()])


# --- browsers (more in test_pages.py) --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["GET", "POST", "OPTIONS"])
async def test_foreign_origin_is_refused(doors: Doors, verb: str) -> None:
    for target in (TO_CART, "/v1.0/metadata"):
        for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
            answer = await request(doors.plain.http_port, verb, target, headers=[("Origin", origin)])
            assert (answer.status, answer.get("postern-error")) == (403, "forbidden-origin"), answer.body
            assert not answer.get("access-control-allow-origin")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3500", "localhost.evil.example", "metadata.internal"]
)
async def test_foreign_host_is_refused(doors: Doors, host: str) -> None:
    for target in (TO_CART, "/v1.0/metadata", "/v1.0/healthz", "/v1.0/shutdown"):
        verb = "POST" if target.endswith("shutdown") else "GET"
        answer = await request(doors.plain.http_port, verb, target, headers=[("Host", host)])
        assert (answer.status, answer.get("postern-error")) == (403, "forbidden-origin"), answer.body
    over_h2 = await h2_request(doors.plain.http_port, h2_head("GET", TO_CART, authority=host))
    assert over_h2.status == 403
    assert doors.plain.process.is_running


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:3500", "192.0.2.7", "cart.localhost"]
)
async def test_own_host_is_let_in(doors: Doors, host: str) -> None:
    assert (await request(doors.plain.http_port, "GET", TO_CART, headers=[("Host", host)])).status in (
        200,
        404,
    )
    assert (
        await request(
            doors.plain.http_port, "GET", "/echo", headers=[("Host", host), ("dapr-app-id", "cart")]
        )
    ).status == 200


# --- unix sockets ------------------------------------------------------------------------------------------------------------


async def test_api_on_unix_sockets_is_private_and_takes_the_place_of_tcp(mesh: Mesh) -> None:
    app = await mesh.http_app()
    folder = mesh.root / "api"
    folder.mkdir(mode=0o700)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(mesh.sidecar("cart", app=app))
        start = tasks.create_task(
            mesh.sidecar("web", flags=("--unix-domain-socket", str(folder)), env={"DAPR_API_TOKEN": TOKEN})
        )
    web = start.result()
    assert (web.http_port, web.grpc_port) == (0, 0)
    sockets = {name: folder / f"dapr-web-{name}.socket" for name in ("http", "grpc")}
    for path in sockets.values():
        assert path.stat().st_mode & 0o777 == 0o600
    await web.process.line(r'msg="?serving')
    http = str(sockets["http"])
    assert (await request(0, "GET", "/v1.0/healthz/outbound", unix=http)).status == 204
    assert (await request(0, "GET", TO_CART, unix=http)).status == 401
    answer = await request(0, "GET", TO_CART, headers=[WITH_TOKEN], unix=http)
    assert answer.status == 200
    async with grpc.aio.insecure_channel(f"unix:{sockets['grpc']}") as channel:
        client = EchoClient(channel, metadata=(("dapr-app-id", "ghost"), ("dapr-api-token", TOKEN)))
        assert (
            await client.unary(EchoRequest()).code() is grpc.StatusCode.UNKNOWN
        )  # reached, and nobody is called so
    status = await web.status()
    ports = status["ports"]
    assert isinstance(ports, dict)
    assert (ports["http"], ports["grpc"]) == (None, None)
    assert await web.end() == 0
    assert not any(path.exists() for path in sockets.values())
