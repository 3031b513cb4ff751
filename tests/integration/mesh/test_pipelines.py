"""Middleware between real proxies, over both engines: what passes on the caller's side, and what on the app's."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.integration.mesh.standing import eventually
from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import connect, request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest


def component(name: str, kind: str, **settings: object) -> str:
    """A document; JSON is YAML."""
    return json.dumps(
        {
            "apiVersion": "dapr.io/v1alpha1",
            "kind": "Component",
            "metadata": {"name": name},
            "spec": {
                "type": f"middleware.http.{kind}",
                "version": "v1",
                "metadata": [{"name": key, "value": value} for key, value in settings.items()],
            },
        }
    )


def configuration(**pipelines: list[tuple[str, str]]) -> str:
    """A document; handlers by name and type."""
    spec: dict[str, Any] = {
        side: {"handlers": [{"name": name, "type": f"middleware.http.{kind}"} for name, kind in handlers]}
        for side, handlers in pipelines.items()
    }
    access = {"accessControl": {"defaultAction": "allow"}}
    return json.dumps({"kind": "Configuration", "metadata": {"name": "c"}, "spec": {**spec, **access}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """`web` calls `cart`, an HTTP app, through no middleware. A test adds sidecars with names of its own."""

    mesh: Mesh
    engine: str
    http: App
    folder: Path
    web: Sidecar

    async def start(self, name: str, config: str, *components: str, app: App | None = None) -> Sidecar:
        """A sidecar with these resources."""
        resources = self.folder / name
        resources.mkdir()
        for number, text in enumerate(components):
            (resources / f"{number}.yaml").write_text(text, encoding="utf-8")
        path = self.mesh.write(f"{name}-config.yaml", config)
        flags = ("--config", str(path), "--resources-path", str(resources), "--engine", self.engine)
        return await self.mesh.sidecar(name, app=app, flags=flags)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Pair]:
    """One for the module on each engine."""
    folder = tmp_path_factory.mktemp("pipelines")
    engine = ("--engine", str(request.param))
    async with Mesh(folder) as mesh:
        http = await mesh.http_app()
        cart, web = await asyncio.gather(
            mesh.sidecar("cart", app=http, flags=engine), mesh.sidecar("web", flags=engine)
        )
        await cart.wait_app()
        yield Pair(mesh=mesh, engine=request.param, http=http, folder=folder, web=web)


async def get(sidecar: Sidecar, path: str, callee: str = "cart", **how: Any) -> Response:
    """Call by Dapr's path."""
    return await request(sidecar.http_port, "GET", f"/v1.0/invoke/{callee}/method{path}", **how)


