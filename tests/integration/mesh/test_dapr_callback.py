"""Apps that speak gRPC and implement Dapr's AppCallback/OnInvoke: called by HTTP and by InvokeService, over both engines."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from proxy.api.dapr.common_pb2 import InvokeRequest
from tests.integration.mesh.standing import NO_SECRET_FOR_WEB, eventually, invoke
from tests.support.dapr_client import DaprClient, Ended
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """`web` calls `orders`, whose app has the callback, and `plain`, whose gRPC app has none."""

    mesh: Mesh
    engine: str
    web: Sidecar
    orders: Sidecar


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def called(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Called]:
    """One for the module and each engine."""
    files: Path = tmp_path_factory.mktemp("callback")
    rules = files / "rules.yaml"
    rules.write_text(NO_SECRET_FOR_WEB)
    engine = ("--engine", request.param)
    async with Mesh(files) as mesh:
        await mesh.start_sentry()
        app, plain = await mesh.grpc_app("orders", "--callback"), await mesh.grpc_app("plain")
        async with asyncio.TaskGroup() as tasks:
            web = tasks.create_task(mesh.sidecar("web", flags=engine))
            token = {"APP_API_TOKEN": "from-the-proxy"}
            flags = (*engine, "--config", str(rules))
            first = tasks.create_task(mesh.sidecar("orders", app=app, flags=flags, env=token))
            tasks.create_task(mesh.sidecar("plain", app=plain, flags=engine))
        yield Called(mesh=mesh, engine=request.param, web=web.result(), orders=first.result())


@pytest.fixture
async def client(called: Called) -> AsyncIterator[DaprClient]:
    """A client of Dapr's gRPC API at `web`."""
    async with grpc.aio.insecure_channel(f"localhost:{called.web.grpc_port}") as channel:
        yield DaprClient(channel)


def asked(answer: Response | Ended) -> dict[str, Any]:
    """What the app says that it was asked."""
    body = answer.body if isinstance(answer, Response) else answer.response.data.value
    told: dict[str, Any] = json.loads(body)
    return told


async def in_flight(called: Called, count: int) -> bool:
    """Whether so many calls are in flight at `orders`: each is HTTP to the server that calls, and gRPC from there."""
    stats = (await called.orders.status())["engineStats"]
    assert isinstance(stats, dict)
    return bool(stats["callsInFlight"] == count)


# --- by HTTP -------------------------------------------------------------------------------------------------------------------


async def test_http_call_becomes_on_invoke(called: Called) -> None:
    target = invoke("orders", "/a%20b/c?x=1&y=%20")
    headers = [("Content-Type", "text/plain"), ("X-Note", "n"), ("Cookie", "a=1"), ("X-Raw-Bin", "AAE=")]
    answer = await request(called.web.http_port, "PUT", target, headers=headers, body=b"hello")
    assert (answer.status, answer.get("content-type")) == (200, "application/json")
    assert (answer.get("x-app"), answer.get("content-language")) == ("callback", "de")
    assert not [name for name, _ in answer.headers if name.lower().startswith("postern-")]
    told = asked(answer)
    metadata = dict(told.pop("metadata"))
    assert told == {
        "method": "a b/c",
        "verb": "PUT",
        "query": "x=1&y=%20",
        "type_url": "",
        "content_type": "text/plain",
        "body": "hello",
        "left_s": None,
    }
    assert metadata["x-note"] == "n"
    assert metadata["dapr-cookie"] == "a=1"
    assert metadata["x-raw-bin"] == "\x00\x01"
    assert metadata["dapr-content-type"] == "text/plain"
    assert metadata["dapr-caller-app-id"] == "web"
    assert metadata["dapr-api-token"] == "from-the-proxy"
    assert metadata["traceparent"]
    assert "dapr-app-id" not in metadata


async def test_time_of_an_http_call_is_the_deadline_of_on_invoke(called: Called) -> None:
    target = invoke("orders", "/hello")
    told = asked(await request(called.web.http_port, "GET", target, headers=[("Postern-Timeout", "60S")]))
    assert 30.0 < told["left_s"] < 61.0  # grpcio rounds it
    assert "postern-timeout" not in dict(told["metadata"])
    late = await request(
        called.web.http_port, "GET", invoke("orders", "/slow"), headers=[("Postern-Timeout", "500")]
    )
    assert (late.status, late.get("postern-error")) == (500, "timeout")


