"""Instances of one app of which some don't take calls: the others answer, and who is down is not announced until it is back."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from nameresolution.host_registry import HostRegistry
from tests.integration.mesh.standing import eventually
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import connect, request
from tests.support.http_wire import Response
from tests.support.mesh import DAPR_APP_ID, Mesh, Sidecar
from tests.support.ports import free_port
from tests.support.proto.echo_pb2 import EchoRequest

_CALLERS = 4


@asynccontextmanager
async def _loading(web: Sidecar) -> AsyncIterator[list[Response]]:
    """Calls to `cart` without a pause, while inside; the failed ones."""
    failed: list[Response] = []
    over = asyncio.Event()

    async def calling(body: bytes | None) -> None:
        async with connect(web.http_port) as connection:
            while not over.is_set():
                method = "POST" if body else "GET"
                answer = await connection.request(method, "/echo", headers=[(DAPR_APP_ID, "cart")], body=body)
                if answer.status != 200:
                    failed.append(answer)

    async with asyncio.TaskGroup() as tasks:
        for number in range(_CALLERS):
            tasks.create_task(calling(b"x" if number % 2 else None))
        try:
            yield failed
        finally:
            over.set()


async def _known(web: Sidecar) -> set[str]:
    found = json.loads((await web.admin("/endpoints?app=cart")).body).get("cart.default", {"endpoints": []})
    return {end["address"] for end in found["endpoints"]}


def _peers(*sidecars: Sidecar) -> set[str]:
    return {f"127.0.0.1:{sidecar.peer_port}" for sidecar in sidecars}


@pytest.mark.parametrize("engine", ENGINES)
async def test_calls_go_to_instances_whose_app_takes_them(engine: str, mesh: Mesh) -> None:
    flags = ("--engine", engine)
    web = await mesh.sidecar("web", flags=flags)
    first, second = await mesh.http_app("first"), await mesh.http_app("second")
    unhealthy = ("--enable-app-health-check", "--app-health-check-path", "/status?code=500")
    good = await mesh.sidecar("cart", app=first, flags=flags)
    doomed = await mesh.sidecar("cart", app=second, flags=flags)
    sick = await mesh.sidecar("cart", app=first, flags=(*flags, *unhealthy))
    absent = await mesh.sidecar("cart", app_port=free_port(), flags=flags)

    async def are_known(*sidecars: Sidecar) -> bool:
        return await _known(web) == _peers(*sidecars)

    await eventually(lambda: are_known(good, doomed))
    own = "/status?code=502&header=postern-error:app-down"  # what an app says is not what its proxy says
    told = await request(web.http_port, "GET", own, headers=[(DAPR_APP_ID, "cart")])
    assert (told.status, told.get("postern-error"), told.body) == (502, "", b"status 502")
    async with _loading(web) as failed:
        for _ in range(2):
            second.process.kill()
            await eventually(lambda: are_known(good))
            second = await mesh.http_app("second", "--port", str(second.port))
            await eventually(lambda: are_known(good, doomed))
        second.process.kill()
        await eventually(lambda: are_known(good))
    assert len(failed) <= 3 * _CALLERS, failed  # what was in flight when the app died
    assert {answer.get("postern-error") for answer in failed} <= {"reset-early"}, failed

    entries = HostRegistry(mesh.root).entries({"cart"})  # admin verbs still find them
    states = {entry.pid: (entry.serving, entry.app_state) for entry in entries}
    assert states == {
        good.process.pid: (True, "listening"),
        doomed.process.pid: (False, "down"),
        sick.process.pid: (False, "unhealthy"),
        absent.process.pid: (False, "starting"),
    }

    first.process.kill()
    await eventually(are_known)
    gone = await request(web.http_port, "GET", "/echo", headers=[(DAPR_APP_ID, "cart")])
    assert gone.get("postern-error") == "no-endpoint"  # at once: one that is looked for is "no-app"
    # Other tests announce instances of this name, too, and without a mesh: one of those may have been the last that mDNS told.
    assert re.search(r"gone since \S+, served until then by \S+:\d+ \(", gone.body.decode()), (
        gone.body.decode()
    )


@pytest.mark.parametrize("engine", ENGINES)
async def test_learnt_service_whose_app_left_is_unavailable_at_once(engine: str, mesh: Mesh) -> None:
    flags = ("--engine", engine)
    app = await mesh.grpc_app("echo")
    echo = await mesh.sidecar("echo", app=app, flags=flags)
    web = await mesh.sidecar("web", flags=flags)
    async with grpc.aio.insecure_channel(f"localhost:{web.grpc_port}") as channel:
        client = EchoClient(channel)
        assert (await client.unary(EchoRequest(message="one"))).message == "one"
        await echo.end()

        async def is_gone() -> bool:
            return (
                not json.loads((await web.admin("/endpoints")).body).get("echo.default", {}).get("endpoints")
            )

        await eventually(is_gone)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary(EchoRequest(message="two"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    # By the address of the registry, or of multicast where that record goes last.
    assert re.search(rf"served until then by [0-9.]+:{echo.peer_port}\b", str(caught.value.details()))


@pytest.mark.parametrize("engine", ENGINES)
async def test_call_whose_callees_proxy_dies_says_so(engine: str, mesh: Mesh) -> None:
    app = await mesh.http_app("cart")
    cart = await mesh.sidecar("cart", app=app, flags=("--engine", engine))
    web = await mesh.sidecar("web", flags=("--engine", engine))

    async def has_come() -> bool:
        return "/slow" in json.loads((await request(app.port, "GET", "/stats")).body)["requests"]

    async with asyncio.TaskGroup() as tasks:
        slow = request(web.http_port, "POST", "/slow?s=60", headers=[(DAPR_APP_ID, "cart")], body=b"x")
        call = tasks.create_task(slow)
        await eventually(has_come)
        cart.process.kill()
    answer = call.result()
    assert answer.get("postern-error") == "reset-early"
    text = json.loads(answer.body)["message"].partition("err: ")[2]
    assert text == "the call to cart.default broke before an answer: the connection was closed"
