"""A real Jaeger: it takes our spans over OTLP, and tells them again as one trace of two apps."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.mesh.standing import eventually
from tests.integration.mesh.test_otlp import SOON, call, ids
from tests.stock.programs import BUILT, GO_INSTALL, Program
from tests.stock.test_otlp import needed
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh
from tests.support.ports import free_port
from tests.support.processes import Processes

JAEGER = Program(command=(str(BUILT / "jaeger"),), built=BUILT / "jaeger", tools=("go",), install=GO_INSTALL)
_PORTS = (
    *("admin.http", "collector.grpc-server", "collector.http-server", "query.grpc-server"),
    *("query.http-server", "collector.otlp.grpc", "collector.otlp.http"),
)


@asynccontextmanager
async def real_jaeger(processes: Processes) -> AsyncIterator[dict[str, int]]:
    """A Jaeger that keeps spans in memory; its ports by name."""
    ports = {name: free_port() for name in _PORTS}
    flags = [f"--{name}.host-port=127.0.0.1:{port}" for name, port in ports.items()]
    process = processes.start([*JAEGER.command, *flags, "--log-level=info"], name="jaeger")
    await process.line("Query server started")
    yield ports


async def trace_of(port: int, trace_id: str) -> list[dict[str, Any]]:
    """Its spans, as far as Jaeger has them."""
    answer = await request(port, "GET", f"/api/traces/{trace_id}")
    found = json.loads(answer.body)["data"] if answer.status == 200 else []
    return [
        {**span, "service": trace["processes"][span["processID"]]["serviceName"]}
        for trace in found or ()
        for span in trace["spans"]
    ]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_real_jaeger_tells_a_call_as_one_trace_of_two_apps(
    tmp_path: Path, engine: str, protocol: str
) -> None:
    needed(JAEGER)
    async with Mesh(tmp_path) as mesh, real_jaeger(mesh.processes) as ports:
        port = ports["collector.otlp.grpc" if protocol == "grpc" else "collector.otlp.http"]
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            **SOON,
        }
        flags = ("--engine", engine)
        shop = await mesh.sidecar("shop", app=await mesh.http_app("shop"), flags=flags, env=env)
        web = await mesh.sidecar("web", flags=flags, env=env)
        assert shop.http_port != web.http_port
        trace = ids()
        await call(web, trace)

        async def is_whole() -> bool:
            return len(await trace_of(ports["query.http-server"], trace[0])) == 2

        await eventually(is_whole)
        spans = {span["service"]: span for span in await trace_of(ports["query.http-server"], trace[0])}
        parents = {name: span["references"][0]["spanID"] for name, span in spans.items()}
        assert parents == {"web": trace[1], "shop": spans["web"]["spanID"]}
        kinds = {
            name: {tag["key"]: tag["value"] for tag in span["tags"]}["span.kind"]
            for name, span in spans.items()
        }
        assert kinds == {"web": "client", "shop": "server"}
