"""A mesh of real processes carries calls, shows its admin sockets, and ends without leftovers."""

import json

import grpc

from tests.support.echo_client import EchoClient
from tests.support.http_client import request
from tests.support.mesh import DAPR_APP_ID, Mesh
from tests.support.proto.echo_pb2 import EchoRequest


async def test_mesh_carries_an_http_call(mesh: Mesh) -> None:
    await mesh.sidecar("shop", app=await mesh.http_app("shop"))
    caller = await mesh.sidecar("caller")
    answer = await request(caller.http_port, "GET", "/v1.0/invoke/shop/method/echo")
    assert (answer.status, json.loads(answer.body)["app"]) == (200, "shop")


async def test_mesh_carries_a_grpc_call(mesh: Mesh) -> None:
    await mesh.sidecar("shop", app=await mesh.grpc_app("shop"))
    caller = await mesh.sidecar("caller")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{caller.grpc_port}") as channel:
        reply = await EchoClient(channel, metadata=((DAPR_APP_ID, "shop"),)).unary(EchoRequest(message="hi"))
    assert (reply.message, reply.app) == ("hi", "shop")


async def test_sidecar_tells_its_status_and_ends_in_order(mesh: Mesh) -> None:
    sidecar = await mesh.sidecar("alone")
    assert (await sidecar.status())["appId"] == "alone"
    assert await sidecar.end() == 0
