"""What a page of a listed origin may read of a sidecar's own answers, over both engines."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.integration.mesh.test_pipelines import component, configuration
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, SharedSentry, Sidecar

SHOP: Final = "https://shop.example"
LISTED: Final = ("--allowed-origins", SHOP)
PROFILES: Final = ("dev", "daprd")
Sidecars = dict[str, Sidecar]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def sidecars(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sidecars]:
    """One of each profile for the module and engine, named after it. An app may call its own /sink alone, with a KiB at most."""
    folder = tmp_path_factory.mktemp("cors")
    rule = component("router", "routerchecker", rule="^/(v1|sink)")
    async with Mesh(folder) as mesh:
        http = await mesh.http_app()
        await mesh.start_sentry()
        async with asyncio.TaskGroup() as tasks:
            started = {}
            for profile in PROFILES:
                document = json.loads(configuration(httpPipeline=[("router", "routerchecker")]))
                sink = {"name": "/sink", "httpVerb": ["*"], "action": "allow"}
                mine = {
                    "appId": profile,
                    "trustDomain": "public",
                    "namespace": "default",
                    "operations": [sink],
                }
                document["spec"]["accessControl"] = {"policies": [{**mine, "defaultAction": "deny"}]}
                files = _files(mesh, folder, profile, json.dumps(document), rule)
                bounds = ("--max-body-size", "1Ki", "--profile", profile)
                flags = (*files, *bounds, *LISTED, "--engine", str(request.param))
                started[profile] = tasks.create_task(mesh.sidecar(profile, app=http, flags=flags))
        yield {profile: task.result() for profile, task in started.items()}


def _files(mesh: Mesh, folder: Path, name: str, config: str, *components: str) -> tuple[str, ...]:
    resources = folder / f"{name}-resources"
    resources.mkdir()
    for number, text in enumerate(components):
        (resources / f"{number}.yaml").write_text(text, encoding="utf-8")
    return ("--config", str(mesh.write(f"{name}.yaml", config)), "--resources-path", str(resources))


def assert_readable(answer: Response) -> None:
    """What an app's answer has for a listed origin, once."""
    names = [name.lower() for name, _ in answer.headers]
    assert answer.get("postern-error"), answer.headers
    for name, text in (("access-control-allow-origin", SHOP), ("vary", "Origin")):
        assert (names.count(name), answer.get(name)) == (1, text), (answer.status, answer.headers)
    exposed = {name.strip() for name in answer.get("access-control-expose-headers").split(",")}
    assert {"postern-error", "traceparent"} <= exposed


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("target", "size", "status"),
    [
        ("/items", 0, 400),  # of routerchecker
        ("/v1.0/invoke/{app}/method/echo", 0, 403),  # of the access policy
        ("/v1.0/nowhere", 0, 404),
        ("/sink", 2_048, 413),
        ("/v1.0/invoke/nobody/method/echo", 0, 500),
        ("/v1.0/invoke/{app}/method/%zz", 0, 400),  # before any decision
    ],
)
async def test_listed_origin_may_read_every_refusal(
    sidecars: Sidecars, profile: str, target: str, size: int, status: int
) -> None:
    port = sidecars[profile].http_port
    headers = [("Origin", SHOP), *([("Host", f"{profile}.localhost:{port}")] if target == "/sink" else ())]
    answer = await request(port, "POST", target.format(app=profile), headers=headers, body=bytes(size))
    assert answer.status == status, answer.body
    assert_readable(answer)


@pytest.mark.parametrize("profile", PROFILES)
async def test_listed_origin_may_read_a_refusal_in_grpc_web(sidecars: Sidecars, profile: str) -> None:
    port, target = sidecars[profile].http_port, "/v1.0/invoke/nobody/method/shop.Cart/Get"
    kind = ("Content-Type", "application/grpc-web+proto")
    answer = await request(port, "POST", target, headers=[kind, ("Origin", SHOP)], body=bytes(5))
    assert (answer.status, answer.body[:1]) == (200, b"\x80"), answer.body
    assert_readable(answer)
    answer = await request(port, "POST", target, headers=[kind], body=bytes(5))
    assert answer.get("vary") == "Origin"
    assert not answer.get("access-control-allow-origin")


@pytest.mark.parametrize("engine", ENGINES)
async def test_listed_origin_may_read_that_a_rate_limit_before_another_handler_refused_it(
    tmp_path: Path, shared: SharedSentry, engine: str
) -> None:
    slow = component("slow", "ratelimit", maxRequestsPerSecond=0.01)
    guard = component("guard", "bearer", issuer="http://127.0.0.1:1", audience="shop")
    config = configuration(httpPipeline=[("slow", "ratelimit"), ("guard", "bearer")])
    async with Mesh(tmp_path, shared=shared) as mesh:
        flags = (*_files(mesh, tmp_path, "limited", config, slow, guard), *LISTED, "--engine", engine)
        limited = await mesh.sidecar("limited", flags=flags)
        for status in (401, 429):
            answer = await request(
                limited.http_port, "GET", "/v1.0/invoke/cart/method/echo", headers=[("Origin", SHOP)]
            )
            assert answer.status == status, answer.body
            assert_readable(answer)
