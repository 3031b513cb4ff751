"""gRPC's own services on the port of Dapr's gRPC API: health checking and server reflection, the sidecar's or an app's."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from tests.integration.mesh.standing import Standing, standing
from tests.support.engines import ENGINES
from tests.support.mesh import Sidecar
from tests.support.ports import free_port

DAPR = "dapr.proto.runtime.v1.Dapr"
OWN = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
]
TOKEN = (("dapr-api-token", "open-sesame"),)
Metadata = tuple[tuple[str, str], ...]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def mesh(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Standing]:
    """The module's mesh, once for each engine; all want a token."""
    files: Path = tmp_path_factory.mktemp("standard")
    env = {"DAPR_API_TOKEN": "open-sesame"}
    async with standing(files, flags=("--engine", request.param), env=env) as started:
        yield started


def channel(sidecar: Sidecar) -> grpc.aio.Channel:
    """To the gRPC API."""
    return grpc.aio.insecure_channel(f"localhost:{sidecar.grpc_port}")


def reflection(made: grpc.aio.Channel, version: str) -> Any:
    """The method that opens a stream of questions and answers."""
    return made.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )


async def reflected(
    made: grpc.aio.Channel, version: str, *asked: ServerReflectionRequest, metadata: Metadata = TOKEN
) -> list[ServerReflectionResponse]:
    """The answers to questions of one stream. Raises AioRpcError."""
    stream = reflection(made, version)(iter(asked), metadata=metadata, timeout=60.0)
    return [answer async for answer in stream]


async def health(made: grpc.aio.Channel, service: str, metadata: Metadata = ()) -> int:
    """What a health check says. Raises AioRpcError."""
    check: Any = made.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    answer = await check(HealthCheckRequest(service=service), metadata=metadata, timeout=60.0)
    return int(answer.status)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_sidecar_describes_the_api_that_it_serves(mesh: Standing, version: str) -> None:
    questions = (
        ServerReflectionRequest(list_services="*"),
        ServerReflectionRequest(file_containing_symbol=f"{DAPR}.InvokeService"),
        ServerReflectionRequest(file_containing_symbol="shop.Cart"),
    )
    async with channel(mesh.web) as made:
        listed, described, unknown = await reflected(made, version, *questions)
    assert [service.name for service in listed.list_services_response.service] == [DAPR, *OWN]
    files = [
        FileDescriptorProto.FromString(raw)
        for raw in described.file_descriptor_response.file_descriptor_proto
    ]
    methods = {method.name for file in files for service in file.service for method in service.method}
    assert methods == {"InvokeService", "GetMetadata", "SetMetadata", "Shutdown"}
    assert {"InvokeRequest", "InvokeServiceRequest"} <= {m.name for file in files for m in file.message_type}
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_with_an_app_named_it_is_the_apps(mesh: Standing) -> None:
    named = (*TOKEN, ("dapr-app-id", "echo"))
    async with channel(mesh.web) as made:
        (listed,) = await reflected(
            made, "v1alpha", ServerReflectionRequest(list_services="*"), metadata=named
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(made, "", named)
    assert "testing.EchoService" in [service.name for service in listed.list_services_response.service]
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # as that app has none


async def test_health_wants_no_token_and_reflection_does(mesh: Standing) -> None:
    async with channel(mesh.web) as made:
        assert await health(made, "") == HealthCheckResponse.SERVING
        assert await health(made, DAPR) == HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await health(made, "shop.Cart")
        with pytest.raises(grpc.aio.AioRpcError) as stranger:
            await reflected(made, "v1", metadata=())  # grpcio may fail to write to a call that was refused
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    assert stranger.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_health_is_that_of_the_http_api(mesh: Standing) -> None:
    flags = ("--engine", "native" if "engine=native" in mesh.web.process.output else "portable")
    waiting = await mesh.mesh.sidecar("waiting", app_port=free_port(), flags=flags)
    async with channel(waiting) as made:
        assert await health(made, "") == HealthCheckResponse.NOT_SERVING  # its app does not listen yet
        assert await health(made, DAPR) == HealthCheckResponse.SERVING  # as it can call out


async def test_watched_health_tells_of_changes_and_ends_with_the_sidecar(mesh: Standing) -> None:
    flags = ("--engine", "native" if "engine=native" in mesh.web.process.output else "portable")
    port = free_port()
    waiting = await mesh.mesh.sidecar("watched", app_port=port, flags=flags)
    async with channel(waiting) as made:
        call = watching(made, "")
        watch = aiter(call)
        assert (await anext(watch)).status == HealthCheckResponse.NOT_SERVING
        app = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
        async with app:
            assert (await anext(watch)).status == HealthCheckResponse.SERVING
            left = watching(made, DAPR)
            assert (await anext(aiter(left))).status == HealthCheckResponse.SERVING
            left.cancel()
            waiting.process.send_signal(signal.SIGTERM)
            assert [answer.status async for answer in watch] == [HealthCheckResponse.NOT_SERVING]
            assert await call.code() is grpc.StatusCode.OK
            assert await waiting.process.ended() == 0


def watching(made: grpc.aio.Channel, service: str) -> Any:
    """A stream of what health says."""
    opened: Any = made.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    return opened(HealthCheckRequest(service=service), timeout=30.0)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_an_open_reflection_stream_ends_when_the_sidecar_leaves(mesh: Standing, version: str) -> None:
    flags = ("--engine", "native" if "engine=native" in mesh.web.process.output else "portable")
    within = ("--dapr-graceful-shutdown-seconds", "20", "--drain", "0s")
    leaving = await mesh.mesh.sidecar("leaving", flags=(*flags, *within))
    async with channel(leaving) as made:
        stream = reflection(made, version)(metadata=TOKEN, timeout=60.0)
        await stream.write(ServerReflectionRequest(list_services="*"))
        assert (await stream.read()).HasField("list_services_response")
        leaving.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15.0):
            assert await stream.code() is grpc.StatusCode.UNAVAILABLE
            assert await leaving.process.ended() == 0
    assert "the sidecar is shutting down" in await stream.details()
