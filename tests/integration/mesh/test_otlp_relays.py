"""Apps that export metrics and logs to their sidecar, with OpenTelemetry's own exporters and by hand, on both engines."""

import asyncio
import gzip
import json
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from telemetry.otlp.json_form import request_json
from telemetry.otlp.messages_pb2 import (
    AnyValue,
    LogRecord,
    LogsRequest,
    Metric,
    MetricsRequest,
    NumberDataPoint,
    ResourceLogs,
    ResourceMetrics,
    Response,
    ScopeLogs,
    ScopeMetrics,
    Sum,
)
from telemetry.otlp.target import Signal
from tests.integration.mesh.standing import eventually
from tests.integration.mesh.test_otlp import SOON
from tests.integration.mesh.test_otlp_receiver import JSON, PROTOBUF
from tests.integration.telemetry.collector import collecting
from tests.integration.telemetry.test_otlp_exporter import LOGS, METRICS, grpc_collecting
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh, SharedSentry, Sidecar

SERVICES: dict[Signal, str] = {"metrics": METRICS, "logs": LOGS}


def metrics(name: str) -> bytes:
    """A request with two data points."""
    made = Metric(name=name, sum=Sum(data_points=[NumberDataPoint(as_int=n) for n in (1, 2)]))
    return MetricsRequest(
        resource_metrics=[ResourceMetrics(scope_metrics=[ScopeMetrics(metrics=[made])])]
    ).SerializeToString()


def logs(text: str) -> bytes:
    """A request with one record, and a field that is newer than we are."""
    record = LogRecord(body=AnyValue(string_value=text), trace_id=bytes(range(16)), span_id=bytes(range(8)))
    made = LogsRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[record])])])
    return made.SerializeToString() + b"\xfa\x3f\x03new"


async def by_grpc(sidecar: Sidecar, signal: Signal, body: bytes) -> bytes:
    async with grpc.aio.insecure_channel(f"localhost:{sidecar.grpc_port}") as channel:
        call = channel.unary_unary(f"/{SERVICES[signal]}/Export", None, None)
        answer: bytes = await call(body, timeout=60)
    return answer


async def counted(sidecar: Sidecar) -> dict[str, float]:
    text = (await request(sidecar.metrics_port, "GET", "/metrics")).body.decode()
    name = "postern_app_exports_total"
    lines = [line.removeprefix(name) for line in text.splitlines() if line.startswith(f"{name}{{")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


@pytest.mark.parametrize("engine", ENGINES)
async def test_metrics_and_logs_reach_the_collector_byte_for_byte(
    tmp_path: Path, shared: SharedSentry, engine: str
) -> None:
    async with grpc_collecting() as otel, Mesh(tmp_path, shared=shared) as mesh:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otel.port}", **SOON}
        web = await mesh.sidecar("web", flags=("--engine", engine), env=env)
        sent: dict[Signal, list[bytes]] = {
            "metrics": [metrics(f"m{n}") for n in range(4)],
            "logs": [logs(f"line {n}") for n in range(3)],
        }
        for signal, bodies in sent.items():
            assert await by_grpc(web, signal, bodies[0]) == b""
            for body, headers in (
                (bodies[1], (PROTOBUF,)),
                (gzip.compress(bodies[2]), (PROTOBUF, ("content-encoding", "gzip"))),
            ):
                answer = await request(web.http_port, "POST", f"/v1/{signal}", headers=headers, body=body)
                assert (answer.status, answer.body) == (200, b"")
        packed = request_json(sent["metrics"][3], "metrics")
        answer = await request(web.http_port, "POST", "/v1/metrics", headers=(JSON,), body=packed)
        assert (answer.status, answer.body) == (200, b"{}")
        told = json.loads((await web.admin("/status")).body)["exporters"]
        names = {one["name"]: one["collector"] for one in told}

        async def are_exported() -> bool:
            found = await counted(web)
            items = [found.get(f'{{result="exported",signal="{signal}"}}') for signal in sent]
            return items == [8, 3]

        await eventually(are_exported)
        assert names["otlp-app-metrics"] == names["otlp-app-logs"] == f"127.0.0.1:{otel.port}"
        assert await web.end() == 0
        assert b"".join(otel.metric_requests) == b"".join(sent["metrics"])
        assert b"".join(otel.log_requests) == b"".join(sent["logs"])
        assert otel.requests == []