async def test_rate_limit_on_the_apps_side_is_for_each_caller(pair: Pair) -> None:
    limits = configuration(appHttpPipeline=[("slow", "ratelimit")])
    slow = component("slow", "ratelimit", maxRequestsPerSecond=0.05)
    await pair.start("limited", limits, slow, app=pair.http)
    other = await pair.start("other", configuration())
    answers = [await get(caller, "/echo/a", "limited") for caller in (pair.web, other, pair.web)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert 0 < int(answers[2].get("retry-after")) <= 20
    assert answers[2].get("content-type") == "text/plain; charset=utf-8"
    assert b"from spiffe://public/ns/default/web" in answers[2].body


async def test_rate_limit_on_the_callers_side_counts_all_its_http_requests(pair: Pair) -> None:
    slow = component("slow", "ratelimit", maxRequestsPerSecond=0.01)
    web = await pair.start("slow-web", configuration(httpPipeline=[("slow", "ratelimit")]), slow)
    async with connect(web.http_port) as caller:
        targets = ["/v1.0/metadata", "/v1.0/invoke/cart/method/echo", "/v1.0/healthz", "/v1.0/metadata"]
        statuses = [(await caller.request("GET", target)).status for target in targets]
    assert statuses == [200, 429, 204, 429]


@pytest.mark.parametrize("side", ["httpPipeline", "appHttpPipeline"])
async def test_bodies_go_on_in_upper_case(pair: Pair, side: str) -> None:
    both = component("up", "uppercase", direction="both")
    name = f"loud-{side.lower()}"
    loud = await pair.start(name, configuration(**{side: [("up", "uppercase")]}), both, app=pair.http)
    caller, callee = (loud, "cart") if side == "httpPipeline" else (pair.web, name)
    answer = await request(caller.http_port, "POST", f"/v1.0/invoke/{callee}/method/echo", body=b"hello")
    assert answer.status == 200
    assert b'"BODY": "HELLO"' in answer.body


async def test_grpc_passes_neither(pair: Pair) -> None:
    pytest.importorskip("re2")
    never = component("never", "routerchecker", rule="^$")
    config = configuration(
        httpPipeline=[("never", "routerchecker")], appHttpPipeline=[("never", "routerchecker")]
    )
    echo = await pair.mesh.grpc_app()
    await pair.start("echo", config, never, app=echo)
    web = await pair.start("strict-web", config, never)
    async with grpc.aio.insecure_channel(f"localhost:{web.grpc_port}") as channel:
        client = EchoClient(channel, metadata=(("dapr-app-id", "echo"),))
        assert (await client.unary(EchoRequest(message="x"))).message == "x"
    assert (await get(web, "/echo")).status == 400


async def test_alias_on_the_callers_side_becomes_an_invocation(pair: Pair) -> None:
    routes = {
        "/shop": "/v1.0/invoke/cart/method/echo/shop",
        "/shop/{id}/item": "/v1.0/invoke/cart/method/echo/item",
    }
    alias = component("alias", "routeralias", routes=routes)
    web = await pair.start("alias-web", configuration(httpPipeline=[("alias", "routeralias")]), alias)
    for sent, found in (
        ("/shop", "/echo/shop"),
        ("/shop?a=1", "/echo/shop?a=1"),
        ("//shop/", "/echo/shop"),
        ("/shop/7/item", "/echo/item?id=7"),
        ("/shop/8/item?a=%zz", "/echo/item?id=8&a=%zz"),
        ("/v1.0/invoke/cart/method/echo/plain", "/echo/plain"),
    ):
        answer = await request(web.http_port, "GET", sent)
        assert (answer.status, json.loads(answer.body)["target"]) == (200, found), sent
    assert (await request(web.http_port, "GET", "/shop/7")).status == 404


async def test_alias_on_the_apps_side_rewrites_what_the_app_finds(pair: Pair) -> None:
    alias = component("alias", "routeralias", routes={"/old": "/echo/new", "/old/{id}": "/echo/one"})
    config = configuration(appHttpPipeline=[("alias", "routeralias")])
    aliased = await pair.start("aliased", config, alias, app=pair.http)
    for sidecar in (pair.web, aliased):  # from a peer, and from the app to itself
        for sent, found in (
            ("/old?a=1", "/echo/new?a=1"),
            ("/old/7", "/echo/one?id=7"),
            ("/echo/x", "/echo/x"),
        ):
            answer = await get(sidecar, sent, "aliased")
            assert json.loads(answer.body)["target"] == found
        by_header = await request(sidecar.http_port, "GET", "/old/8", headers=(("dapr-app-id", "aliased"),))
        assert json.loads(by_header.body)["target"] == "/echo/one?id=8"


async def test_rule_lets_through_what_it_finds(pair: Pair) -> None:
    pytest.importorskip("re2")
    rule = component("rule", "routerchecker", rule=r"^/echo/[a-z]+(\?n=[0-9]+)?$")
    config = configuration(appHttpPipeline=[("rule", "routerchecker")])
    await pair.start("ruled", config, rule, app=pair.http)
    sent = ["/echo/a", "/echo/a?n=1", "/echo/a?n=x", "/echo/a?n=2", "/echo/A", "/echo/a"]
    answers = [await get(pair.web, path, "ruled") for path in sent]
    assert [answer.status for answer in answers] == [200, 200, 400, 200, 400, 200]
    assert answers[2].body.startswith(b"invalid router")


async def test_change_of_a_component_takes_effect_and_a_faulty_one_does_not(pair: Pair) -> None:
    config = configuration(appHttpPipeline=[("alias", "routeralias")])
    first = component("alias", "routeralias", routes={"/a": "/echo/1"})
    changing = await pair.start("changing", config, first, app=pair.http)

    async def found() -> str:
        return str(json.loads((await get(pair.web, "/a", "changing")).body)["target"])

    async def is_moved() -> bool:
        return await found() == "/echo/2"

    async def refusal() -> str | None:
        error: str | None = (await changing.status())["policy"]["lastError"]  # type: ignore[index]
        return error

    async def is_refused() -> bool:
        return await refusal() is not None

    assert await found() == "/echo/1"
    file = pair.folder / "changing" / "0.yaml"
    file.write_text(component("alias", "routeralias", routes={"/a": "/echo/2"}), encoding="utf-8")
    await eventually(is_moved)
    file.write_text(component("alias", "routeralias", routes={"/a": "/echo?x"}), encoding="utf-8")
    await eventually(is_refused)
    error = await refusal()
    assert error is not None
    assert "`/echo?x` is not a path" in error
    assert await found() == "/echo/2"


async def test_requests_that_leave_the_mesh_pass_the_apps_side(pair: Pair) -> None:
    alias = component("alias", "routeralias", routes={"/old/{id}": "/echo/new"})
    slow = component("slow", "ratelimit", maxRequestsPerSecond=0.01)
    outside = {"kind": "HTTPEndpoint", "metadata": {"name": "outside"}}
    spec = {"spec": {"baseUrl": f"http://127.0.0.1:{pair.http.port}/echo/base"}}
    config = configuration(appHttpPipeline=[("alias", "routeralias"), ("slow", "ratelimit")])
    web = await pair.start("outward", config, alias, slow, json.dumps({**outside, **spec}))
    answers = [
        await request(web.http_port, "GET", f"/v1.0/invoke/outside/method/old/{number}?a=1")
        for number in (7, 8)
    ]
    assert [answer.status for answer in answers] == [200, 429]
    assert json.loads(answers[0].body)["target"] == "/echo/base/echo/new?id=7&a=1"
