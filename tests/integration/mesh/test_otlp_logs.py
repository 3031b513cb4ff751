"""The sidecar's log and its access log at an OTLP collector, on both engines."""

import json
from pathlib import Path

import pytest

from telemetry.line_form import KEYS
from telemetry.otlp.messages_pb2 import LogRecord, LogsRequest
from tests.integration.mesh.standing import eventually, invoke, pair
from tests.integration.mesh.test_otlp import SOON
from tests.integration.telemetry.test_otlp_exporter import GrpcCollector, grpc_collecting
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh, SharedSentry


def records(otel: GrpcCollector) -> list[tuple[str, str, LogRecord]]:
    """Service, scope and record of all that came."""
    return [
        (part.resource.attributes[0].value.string_value, scope.scope.name, record)
        for body in otel.log_requests
        for part in LogsRequest.FromString(body).resource_logs
        for scope in part.scope_logs
        for record in scope.log_records
    ]


@pytest.mark.parametrize("engine", ENGINES)
async def test_log_and_access_log_reach_the_collector_with_their_traces(
    engine: str, tmp_path: Path, shared: SharedSentry
) -> None:
    async with grpc_collecting() as otel:
        url = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://127.0.0.1:{otel.port}"}
        env = {"OTEL_LOGS_EXPORTER": "otlp", **url, **SOON}
        flags = ("--engine", engine, "--access-log", "otlp")
        async with pair(tmp_path, shared, flags=flags, env=env) as mesh:
            answer = await request(mesh.web.http_port, "GET", invoke("shop", "/bytes?n=1"))
            trace_id = dict(answer.headers)["traceparent"].split("-")[1]
            status = json.loads((await mesh.web.admin("/status")).body)["exporters"]
            assert [(one["name"], one["collector"]) for one in status] == [
                ("otlp-logs", f"127.0.0.1:{otel.port}")
            ]

            async def are_there() -> bool:
                return sum(scope == "postern.access_log" for _, scope, _ in records(otel)) >= 2

            await eventually(are_there)
            assert await mesh.web.end() == 0
        lines = {service: record for service, scope, record in records(otel) if scope == "postern.access_log"}
        assert lines.keys() == {"web", "shop"}
        for record in lines.values():
            line = json.loads(record.body.string_value)
            assert list(line) == list(KEYS)
            assert record.trace_id.hex() == line["trace_id"] == trace_id
            assert record.span_id.hex() == line["span_id"]
        told = [record.body.string_value for service, scope, record in records(otel) if service == "web"]
        assert any("shutting down" in text or "stopped" in text for text in told), told
        assert not (tmp_path / "otlp").exists()


async def test_without_the_variable_nothing_is_exported_and_a_dead_collector_costs_nothing(
    tmp_path: Path,
    shared: SharedSentry,
) -> None:
    async with grpc_collecting() as otel, Mesh(tmp_path, shared=shared) as mesh:
        common = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otel.port}", **SOON}
        web = await mesh.sidecar("web", env={"OTEL_LOGS_EXPORTER": "console", **common})
        assert await web.end() == 0
        assert otel.log_requests == []
        dead = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_LOGS_EXPORTER": "otlp", **SOON}
        app = await mesh.http_app("shop")
        shop = await mesh.sidecar("shop", app=app, env=dead, flags=("--access-log", "otlp"))
        await shop.process.line("logs are not exported")
        answer = await request(shop.http_port, "GET", invoke("shop", "/echo"))
        assert answer.status == 200
        assert await shop.end() == 0
