"""Traffic resources between real proxies, on both engines: which of an app's instances calls go to, and its change while they flow."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.mesh.standing import eventually, invoke
from tests.support.engines import ENGINES
from tests.support.errors import HttpSyntaxError
from tests.support.http_client import Connection, connect, request
from tests.support.http_wire import read_head
from tests.support.mesh import Mesh, SharedSentry, Sidecar

INSTANCES = ("one", "two", "three")


def traffic(target: str) -> str:
    """A Traffic for calls to shop."""
    head = "apiVersion: postern.dev/v1alpha1\nkind: Traffic\nmetadata: {name: shop}\nspec:\n"
    return f"{head}  targets: {{apps: {{shop: {target}}}}}\n"


BY_TURNS = traffic("{balancing: {policy: round-robin}}")
BY_USER = traffic("{balancing: {policy: ring-hash, hash: {header: x-user}}}")


class Shop:
    """Three instances of shop, and web, whose calls to it go by `resource`."""

    def __init__(self, web: Sidecar, resource: Path) -> None:
        self.web = web
        self.resource = resource

    async def calls(self, caller: Connection, times: int, **headers: str) -> list[str]:
        """Which instances answered calls over one connection."""
        answers = [
            await caller.request("GET", invoke("shop", "/echo"), headers=[*headers.items()])
            for _ in range(times)
        ]
        assert {answer.status for answer in answers} == {200}
        return [answer.get("x-app") for answer in answers]


@pytest_asyncio.fixture(params=ENGINES)
async def shop(request: pytest.FixtureRequest, tmp_path: Path, shared: SharedSentry) -> AsyncIterator[Shop]:
    """On each engine."""
    engine = ("--engine", str(request.param))
    async with Mesh(tmp_path, shared=shared) as mesh:
        resource = mesh.write("resources/traffic.yaml", BY_TURNS)
        for name in INSTANCES:
            await mesh.sidecar("shop", app=await mesh.http_app(name), flags=engine)
        yield Shop(
            await mesh.sidecar("web", flags=(*engine, "--resources-path", str(resource.parent))), resource
        )


async def test_instances_are_called_by_the_policy_in_force(shop: Shop) -> None:
    async with connect(shop.web.http_port) as caller:

        async def is_in_turn() -> bool:
            found = await shop.calls(caller, 6)
            return len({*found[:3]}) == 3 and found[:3] == found[3:]

        await eventually(is_in_turn)
        shop.resource.write_text(BY_USER)
        await shop.web.process.line("policies reloaded.*generation=2")
        homes = {user: await shop.calls(caller, 4, **{"x-user": user}) for user in map(str, range(12))}
        assert {len(set(found)) for found in homes.values()} == {1}
        assert {found[0] for found in homes.values()} == set(INSTANCES)
        shop.resource.write_text(traffic("{balancing: {policy: ring-hash}}"))
        await shop.web.process.line("policies not reloaded.*traffic.yaml:5.*balancing.hash")
        assert await shop.calls(caller, 2, **{"x-user": "1"}) == homes["1"][:2]


OUTLIERS = traffic(
    "{balancing: {policy: round-robin}, outliers: {consecutiveFailures: 3, ejection: 1s}, slowStart: 0s}"
)


class Fickle:
    """An app that answers with `status`."""

    def __init__(self) -> None:
        self.status = 200

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await read_head(reader):
                writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 3\r\n\r\napp" % self.status)
        except (OSError, HttpSyntaxError):
            pass
        finally:
            writer.close()


@pytest.mark.parametrize("engine", ENGINES)
async def test_instance_that_answers_badly_is_left_out_and_taken_back(
    engine: str, tmp_path: Path, shared: SharedSentry
) -> None:
    fickle = Fickle()
    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(fickle, "127.0.0.1", 0)
        stack.callback(server.close)
        mesh = await stack.enter_async_context(Mesh(tmp_path, shared=shared))
        flags = ("--engine", engine, "--log-level", "info")
        resources = mesh.write("resources/traffic.yaml", OUTLIERS).parent
        await mesh.sidecar("shop", app=await mesh.http_app("well"), flags=flags)
        port = int(server.sockets[0].getsockname()[1])
        bad = await mesh.sidecar("shop", app_port=port, flags=flags)
        await bad.wait_app()
        web = await mesh.sidecar("web", flags=(*flags, "--resources-path", str(resources)))
        caller = await stack.enter_async_context(connect(web.http_port))

        async def calls(times: int) -> list[int]:
            return [(await caller.request("GET", invoke("shop", "/echo"))).status for _ in range(times)]

        async def is_called_in_turn() -> bool:
            fickle.status = 418
            return (await calls(4)).count(418) == 2

        await eventually(is_called_in_turn)
        fickle.status = 500
        assert (await calls(12)).count(500) == 3
        await web.process.line("endpoint ejected.*callee=shop.default.*its answers failed time after time")
        told = (await web.status())["ejectedEndpoints"]
        assert isinstance(told, list)
        assert [(one["callee"], one["reason"]) for one in told] == [("shop.default", "failures")]
        explained = json.loads((await web.admin(f"/explain?method=GET&url={invoke('shop', '/echo')}")).body)
        assert "its answers failed time after time" in json.dumps(explained)
        metrics = (await request(web.metrics_port, "GET", "/metrics")).body
        assert b'postern_outliers_ejected{dst="shop.default"} 1' in metrics
        assert b'postern_outlier_ejections_total{dst="shop.default",reason="failures"} 1' in metrics
        fickle.status = 418

        async def is_back() -> bool:
            return (await calls(4)).count(418) == 2

        await eventually(is_back)
        await web.process.line("endpoint takes calls again.*callee=shop.default")
        assert (await web.status())["ejectedEndpoints"] == []
