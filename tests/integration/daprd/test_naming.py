"""Our sidecars and daprds that find each other by one component: calls both ways, over mutual TLS."""

import json
from pathlib import Path

import grpc.aio
import pytest

from tests.integration.mesh.test_resolvers import ANNOUNCED, configuration
from tests.integration.nameresolution.consul import CONSUL, Consul
from tests.support.daprd import our_sentry, reason_missing, start_daprd
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.mesh import Mesh
from tests.support.proto.echo_pb2 import EchoRequest

pytestmark = pytest.mark.skipif(reason_missing() is not None, reason=str(reason_missing()))


async def calls_both_ways(
    mesh: Mesh, files: Path, engine: str, component: str, settings: dict[str, object]
) -> None:
    """A gRPC app behind a sidecar of each kind, each called through the other's."""
    authority = await our_sentry(mesh)
    flags = ("--engine", engine, *configuration(files, component, settings))
    ours = await mesh.sidecar("ours", app=await mesh.grpc_app("ours"), flags=flags)
    await ours.process.line(ANNOUNCED)
    naming = json.dumps({"component": component, "version": "v1", "configuration": settings})
    theirs = await start_daprd(mesh, authority, "theirs", app=await mesh.grpc_app("theirs"), naming=naming)
    for caller, callee in ((theirs, "ours"), (ours, "theirs")):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{caller.grpc_port}") as channel:
            echo = EchoClient(channel, metadata=(("dapr-app-id", callee),))
            assert (await echo.unary(EchoRequest(message="hello"))).app == callee


@pytest.mark.parametrize("engine", ENGINES)
async def test_daprd_and_postern_call_each_other_by_a_sqlite_file(
    mesh: Mesh, tmp_path: Path, engine: str
) -> None:
    await calls_both_ways(mesh, tmp_path, engine, "sqlite", {"connectionString": str(tmp_path / "nr.db")})


@pytest.mark.skipif(CONSUL.reason_missing() is not None, reason=str(CONSUL.reason_missing()))
@pytest.mark.parametrize("engine", ENGINES)
async def test_daprd_and_postern_call_each_other_by_consul(mesh: Mesh, tmp_path: Path, engine: str) -> None:
    consul = Consul(mesh.processes)
    await consul.start()
    # A daprd's own check begins as failed, and may be looked at 15 s later for the first time.
    check = {"name": "live", "checkID": "live:${APP_ID}", "ttl": "60s", "status": "passing"}
    settings = {"client": {"address": consul.address}, "selfRegister": True, "checks": [check]}
    await calls_both_ways(mesh, tmp_path, engine, "consul", settings)
