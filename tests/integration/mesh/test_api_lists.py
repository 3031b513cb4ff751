"""`spec.api` over real ports, on both engines: what is closed, in both protocols, and after a reload."""

import json
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.integration.mesh.standing import eventually, invoke
from tests.support.apps import App
from tests.support.dapr_client import DaprClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh, Sidecar


def configuration(**api: object) -> str:
    """A Configuration with these lists."""
    return json.dumps({"kind": "Configuration", "metadata": {"name": "apis"}, "spec": {"api": api}})


def rule(name: str, protocol: str) -> dict[str, str]:
    """A rule of version 1."""
    return {"name": name, "version": "v1", "protocol": protocol}


async def start(mesh: Mesh, engine: str, app: App, **api: object) -> tuple[Sidecar, Path]:
    """A callee `shop`, and a caller with these lists and its file."""
    await mesh.sidecar("shop", app=app, flags=("--engine", engine))
    path = mesh.write("apis.yaml", configuration(**api))
    return await mesh.sidecar("web", flags=("--engine", engine, "--config", str(path))), path


async def answer(sidecar: Sidecar, method: str, target: str, *named: str) -> tuple[int, str]:
    """Status and content type."""
    found = await request(
        sidecar.http_port, method, target, headers=[("dapr-app-id", app_id) for app_id in named]
    )
    return found.status, (found.get("content-type") or "").partition(";")[0]


@pytest.mark.parametrize("engine", ENGINES)
async def test_closed_http_apis_are_not_there_and_a_reload_opens_them(
    engine: str, mesh: Mesh, http_app: App
) -> None:
    web, path = await start(mesh, engine, http_app, allowed=[rule("metadata", "http")])
    closed = (404, "text/plain")
    for _ in range(2):  # the second is answered as the first was decided
        assert await answer(web, "GET", "/v1.0/metadata") == (200, "application/json")
        assert await answer(web, "GET", "/v1.0/healthz") == (204, "")
        assert await answer(web, "GET", invoke("shop", "/echo")) == closed
        assert await answer(web, "GET", "/echo", "shop") == closed
        assert await answer(web, "POST", "/v1.0/shutdown") == closed
    path.write_text(configuration(denied=[rule("metadata", "http")]))

    async def is_open() -> bool:
        return (await answer(web, "GET", invoke("shop", "/echo")))[0] == 200

    await eventually(is_open)
    assert await answer(web, "GET", "/v1.0/metadata") == closed
    of_app = await request(web.http_port, "GET", "/v1.0/metadata", headers=[("dapr-app-id", "shop")])
    assert json.loads(of_app.body)["app"] == "app"
    assert web.process.is_running


@pytest.mark.parametrize("engine", ENGINES)
async def test_closed_grpc_methods_are_not_implemented_and_say_why(
    engine: str, mesh: Mesh, http_app: App
) -> None:
    web, _ = await start(mesh, engine, http_app, denied=[rule("invoke", "grpc"), rule("shutdown", "grpc")])
    async with grpc.aio.insecure_channel(f"localhost:{web.grpc_port}") as channel:
        client = DaprClient(channel)
        refused = await client.invoke("shop", "echo")
        assert (refused.code, "spec.api" in refused.text) == (grpc.StatusCode.UNIMPLEMENTED, True)
        details = refused.trailing["grpc-status-details-bin"]
        assert isinstance(details, bytes)
        assert b"google.rpc.ErrorInfo" in details
        assert b"requested endpoint is not available" in details
        assert (await client.shutdown()).code is grpc.StatusCode.UNIMPLEMENTED
        assert (await client.get_metadata()).response.id == "web"
    assert (await request(web.http_port, "GET", invoke("shop", "/echo"))).status == 200
