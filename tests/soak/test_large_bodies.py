"""A gibibyte up and down through two proxies, and uploads against a limit: nothing is lost, and nothing of it stays in memory."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio

from tests.integration.mesh.standing import Standing, invoke, standing
from tests.support.engines import ENGINES
from tests.support.http_client import connect, request
from tests.support.mesh import Mesh, Sidecar

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

MIB = 2**20
GIB_IN_MIB = 1024
GROWTH_MIB = 32.0
_LOOK_EVERY_S = 0.2
RETRY = """
kind: Resiliency
metadata: {name: retry}
spec:
  policies: {retries: {thrice: {policy: constant, duration: 10ms, maxRetries: 3}}}
  targets: {apps: {shop: {retry: thrice}}}
"""
Moved = TypeVar("Moved")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Standing]:
    """The module's mesh, warmed up by a few MiB each way, so that growth is not first use."""
    async with standing(tmp_path_factory.mktemp("soak")) as started:
        assert await upload(started, 8) == 8 * MIB
        assert await download(started, 8) == 8 * MIB
        yield started


async def upload(mesh: Standing, count: int) -> int:
    """Send so many MiB; how many bytes the app saw."""
    block = os.urandom(MIB)
    async with connect(mesh.web.http_port) as connection:
        await connection.send_head("POST", invoke("shop", "/sink"), [("Content-Length", str(count * MIB))])
        for _ in range(count):
            await connection.send(block)
        return int(json.loads((await connection.read_response("POST")).body)["bytes"])


async def download(mesh: Standing, count: int) -> int:
    """Receive so many MiB; how many bytes came."""
    received = 0
    async with connect(mesh.web.http_port) as connection:
        await connection.send_head("GET", invoke("shop", f"/bytes?n={count * MIB}"))
        head = await connection.read_response_head()
        async for part in connection.body("GET", head, []):
            received += len(part)
    return received


@pytest.mark.parametrize("move", [upload, download], ids=["up", "down"])
async def test_a_gibibyte_leaves_no_trace_in_memory(
    mesh: Standing, move: Callable[[Standing, int], Awaitable[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    watched = (mesh.web, mesh.shop)
    moved = await move_and_watch(watched, lambda: move(mesh, GIB_IN_MIB), capsys)
    assert moved == GIB_IN_MIB * MIB


@pytest.mark.parametrize("profile", ["dev", "daprd"])
@pytest.mark.parametrize("engine", ENGINES)
async def test_upload_of_unknown_length_is_counted_and_never_held(
    tmp_path: Path, engine: str, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """256 MiB under a limit of 512, and as many over one of 128, with a retry policy of the caller's own."""
    async with Mesh(tmp_path) as mesh:
        folder = str(mesh.write("resources/retry.yaml", RETRY).parent)
        own = ("--engine", engine, "--profile", profile, "--resources-path", folder)
        flags = (*own, "--max-body-size", "512Mi")
        shop = await mesh.sidecar("shop", app=await mesh.http_app(), flags=flags)
        web = await mesh.sidecar("web", flags=flags)
        small = await mesh.sidecar("small", flags=(*own, "--max-body-size", "128Mi"))

        async def send(caller: Sidecar, pieces: int) -> tuple[int, bytes]:
            parts = [bytes(65_536)] * pieces
            answer = await request(
                caller.http_port, "POST", invoke("shop", "/sink"), chunks=parts, timeout_s=120.0
            )
            return answer.status, answer.body

        for caller in (web, small):
            assert (await send(caller, 128))[0] == 200
        status, body = await move_and_watch((web, shop), lambda: send(web, 4_096), capsys)
        assert (status, json.loads(body)["bytes"]) == (200, 256 * MIB)
        status, body = await move_and_watch((small, shop), lambda: send(small, 4_096), capsys)
        assert status in {413, 500}, body  # Dapr's surface knows no 413
        assert "--max-body-size" in json.loads(body)["message"]


async def move_and_watch(
    watched: tuple[Sidecar, ...], move: Callable[[], Awaitable[Moved]], capsys: pytest.CaptureFixture[str]
) -> Moved:
    """What `move` returns; fails if a sidecar's memory grew meanwhile."""
    before = [sidecar.process.rss_mb() for sidecar in watched]
    peaks = list(before)
    over = asyncio.Event()

    async def watch() -> None:
        while not over.is_set():
            peaks[:] = [max(peak, one.process.rss_mb()) for peak, one in zip(peaks, watched, strict=True)]
            await asyncio.sleep(_LOOK_EVERY_S)

    started = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        moved = await move()
        over.set()
    took_s = time.monotonic() - started
    with capsys.disabled():
        _tell(watched, before, peaks, f"{took_s:.1f} s")
    for sidecar, base, peak in zip(watched, before, peaks, strict=True):
        assert peak - base < GROWTH_MIB, (sidecar.app_id, base, peak)
    return moved


def _tell(watched: tuple[Sidecar, ...], before: list[float], peaks: list[float], took: str) -> None:
    grown = ", ".join(
        f"{one.app_id} {base:.1f} → {peak:.1f} MiB"
        for one, base, peak in zip(watched, before, peaks, strict=True)
    )
    print(f"\n{took}; resident at its highest: {grown}")  # noqa: T201 - the figures are what a soak is for