@pytest.mark.parametrize("way", ["path", "header", "self"])
async def test_each_way_of_daprs_api_reaches_it(called: Called, way: str) -> None:
    port = called.orders.http_port if way == "self" else called.web.http_port
    target = "/hello" if way == "header" else invoke("orders", "/hello")
    headers = [("dapr-app-id", "orders")] if way == "header" else []
    answer = await request(port, "GET", target, headers=headers)
    assert (asked(answer)["method"], asked(answer)["verb"]) == ("hello", "GET")


async def test_error_of_the_app_has_daprs_status_and_words(called: Called) -> None:
    answer = await request(called.web.http_port, "GET", invoke("orders", "/fail"))
    assert (answer.status, answer.get("postern-error")) == (400, "")
    assert json.loads(answer.body) == {"code": 9, "message": "not ready: ümläut %", "details": []}


async def test_app_without_the_callback_says_so(called: Called) -> None:
    answer = await request(called.web.http_port, "GET", invoke("plain", "/x"))
    assert answer.status == 501
    assert "does not implement this method in AppCallback/OnInvoke" in json.loads(answer.body)["message"]


async def test_call_that_is_denied_does_not_reach_it(called: Called) -> None:
    for target in ("/secret", "/secret/x", "//secret", "/x/../secret", "/%73ecret", "/%2Fsecret"):
        answer = await request(called.web.http_port, "GET", invoke("orders", target))
        assert (answer.status, answer.get("postern-error")) == (403, "denied"), target


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc-web+proto", "application/json"])
@pytest.mark.parametrize("caller", ["web", "orders"])
async def test_callback_itself_cannot_be_called(called: Called, caller: str, kind: str) -> None:
    """The access rules see no method there: `secret` would be called all the same."""
    sidecar = called.web if caller == "web" else called.orders
    message = InvokeRequest(method="secret").SerializeToString()
    path = "/dapr.proto.runtime.v1.AppCallback/OnInvoke"
    if kind == "application/grpc":
        async with grpc.aio.insecure_channel(f"localhost:{sidecar.grpc_port}") as channel:
            made = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
            call = made(message, metadata=(("dapr-app-id", "orders"),), timeout=60.0)
            assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "by its own proxy alone" in await call.details()
        return
    body = b"\0" + len(message).to_bytes(4, "big") + message
    headers = [("Host", "orders.localhost"), ("Content-Type", kind)]
    answer = await request(sidecar.http_port, "POST", path, headers=headers, body=body)
    assert answer.get("postern-error") == "unsupported", answer
    assert b"secret" not in answer.body


async def test_app_that_does_not_listen_is_told_as_down(called: Called) -> None:
    app = await called.mesh.grpc_app("brief", "--callback")
    flags = ("--engine", called.engine)
    brief = await called.mesh.sidecar("brief", app=app, flags=flags)
    assert (await request(brief.http_port, "GET", invoke("brief", "/x"))).status == 200
    await app.process.end()
    answer = await request(
        brief.http_port,
        "GET",
        invoke("brief", "/x"),
        headers=[("traceparent", f"00-{'a' * 32}-{'b' * 16}-00")],
    )
    assert (answer.status, answer.get("postern-error")) == (500, "app-down")
    told = json.loads(answer.body)
    assert (told["errorCode"], told["details"][0]["requestId"]) == ("ERR_DIRECT_INVOKE", "a" * 32)
    assert "--app-port" in told["message"]
    assert await brief.end() == 0


async def test_body_beyond_four_mebibytes_is_refused(called: Called) -> None:
    target = invoke("orders", "/x")
    assert (await request(called.web.http_port, "POST", target, body=b"x" * 4_000_000)).status == 200
    beyond = await request(called.web.http_port, "POST", target, body=b"x" * 4_300_000)
    assert beyond.status >= 400
    large = await request(called.web.http_port, "GET", invoke("orders", "/bytes?5000000"))
    assert large.status == 429


