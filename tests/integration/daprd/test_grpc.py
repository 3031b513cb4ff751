"""gRPC between our sidecars and daprds, both ways: every ordered pair, all four kinds, access rules."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from sentry.wire import encode
from tests.integration.daprd.mixed import NAMES, Mixed
from tests.support.daprd import reason_missing
from tests.support.echo_client import EchoClient
from tests.support.proto.echo_pb2 import EchoRequest

pytestmark = pytest.mark.skipif(reason_missing() is not None, reason=str(reason_missing()))
CALLEES = [name for name in NAMES if name.endswith("grpc")]
PAIRS = [(caller, callee) for caller in NAMES for callee in CALLEES if caller != callee]
DETAILS = encode(((1, 9), (2, b"no")))  # a google.rpc.Status that says the same: grpc-go believes no other
OF_KINDS = [(caller, callee) for caller, callee in PAIRS if caller[:5] != callee[:5]]


@asynccontextmanager
async def client(mixed: Mixed, caller: str, callee: str) -> AsyncIterator[EchoClient]:
    """A client at the caller's sidecar that calls the app of the callee."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{mixed[caller].grpc_port}") as channel:
        yield EchoClient(channel, metadata=(("dapr-app-id", callee),))


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
async def test_calls_of_all_kinds(mesh_of_both: Mixed, caller: str, callee: str) -> None:
    async with client(mesh_of_both, caller, callee) as echo:
        call = echo.unary(EchoRequest(message="hello"))
        assert (await call).app == callee
        assert dict(await call.trailing_metadata())["x-trailer-bin"] == b"\x00\x01"
        joined = await echo.client_stream([EchoRequest(message=word) for word in ("a", "b", "c")])
        assert joined.message == "a b c"
        told = [reply.message async for reply in echo.server_stream(EchoRequest(message="m", count=3))]
        assert told == ["m"] * 3
        bidi = echo.bidi()
        for word in ("one", "two"):
            await bidi.write(EchoRequest(message=word))
            assert (await bidi.read()).message == word
        await bidi.done_writing()
        assert await bidi.read() is grpc.aio.EOF  # type: ignore[attr-defined] # missing in the stubs


@pytest.mark.parametrize("name", CALLEES)
async def test_app_that_calls_itself_is_told_of_no_caller(mesh_of_both: Mixed, name: str) -> None:
    async with client(mesh_of_both, name, name) as echo:
        told = [item.name for item in (await echo.unary(EchoRequest())).metadata]
    assert "user-agent" in told
    assert not [key for key in told if key.startswith("dapr-call")]


@pytest.mark.parametrize(("caller", "callee"), OF_KINDS)
async def test_access_rules_of_the_callee_hold(mesh_of_both: Mixed, caller: str, callee: str) -> None:
    async with client(mesh_of_both, caller, callee) as echo:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await echo.unary(EchoRequest(message="no", code=9, details=DETAILS), method="Fail")
    is_denied = caller.endswith("http")
    wanted = grpc.StatusCode.PERMISSION_DENIED if is_denied else grpc.StatusCode.FAILED_PRECONDITION
    assert failed.value.code() is wanted


@pytest.mark.parametrize(("caller", "callee"), OF_KINDS)
async def test_cancellation_reaches_the_app(mesh_of_both: Mixed, caller: str, callee: str) -> None:
    async with client(mesh_of_both, caller, callee) as echo:
        before = sum((await echo.probe()).cancelled.values())
        call = echo.server_stream(EchoRequest(message="m", count=1_000, delay_s=0.05))
        await call.read()
        call.cancel()
        seen = await echo.probe(cancellations=before + 1, wait_s=10.0)
        assert sum(seen.cancelled.values()) == before + 1
