"""Dapr's API log of real sidecars, on both engines: who asks for it, and what its lines say."""

import json
import signal
from typing import Any

import grpc.aio
import pytest

from tests.integration.mesh.standing import eventually, invoke
from tests.support.apps import App
from tests.support.dapr_client import DaprClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh, Sidecar

CONFIG = """
kind: Configuration
metadata: {name: logged}
spec:
  api: {denied: [{name: shutdown, version: v1, protocol: http}, {name: shutdown, version: v1, protocol: grpc}]}
  logging: {apiLogging: {enabled: true, omitHealthChecks: true}}
"""
AGENT = ("user-agent", "suite/1")


def lines_of(sidecar: Sidecar) -> list[dict[str, Any]]:
    """The lines of the API log."""
    lines = [json.loads(line) for line in sidecar.process.output.splitlines() if line.startswith("{")]
    return [line for line in lines if str(line["msg"]).endswith(" API Called")]


@pytest.mark.parametrize("engine", ENGINES)
async def test_line_says_what_the_app_asked_and_got_whatever_the_level(
    engine: str, mesh: Mesh, http_app: App
) -> None:
    flags = ("--engine", engine, "--log-as-json", "--log-level", "error")
    await mesh.sidecar("shop", app=http_app, flags=flags)
    config = str(mesh.write("logged.yaml", CONFIG))
    env = {"DAPR_API_TOKEN": "sesame"}
    web = await mesh.sidecar("web", flags=(*flags, "--config", config), env=env)
    token = ("dapr-api-token", "sesame")
    answers = []
    for verb, target, headers in (
        ("GET", invoke("shop", "/bytes?n=7"), [token, AGENT]),
        ("GET", invoke("shop", "/healthz"), [token]),
        ("GET", "/v1.0/healthz", []),
        ("GET", "/v1.0/metadata", []),  # without the token
        ("POST", "/v1.0/shutdown", [token]),  # closed
    ):
        answers.append(await request(web.http_port, verb, target, headers=headers))
    async with grpc.aio.insecure_channel(f"localhost:{web.grpc_port}") as channel:
        client = DaprClient(channel, (token,))
        assert (
            await client.shutdown()
        ).code is grpc.StatusCode.UNIMPLEMENTED  # closed, and not logged in gRPC
        await client.get_metadata()

    async def is_whole() -> bool:
        return len(lines_of(web)) >= 4

    await eventually(is_whole)
    first, health, closed, rpc = lines_of(web)
    wanted = {"level": "info", "msg": "HTTP API Called", "scope": "dapr.runtime.http-info", "code": 200}
    assert wanted.items() <= first.items()
    assert (first["method"], first["size"]) == (f"GET {invoke('shop', '/bytes')}", 7)
    assert first["useragent"] == "suite/1"
    assert isinstance(first["duration"], int)
    assert all(len(str(line["trace_id"])) == 32 and len(str(line["span_id"])) == 16 for line in lines_of(web))
    assert answers[0].get("traceparent").split("-")[1] == first["trace_id"]
    assert health["method"] == f"GET {invoke('shop', '/healthz')}"
    assert (closed["method"], closed["code"]) == ("POST /v1.0/shutdown", 404)
    assert closed["size"] == len(answers[-1].body) > 0
    assert (rpc["msg"], rpc["scope"]) == ("gRPC API Called", "dapr.runtime.grpc.api-info")
    assert (rpc["method"], rpc["code"]) == ("/dapr.proto.runtime.v1.Dapr/GetMetadata", 0)
    assert rpc["useragent"].startswith("grpc-python")


async def test_flag_wins_over_the_configuration_either_way(mesh: Mesh, http_app: App) -> None:
    await mesh.sidecar("shop", app=http_app)
    config = ("--log-as-json", "--config", str(mesh.write("logged.yaml", CONFIG)))
    off = await mesh.sidecar("off", flags=(*config, "--enable-api-logging=false"))
    on = await mesh.sidecar("on", flags=("--log-as-json", "--enable-api-logging"))
    for sidecar in (off, on):
        assert (await request(sidecar.http_port, "GET", invoke("shop", "/echo"))).status == 200

    async def is_logged() -> bool:
        return bool(lines_of(on))

    await eventually(is_logged)
    assert await off.end() == 0
    assert lines_of(off) == []


@pytest.mark.parametrize("engine", ENGINES)
async def test_log_is_turned_on_and_off_by_a_reload(engine: str, mesh: Mesh, http_app: App) -> None:
    await mesh.sidecar("shop", app=http_app, flags=("--engine", engine))
    path = mesh.write("turned.yaml", "kind: Configuration\n")
    access = mesh.files / "access.jsonl"
    flags = ("--engine", engine, "--log-as-json", "--config", str(path), "--access-log", str(access))
    web = await mesh.sidecar("web", flags=flags)
    target = invoke("shop", "/echo")

    async def is_logged() -> bool:
        assert (await request(web.http_port, "GET", target)).status == 200
        return bool(lines_of(web))

    assert not await is_logged()
    path.write_text(
        "kind: Configuration\nspec: {logging: {apiLogging: {enabled: true, obfuscateURLs: true}}}\n"
    )
    await eventually(is_logged)
    assert lines_of(web)[-1]["method"] == "InvokeService/shop"

    async def is_hidden() -> bool:
        paths = [json.loads(line)["path"] for line in access.read_text().splitlines()]
        return bool(paths) and (paths[0], paths[-1]) == ("/echo", "")

    await eventually(is_hidden)
    path.write_text("kind: Configuration\n")
    web.process.send_signal(signal.SIGHUP)
    await web.process.line('"generation": 3')
    late = [("user-agent", "late")]
    for _ in range(3):
        assert (await request(web.http_port, "GET", target, headers=late)).status == 200
    assert await web.end() == 0  # every call has been reported
    assert not [line for line in lines_of(web) if line.get("useragent") == "late"]
    assert "section changed" not in web.process.output
