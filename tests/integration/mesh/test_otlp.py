"""OTLP of whole sidecars: their own spans to a collector, on both engines."""

import json
import secrets
import socket
from pathlib import Path

import pytest

from telemetry.otlp.json_form import from_json
from telemetry.otlp.messages_pb2 import MetricsRequest, TracesRequest
from telemetry.otlp.messages_pb2 import Span as OtlpSpan
from tests.integration.mesh.standing import eventually, invoke, pair
from tests.integration.telemetry.collector import Collector, collecting
from tests.integration.telemetry.test_otlp_exporter import GrpcCollector, grpc_collecting
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh, SharedSentry, Sidecar

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
CONFIG = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {{name: traced}}
spec:
  tracing:
    samplingRate: "1"
    stdout: true
    zipkin: {{endpointAddress: "{zipkin}"}}
    otel: {{endpointAddress: "127.0.0.1:{port}", protocol: grpc, isSecure: false, headers: ["api-key=k"], timeout: 5s}}
"""


def spans_in(bodies: list[bytes]) -> dict[str, list[OtlpSpan]]:
    """All spans by the service that sent them."""
    found: dict[str, list[OtlpSpan]] = {}
    for body in bodies:
        for resource in TracesRequest.FromString(body).resource_spans:
            named = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                found.setdefault(named["service.name"], []).extend(scope.spans)
    return found


def ids() -> tuple[str, str]:
    return secrets.token_hex(16), secrets.token_hex(8)


async def call(sidecar: Sidecar, trace: tuple[str, str], target: str = invoke("shop", "/echo")) -> None:
    parent = f"00-{trace[0]}-{trace[1]}-01"
    answer = await request(sidecar.http_port, "GET", target, headers=(("traceparent", parent),))
    assert answer.status == 200, answer.body


def check(found: dict[str, list[OtlpSpan]], trace: tuple[str, str]) -> None:
    """One CLIENT span of the caller below the app's, one SERVER span of the callee below that."""
    of_trace = {
        service: [span for span in spans if span.trace_id.hex() == trace[0]]
        for service, spans in found.items()
    }
    (client,), (server,) = of_trace["web"], of_trace["shop"]
    assert (client.kind, server.kind) == (3, 2)
    assert client.parent_span_id.hex() == trace[1]
    assert server.parent_span_id == client.span_id


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_spans_go_where_the_variables_say(
    tmp_path: Path, shared: SharedSentry, engine: str, protocol: str
) -> None:
    trace = ids()
    async with collecting() as http, grpc_collecting() as rpc:
        collector: Collector | GrpcCollector = rpc if protocol == "grpc" else http
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b",
            "OTEL_RESOURCE_ATTRIBUTES": "zone=a",
            **SOON,
        }
        bodies = rpc.requests if protocol == "grpc" else http.bodies
        async with pair(tmp_path, shared, flags=("--engine", engine), env=env) as mesh:
            await call(mesh.web, trace)

            async def have_come() -> bool:
                found = spans_in(bodies)
                return {"web", "shop"} <= found.keys()

            await eventually(have_come)
            told = json.loads((await mesh.web.admin("/status")).body)["exporters"]
        check(spans_in(bodies), trace)
        told = {key: told[0][key] for key in ("name", "collector", "dropped")}
        assert told == {"name": "otlp", "collector": f"127.0.0.1:{collector.port}", "dropped": {}}
        sent = rpc.metadata[0]["api-key"] if protocol == "grpc" else http.heads[0]
        assert sent == "a b" or b"api-key: a b" in sent
    resource = TracesRequest.FromString(bodies[0]).resource_spans[0].resource
    assert ("zone", "a") in {(pair.key, pair.value.string_value) for pair in resource.attributes}


@pytest.mark.parametrize("engine", ENGINES)
async def test_three_exporters_get_every_span_at_the_end(
    tmp_path: Path, shared: SharedSentry, engine: str
) -> None:
    traces = [ids() for _ in range(5)]
    async with collecting() as zipkin, grpc_collecting() as otel:
        config = tmp_path / "traced.yaml"
        config.write_text(CONFIG.format(zipkin=zipkin.url, port=otel.port))
        flags = ("--engine", engine, "--config", str(config))
        async with pair(tmp_path, shared, flags=flags) as mesh:
            for trace in traces:
                await call(mesh.web, trace)
            for sidecar in mesh.sidecars:
                assert await sidecar.end() == 0
            lines = mesh.web.process.output
        for trace in traces:
            check(spans_in(otel.requests), trace)
            assert len([span for span in zipkin.spans if span["traceId"] == trace[0]]) == 2
            assert f"Trace: {trace[0]}" in lines
    assert {str(metadata["api-key"]) for metadata in otel.metadata} == {"k"}


