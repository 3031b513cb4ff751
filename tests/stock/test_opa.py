"""Open Policy Agent judges calls, on both engines: by its data API for an AccessPolicy, and by the policy of Dapr's middleware."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.mesh.standing import eventually, invoke
from tests.integration.mesh.test_access_policies import policy, rule
from tests.integration.mesh.test_pipelines import component, configuration
from tests.stock.programs import BUILT, GO_INSTALL, Program
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_port
from tests.support.processes import Process, Processes

OPA = Program(command=(str(BUILT / "opa"),), built=BUILT / "opa", tools=("go",), install=GO_INSTALL)
pytestmark = pytest.mark.timeout(120)
# The input of OPA's Envoy plugin, as its own examples read it.
ENVOYS = """
package app

import input.attributes.request.http as http

default allow := {"allowed": false, "http_status": 403, "body": "only reads"}

allow := {"allowed": true, "headers": {"x-user": user}, "request_headers_to_remove": ["x-token"]} if {
    http.method == "GET"
    input.parsed_path[0] == "asked"
    input.attributes.source.principal == "spiffe://public/ns/default/web"
    user := http.headers["x-token"]
}
"""
# As Dapr documents it.
DAPRS = """
package http

default allow = false

allow = {"status_code": 301, "additional_headers": {"location": "https://my.site/authorize"}} if {
    not input.request.headers["X-Token"]
}

allow = {"allow": true, "additional_headers": {"x-user": token}} if {
    token := input.request.headers["X-Token"]
    input.request.path_parts[1] == "asked"
    input.request.query["n"][0] == "1"
}
"""


@asynccontextmanager
async def opa(processes: Processes, *policies: Path) -> AsyncIterator[tuple[str, Process]]:
    """A server with these policies; its URL."""
    if missing := OPA.reason_missing():
        pytest.skip(missing)
    port = free_port()
    process = processes.start([*OPA.command, f"127.0.0.1:{port}", *map(str, policies)], name="opa")

    async def serves() -> bool:
        try:
            return (await request(port, "GET", "/health")).status == 200
        except OSError:
            return False

    await eventually(serves)
    yield f"http://127.0.0.1:{port}", process


async def call(web: Sidecar, path: str, *headers: tuple[str, str], verb: str = "GET") -> Response:
    """The answer to a call to shop."""
    return await request(web.http_port, verb, invoke("shop", path), headers=headers)


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_access_policy_asks_opa(engine: str, mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "app.rego"
    file.write_text(ENVOYS)
    async with opa(mesh.processes, file) as (url, process):
        entry = {"name": "opa", "opa": f"{url}/v1/data/app/allow", "timeout": "10s"}
        text = policy(rule("asked", "authorize", "web", authorizer="opa"), authorizers=[entry])
        folder = mesh.write("resources/policy.yaml", text).parent
        flags = ("--engine", engine, "--profile", "production", "--resources-path", str(folder))
        await mesh.sidecar("shop", app=await mesh.http_app(), flags=flags)
        web = await mesh.sidecar("web", flags=("--engine", engine))
        allowed = await call(web, "/asked/echo", ("x-token", "ann"), ("x-user", "eve"))
        sent = {name.lower(): value for name, value in json.loads(allowed.body)["headers"]}
        assert (allowed.status, sent["x-user"], "x-token" in sent) == (200, "ann", False)
        refused = await call(web, "/asked/echo", ("x-token", "ann"), verb="POST")
        assert (refused.status, refused.body) == (403, b"only reads")
        assert (await call(web, "/else", ("x-token", "ann"))).status == 403
        await process.end(timeout_s=15.0)
        gone = await call(web, "/asked/echo", ("x-token", "ann"))
        assert (gone.status, gone.get("postern-error")) == (503, "authorizer")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("side", ["httpPipeline", "appHttpPipeline"])
async def test_daprs_middleware_is_judged_by_opa(engine: str, side: str, mesh: Mesh, tmp_path: Path) -> None:
    async with opa(mesh.processes) as (url, process):
        # Before calls of our own app, the path is that of Dapr's API.
        rego = DAPRS.replace(
            "path_parts[1]", "path_parts[0]" if side == "appHttpPipeline" else "path_parts[4]"
        )
        settings = {
            "rego": rego,
            "includedHeaders": "x-token",
            "defaultStatus": 418,
            "postern.dev/opa-address": url,
        }
        folder = mesh.write("middleware/opa.yaml", component("judge", "opa", **settings)).parent
        config = mesh.write("config.yaml", configuration(**{side: [("judge", "opa")]}))
        guarded = ("--config", str(config), "--resources-path", str(folder))
        is_app = side == "appHttpPipeline"
        engine_flags = ("--engine", engine)
        await mesh.sidecar(
            "shop", app=await mesh.http_app(), flags=(*engine_flags, *(guarded if is_app else ()))
        )
        web = await mesh.sidecar("web", flags=(*engine_flags, *(() if is_app else guarded)))

        async def lets_pass() -> (
            bool
        ):  # the first questions may come while the server is busy with the policy
            return (await call(web, "/asked/echo?n=1", ("x-token", "ann"))).status == 200

        await eventually(lets_pass)
        allowed = await call(web, "/asked/echo?n=1", ("x-token", "ann"), ("x-user", "eve"))
        sent = {name.lower(): value for name, value in json.loads(allowed.body)["headers"]}
        assert (allowed.status, sent["x-user"]) == (200, "ann")
        moved = await call(web, "/asked/echo?n=1")
        assert (moved.status, moved.get("location")) == (301, "https://my.site/authorize")
        assert (await call(web, "/asked/echo?n=2", ("x-token", "ann"))).status == 418
        await process.end(timeout_s=15.0)
        assert (await call(web, "/asked/echo?n=1", ("x-token", "ann"))).get("postern-error") == "authorizer"
