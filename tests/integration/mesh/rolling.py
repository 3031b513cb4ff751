"""Rolling restarts of one of two instances under continuous load, for the suite and for the soak."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from tests.integration.mesh.standing import Standing, eventually, invoke
from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.http_client import connect, request
from tests.support.mesh import Sidecar
from tests.support.proto.echo_pb2 import EchoRequest


async def known(mesh: Standing, app_id: str) -> list[str]:
    """The endpoints that `web` has for an app."""
    answer = await mesh.web.admin(f"/endpoints?app={app_id}")
    found = json.loads(answer.body).get(f"{app_id}.default", {"endpoints": []})
    return [end["address"] for end in found["endpoints"]]


@dataclass(slots=True)
class Load:
    """What a continuous load came to. `failures` are told in full: none may be."""

    calls: int = 0
    failures: list[str] = field(default_factory=list)


@asynccontextmanager
async def loading(mesh: Standing, app_id: str, echo_id: str) -> AsyncIterator[Load]:
    """HTTP calls (with and without a body) and gRPC calls without a pause, while inside."""
    load, over = Load(), asyncio.Event()

    async def http(body: bytes | None) -> None:
        async with connect(mesh.web.http_port) as connection:
            while not over.is_set():
                method = "POST" if body else "GET"
                answer = await connection.request(method, invoke(app_id, "/echo"), body=body)
                load.calls += 1
                if answer.status != 200:
                    load.failures.append(f"{method}: {answer.status} {answer.body[:300]!r}")

    async def unary() -> None:
        async with grpc.aio.insecure_channel(f"localhost:{mesh.web.grpc_port}") as channel:
            client = EchoClient(channel, metadata=(("dapr-app-id", echo_id),))
            while not over.is_set():
                load.calls += 1
                try:
                    await client.unary(EchoRequest(message="m"))
                except grpc.aio.AioRpcError as error:
                    load.failures.append(f"gRPC: {error.code()} {error.details()}")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(http(None))
        tasks.create_task(http(b"x" * 2000))
        tasks.create_task(unary())
        try:
            yield load
        finally:
            over.set()


async def rolling(mesh: Standing, restarts: int) -> Load:
    """Restart one of two instances so many times, by turns, of an HTTP and of a gRPC app, under load."""

    async def start(app_id: str, app: App) -> Sidecar:
        return await mesh.mesh.sidecar(app_id, app=app, flags=("--drain", "300ms"))

    async def both(app_id: str, app: App) -> list[Sidecar]:
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(start(app_id, app)) for _ in range(2)]
        return [task.result() for task in made]

    async def settled(app_id: str, sidecars: list[Sidecar]) -> None:
        """Until the caller knows exactly these: a restart goes on only then, as a roll-out does."""
        ports = {str(sidecar.peer_port) for sidecar in sidecars}

        async def is_known() -> bool:
            return {end.rpartition(":")[2] for end in await known(mesh, app_id)} == ports

        await eventually(is_known)

    async def restart(app_id: str, app: App, sidecars: list[Sidecar], number: int) -> None:
        await settled(app_id, sidecars)
        assert await sidecars[number].end() == 0
        sidecars[number] = await start(app_id, app)

    web, echo = await both("rolling", mesh.http_app), await both("rolling-echo", mesh.grpc_app)
    first = await request(mesh.web.http_port, "GET", invoke("rolling", "/echo"))
    assert first.status == 200
    async with loading(mesh, "rolling", "rolling-echo") as load:
        for number in range(restarts):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(restart("rolling", mesh.http_app, web, number % 2))
                tasks.create_task(restart("rolling-echo", mesh.grpc_app, echo, number % 2))
    for sidecar in (*web, *echo):
        assert await sidecar.end() == 0
    return load
