"""Our sidecar and a daprd on two hosts that find each other by mDNS, both ways."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentry.join import mint
from tests.integration.mesh.standing import eventually, invoke
from tests.support import netns
from tests.support.daprd import DAPRD, SENTRY_ID, reason_missing
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh
from tests.support.netns import Host

_WHY_NOT = netns.unavailable_reason() or reason_missing()
pytestmark = [pytest.mark.netns, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "")]
SENTRY_PORT = 50_001


@pytest.fixture
def hosts() -> Iterator[tuple[Host, ...]]:
    """Two on one link."""
    with netns.joined_hosts(2) as found:
        yield found


async def app(mesh: Mesh, host: Host, name: str) -> str:
    """Start an HTTP app on a host; its port."""
    command = [sys.executable, "-u", "-m", "tests.support.http_app", "--name", name]
    process = mesh.processes.start(host.command(command), name=f"app {name}")
    found = await process.line(r'^\{"port": ')
    return str(json.loads(found.string)["port"])


async def sentry(mesh: Mesh, host: Host) -> str:
    """Start ours on a host, where both hosts reach it; its anchors."""
    folder = mesh.root / "sentry"
    folder.mkdir(mode=0o700)
    where = ("--runtime-path", str(mesh.root), "--unix-socket", str(folder / "sentry.sock"))
    args = (*where, "--port", str(SENTRY_PORT), "--healthz-port", "0", "--trust-domain", "localhost")
    command = host.command([sys.executable, "-I", "-m", "sentry", *args])
    mesh.processes.start(command, name="sentry", cwd=mesh.files, env={"NAMESPACE": "default"})

    async def listens() -> bool:
        return (folder / "sentry.sock").exists()

    await eventually(listens)
    return (folder / "authority" / "ca.crt").read_text()


async def daprd(mesh: Mesh, host: Host, anchors: str, sentry_host: Host) -> str:
    """Start a daprd `shop`, which finds apps by mDNS as it does by itself; the socket of its API."""
    folder = mesh.root / "dapr"
    folder.mkdir()
    token = mesh.write("token", mint(mesh.root, "spiffe://public/ns/default/shop", SENTRY_ID))
    args: list[str | Path] = [
        *(DAPRD, "--app-id", "shop", "--app-port", await app(mesh, host, "shop")),
        *("--unix-domain-socket", folder, "--enable-mtls"),
        *("--sentry-address", f"{sentry_host.address}:{SENTRY_PORT}"),
    ]
    env = {
        "DAPR_TRUST_ANCHORS": anchors,
        "DAPR_SENTRY_TOKEN_FILE": str(token),
        "DAPR_HOST_IP": host.address,
        "NAMESPACE": "default",
    }
    process = mesh.processes.start(host.command(args), name="daprd shop", cwd=mesh.files, env=env)
    await process.line("dapr initialized", timeout_s=30.0)
    return str(folder / "dapr-shop-http.socket")


async def ours(mesh: Mesh, host: Host, engine: str) -> str:
    """Start our sidecar `web`; the socket of its API."""
    folder = mesh.root / "web"
    folder.mkdir()
    flags = ("--unix-domain-socket", str(folder), "--engine", engine)
    arguments = mesh.arguments("web", app_port=int(await app(mesh, host, "web")), flags=flags)
    command = host.command([sys.executable, "-I", "-m", "proxy", *arguments])
    process = mesh.processes.start(command, name="sidecar web", cwd=mesh.files)
    await process.line('msg="?serving')
    return str(folder / "dapr-web-http.socket")


@pytest.mark.parametrize("engine", ENGINES)
async def test_they_find_and_call_each_other(tmp_path: Path, hosts: tuple[Host, ...], engine: str) -> None:
    first, second = hosts
    async with Mesh(tmp_path, with_sentry=False) as mesh:
        anchors = await sentry(mesh, first)
        web = await ours(mesh, first, engine)
        shop = await daprd(mesh, second, anchors, first)
        for caller, callee in ((web, "shop"), (shop, "web")):
            async with asyncio.timeout(20.0):
                answer = await request(0, "POST", invoke(callee, "/echo"), unix=caller, body=b"hello")
            assert answer.status == 200, answer.body
            told = json.loads(answer.body)
            assert (told["app"], told["body"]) == (callee, "hello")
