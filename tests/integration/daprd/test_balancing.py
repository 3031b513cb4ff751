"""Which of several daprds of an app a call goes to."""

import asyncio
from collections import defaultdict
from pathlib import Path

import grpc
import pytest

from sentry.spiffe import SpiffeId
from tests.integration.mesh.peers import Forge
from tests.integration.mesh.standing import invoke
from tests.support.engines import ENGINES
from tests.support.fake_daprd import Call, fake_daprd, http
from tests.support.http_client import request
from tests.support.mesh import Mesh, Sidecar

BALANCED = """
apiVersion: postern.dev/v1alpha1
kind: Traffic
metadata: {name: balanced}
spec: {targets: {apps: {fake: {balancing: {policy: ring-hash, hash: {header: X-User}}}}}}
"""
USERS = [f"user-{number}" for number in range(24)]


class Daprd:
    """One instance of the app. Mutable state: the users whose calls came to it, by how they came, and other metadata of theirs."""

    def __init__(self) -> None:
        self.users: dict[str, list[str]] = defaultdict(list)
        self.metadata: set[str] = set()

    async def __call__(self, call: Call) -> None:
        self.metadata |= {name.decode() for name, _ in call.head.headers}
        if call.method != "CallLocalStream":
            user = next(data for name, data in call.head.headers if name == b"x-user")
            self.users["grpc"].append(user.decode())
            call.end(5, "no such method")
            return
        part = await call.part()
        assert part is not None
        self.users["http"].extend(part.request.metadata["X-User"].values)
        call.send(response=http(200))
        call.send(b"ok")
        call.end()


async def _grpc_code(web: Sidecar, user: str) -> grpc.StatusCode:
    async with grpc.aio.insecure_channel(f"localhost:{web.grpc_port}") as channel:
        method = channel.unary_unary("/testing.Any/Thing", bytes, bytes)
        try:
            await method(b"", metadata=(("dapr-app-id", "fake"), ("x-user", user)), timeout=30.0)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("engine", ENGINES)
async def test_ring_hash_by_a_header_holds_for_daprds(tmp_path: Path, engine: str) -> None:
    one, other = Daprd(), Daprd()
    async with Mesh(tmp_path) as mesh:
        await mesh.start_sentry()
        forge = Forge.of(mesh.root, tmp_path / "forged")
        context = forge.server_context(SpiffeId("public", "default", "fake"), alpn=("h2",))
        async with fake_daprd(context, one) as first, fake_daprd(context, other) as second:
            endpoints = f"fake: [127.0.0.1:{first}, 127.0.0.1:{second}]\n"
            (mesh.root / "endpoints.yaml").write_text(endpoints)
            resources = mesh.write("resources/balanced.yaml", BALANCED)
            flags = ("--engine", engine, "--resources-path", str(resources.parent))
            web = await mesh.sidecar("web", flags=flags)
            for user in USERS * 2:
                answer = await request(web.http_port, "GET", invoke("fake", "/x"), headers=[("X-User", user)])
                assert (answer.status, answer.body) == (200, b"ok")
            codes = await asyncio.gather(*(_grpc_code(web, user) for user in USERS))
    assert set(codes) == {grpc.StatusCode.NOT_FOUND}
    for how in ("http", "grpc"):
        found, elsewhere = set(one.users[how]), set(other.users[how])
        assert not found & elsewhere
        assert sorted(found | elsewhere) == sorted(USERS)
    assert set(one.users["http"]) == set(one.users["grpc"])  # whatever is spoken
    assert "postern-hash-header" not in one.metadata | other.metadata
