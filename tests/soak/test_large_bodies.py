"""A gibibyte up and a gibibyte down through two proxies: nothing is lost, and nothing of it stays in memory."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from tests.integration.mesh.standing import Standing, invoke, standing
from tests.support.http_client import connect
from tests.support.mesh import Sidecar

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

MIB = 2**20
GIB_IN_MIB = 1024
GROWTH_MIB = 32.0
_LOOK_EVERY_S = 0.2


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
        moved = await move(mesh, GIB_IN_MIB)
        over.set()
    took_s = time.monotonic() - started
    with capsys.disabled():
        _tell(watched, before, peaks, f"{GIB_IN_MIB / took_s:.0f} MiB/s over {took_s:.1f} s")
    assert moved == GIB_IN_MIB * MIB
    for sidecar, base, peak in zip(watched, before, peaks, strict=True):
        assert peak - base < GROWTH_MIB, (sidecar.app_id, base, peak)


def _tell(watched: tuple[Sidecar, ...], before: list[float], peaks: list[float], speed: str) -> None:
    grown = ", ".join(
        f"{one.app_id} {base:.1f} → {peak:.1f} MiB"
        for one, base, peak in zip(watched, before, peaks, strict=True)
    )
    print(f"\n{speed}; resident at its highest: {grown}")  # noqa: T201 - the figures are what a soak is for
