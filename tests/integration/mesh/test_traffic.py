"""Traffic resources between real proxies, on both engines: which of an app's instances calls go to, and its change while they flow."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.mesh.standing import eventually, invoke
from tests.support.engines import ENGINES
from tests.support.http_client import Connection, connect
from tests.support.mesh import Mesh, Sidecar

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
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    """On each engine."""
    engine = ("--engine", str(request.param))
    async with Mesh(tmp_path) as mesh:
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
