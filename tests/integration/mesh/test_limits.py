"""Limits of a Traffic between real proxies, on both engines: what callers are told, what is shown, and their change while calls flow."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.integration.mesh.standing import eventually, invoke
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import connect, request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest

HEAD = "apiVersion: postern.dev/v1alpha1\nkind: Traffic\nmetadata: {name: guard}\nspec:\n"
RATES = f"""{HEAD}  inbound:
    rates:
      - {{name: writes, requests: 6, per: 1m, burst: 2, to: {{methods: [POST]}}}}
      - {{name: web-only, requests: 1, per: 1h, from: {{apps: [web]}}, to: {{paths: ["/traced"]}}}}
"""
ECHO_RATES = f"""{HEAD}  inbound:
    rates: [{{name: calls, requests: 1, per: 1m, to: {{grpc: {{services: [testing.EchoService]}}}}}}]
"""


def traffic(body: str) -> str:
    """A Traffic of this `spec`."""
    return f"{HEAD}  {body}\n"


UNLIMITED = {"shop": traffic("inbound: {}"), "web": traffic("targets: {}")}


@dataclass
class Scene:
    """shop and echo behind limits, and two callers. Mutable state: how often the rules of each were changed."""

    mesh: Mesh
    shop: Sidecar
    echo: Sidecar
    web: Sidecar
    other: Sidecar
    of_shop: Path
    of_web: Path
    changes: Counter[Path] = field(default_factory=Counter)

    async def rule(self, sidecar: Sidecar, text: str) -> None:
        """Have these rules of shop or web in force."""
        path = self.of_shop if sidecar is self.shop else self.of_web
        if path.read_text() != text:
            path.write_text(text)
            self.changes[path] += 1
            await sidecar.process.line(f"policies reloaded.*generation={1 + self.changes[path]}\\b")

    async def call(self, caller: Sidecar, path: str = "/echo", method: str = "GET") -> Response:
        """One call to shop."""
        return await request(caller.http_port, method, invoke("shop", path))

    @asynccontextmanager
    async def full(self, caller: Sidecar, limiting: Sidecar) -> AsyncIterator[None]:
        """Meanwhile a call of `caller` hangs in the one place that `limiting` has."""

        async def is_full() -> bool:
            limits: Any = (await limiting.status())["limits"]
            return any(one["inside"] == 1 for one in limits if "concurrency" in one["name"])

        async with connect(caller.http_port) as hanging:
            await hanging.send_head("GET", invoke("shop", "/script?key=hung&codes=0"))
            await eventually(is_full)
            yield
        await eventually(lambda: _is(self.call(caller), 200))

    async def metric(self, sidecar: Sidecar, text: str) -> bool:
        """Whether a line of the metrics begins so."""
        found = await request(sidecar.metrics_port, "GET", "/")
        return any(line.startswith(text) for line in found.body.decode().splitlines())


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def standing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """One for the module on each engine."""
    engine = ("--engine", str(request.param))
    async with Mesh(tmp_path_factory.mktemp("limits")) as mesh:
        of_shop = mesh.write("shop/traffic.yaml", UNLIMITED["shop"])
        of_web = mesh.write("web/traffic.yaml", UNLIMITED["web"])
        of_echo = mesh.write("echo/traffic.yaml", ECHO_RATES)

        def flags(file: Path) -> tuple[str, ...]:
            return (*engine, "--resources-path", str(file.parent))

        http_app, grpc_app = await asyncio.gather(mesh.http_app(), mesh.grpc_app())
        shop, echo, web, other = await asyncio.gather(
            mesh.sidecar("shop", app=http_app, flags=flags(of_shop)),
            mesh.sidecar("echo", app=grpc_app, flags=flags(of_echo)),
            mesh.sidecar("web", flags=flags(of_web)),
            mesh.sidecar("other", flags=engine),
        )
        await asyncio.gather(shop.wait_app(), echo.wait_app())
        yield Scene(mesh, shop, echo, web, other, of_shop, of_web)


@pytest_asyncio.fixture
async def scene(standing: Scene) -> Scene:
    """The same without limits of shop and web."""
    await standing.rule(standing.shop, UNLIMITED["shop"])
    await standing.rule(standing.web, UNLIMITED["web"])
    return standing


async def test_rates_hold_for_each_caller_and_say_so(scene: Scene) -> None:
    await scene.rule(scene.shop, RATES)
    answers = [await scene.call(scene.web, method="POST") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    refused = answers[2]
    assert refused.get("postern-error") == "rate-limited"
    assert refused.get("ratelimit-policy") == '"writes";q=6;w=60'
    left_s = left('"writes";r=0;', refused.get("ratelimit"), 10)
    assert refused.get("retry-after") == str(left_s)
    assert f"the limit writes is used up, try again in {left_s} s" in json.loads(refused.body)["message"]
    assert (await scene.call(scene.web)).status == 200
    assert (await scene.call(scene.other, method="POST")).status == 200
    assert (await scene.call(scene.web, "/traced")).status == 200
    left('"web-only";r=0;', (await scene.call(scene.web, "//traced")).get("ratelimit"), 3600)
    assert (await scene.call(scene.other, "/traced")).status == 200
    assert (await scene.call(scene.other, "/traced")).status == 200
    await eventually(
        lambda: scene.metric(scene.shop, 'postern_limit_refusals_total{limit="rate:writes",reason="rate"} 1')
    )
    status: Any = await scene.shop.status()
    (writes,) = [one for one in status["limits"] if one["name"] == "rate:writes"]
    assert writes["refused"] == {"rate": 1}


async def test_rates_hold_for_grpc_and_others_see_the_limit_in_trailers(scene: Scene) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{scene.web.grpc_port}") as channel:
        client = EchoClient(channel, metadata=(("dapr-app-id", "echo"),))
        await client.unary(EchoRequest(message="hi"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary(EchoRequest(message="hi"))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    pairs: Any = caught.value.trailing_metadata()  # pairs; the stubs say otherwise
    trailers = dict(pairs)
    assert trailers["postern-error"] == "rate-limited"
    left_s = left('"calls";r=0;', trailers["ratelimit"], 60)
    assert left_s - 1 <= int(trailers["grpc-retry-pushback-ms"]) / 1000 <= left_s


async def test_limits_change_while_calls_flow_and_a_broken_file_changes_nothing(scene: Scene) -> None:
    await scene.rule(scene.shop, traffic("inbound: {rates: [{name: all, requests: 2, per: 1m}]}"))
    assert [(await scene.call(scene.web)).status for _ in range(3)] == [200, 200, 429]
    await scene.rule(scene.shop, traffic("inbound: {rates: [{name: all, requests: 100}]}"))
    await eventually(lambda: _is(scene.call(scene.web), 200))
    scene.of_shop.write_text(traffic("inbound: {rates: [{name: all, requests: none}]}"))
    await scene.shop.process.line("policies not reloaded.*traffic.yaml:5")
    assert (await scene.call(scene.web)).status == 200
    await scene.rule(scene.shop, traffic("inbound: {}"))
    status: Any = await scene.shop.status()
    assert status["limits"] == []


async def test_calls_beyond_the_room_of_the_app_are_shed(scene: Scene) -> None:
    limit = traffic("inbound: {concurrency: {limit: 1, queue: 1, queueTimeout: 50ms}}")
    await scene.rule(scene.shop, limit)
    async with scene.full(scene.web, scene.shop):
        shed = await asyncio.gather(*(scene.call(scene.web) for _ in range(5)))
    told = {(one.status, one.get("postern-error"), one.get("retry-after")) for one in shed}
    assert told == {(503, "shed", "1")}
    loads: Any = await scene.web.status()
    assert loads["ready"]


async def test_caller_limits_what_it_sends_to_a_target(scene: Scene) -> None:
    limit = "targets: {apps: {shop: {concurrency: {limit: 1, queue: 0}, throttle: {}}}}"
    await scene.rule(scene.web, traffic(limit))
    refused = 'postern_limit_refusals_total{limit="concurrency:peer:shop.default",reason="queue-full"} 3'
    async with scene.full(scene.web, scene.web):
        shed = await asyncio.gather(*(scene.call(scene.web) for _ in range(3)))
        others = await asyncio.gather(*(scene.call(scene.other) for _ in range(4)))
        await eventually(lambda: scene.metric(scene.web, refused))
    assert {answer.status for answer in shed} == {503}
    assert "concurrency and throttle of a Traffic" in json.loads(shed[0].body)["message"]
    assert {answer.status for answer in others} == {200}
    status: Any = await scene.web.status()
    names = {one["name"] for one in status["limits"]}
    assert names == {"concurrency:peer:shop.default", "throttle:peer:shop.default"}


async def test_caller_has_no_more_connections_than_it_may(scene: Scene) -> None:
    assert (await scene.call(scene.web)).status == 200
    await scene.rule(scene.shop, traffic("inbound: {connections: {perCaller: 1}}"))
    assert (await scene.call(scene.web)).status == 200  # over the connection that it has
    assert (await scene.call(scene.other)).status == 200
    answers = await asyncio.gather(*(scene.call(scene.other, "/slow?s=0.1") for _ in range(20)))
    assert {answer.status for answer in answers} == {200}


def left(begin: str, told: str, most: int) -> int:
    """The seconds after which a limit lets a call pass again; some may have passed since it was used up."""
    found = re.fullmatch(rf"{begin}t=(\d+)", told)
    assert found, told
    assert 0 < int(found[1]) <= most
    return int(found[1])


async def _is(call: Any, status: int) -> bool:
    return bool((await call).status == status)
