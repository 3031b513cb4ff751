"""AccessPolicies between real proxies, on both engines: what they let by, what they only tell, and their change while calls flow."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from tests.integration.mesh.standing import eventually, invoke, until_logged
from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest

SERVICE = "testing.EchoService"


def policy(*rules: Mapping[str, object], name: str = "orders", **spec: object) -> str:
    """An AccessPolicy for every app."""
    made = {"apiVersion": "postern.dev/v1alpha1", "kind": "AccessPolicy", "metadata": {"name": name}}
    return json.dumps({**made, "spec": {**spec, "rules": rules}})


def rule(name: str, action: str, *apps: str, **more: object) -> dict[str, object]:
    """A rule for these callers."""
    return {"name": name, "action": action, "from": {"apps": list(apps)}, **more}


RULES = (
    rule("reads", "allow", "web", to={"methods": ["GET"], "paths": ["/orders/{*}"]}),
    rule("jobs", "allow", "*-job", to={"paths": ["/{**}"]}, when={"header": {"x-run": ["nightly"]}}),
    rule("no-admin", "deny", "*", to={"paths": ["/admin/{**}"]}),
    rule("echo", "allow", "web", to={"grpc": {"services": ["testing.*"], "methods": ["Unary"]}}),
)


class Callers:
    """Sidecars of `web` and `a-job` beside `shop`, an HTTP app, and `echo`, a gRPC app, both with RULES."""

    def __init__(self, web: Sidecar, job: Sidecar, shop: Sidecar, resources: Path) -> None:
        self.web = web
        self.job = job
        self.shop = shop
        self.resources = resources

    async def call(
        self, caller: Sidecar, verb: str, path: str, headers: tuple[tuple[str, str], ...] = ()
    ) -> int:
        """The status of a call to shop."""
        return (await request(caller.http_port, verb, invoke("shop", path), headers=headers)).status

    async def echo(self, method: str) -> grpc.StatusCode:
        """The code of a gRPC call of web to echo."""
        async with grpc.aio.insecure_channel(f"localhost:{self.web.grpc_port}") as channel:
            client = EchoClient(channel, metadata=(("dapr-app-id", "echo"),), service=SERVICE)
            made = client.unary if method == "Unary" else client.server_stream
            code: grpc.StatusCode = await made(EchoRequest(message="x")).code()
            return code


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def callers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Callers]:
    """One for the module on each engine."""
    engine = ("--engine", str(request.param))
    async with Mesh(tmp_path_factory.mktemp("policies")) as mesh:
        resources = mesh.write("resources/policy.yaml", policy(*RULES)).parent
        flags = (*engine, "--profile", "production", "--resources-path", str(resources))
        shop = await mesh.sidecar("shop", app=await mesh.http_app(), flags=flags)
        await mesh.sidecar("echo", app=await mesh.grpc_app(), flags=flags)
        web, job = await mesh.sidecar("web", flags=engine), await mesh.sidecar("a-job", flags=engine)
        yield Callers(web, job, shop, resources)


async def test_rules_judge_callers_verbs_and_paths(callers: Callers) -> None:
    assert await callers.call(callers.web, "GET", "/orders/1") == 200
    assert await callers.call(callers.web, "GET", "/orders/2/") == 200
    assert await callers.call(callers.web, "POST", "/orders/1") == 403
    assert await callers.call(callers.web, "GET", "/orders/1/items") == 403
    assert await callers.call(callers.web, "GET", "/orders") == 403
    assert await callers.call(callers.job, "GET", "/orders/1") == 403


@pytest.mark.parametrize(
    "path", ["/admin", "/ADMIN/x", "/%61dmin", "//admin", "/x/../admin", "/admin;v=1", "/x%2F..%2Fadmin"]
)
async def test_no_spelling_gets_round_a_denial(callers: Callers, path: str) -> None:
    nightly = (("x-run", "nightly"),)
    assert await callers.call(callers.job, "GET", "/else", nightly) == 200
    assert await callers.call(callers.job, "GET", path, nightly) == 403


async def test_header_condition_is_of_each_call(callers: Callers) -> None:
    for value, status in (("nightly", 200), ("daily", 403), ("nightly", 200)):
        assert await callers.call(callers.job, "POST", "/run", (("x-run", value),)) == status


async def test_grpc_rule_names_methods(callers: Callers) -> None:
    assert await callers.echo("Unary") is grpc.StatusCode.OK
    assert await callers.echo("ServerStream") is grpc.StatusCode.PERMISSION_DENIED


async def test_app_may_always_call_itself_unless_a_rule_denies_it(callers: Callers) -> None:
    assert await callers.call(callers.shop, "GET", "/else") == 200
    assert await callers.call(callers.shop, "GET", "/x/%2e%2e/Admin/y") == 403


async def test_rules_in_resources_are_not_told_to_be_missing(callers: Callers) -> None:
    await callers.shop.process.line(r"\bserving\b")
    assert "no access policy" not in callers.shop.process.output


async def test_denial_is_logged_with_policy_and_rule(callers: Callers) -> None:
    async def denied() -> None:
        assert await callers.call(callers.web, "GET", "/admin/log") == 403

    line = r"access denied.*spiffe://public/ns/default/web.*policy=orders rule=no-admin"
    await until_logged(callers.shop.process, line, denied)


@pytest.mark.parametrize("engine", ENGINES)
async def test_audited_policy_lets_by_and_tells(engine: str, mesh: Mesh, http_app: App) -> None:
    audited = policy(rule("reads", "allow", "web", to={"methods": ["GET"]}), mode="audit")
    folder = mesh.write("audit/policy.yaml", audited).parent
    flags = ("--engine", engine, "--resources-path", str(folder))
    shop = await mesh.sidecar("shop", app=http_app, flags=flags)
    web = await mesh.sidecar("web", flags=("--engine", engine))
    for verb in ("GET", "POST", "POST"):
        assert (await request(web.http_port, verb, invoke("shop", "/x"))).status == 200
    await shop.process.line(r"access would be denied.*default/web calls=.*would_deny=no-rule")

    async def counted() -> bool:
        metrics = (await request(shop.metrics_port, "GET", "/metrics")).body.decode()
        return 'postern_acl_would_deny_total{rule="no-rule",src="web"} 2.0' in metrics

    await eventually(counted)


@pytest.mark.parametrize("engine", ENGINES)
async def test_changed_policy_is_in_force_at_once_and_a_bad_one_never(
    engine: str, mesh: Mesh, http_app: App
) -> None:
    path = mesh.write("change/policy.yaml", policy(rule("all", "allow", "web")))
    flags = ("--engine", engine, "--resources-path", str(path.parent))
    shop = await mesh.sidecar("shop", app=http_app, flags=flags)
    web = await mesh.sidecar("web", flags=("--engine", engine))

    async def status() -> int:
        return (await request(web.http_port, "GET", invoke("shop", "/x"))).status

    assert await status() == 200
    path.write_text(policy(rule("all", "deny", "web")))
    await shop.process.line("policies reloaded.*generation=2")
    assert await status() == 403
    path.write_text(policy(rule("all", "allow", "web", to={"path": ["/x"]})))
    await shop.process.line("policies not reloaded.*spec.rules.0..to.path: unknown key")
    assert await status() == 403
