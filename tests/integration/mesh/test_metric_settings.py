"""`spec.metrics` and `spec.logging`: each field changes what a sidecar says of its calls, on both engines."""

import json
import re

import grpc
import pytest

from tests.integration.mesh.standing import eventually, invoke
from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest

CONFIG = """
kind: Configuration
metadata: {name: told}
spec:
  metrics:
    recordErrorCodes: true
    latencyDistributionBuckets: [7, 70000]
    http: {pathMatching: ["/{word}"], excludeVerbs: true}
    rules:
      - name: dapr_runtime_service_invocation_req_sent_total
        labels: [{name: dst_app_id, regex: {someone: "sh.p"}}]
      - {name: no_such_metric, labels: [{name: x, regex: {a: b}}]}
  logging: {apiLogging: {enabled: true, omitHealthChecks: true}}
"""
RAW = "kind: Configuration\nspec: {metrics: {http: {increasedCardinality: true}}}\n"
OFF = "kind: Configuration\nspec: {metrics: {enabled: false}, logging: {apiLogging: {enabled: true, obfuscateURLs: true}}}\n"


async def metrics_of(sidecar: Sidecar, awaited: str) -> str:
    """The metrics, once they have a line that begins so."""
    text = ""

    async def is_there() -> bool:
        nonlocal text
        text = (await sidecar.admin("/metrics")).body.decode()
        return f"\n{awaited}" in text

    await eventually(is_there)
    return text


@pytest.mark.parametrize("engine", ENGINES)
async def test_each_field_of_metrics_and_logging_is_in_force(engine: str, mesh: Mesh, http_app: App) -> None:
    flags = ("--engine", engine, "--config", str(mesh.write("told.yaml", CONFIG)))
    access = mesh.files / "access.jsonl"
    shop = await mesh.sidecar("shop", app=http_app, flags=(*flags, "--access-log", str(access)))
    web = await mesh.sidecar("web", flags=flags)
    for target in (invoke("shop", "/echo"), invoke("shop", "/echo"), invoke("nobody", "/x"), "/v1.0/healthz"):
        await request(web.http_port, "GET", target)
    out = 'app_id="web",method="",path="/v1.0/invoke/{app_id}/method/{word}",status="200"'
    text = await metrics_of(web, f"dapr_http_server_request_count{{{out}}} 2.0")
    assert "dapr_http_server_response_count{" not in text
    bounds = set(re.findall(r'^dapr_http_server_latency_bucket\{.*le="([^"]+)"', text, re.MULTILINE))
    assert bounds == {"7.0", "70000.0", "+Inf"}
    assert (
        'dapr_runtime_service_invocation_req_sent_total{app_id="web",dst_app_id="someone",type="unary"} 2.0'
        in text
    )
    code = 'app_id="web",category="service-invocation",error_code="ERR_DIRECT_INVOKE"'
    await metrics_of(web, f"dapr_error_code_total{{{code}}} 1.0")
    inside = 'app_id="shop",method="",path="/{word}",status="200"'
    await metrics_of(shop, f"dapr_http_client_completed_count{{{inside}}} 2.0")

    async def are_told() -> bool:
        return web.process.output.count("HTTP API Called") >= 3

    await eventually(are_told)
    told = web.process.output
    assert told.count("HTTP API Called") == 3
    assert "GET /v1.0/invoke/shop/method/echo" in told
    assert "a rule of spec.metrics.rules has no effect" in told
    assert "HTTP API Called" not in shop.process.output
    lines = [json.loads(line) for line in access.read_text().splitlines()]
    assert [(line["src"], line["dst"], line["path"], line["status"]) for line in lines] == [
        ("web", "shop", "/echo", 200)
    ] * 2


@pytest.mark.parametrize("engine", ENGINES)
async def test_paths_are_labels_where_cardinality_is_wanted_and_nothing_is_served_where_metrics_are_off(
    engine: str, mesh: Mesh, http_app: App
) -> None:
    await mesh.sidecar("shop", app=http_app, flags=("--engine", engine))
    raw = await mesh.sidecar("raw", flags=("--engine", engine, "--config", str(mesh.write("raw.yaml", RAW))))
    off = await mesh.sidecar("off", flags=("--engine", engine, "--config", str(mesh.write("off.yaml", OFF))))
    assert (await request(raw.http_port, "GET", invoke("shop", "/echo?secret=1"))).status == 200
    labels = '{app_id="raw",method="GET",path="/v1.0/invoke/shop/method/echo",status="200"}'
    text = await metrics_of(raw, f"dapr_http_server_request_count{labels} 1.0")
    assert f"dapr_http_server_response_count{labels} 1.0" in text
    assert "HTTP API Called" not in raw.process.output
    assert (await request(off.http_port, "GET", invoke("shop", "/echo"))).status == 200
    await off.process.line("InvokeService/shop")
    ports = (await off.status())["ports"]
    assert isinstance(ports, dict)
    assert not ports.get("metrics")


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_scrape_has_the_calls_that_were_answered_before(
    engine: str, mesh: Mesh, http_app: App
) -> None:
    shop = await mesh.sidecar("shop", app=http_app, flags=("--engine", engine))
    counted = []
    for _ in range(10):
        await request(shop.http_port, "GET", invoke("shop", "/echo"))
        text = (await shop.admin("/metrics")).body.decode()
        counted += re.findall(
            r"^dapr_runtime_service_invocation_req_sent_total.* (\d+)\.0$", text, re.MULTILINE
        )
    assert counted == [str(number) for number in range(1, 11)]


@pytest.mark.parametrize("engine", ENGINES)
async def test_callees_count_grpc_calls_unless_metrics_are_to_be_as_daprds(engine: str, mesh: Mesh) -> None:
    app = await mesh.grpc_app("echo")
    counted = await mesh.sidecar("counted", app=app, flags=("--engine", engine))
    gaps = await mesh.sidecar("gaps", app=app, flags=("--engine", engine, "--metrics-compat"))
    web = await mesh.sidecar("web", flags=("--engine", engine))
    for callee in ("counted", "gaps"):
        async with grpc.aio.insecure_channel(f"localhost:{web.grpc_port}") as channel:
            await EchoClient(channel, metadata=(("dapr-app-id", callee),)).unary(EchoRequest(message="a"))
    received = "dapr_runtime_service_invocation_req_recv_total{"
    assert received in await metrics_of(counted, "postern_edge_requests_total{")
    text = await metrics_of(gaps, "postern_edge_requests_total{")
    assert received not in text
    assert "dapr_runtime_acl_" in text