async def test_variable_of_a_signal_chooses_its_collector_and_http(
    tmp_path: Path, shared: SharedSentry
) -> None:
    async with collecting() as collector, Mesh(tmp_path, shared=shared) as mesh:
        url = f"http://127.0.0.1:{collector.port}/in"
        only = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": url, "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf"}
        web = await mesh.sidecar("web", env={**only, **SOON})
        body = logs("hello")
        assert await by_grpc(web, "logs", body) == b""
        assert Response.FromString(await by_grpc(web, "metrics", metrics("m"))).partial_success.rejected == 2
        async with asyncio.timeout(15):
            await collector.got.wait()
        assert collector.heads[0].startswith(b"POST /in HTTP/1.1")
        assert collector.bodies == [body]


def stock(kind: str, sidecar: Sidecar) -> tuple[Any, Any]:
    """OpenTelemetry's exporters of metrics and logs."""
    package = f"opentelemetry.exporter.otlp.proto.{kind}"
    of_metrics = import_module(f"{package}.metric_exporter").OTLPMetricExporter
    of_logs = import_module(f"{package}._log_exporter").OTLPLogExporter
    if kind == "grpc":
        endpoint = f"http://localhost:{sidecar.grpc_port}"
        return of_metrics(endpoint=endpoint), of_logs(endpoint=endpoint)
    below = f"http://localhost:{sidecar.http_port}/v1"
    return of_metrics(endpoint=f"{below}/metrics"), of_logs(endpoint=f"{below}/logs")


def run_stock(kind: str, sidecar: Sidecar) -> None:
    """A counter and a log line by OpenTelemetry's SDK, flushed; raises where an exporter says that it failed."""
    api, sdk = import_module("opentelemetry._logs"), import_module("opentelemetry.sdk._logs")
    of_metrics, of_logs = stock(kind, sidecar)
    reading = import_module("opentelemetry.sdk.metrics.export")
    reader = reading.PeriodicExportingMetricReader(of_metrics, export_interval_millis=60_000)
    meters = import_module("opentelemetry.sdk.metrics").MeterProvider(metric_readers=[reader])
    meters.get_meter("app").create_counter("orders").add(3, {"kind": "x"})
    lines = sdk.LoggerProvider()
    batching = import_module("opentelemetry.sdk._logs.export").BatchLogRecordProcessor
    lines.add_log_record_processor(batching(of_logs))
    severity = api.SeverityNumber.INFO
    lines.get_logger("app").emit(
        api.LogRecord(timestamp=time.time_ns(), severity_number=severity, body="hello")
    )
    assert meters.force_flush(20_000)
    assert lines.force_flush(20_000)
    meters.shutdown()
    lines.shutdown()


@pytest.mark.parametrize("kind", ["grpc", "http"])
async def test_stock_exporters_reach_the_collector(kind: str, tmp_path: Path, shared: SharedSentry) -> None:
    pytest.importorskip(f"opentelemetry.exporter.otlp.proto.{kind}")
    async with grpc_collecting() as otel, Mesh(tmp_path, shared=shared) as mesh:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otel.port}", **SOON}
        web = await mesh.sidecar("web", env=env)
        await asyncio.to_thread(run_stock, kind, web)
        assert await web.end() == 0
        (metric,) = (
            MetricsRequest.FromString(b"".join(otel.metric_requests))
            .resource_metrics[0]
            .scope_metrics[0]
            .metrics
        )
        assert metric.name == "orders"
        (record,) = (
            LogsRequest.FromString(b"".join(otel.log_requests)).resource_logs[0].scope_logs[0].log_records
        )
        assert record.body.string_value == "hello"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["grpc", "http"])
async def test_stock_exporters_without_a_collector_go_on_at_once(
    kind: str, engine: str, tmp_path: Path, shared: SharedSentry, caplog: pytest.LogCaptureFixture
) -> None:
    """They neither retry nor fail; the sidecar says once what is missing, and counts."""
    pytest.importorskip(f"opentelemetry.exporter.otlp.proto.{kind}")
    async with Mesh(tmp_path, shared=shared) as mesh:
        web = await mesh.sidecar("web", flags=("--engine", engine))
        for _ in range(2):
            await asyncio.to_thread(run_stock, kind, web)
        assert [line.message for line in caplog.records if "opentelemetry" in line.name] == []
        found = await counted(web)
        assert found['{result="no-collector",signal="logs"}'] == 2
        assert found['{result="no-collector",signal="metrics"}'] >= 2
        for signal in SERVICES:
            told = f"{signal} of the app are dropped, as no collector is configured"
            await web.process.line(told)
            assert web.process.output.count(told) == 1
        answer = Response.FromString(await by_grpc(web, "logs", logs("x"))).partial_success
        assert (answer.rejected, "OTEL_EXPORTER_OTLP_ENDPOINT" in answer.error_message) == (1, True)
