"""Of three instances on hosts of their own one gets behind a network that loses and delays packets, on both engines."""

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.fleet import APP_ID
from tests.chaos.judging import AFTER_S, BEFORE_S, PER_S, RECOVERY_S, judge, passed
from tests.chaos.load import steady
from tests.chaos.lossy_link import Weather, plug, unavailable_reason
from tests.integration.mesh.standing import eventually, invoke
from tests.support import netns
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh
from tests.support.netns import Host

_WHY_NOT = netns.unavailable_reason() or unavailable_reason()
_PEER_PORT = 7_001
_BAD = Weather(loss=0.05, least_ms=10.0, most_ms=40.0)

pytestmark = [pytest.mark.netns, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "")]


@pytest.fixture
def hosts() -> Iterator[tuple[Host, ...]]:
    """The caller's host, and one for each instance."""
    with netns.lone_hosts(4) as made:
        yield made


async def start(
    mesh: Mesh, host: Host, app_id: str, name: str, *flags: str, app_port: int | None = None
) -> str:
    """A sidecar on a host; the unix socket of its API, which is no network and so can be reached from here."""
    folder = mesh.root / name
    folder.mkdir()
    ports = ("--dapr-internal-grpc-port", str(_PEER_PORT), "--unix-domain-socket", str(folder))
    arguments = mesh.arguments(app_id, app_port=app_port, flags=(*ports, *flags))
    command = host.command([sys.executable, "-I", "-m", "proxy", *arguments])
    process = mesh.processes.start(command, name=f"sidecar {name}", cwd=mesh.files)
    await process.line('msg="?serving')
    return str(folder / f"dapr-{app_id}-http.socket")


async def start_app(mesh: Mesh, host: Host, name: str) -> int:
    """The app of an instance, which answers with its name; its port."""
    command = [sys.executable, "-u", "-m", "tests.chaos.unsteady_app", "--name", name]
    process = mesh.processes.start(host.command(command), name=f"app {name}")
    return int(json.loads((await process.line(r'^\{"port": ')).string)["port"])


@pytest.mark.parametrize("engine", ENGINES)
async def test_network_of_one_loses_and_delays_packets(
    engine: str, hosts: tuple[Host, ...], tmp_path: Path
) -> None:
    caller, *others = hosts
    async with Mesh(tmp_path) as mesh:
        await mesh.start_sentry()
        cables = [plug(mesh.processes, caller, host, number, _BAD) for number, host in enumerate(others)]
        addresses = [f"10.78.{number}.2:{_PEER_PORT}" for number in range(len(others))]
        (mesh.root / "endpoints.yaml").write_text(json.dumps({APP_ID: addresses}), encoding="utf-8")
        for host, name in zip(others, "abc", strict=True):
            app_port = await start_app(mesh, host, name)
            await start(mesh, host, APP_ID, name, "--engine", engine, app_port=app_port)
        web = await start(mesh, caller, "web", "web", "--engine", engine)

        async def are_all_reached() -> bool:
            answers = [await request(0, "GET", invoke(APP_ID, "/"), unix=web) for _ in range(6)]
            return {answer.body for answer in answers} == {b"a", b"b", b"c"}

        await eventually(are_all_reached)
        async with steady(0, invoke(APP_ID, "/items"), per_s=PER_S, unix=web) as load:
            await passed(load, BEFORE_S)
            hurt_at = load.now
            cables[0].send_signal(signal.SIGUSR1)
            await passed(load, RECOVERY_S + AFTER_S)
            end = load.now
        judge(load, hurt_at, end)
