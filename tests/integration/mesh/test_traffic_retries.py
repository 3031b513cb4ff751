"""What a Traffic says of retries, between real proxies, on both engines, and its change while they run."""

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.mesh.standing import eventually, invoke
from tests.support.apps import App
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, SharedSentry, Sidecar

RESILIENCY = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: mesh}
spec:
  policies: {retries: {three: {policy: constant, duration: 20ms, maxRetries: 3}}}
  targets: {apps: {shop: {retry: three}}}
"""
HEAD = "apiVersion: postern.dev/v1alpha1\nkind: Traffic\nmetadata: {name: shop}\nspec:\n"


def traffic(target: str) -> str:
    """A Traffic for calls to shop."""
    return f"{HEAD}  targets: {{apps: {{shop: {target}}}}}\n"


class Shop:
    """An app that fails as it is told, and web, whose calls to it go by `resource`."""

    def __init__(self, app: App, web: Sidecar, resource: Path) -> None:
        self._app = app
        self.web = web
        self._resource = resource
        self._generation = 1

    async def goes_by(self, target: str) -> None:
        """Replace the resource, and wait until it is in force."""
        self._resource.write_text(traffic(target))
        self._generation += 1
        await self.web.process.line(f"policies reloaded.*generation={self._generation}")

    async def call(self, path: str, method: str = "GET", **headers: str) -> Response:
        return await request(
            self.web.http_port, method, invoke("shop", path), headers=[*headers.items()], timeout_s=20.0
        )

    async def attempts(self, method: str = "GET", **headers: str) -> int:
        """How often the app is asked for a call that it always fails."""
        key = uuid.uuid4().hex
        assert (await self.call(f"/script?key={key}&codes=500", method, **headers)).status == 500
        told = json.loads((await request(self._app.port, "GET", "/stats")).body)
        return len(told["scripts"][key])


@pytest_asyncio.fixture(params=ENGINES)
async def shop(request: pytest.FixtureRequest, tmp_path: Path, shared: SharedSentry) -> AsyncIterator[Shop]:
    """On each engine."""
    engine = ("--engine", str(request.param))
    async with Mesh(tmp_path, shared=shared) as mesh:
        mesh.write("resources/resiliency.yaml", RESILIENCY)
        resource = mesh.write(
            "resources/traffic.yaml", traffic("{retryBudget: {ratio: 0, minRetriesPerSecond: 0}}")
        )
        app = await mesh.http_app("shop")
        await mesh.sidecar("shop", app=app, flags=engine)
        web = await mesh.sidecar("web", flags=(*engine, "--resources-path", str(resource.parent)))
        yield Shop(app, web, resource)


async def test_retries_go_by_the_resource_in_force(shop: Shop) -> None:
    assert await shop.attempts() == 1  # the budget is empty

    async def is_counted() -> bool:
        metrics = (await request(shop.web.metrics_port, "GET", "/metrics")).body.decode()
        return 'postern_retry_budget_exhausted_total{dst="shop.default"} 1.0' in metrics

    await eventually(is_counted)
    await shop.goes_by("{retryBudget: off, retryOn: idempotent}")
    assert [await shop.attempts(), await shop.attempts("POST")] == [4, 1]
    assert await shop.attempts("POST", **{"Idempotency-Key": "1"}) == 4
    await shop.goes_by("{overallTimeout: 500ms}")
    late = await shop.call("/slow?s=60")
    assert (late.status, late.get("postern-error")) == (500, "timeout")
    assert b"did not answer in time" in late.body  # which of the two proxies found that out first differs


async def test_slow_answer_does_not_keep_its_caller(shop: Shop) -> None:
    """Two attempts at once: the first is never answered, the second is."""
    await shop.goes_by("{hedging: {delay: 100ms}}")
    answer = await shop.call(f"/script?key={uuid.uuid4().hex}&codes=0,200")
    assert (answer.status, answer.body) == (200, b"attempt 2")


async def test_slow_answer_is_one_that_takes_longer_than_most(shop: Shop) -> None:
    """`p95`: of the calls that the sidecar made before."""
    await shop.goes_by("{hedging: {delay: p95}}")

    async def is_hedged() -> bool:
        for _ in range(20):
            assert (await shop.call(f"/script?key={uuid.uuid4().hex}&codes=200")).status == 200
        slow = f"/script?key={uuid.uuid4().hex}&codes=0,200"
        answer = await shop.call(slow, **{"postern-timeout": "2000"})
        return (answer.status, answer.body) == (200, b"attempt 2")

    await eventually(is_hedged)
