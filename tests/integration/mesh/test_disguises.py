"""Paths in disguise between real proxies: under an `accessControl` of Dapr's and an `AccessPolicy`, on both engines, no spelling gets by a
denial, whether over HTTP/1.1, HTTP/2 or gRPC.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from sentry.spiffe import SpiffeId
from tests.integration.mesh.peers import Forge, h2_head, h2_request
from tests.integration.mesh.test_access import ECHO, SHOP, Rules
from tests.integration.mesh.test_access_policies import policy, rule
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import request as ask
from tests.support.mesh import Mesh

BY_POLICY = {
    "shop": policy(
        rule("no-admin", "deny", "app1", to={"paths": ["/admin", "/admin/{**}"]}),
        rule("below-x", "allow", "app2", to={"paths": ["/x/{**}"]}),
        rule("rest", "allow", "app1", to={"paths": ["/{**}"]}),
    ),
    "echo": policy(
        rule(
            "no-unary",
            "deny",
            "app1",
            to={"grpc": {"services": ["testing.EchoService"], "methods": ["Unary"]}},
        ),
        rule("rest", "allow", "app1"),
    ),
}
BY_ACCESS_CONTROL = {"shop": SHOP, "echo": ECHO}
KINDS = {"accessControl": BY_ACCESS_CONTROL, "AccessPolicy": BY_POLICY}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def engine(request: pytest.FixtureRequest) -> str:
    """Each."""
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def rules(
    request: pytest.FixtureRequest, engine: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Rules]:
    """One for each kind of rules on each engine: nobody changes it."""
    flags = ("--engine", engine)
    async with Mesh(tmp_path_factory.mktemp("disguises")) as mesh:
        http, echo = await mesh.http_app(), await mesh.grpc_app()
        starting = {}
        async with asyncio.TaskGroup() as tasks:
            for name in ("app1", "app2"):
                starting[name] = tasks.create_task(mesh.sidecar(name, flags=flags))
            for name, text in KINDS[request.param].items():
                path = mesh.write(f"{name}/rules.yaml", text)
                is_config = request.param == "accessControl"
                given = ("--config", str(path)) if is_config else ("--resources-path", str(path.parent))
                app = http if name == "shop" else echo
                starting[name] = tasks.create_task(mesh.sidecar(name, app=app, flags=(*flags, *given)))
        sidecars = {name: task.result() for name, task in starting.items()}
        yield Rules(mesh=mesh, http=http, echo=echo, sidecars=sidecars)


# Some app may read each as /admin; the status is the same at every entrance.
DISGUISES = (
    ("/admin", 403),
    ("/%61dmin", 403),
    ("/%2561dmin", 403),
    ("/%252e%252e/admin", 403),
    ("//admin", 403),
    ("/./admin", 403),
    ("/x/../admin", 403),
    ("/x/%2e%2e/admin", 403),
    ("/x/.%2e/admin", 403),
    ("/x/..;/admin", 403),
    ("/.;x=1/admin", 403),
    ("/admin/", 403),
    ("/admin;v=1", 403),
    ("/admin;v=1/x", 403),
    ("/ADMIN", 403),
    ("/admin%2Fx", 403),
    ("/x%5C..%5Cadmin", 403),
    ("/x\\..\\admin", 403),
    ("/admin%3Fq", 403),
    ("/admin%23f", 403),
    ("/admin%00", 400),
    ("/admin%0a", 400),
    ("/admin%ff", 403),
    ("/%c0%af/admin", 403),
    ("/admin%zz", 400),
    ("/x/%252e%252e/admin", 403),
    ("/x%2Fy/%2e%2e/admin", 403),
    ("/admin?x=/else", 403),
)
IDS = [row[0] for row in DISGUISES]


@pytest.mark.parametrize(("target", "status"), DISGUISES, ids=IDS)
async def test_disguised_path_passes_by_no_entrance(
    rules: Rules, tmp_path: Path, target: str, status: int
) -> None:
    before = await rules.app_calls()
    app1, shop = rules.sidecars["app1"], rules.sidecars["shop"]
    named = [("dapr-app-id", "shop")]
    by_path = f"/v1.0/invoke/shop/method{target}"
    context = Forge.of(rules.mesh.root, tmp_path).context(SpiffeId("public", "default", "app1"))
    met = {
        "HTTP/1.1 path": (await ask(app1.http_port, "GET", by_path)).status,
        "HTTP/1.1 header": (await ask(app1.http_port, "GET", target, headers=named)).status,
        "HTTP/2 path": (await h2_request(app1.http_port, h2_head("GET", by_path))).status,
        "HTTP/2 header": (await h2_request(app1.grpc_port, [*h2_head("GET", target), *named])).status,
        "authority": (await ask(app1.http_port, "GET", target, headers=[("Host", "shop.localhost")])).status,
        "HTTP/2 authority": (
            await h2_request(app1.http_port, h2_head("GET", target, authority="shop.localhost"))
        ).status,
        "absolute": (
            await ask(app1.http_port, "GET", f"http://shop{target}", headers=[("Host", "shop")])
        ).status,
        "peer HTTP/2": (await h2_request(shop.peer_port, h2_head("GET", target), context=context)).status,
        "peer HTTP/2 as Dapr's": (
            await h2_request(
                shop.peer_port, [*h2_head("GET", target), ("postern-surface", "dapr")], context=context
            )
        ).status,
    }
    assert met == dict.fromkeys(met, status)
    assert await rules.app_calls() == before


@pytest.mark.parametrize("target", [target for target, _ in DISGUISES if target.startswith("/x")])
async def test_path_that_one_reading_allows_and_another_does_not_is_denied(rules: Rules, target: str) -> None:
    """Under the AccessPolicy app2 may call what is below /x, and each of these is that by some reading."""
    before = await rules.app_calls()
    answer = await ask(rules.sidecars["app2"].http_port, "GET", target, headers=[("dapr-app-id", "shop")])
    assert (answer.status, await rules.app_calls()) == (403, before)


@pytest.mark.parametrize(
    "path",
    [
        "/testing.EchoService/./Unary",
        "/testing.EchoService/Slow/../Unary",
        "//testing.EchoService/Unary",
        "/testing.EchoService//Unary",
        "/testing.EchoService/Unary/",
        "/testing.EchoService/%55nary",
        "/testing.EchoService/Unary;x=1",
        "/testing.EchoService/Unary?x=1",
        "/x/testing.EchoService/Unary",
        "testing.EchoService/Unary",
    ],
)
async def test_disguised_grpc_path_is_unimplemented_or_refused_everywhere(
    rules: Rules, tmp_path: Path, path: str
) -> None:
    before = await calls_of_unary(rules)
    context = Forge.of(rules.mesh.root, tmp_path).context(SpiffeId("public", "default", "app1"))
    headers = [("content-type", "application/grpc"), ("te", "trailers")]
    empty = b"\x00\x00\x00\x00\x00"
    sent = [*h2_head("POST", path), *headers]
    through = await h2_request(rules.sidecars["app1"].grpc_port, [*sent, ("dapr-app-id", "echo")], body=empty)
    peer = await h2_request(rules.sidecars["echo"].peer_port, sent, body=empty, context=context)
    for answer in (through, peer):
        assert answer.reset is not None or answer.get("grpc-status") in ("3", "7", "12"), answer
    assert await calls_of_unary(rules) == before


async def calls_of_unary(rules: Rules) -> int:
    """How often Unary reached the gRPC app."""
    async with grpc.aio.insecure_channel(f"localhost:{rules.echo.port}") as channel:
        return (await EchoClient(channel).probe()).calls.get("Unary", 0)
