"""A mesh without mutual TLS, as Dapr's is on a host by default: our sidecars and daprds call each other all the same."""

import json
from pathlib import Path

import grpc.aio
import pytest

from tests.integration.mesh.standing import eventually, invoke
from tests.support.daprd import Daprd, introduce, reason_missing, start_daprd
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest

pytestmark = pytest.mark.skipif(reason_missing() is not None, reason=str(reason_missing()))


FORGED = [("dapr-caller-app-id", "admin"), ("dapr-caller-namespace", "prod")]


async def said(caller: Sidecar | Daprd, callee: str, body: bytes) -> tuple[int, str, str]:
    """Status, and which app was sent what, of an HTTP call."""
    got = await request(caller.http_port, "POST", invoke(callee, "/echo"), body=body, timeout_s=20.0)
    told = json.loads(got.body)
    return got.status, told.get("app", told), told.get("body", "")


async def told_of(caller: Sidecar | Daprd, callee: str) -> list[str]:
    """Whom an app is told that a call comes from, whose client names somebody else."""
    got = await request(caller.http_port, "GET", invoke(callee, "/echo"), headers=FORGED, timeout_s=20.0)
    return [value for name, value in json.loads(got.body)["headers"] if name.lower() == "dapr-caller-app-id"]


@pytest.mark.parametrize("engine", ENGINES)
async def test_calls_without_tls_are_carried_both_ways(tmp_path: Path, engine: str) -> None:
    async with Mesh(tmp_path, with_sentry=False) as mesh:
        introduce(mesh)
        flags = ("--profile", "daprd", "--engine", engine, "--enable-mtls=false")
        ours = await mesh.sidecar("ours", app=await mesh.http_app("ours"), flags=flags)
        other = await mesh.sidecar("other", app=await mesh.http_app("other"), flags=flags)
        http = await start_daprd(mesh, None, "theirs", app=await mesh.http_app("theirs"))
        rpc = await start_daprd(mesh, None, "theirs-grpc", app=await mesh.grpc_app("theirs-grpc"))
        introduce(mesh, ours, other, http, rpc)

        async def is_known() -> bool:
            return (await said(ours, "theirs", b"x"))[0] == 200

        await eventually(is_known)
        large = b"b" * 1_000_000
        for caller, callee in ((ours, "theirs"), (http, "ours"), (ours, "other")):
            assert await said(caller, callee, b"hello") == (200, callee, "hello")
            assert await said(caller, callee, large) == (200, callee, large.decode())
        for caller, callee in ((ours, "theirs"), (http, "ours"), (ours, "other")):
            assert await told_of(caller, callee) == [caller.app_id]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ours.grpc_port}") as channel:
            echo = EchoClient(channel, metadata=(("dapr-app-id", "theirs-grpc"),))
            assert (await echo.unary(EchoRequest(message="hi"))).app == "theirs-grpc"
