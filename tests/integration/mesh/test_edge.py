"""What an app meets at its own proxy beside the calls themselves, on each engine: building blocks that are missing."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
import pytest_asyncio

from proxy.version import has_native
from tests.support.echo_client import EchoClient
from tests.support.http_client import request
from tests.support.mesh import Mesh, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """`web` calls `cart` (HTTP) and `echo` (gRPC)."""

    mesh: Mesh
    web: Sidecar
    cart: Sidecar
    echo: Sidecar


def _engines() -> list[object]:
    native = pytest.mark.skipif(not has_native(), reason="the native engine is not part of this installation")
    return ["portable", pytest.param("native", marks=native)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=_engines())
async def edge(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Edge]:
    """One for the module and engine: nobody changes it."""
    engine = ("--engine", str(request.param))
    async with Mesh(tmp_path_factory.mktemp("edge")) as mesh:
        http, grpc_app = await mesh.http_app(), await mesh.grpc_app()
        await mesh.start_sentry()
        async with asyncio.TaskGroup() as tasks:
            cart = tasks.create_task(mesh.sidecar("cart", app=http, flags=engine))
            echo = tasks.create_task(mesh.sidecar("echo", app=grpc_app, flags=engine))
            web = tasks.create_task(mesh.sidecar("web", flags=engine))
        yield Edge(mesh=mesh, web=web.result(), cart=cart.result(), echo=echo.result())


# --- building blocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "code", "word"),
    [
        ("/v1.0/state/store/key", "ERR_STATE_STORE_NOT_CONFIGURED", "state store"),
        ("/v1.0-alpha1/state/store/query", "ERR_STATE_STORE_NOT_CONFIGURED", "state store"),
        ("/v1.0/publish/pubsub/topic", "ERR_PUBSUB_NOT_CONFIGURED", "publish"),
        ("/v1.0/bindings/cron", "ERR_INVOKE_OUTPUT_BINDING", "bindings"),
        ("/v1.0/secrets/vault/key", "ERR_SECRET_STORES_NOT_CONFIGURED", "secret store"),
        ("/v1.0/actors/T/1/method/m", "ERR_ACTOR_RUNTIME_NOT_FOUND", "actors"),
        ("/v1.0-beta1/workflows/dapr/w/start", "ERR_WORKFLOW_COMPONENT_NOT_FOUND", "workflows"),
        ("/v1.0/configuration/store", "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "configuration"),
        ("/v1.0-alpha1/lock/store", "ERR_LOCK_STORE_NOT_CONFIGURED", "lock"),
        ("/v1.0-alpha1/crypto/keys/encrypt", "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED", "cryptography"),
        ("/v1.0-alpha1/jobs/one", "ERR_JOBS_NOT_CONFIGURED", "jobs"),
        ("/v1.0-alpha2/conversation/llm/converse", "ERR_CONVERSATION_NOT_CONFIGURED", "conversations"),
    ],
)
async def test_building_block_that_is_missing_is_named(edge: Edge, path: str, code: str, word: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = await request(edge.web.http_port, method, path, body=b"{}" if method == "POST" else None)
        told = json.loads(answer.body)
        assert (answer.status, told["errorCode"], answer.get("postern-error")) == (501, code, "unsupported")
        assert "postern carries service invocation only" in told["message"]
        assert word in told["message"]
    named = await request(edge.web.http_port, "GET", path, headers=[("dapr-app-id", "cart")])
    assert (named.status, json.loads(named.body)["target"]) == (200, path)


async def test_path_that_is_no_building_block_names_no_app(edge: Edge) -> None:
    for path in ("/v1.0/states/x", "/v1.0", "/v1.0-gamma/state/x", "/v2.0/state/x"):
        answer = await request(edge.web.http_port, "GET", path)
        assert (answer.status, answer.get("postern-error")) == (404, "no-app")


async def test_grpc_api_of_dapr_says_what_is_carried(edge: Edge) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{edge.web.grpc_port}") as channel:
        client = EchoClient(channel, service="dapr.proto.runtime.v1.Dapr")
        call = client.unary(EchoRequest(), method="GetState")
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "service invocation only" in await call.details()
