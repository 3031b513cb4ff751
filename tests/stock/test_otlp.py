"""Real parts on both sides of our OTLP: OpenTelemetry's collector, its SDK in Go, and its SDK in Python."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.mesh.standing import eventually
from tests.integration.mesh.test_otlp import SOON, call, ids
from tests.integration.telemetry.collector import Collector, collecting
from tests.stock.programs import BUILT, GO_INSTALL, Program
from tests.support.engines import ENGINES
from tests.support.mesh import Mesh, SharedSentry
from tests.support.ports import free_port
from tests.support.processes import REPOSITORY, Processes

COLLECTOR = Program(
    command=(str(BUILT / "collector"),), built=BUILT / "collector", tools=("go",), install=GO_INSTALL
)
PYTHON = Program(
    command=(sys.executable, str(REPOSITORY / "tests" / "stock" / "python" / "spans.py")),
    modules=("opentelemetry.exporter.otlp.proto.grpc", "opentelemetry.exporter.otlp.proto.http"),
)
CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}"}}
      http: {{endpoint: "127.0.0.1:{http}"}}
exporters:
  otlp_http: {{endpoint: "http://127.0.0.1:{to}", encoding: json, compression: none}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_http]}}
"""


def needed(*programs: Program) -> None:
    for program in programs:
        if missing := program.reason_missing():
            pytest.skip(missing)


@asynccontextmanager
async def real_collector(processes: Processes, files: Path) -> AsyncIterator[tuple[Collector, int, int]]:
    """A collector that sends what it gets to a server of ours as JSON; its ports for gRPC and HTTP."""
    async with collecting() as behind:
        rpc, http = free_port(), free_port()
        config = files / "collector.yaml"
        config.write_text(CONFIG.format(grpc=rpc, http=http, to=behind.port))
        process = processes.start([*COLLECTOR.command, "--config", f"file:{config}"], name="collector")
        await process.line("Everything is ready")
        yield behind, rpc, http


def by_service(collector: Collector) -> dict[str, list[dict[str, Any]]]:
    """All spans that came out of the collector, by the service that sent them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for body in collector.bodies:
        for resource in json.loads(body)["resourceSpans"]:
            named = {pair["key"]: pair["value"]["stringValue"] for pair in resource["resource"]["attributes"]}
            for scope in resource["scopeSpans"]:
                found.setdefault(named["service.name"], []).extend(scope["spans"])
    return found


async def has(collector: Collector, service: str, count: int) -> list[dict[str, Any]]:
    async def has_all() -> bool:
        return len(by_service(collector).get(service, ())) >= count

    await eventually(has_all)
    return by_service(collector)[service]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf", "http/json"])
async def test_real_collector_takes_our_spans(tmp_path: Path, shared: SharedSentry, protocol: str) -> None:
    needed(COLLECTOR)
    async with (
        Mesh(tmp_path, shared=shared) as mesh,
        real_collector(mesh.processes, tmp_path) as (behind, rpc, http),
    ):
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{rpc if protocol == 'grpc' else http}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            **SOON,
        }
        app = await mesh.http_app("shop")
        shop = await mesh.sidecar("shop", app=app, env=env)
        traces = [ids() for _ in range(40)]  # more than a KiB: compressed
        for trace in traces:
            await call(shop, trace)
        spans = await has(behind, "shop", 40)
        assert {span["traceId"] for span in spans} == {trace[0] for trace in traces}
        assert {span["parentSpanId"] for span in spans} == {trace[1] for trace in traces}
        told = json.loads((await shop.admin("/status")).body)["exporters"]
        assert told[0]["dropped"] == {}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_real_go_app_reaches_a_real_collector_through_us(
    tmp_path: Path, shared: SharedSentry, engine: str, protocol: str
) -> None:
    needed(COLLECTOR)
    async with (
        Mesh(tmp_path, shared=shared) as mesh,
        real_collector(mesh.processes, tmp_path) as (behind, rpc, _),
    ):
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{rpc}", **SOON}
        web = await mesh.sidecar("web", flags=("--engine", engine), env=env)
        port = web.grpc_port if protocol == "grpc" else web.http_port
        path = "" if protocol == "grpc" else "/v1/traces"
        command = [*COLLECTOR.command, "export", protocol, f"http://127.0.0.1:{port}{path}", "50"]
        app = mesh.processes.start(command, name="app in Go")
        trace_id = (await app.line(r"^([0-9a-f]{32})$"))[1]
        assert await app.ended() == 0, app.output
        spans = await has(behind, "go-app", 50)
        assert {span["traceId"] for span in spans} == {trace_id}
        shown = json.loads((await web.admin(f"/trace?id={trace_id}")).body)["spans"]
        assert len(shown) == 50


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_python_app_reaches_a_collector_through_us(
    tmp_path: Path, shared: SharedSentry, engine: str, protocol: str
) -> None:
    needed(COLLECTOR, PYTHON)
    async with (
        Mesh(tmp_path, shared=shared) as mesh,
        real_collector(mesh.processes, tmp_path) as (behind, _, http),
    ):
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{http}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            **SOON,
        }
        web = await mesh.sidecar("web", flags=("--engine", engine), env=env)
        port = web.grpc_port if protocol == "grpc" else web.http_port
        app = mesh.processes.start(
            [*PYTHON.command, protocol, f"http://localhost:{port}", "50"], name="app in Python"
        )
        trace_id = (await app.line(r"^([0-9a-f]{32})$"))[1]
        assert await app.ended() == 0
        spans = await has(behind, "python-app", 50)
        assert {span["traceId"] for span in spans} == {trace_id}
        assert app.output.strip() == trace_id  # no complaint of the exporter