@pytest.mark.parametrize("engine", ENGINES)
async def test_spans_go_to_the_exporters_that_the_environment_names(
    tmp_path: Path, shared: SharedSentry, engine: str
) -> None:
    """Our own, and OpenTelemetry's of Zipkin, which is installed with us; one that is not is told of and left out."""
    pytest.importorskip("opentelemetry.exporter.zipkin.json")
    trace = ids()
    async with collecting() as zipkin:
        env = {
            "OTEL_TRACES_EXPORTER": "zipkin,zipkin_json,jaeger",
            "OTEL_EXPORTER_ZIPKIN_ENDPOINT": zipkin.url,
            **SOON,
        }
        async with pair(tmp_path, shared, flags=("--engine", engine), env=env) as mesh:
            await call(mesh.web, trace)

            async def have_come() -> bool:
                return len([span for span in zipkin.spans if span["traceId"] == trace[0]]) == 4

            await eventually(have_come)
            told = json.loads((await mesh.web.admin("/status")).body)["exporters"]
            await mesh.web.process.line("exporter=jaeger")
    place = f"127.0.0.1:{zipkin.port}"
    assert {one["name"]: one["collector"] for one in told} == {"zipkin": place, "zipkin_json": ""}
    found = [span for span in zipkin.spans if span["traceId"] == trace[0]]
    assert sorted(span["kind"] for span in found) == ["CLIENT", "CLIENT", "SERVER", "SERVER"]
    assert len({span["id"] for span in found}) == 2


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_collector_that_does_not_answer_delays_neither_start_nor_call_nor_is_it_waited_for(
    tmp_path: Path, shared: SharedSentry, protocol: str
) -> None:
    """It takes connections and says nothing; the sidecar ends within the five seconds for the last batch."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            **SOON,
        }
        async with Mesh(tmp_path, shared=shared) as mesh:
            app = await mesh.http_app("shop")
            shop = await mesh.sidecar("shop", app=app, env=env)
            for _ in range(20):
                await call(shop, ids())

            async def all_wait() -> bool:
                (told,) = json.loads((await shop.admin("/status")).body)["exporters"]
                return bool((told["exported"], told["queued"]) == (0, 20))

            await eventually(all_wait)
            assert await shop.end() == 0


async def test_faulty_variable_stops_the_start_and_tells_no_secret(
    tmp_path: Path, shared: SharedSentry
) -> None:
    async with Mesh(tmp_path, shared=shared) as mesh:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key:hush",
        }
        with pytest.raises(Exception, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
            await mesh.sidecar("shop", env=env)
        assert "hush" not in str(caught.value)


async def test_deltas_of_all_pushes_add_up_to_the_calls(tmp_path: Path, shared: SharedSentry) -> None:
    async with collecting() as http, Mesh(tmp_path, shared=shared) as mesh:
        env = {
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{http.port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
        }
        app = await mesh.http_app("shop")
        shop = await mesh.sidecar("shop", app=app, env=env)
        for _ in range(3):
            await call(shop, ids())

        def pushed() -> list[float]:
            """Calls in each push that tells of any."""
            found = []
            for body in http.bodies:
                for resource in MetricsRequest.FromString(body).resource_metrics:
                    for metric in resource.scope_metrics[0].metrics:
                        if metric.name == "postern_edge_requests_total":
                            assert metric.sum.aggregation_temporality == 1
                            found.append(sum(point.as_double for point in metric.sum.data_points))
            return found

        async def are_counted() -> bool:
            return sum(pushed()) == 3.0

        await eventually(are_counted)
        await call(shop, ids())
        assert await shop.end() == 0
        assert sum(pushed()) == 4.0
        assert len(pushed()) >= 2


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf", "http/json"])
async def test_metrics_are_pushed_where_their_variable_says(
    tmp_path: Path, shared: SharedSentry, protocol: str
) -> None:
    async with collecting() as http, grpc_collecting() as rpc, Mesh(tmp_path, shared=shared) as mesh:
        port = rpc.port if protocol == "grpc" else http.port
        env = {
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
        }
        app = await mesh.http_app("shop")
        shop = await mesh.sidecar("shop", app=app, env=env)
        for _ in range(3):
            await call(shop, ids())

        def calls() -> float:
            """Calls in the newest push."""
            for body in reversed(rpc.metric_requests if protocol == "grpc" else http.bodies):
                pushed = (
                    from_json(body, MetricsRequest)
                    if protocol == "http/json"
                    else MetricsRequest.FromString(body)
                )
                for resource in pushed.resource_metrics:
                    for metric in resource.scope_metrics[0].metrics:
                        if metric.name == "postern_edge_requests_total":
                            return sum(point.as_double for point in metric.sum.data_points)
            return 0.0

        async def are_counted() -> bool:
            return calls() == 3.0

        await eventually(are_counted)
        assert await shop.end() == 0
    if protocol != "grpc":
        assert all(head.startswith(b"POST /v1/metrics ") for head in http.heads)
    assert rpc.requests == []  # no spans: the common endpoint is not set
