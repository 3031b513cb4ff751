"""Each engine in real sidecars, alone and beside the other: calls cross, and what runs is told everywhere."""

import asyncio
import json
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from proxy.settings.version import has_native
from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES, needs_native
from tests.support.errors import ProcessEndedError
from tests.support.http_client import request
from tests.support.mesh import DAPR_APP_ID, Mesh, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest

_PAIRS = (
    pytest.param("portable", "portable"),
    pytest.param("native", "native", marks=needs_native),
    pytest.param("native", "portable", marks=needs_native),
    pytest.param("portable", "native", marks=needs_native),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crossing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Sidecar]]:
    """One mesh with each engine that is here at `web`, `shop` (HTTP) and `echo` (gRPC), by names such as `web-native`."""
    engines = ("portable", "native") if has_native() else ("portable",)
    async with Mesh(tmp_path_factory.mktemp("engines")) as mesh:
        await mesh.start_sentry()
        shops, echoes = await asyncio.gather(mesh.http_app(), mesh.grpc_app())
        made = await asyncio.gather(
            *(mesh.sidecar(f"web-{engine}", env={"POSTERN_ENGINE": engine}) for engine in engines),
            *(mesh.sidecar(f"shop-{engine}", app=shops, flags=("--engine", engine)) for engine in engines),
            *(mesh.sidecar(f"echo-{engine}", app=echoes, flags=("--engine", engine)) for engine in engines),
        )
        yield {sidecar.app_id: sidecar for sidecar in made}


@pytest.mark.parametrize(("near", "far"), _PAIRS)
async def test_http_crosses(near: str, far: str, crossing: dict[str, Sidecar]) -> None:
    web, shop = crossing[f"web-{near}"], crossing[f"shop-{far}"]
    for number in range(3):
        headers = [(DAPR_APP_ID, shop.app_id)]
        answer = await request(
            web.http_port, "POST", f"/echo?n={number}", headers=headers, body=b"one" * 50_000
        )
        assert answer.status == 200
        assert (await shop.status())["engine"] == far


@pytest.mark.parametrize(("near", "far"), _PAIRS)
async def test_grpc_crosses(near: str, far: str, crossing: dict[str, Sidecar]) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{crossing[f'web-{near}'].grpc_port}") as channel:
        client = EchoClient(channel, metadata=((DAPR_APP_ID, f"echo-{far}"),))
        assert (await client.unary(EchoRequest(message="one"))).message == "one"
        replies = [reply.number async for reply in client.server_stream(EchoRequest(message="s", count=5))]
        assert len(replies) == 5
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary(EchoRequest(code=9, message="not ready"), method="Fail")
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("engine", ENGINES)
async def test_engine_in_use_is_told(engine: str, crossing: dict[str, Sidecar]) -> None:
    web = crossing[f"web-{engine}"]
    await web.process.line(rf"listening.*engine={engine}")
    assert (await web.status())["engine"] == engine
    told = json.loads((await request(web.http_port, "GET", "/v1.0/metadata")).body)
    assert told["extended"]["posternEngine"] == engine


@pytest.mark.skipif(has_native(), reason="the native engine is part of this installation")
async def test_missing_engine_is_a_fault_that_names_the_remedy(mesh: Mesh) -> None:
    with pytest.raises(ProcessEndedError, match=r"--engine native: this installation has none; .*cargo"):
        await mesh.sidecar("web", flags=("--engine", "native"))


@pytest.mark.skipif(has_native(), reason="the native engine is part of this installation")
async def test_missing_engine_is_told_once_where_none_is_wished_for(mesh: Mesh, http_app: App) -> None:
    await mesh.sidecar("shop", app=http_app)
    web = await mesh.sidecar("web")
    assert (await request(web.http_port, "GET", "/echo", headers=[(DAPR_APP_ID, "shop")])).status == 200
    await web.process.line("the portable engine is in use")
    assert web.process.output.count("the portable engine is in use") == 1
    assert "cargo" in str((await web.status())["engineNotice"])


async def test_sidecar_takes_as_many_open_files_as_it_may_have(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        async with Mesh(tmp_path, with_sentry=False) as mesh:
            sidecar = await mesh.sidecar("cart", flags=("--insecure-plaintext",), until_ready=False)
            assert resource.prlimit(sidecar.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@needs_native
async def test_threads_of_the_native_engine_carry_calls_and_are_told(mesh: Mesh, http_app: App) -> None:
    shop = await mesh.sidecar("shop", app=http_app, flags=("--engine", "native", "--threads", "2"))
    web = await mesh.sidecar("web", env={"POSTERN_ENGINE": "native", "POSTERN_THREADS": "2"})
    for number in range(4):
        answer = await request(web.http_port, "GET", f"/echo?n={number}", headers=[(DAPR_APP_ID, "shop")])
        assert answer.status == 200
    assert [await _threads(sidecar) for sidecar in (shop, web)] == [2, 2]


async def test_portable_engine_says_that_threads_do_not_count(mesh: Mesh) -> None:
    web = await mesh.sidecar("web", flags=("--engine", "portable", "--threads", "2"))
    told = (await web.status())["engineNotice"]
    assert told == "--threads 2 has no effect: the portable engine runs on one thread"
    assert await _threads(web) == 1


async def _threads(sidecar: Sidecar) -> int:
    stats = (await sidecar.status())["engineStats"]
    assert isinstance(stats, dict)
    return int(stats["threads"])