async def test_burst_of_calls_reaches_it(called: Called, client: DaprClient) -> None:
    async with asyncio.TaskGroup() as tasks:
        burst = [tasks.create_task(client.invoke("orders", "x", data=b"%d" % n)) for n in range(600)]
    assert [asked(call.result())["body"] for call in burst] == [str(n) for n in range(600)]


async def test_as_many_calls_as_come_wait_for_it_at_once(called: Called) -> None:
    """A connection to it takes 250."""
    target = invoke("orders", "/slow")
    async with asyncio.timeout(50.0), asyncio.TaskGroup() as tasks:
        calls = [
            tasks.create_task(request(called.web.http_port, "GET", target, timeout_s=60.0))
            for _ in range(400)
        ]
        await eventually(lambda: in_flight(called, 2 * 400), within_s=45.0)
        for call in calls:
            call.cancel()


async def test_metadata_of_the_answer_may_be_large(called: Called) -> None:
    for _ in range(10):  # gRPC's own limit refuses some of this size, and some not
        answer = await request(called.web.http_port, "GET", invoke("orders", "/large"))
        assert (answer.status, len(answer.get("x-large"))) == (200, 12_000)


async def test_caller_that_leaves_is_cancelled_at_the_app(called: Called) -> None:
    async with asyncio.timeout(20.0), asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(request(called.web.http_port, "GET", invoke("orders", "/slow")))

        await eventually(lambda: in_flight(called, 2))
        leaving.cancel()
        await eventually(lambda: in_flight(called, 0))


# --- by InvokeService, and gRPC as it is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["", "POST"])
async def test_invoke_service_reaches_it_with_or_without_a_verb(client: DaprClient, verb: str) -> None:
    ended = await client.invoke(
        "orders",
        "hello",
        verb=verb,
        data=b"x",
        content_type="a/b",
        metadata=(("x-note", "n"), ("x-raw-bin", b"\x00\x01")),
    )
    assert ended.code is grpc.StatusCode.OK, ended
    told = asked(ended)
    assert (told["method"], told["verb"], told["body"]) == ("hello", verb or None, "x")
    assert (told["content_type"], dict(told["metadata"])["x-note"]) == ("a/b", "n")
    assert ended.response.content_type == "application/json"
    assert dict(told["metadata"])["x-raw-bin"] == "\x00\x01"
    assert (ended.initial["x-app"], ended.initial["x-raw-bin"]) == ("callback", b"\x00\xff")
    assert "dapr-http-status" not in ended.initial
    assert (ended.trailing["x-trailer"], ended.trailing["x-trailer-bin"]) == ("yes", b"\x00\x01")


async def test_status_of_the_app_comes_back_as_it_is(client: DaprClient) -> None:
    ended = await client.invoke("orders", "fail", verb="")
    assert (ended.code, ended.text) == (grpc.StatusCode.FAILED_PRECONDITION, "not ready: ümläut %")
    assert ended.trailing["grpc-status-details-bin"] == b"\x08\x09"
    assert ended.trailing["x-failed"] == "yes"
    packed = await client.invoke("orders", "packed", verb="", type_url="x/Y", content_type="a/b")
    assert (asked(packed)["type_url"], asked(packed)["content_type"]) == ("x/Y", "a/b")
    assert packed.response.data.type_url == "type.googleapis.com/testing.Echo"
    assert packed.response.content_type == "application/json"  # as the app gave it
    missing = await client.invoke("plain", "x", verb="")
    assert missing.code is grpc.StatusCode.UNIMPLEMENTED
    assert "AppCallback/OnInvoke" in missing.text
    denied = await client.invoke("orders", "secret", verb="")
    assert (denied.code, denied.trailing["postern-error"]) == (grpc.StatusCode.INTERNAL, "denied")


async def test_deadline_of_invoke_service_ends_the_call(client: DaprClient) -> None:
    began = time.monotonic()
    assert (
        await client.invoke("orders", "slow", verb="", timeout_s=0.5)
    ).code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 10.0


async def test_service_of_the_app_is_called_as_it_is(called: Called) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{called.web.grpc_port}") as channel:
        echo = EchoClient(channel, metadata=(("dapr-app-id", "orders"),))
        assert (await echo.unary(EchoRequest(message="one"))).message == "one"
