"""Naming between real hosts (network namespaces): mDNS and a call across, two instances, a crash, a foreign mesh, multicast blocked."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from nameresolution.host_registry import HostRegistry
from tests.integration.mesh.standing import eventually, invoke
from tests.support import netns
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh
from tests.support.netns import Host
from tests.support.processes import Process

_WHY_NOT = netns.unavailable_reason()

pytestmark = [pytest.mark.netns, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "")]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSidecar:
    """A sidecar on a host; its API is a unix socket, which is no network and so can be reached from here."""

    app_id: str
    api: str
    process: Process

    async def get(self, target: str, *, host: str = "localhost", timeout_s: float = 30.0) -> Response:
        """A call through it."""
        return await request(0, "GET", target, unix=self.api, headers=[("Host", host)], timeout_s=timeout_s)

    async def app_of(self, app_id: str) -> str:
        """The name of the app that answers a call, which must succeed."""
        answer = await self.get(invoke(app_id, "/echo"))
        assert answer.status == 200, answer.body
        name: str = json.loads(answer.body)["app"]
        return name

    async def end(self) -> None:
        """An orderly end."""
        assert await self.process.end(timeout_s=15.0) == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMesh:
    """The sidecars of one runtime root, all on one host."""

    host: Host
    mesh: Mesh

    async def app(self, name: str) -> int:
        """Start an HTTP app on the host; its port."""
        command = [sys.executable, "-u", "-m", "tests.support.http_app", "--name", name]
        process = self.mesh.processes.start(self.host.command(command), name=f"app {name}")
        found = await process.line(r'^\{"port": ')
        return int(json.loads(found.string)["port"])

    async def sidecar(self, app_id: str, *flags: str, app: str = "") -> HostSidecar:
        """Start a sidecar, with an app of that name; returns once it is announced."""
        app_port = await self.app(app) if app else None
        folder = self.mesh.root / app_id
        folder.mkdir()
        arguments = self.mesh.arguments(
            app_id, app_port=app_port, flags=("--unix-domain-socket", str(folder), *flags)
        )
        command = self.host.command([sys.executable, "-I", "-m", "proxy", *arguments])
        process = self.mesh.processes.start(command, name=f"sidecar {app_id}", cwd=self.mesh.files)
        await process.line('msg="?serving')
        api = str(folder / f"dapr-{app_id}-http.socket")

        async def is_ready() -> bool:
            return (await request(0, "GET", "/v1.0/healthz", unix=api)).status == 204

        await eventually(is_ready)
        return HostSidecar(app_id=app_id, api=api, process=process)


@asynccontextmanager
async def host_mesh(host: Host, files: Path, *, authority_of: Mesh | None = None) -> AsyncIterator[HostMesh]:
    """A mesh on a host; `authority_of`: with the same trust root as another."""
    async with Mesh(files) as mesh:
        if authority_of is not None:
            folder = mesh.root / "sentry"
            folder.mkdir(mode=0o700)
            shutil.copytree(authority_of.root / "sentry" / "authority", folder / "authority")
        await mesh.start_sentry()
        yield HostMesh(host=host, mesh=mesh)


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, ...]]:
    """Two hosts on one network."""
    with netns.joined_hosts(2) as joined:
        yield joined


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def meshes(
    hosts: tuple[Host, ...], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[HostMesh, HostMesh, HostSidecar]]:
    """One mesh on two hosts, each with a runtime root of its own; and `web` on the second."""
    files = tmp_path_factory.mktemp("hosts")
    async with (
        host_mesh(hosts[0], files) as left,
        host_mesh(hosts[1], files, authority_of=left.mesh) as right,
    ):
        yield left, right, await right.sidecar("web")


Meshes = tuple[HostMesh, HostMesh, HostSidecar]


async def found_of(sidecar: HostSidecar, mesh: HostMesh, app_id: str) -> dict[str, Any]:
    """What a sidecar knows of an app."""
    entries = HostRegistry(mesh.mesh.root).entries()
    path = next(entry.admin_socket for entry in entries if entry.app_id == sidecar.app_id)
    answer = await request(0, "GET", f"/endpoints?app={app_id}", unix=path)
    found: dict[str, Any] = json.loads(answer.body).get(f"{app_id}.default", {"endpoints": [], "loads": []})
    return found


async def endpoints(sidecar: HostSidecar, mesh: HostMesh, app_id: str) -> list[str]:
    """Where a sidecar finds an app, as `host source`."""
    found = (await found_of(sidecar, mesh, app_id))["endpoints"]
    return sorted(f"{end['address'].rpartition(':')[0]} {end['source']}" for end in found)


async def test_call_crosses_from_host_to_host(meshes: Meshes) -> None:
    left, right, web = meshes
    far = await left.sidecar("far", app="far")
    assert await web.app_of("far") == "far"
    assert await endpoints(web, right, "far") == [f"{left.host.address} mdns"]
    await far.end()

    async def is_gone() -> bool:
        return await endpoints(web, right, "far") == []

    await eventually(is_gone, within_s=20.0)  # by its goodbye, not by the record's time


async def test_instances_on_both_hosts_are_used_and_a_crash_leaves_the_other(meshes: Meshes) -> None:
    left, right, web = meshes
    one = await left.sidecar("twin", app="one")
    two = await right.sidecar("twin", app="two")

    async def are_both_known() -> bool:
        await web.get(invoke("twin", "/echo"))
        loads = (await found_of(web, right, "twin"))["loads"]
        return [load["proven"] for load in loads] == [True, True]

    await eventually(are_both_known)
    assert await endpoints(web, right, "twin") == [f"{left.host.address} mdns", "127.0.0.1 host registry"]
    names = [await web.app_of("twin") for _ in range(40)]
    assert set(names) == {"one", "two"}, names  # how often each depends on how quick it is just now
    one.process.kill()
    assert {await web.app_of("twin") for _ in range(20)} == {"two"}
    await two.end()


async def test_foreign_mesh_on_the_same_network_is_not_called(meshes: Meshes, tmp_path: Path) -> None:
    left, right, web = meshes
    async with host_mesh(left.host, tmp_path) as foreign:
        stranger = await foreign.sidecar("pay", app="stranger")
        answer = await web.get(invoke("pay", "/echo"))
        assert answer.status == 500
        assert (
            "another mesh" in json.loads(answer.body)["message"]
            or "foreign" in json.loads(answer.body)["message"]
        )
        ours = await right.sidecar("pay", app="ours")

        async def is_found() -> bool:
            return (await web.get(invoke("pay", "/echo"))).status == 200

        await eventually(is_found)
        assert {await web.app_of("pay") for _ in range(10)} == {"ours"}
        await ours.end()
        await stranger.end()


@pytest.mark.soak
@pytest.mark.parametrize("engine", ENGINES)
async def test_400_bogus_announcements_stop_no_calls(meshes: Meshes, engine: str) -> None:
    left, right, _ = meshes
    shop = await right.sidecar(f"shop-{engine}", app="shop")
    web = await right.sidecar(f"web-{engine}", "--engine", engine)
    (entry,) = HostRegistry(right.mesh.root).entries({shop.app_id})
    flood = [
        sys.executable,
        "-u",
        "-m",
        "tests.integration.mesh.bogus",
        shop.app_id,
        entry.mesh,
        left.host.address,
    ]
    process = left.mesh.processes.start(left.host.command(flood), name="bogus announcements")

    async def are_heard() -> bool:
        return len(await endpoints(web, right, shop.app_id)) > 400

    await eventually(are_heard)
    assert {await web.app_of(shop.app_id) for _ in range(30)} == {"shop"}
    assert process.is_running
    await process.end()
    await web.end()
    await shop.end()


async def test_without_multicast_one_host_still_resolves_and_errors_name_the_block(tmp_path: Path) -> None:
    with netns.joined_hosts(1) as (host,):
        block_multicast(host)
        async with host_mesh(host, tmp_path) as alone:
            shop = await alone.sidecar("shop", app="shop")
            web = await alone.sidecar("web")
            assert await web.app_of("shop") == "shop"
            missing = await web.get(invoke("ghost", "/echo"))
            assert missing.status == 500
            message = json.loads(missing.body)["message"]
            assert "host registry" in message
            assert "mdns" in message
            assert "igmp_max_memberships" in message  # what blocks it here
            assert "allow multicast" in message  # what to do
            async with asyncio.TaskGroup() as tasks:
                for sidecar in (shop, web):
                    tasks.create_task(sidecar.end())


def block_multicast(host: Host) -> None:
    """Let nobody on a host join a group, which is how multicast fails where the system forbids it."""
    script = (
        "echo 0 >/proc/sys/net/ipv4/igmp_max_memberships; echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6"
    )
    host.run("sh", "-c", script)
