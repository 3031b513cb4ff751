"""gRPC in all kinds through two proxies: messages, metadata, errors with details, deadlines, cancellation."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.mesh import Mesh
from tests.support.proto.echo_pb2 import EchoRequest


@pytest.fixture
async def client(mesh: Mesh, grpc_app: App) -> AsyncIterator[EchoClient]:
    """A client whose channel ends at the caller's own proxy."""
    await mesh.sidecar("echo", app=grpc_app)
    web = await mesh.sidecar("web")
    async with grpc.aio.insecure_channel(f"localhost:{web.grpc_port}") as channel:
        yield EchoClient(
            channel, metadata=(("dapr-app-id", "echo"), ("x-note", "kept"), ("x-raw-bin", b"\x00\xff"))
        )


async def test_all_four_kinds_cross(client: EchoClient) -> None:
    unary = await client.unary(EchoRequest(message="one"))
    assert unary.message == "one"
    seen = {item.name: item.value for item in unary.metadata}
    assert seen["x-note"] == b"kept"
    assert seen["x-raw-bin"] == b"\x00\xff"
    joined = await client.client_stream(EchoRequest(message=text) for text in ("a", "b", "c"))
    assert joined.message == "a b c"
    streamed = [reply.number async for reply in client.server_stream(EchoRequest(message="s", count=5))]
    assert len(streamed) == 5
    bidi = client.bidi()
    for text in ("x", "y"):
        await bidi.write(EchoRequest(message=text))
        assert (await bidi.read()).message == text
    await bidi.done_writing()
    assert await bidi.read() == grpc.aio.EOF  # type: ignore[attr-defined] # missing in the stubs


async def test_error_keeps_code_message_and_details(client: EchoClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.unary(
            EchoRequest(code=9, message="not ready: ümläut %", details=b"\x08\x09"), method="Fail"
        )
    error = caught.value
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "not ready: ümläut %"
    sent: Any = error.trailing_metadata()  # pairs; the stubs say otherwise
    trailing = dict(tuple(sent))
    assert trailing["grpc-status-details-bin"] == b"\x08\x09"


async def test_deadline_travels_and_fires(client: EchoClient) -> None:
    reply = await client.unary(EchoRequest(message="d"), timeout_s=8.0)
    assert 0 < reply.deadline_s <= 8.0
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.unary(EchoRequest(delay_s=30.0), method="Slow", timeout_s=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    probe = await client.probe(cancellations=1, wait_s=20.0)
    assert sum(probe.cancelled.values()) >= 1


async def test_cancelled_call_is_cancelled_at_the_app(client: EchoClient) -> None:
    call = client.unary(EchoRequest(delay_s=30.0), method="Slow", timeout_s=30.0)
    stream = client.server_stream(EchoRequest(count=1_000_000, delay_s=0.01), timeout_s=30.0)
    async for _ in stream:
        break
    async with asyncio.timeout(30.0):
        while not (probe := await client.probe()).calls.get("Slow"):
            continue
    call.cancel()
    stream.cancel()
    probe = await client.probe(cancellations=2, wait_s=20.0)
    assert sum(probe.cancelled.values()) >= 2


async def test_large_messages_cross_both_ways(client: EchoClient) -> None:
    reply = await client.unary(EchoRequest(message="m" * 3_000_000, padding=500_000))
    assert len(reply.message) == 3_000_000
    assert len(reply.padding) == 500_000
