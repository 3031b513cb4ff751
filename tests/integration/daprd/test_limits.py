"""Limits of `appHttpPipeline` and of a Traffic count each daprd for itself, as they count sidecars of our own."""

from pathlib import Path

import pytest

from tests.integration.daprd.calling import EndedError, Invocation, client_context, connected
from tests.integration.daprd.releases import V1_17, V1_18, Release
from tests.integration.mesh.peers import Forge
from tests.support.engines import ENGINES
from tests.support.mesh import Mesh, Sidecar

INTERNAL, RESOURCE_EXHAUSTED = 13, 8
LIMITED = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: limited}
spec: {appHttpPipeline: {handlers: [{name: slow, type: middleware.http.ratelimit}]}}
"""
SLOW = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: slow}
spec:
  type: middleware.http.ratelimit
  version: v1
  metadata: [{name: maxRequestsPerSecond, value: "0.01"}]
"""


async def called(forge: Forge, release: Release, callee: Sidecar) -> bytes:
    """The body of an answer to a daprd. Raises EndedError."""
    async with connected(callee.peer_port, client_context(forge, release), callee.app_id) as client:
        call = Invocation(client, release, callee.app_id, "GET", "/echo")
        call.finish()
        return await call.whole()


@pytest.mark.parametrize("engine", ENGINES)
async def test_each_daprd_is_a_caller_of_its_own(tmp_path: Path, engine: str) -> None:
    async with Mesh(tmp_path) as mesh:
        config, slow = mesh.write("limited.yaml", LIMITED), mesh.write("resources/slow.yaml", SLOW)
        flags = ("--engine", engine, "--config", str(config), "--resources-path", str(slow.parent))
        cart = await mesh.sidecar("cart", app=await mesh.http_app("cart"), flags=flags)
        forge = Forge.of(mesh.root, tmp_path / "forged")
        for release in (V1_17, V1_18):
            assert await called(forge, release, cart)
            with pytest.raises(EndedError, match="rate-limited") as ended:
                await called(forge, release, cart)
            assert ended.value.code == INTERNAL  # as daprds have it


TRAFFIC = """
apiVersion: postern.dev/v1alpha1
kind: Traffic
metadata: {name: limits}
spec: {inbound: {rates: [{name: calls, requests: 1, per: 1h}]}}
"""


@pytest.mark.parametrize("engine", ENGINES)
async def test_daprd_is_told_which_rate_it_is_over(tmp_path: Path, engine: str) -> None:
    async with Mesh(tmp_path) as mesh:
        limits = mesh.write("resources/limits.yaml", TRAFFIC)
        flags = ("--engine", engine, "--resources-path", str(limits.parent))
        cart = await mesh.sidecar("cart", app=await mesh.http_app("cart"), flags=flags)
        forge = Forge.of(mesh.root, tmp_path / "forged")
        for release in (V1_17, V1_18):
            assert await called(forge, release, cart)
            with pytest.raises(
                EndedError, match=r"the limit calls is used up, try again in 3[56]\d\d s"
            ) as ended:
                await called(forge, release, cart)
            assert ended.value.code == RESOURCE_EXHAUSTED
