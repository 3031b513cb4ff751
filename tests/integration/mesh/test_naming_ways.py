"""The six ways to name a callee, through two real proxies and mutual TLS."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from tests.integration.mesh.standing import eventually
from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh
from tests.support.ports import free_port
from tests.support.proto.echo_pb2 import EchoRequest


async def test_http_callee_is_reached_by_every_way(mesh: Mesh, http_app: App) -> None:
    own = free_port()
    await mesh.sidecar("cart", app=http_app)
    web = await mesh.sidecar("web", flags=("--upstream", f"cart={own}"))
    ways = [
        (web.http_port, "/v1.0/invoke/cart/method/echo?x=1", []),
        (web.http_port, "/echo?x=1", [("dapr-app-id", "cart")]),
        (web.http_port, "/echo?x=1", [("Authorization", "Basic ZGFwci1hcHAtaWQ6Y2FydA==")]),
        (web.http_port, "/echo?x=1", [("Host", "cart.localhost")]),
        (web.grpc_port, "/echo?x=1", [("Host", "cart.default.localhost:1")]),
        (web.http_port, "http://cart/echo?x=1", [("Host", "cart")]),
        (own, "/echo?x=1", []),
        (own, "/echo?x=1", [("dapr-app-id", "nobody")]),
    ]
    for port, target, headers in ways:
        answer = await request(port, "GET", target, headers=headers)
        assert answer.status == 200, (target, headers, answer.body)
        seen = json.loads(answer.body)
        assert seen["target"] == "/echo?x=1", (target, seen)
        names = {name.lower(): value for name, value in seen["headers"]}
        assert names["dapr-caller-app-id"] == "web"
        assert names["dapr-caller-namespace"] == "default"
        assert names["host"] == f"127.0.0.1:{http_app.port}"
        assert not {"dapr-app-id", "authorization"} & set(names)
        assert len([name for name, _ in seen["headers"] if name.lower() == "traceparent"]) == 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def echoing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """A mesh with the gRPC app `echo`, which each way's test gives a caller of its own."""
    async with Mesh(tmp_path_factory.mktemp("ways")) as started:
        await started.sidecar("echo", app=await started.grpc_app())
        yield started


@pytest.mark.parametrize("way", ["learnt", "route", "pattern", "header", "authority", "own-port"])
async def test_grpc_callee_is_reached_by_every_way(echoing: Mesh, way: str) -> None:
    own = free_port()
    flags = {
        "route": ("--route", "testing.EchoService=echo", "--no-learn-names"),
        "pattern": ("--route", "testing.{Name}Service={name}", "--no-learn-names"),
        "own-port": ("--upstream", f"echo={own}", "--no-learn-names"),
    }.get(way, ("--no-learn-names",) if way in ("header", "authority") else ())
    web = await echoing.sidecar("web", flags=flags)
    target = f"localhost:{own if way == 'own-port' else web.grpc_port}"
    options = [("grpc.default_authority", f"echo.localhost:{web.grpc_port}")] if way == "authority" else []
    await _reaches(target, (("dapr-app-id", "echo"),) if way == "header" else (), options)


async def test_grpc_callee_is_reached_by_the_services_that_it_declares(mesh: Mesh, grpc_app: App) -> None:
    await mesh.sidecar("echo", app=grpc_app, flags=("--grpc-service", "testing.EchoService"))
    web = await mesh.sidecar("web")
    await _reaches(f"localhost:{web.grpc_port}")


async def _reaches(
    target: str, metadata: tuple[tuple[str, str], ...] = (), options: list[tuple[str, str]] | None = None
) -> None:
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        reply = await EchoClient(channel, metadata=metadata).unary(EchoRequest(message="hi"))
    assert reply.message == "hi"
    seen = {item.name: item.value for item in reply.metadata}
    assert seen["dapr-caller-app-id"] == b"web"
    assert "dapr-app-id" not in seen


async def test_unknown_app_is_named_with_what_was_tried(mesh: Mesh) -> None:
    web = await mesh.sidecar("web")
    dapr = await request(web.http_port, "GET", "/v1.0/invoke/ghost/method/x")
    own = await request(web.http_port, "GET", "/x", headers=[("Host", "ghost.localhost")])
    assert (dapr.status, own.status) == (500, 404)
    said = json.loads(dapr.body)
    assert said["errorCode"] == "ERR_DIRECT_INVOKE"
    assert "ghost" in said["message"]
    assert "host registry" in said["message"]
    assert "mdns" in said["message"]
    async with grpc.aio.insecure_channel(f"localhost:{web.grpc_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as by_header:
            await EchoClient(channel, metadata=(("dapr-app-id", "ghost"),)).unary(EchoRequest())
        with pytest.raises(grpc.aio.AioRpcError) as by_service:
            await EchoClient(channel).unary(EchoRequest())
    assert by_header.value.code() is grpc.StatusCode.UNKNOWN
    assert by_service.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "--route" in (by_service.value.details() or "")


async def test_callee_that_starts_later_is_found_by_a_waiting_call(mesh: Mesh, http_app: App) -> None:
    web = await mesh.sidecar("web")
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(request(web.http_port, "GET", "/v1.0/invoke/late/method/echo"))
        late = tasks.create_task(mesh.sidecar("late", app=http_app))
    first = call.result()
    assert first.status in (200, 500)
    await late.result().wait_app()

    async def is_found() -> bool:
        return (await request(web.http_port, "GET", "/v1.0/invoke/late/method/echo")).status == 200

    await eventually(is_found)  # at once where the call waited long enough, else when its proxy looks again


async def test_two_instances_are_balanced(mesh: Mesh) -> None:
    one, two = await mesh.http_app("one"), await mesh.http_app("two")
    await mesh.sidecar("cart", app=one)
    await mesh.sidecar("cart", app=two)
    web = await mesh.sidecar("web")
    names = []
    for _ in range(6):  # at a time, each as long as the other: a slow moment of an instance tells little
        calls = (request(web.http_port, "GET", "/v1.0/invoke/cart/method/slow?s=0.1") for _ in range(10))
        names += [json.loads(response.body)["app"] for response in await asyncio.gather(*calls)]
    assert names.count("one") >= 10
    assert names.count("two") >= 10


@pytest.mark.parametrize("engine", ENGINES)
async def test_without_mtls_names_are_found_in_any_namespace_and_spelt_in_lower_case(
    engine: str, tmp_path: Path
) -> None:
    flags = ("--engine", engine, "--insecure-plaintext")
    async with Mesh(tmp_path, with_sentry=False) as plain:
        app = await plain.http_app("cart")
        await plain.sidecar("CartApp", app=app, flags=flags, env={"NAMESPACE": "shop"})
        web = await plain.sidecar("web", flags=flags)
        for host in ("cartapp.shop.localhost", "CartApp.shop.localhost"):
            answer = await request(web.http_port, "GET", "/echo", headers=[("Host", host)])
            assert answer.status == 200, (host, answer)
        answer = await request(web.http_port, "GET", "/echo", headers=[("dapr-app-id", "CartApp")])
        assert answer.status == 200
