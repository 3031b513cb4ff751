"""What a reload changes beside policies: where spans go, metrics, and how names are resolved. Of real sidecars, on both engines."""

import json
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nameresolution.host_registry import HostRegistry
from tests.integration.mesh.standing import eventually, invoke
from tests.integration.mesh.test_metric_settings import metrics_of
from tests.integration.mesh.test_resolvers import ANNOUNCED
from tests.integration.telemetry.collector import Collector, collecting
from tests.support.apps import App
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh, Sidecar


def traced(collector: Collector) -> str:
    """A Configuration that sends all spans there."""
    return (
        "kind: Configuration\nspec:\n  tracing:\n    samplingRate: '1'\n"
        f"    zipkin: {{endpointAddress: '{collector.url}'}}\n"
    )


async def call(sidecar: Sidecar, path: str) -> None:
    """Call shop."""
    assert (await request(sidecar.http_port, "GET", invoke("shop", path))).status == 200


def names(collector: Collector) -> str:
    """What all spans are called."""
    return " ".join(str(span["name"]) for span in collector.spans)


@pytest.mark.parametrize("engine", ENGINES)
async def test_spans_go_where_the_configuration_in_force_says(engine: str, mesh: Mesh, http_app: App) -> None:
    async with collecting() as first, collecting() as second:
        path = mesh.write("traced.yaml", traced(first))
        await mesh.sidecar("shop", app=http_app, flags=("--engine", engine))
        web = await mesh.sidecar("web", flags=("--engine", engine, "--config", str(path)))
        await call(web, "/one")
        path.write_text(traced(second))
        await web.process.line("policies reloaded.*generation=2")
        await call(web, "/two")
        path.write_text("kind: Configuration\nspec: {tracing: {samplingRate: [}\n")
        web.process.send_signal(signal.SIGHUP)
        await web.process.line("policies not reloaded.*traced.yaml:2")
        await call(web, "/three")
        assert await web.end() == 0
        assert names(first) == "calllocal/shop/one"
        assert names(second) == "calllocal/shop/two calllocal/shop/three"
        assert "restart to apply it" not in web.process.output


METRICS_BEFORE = "kind: Configuration\nspec: {metrics: {http: {increasedCardinality: true}}}\n"
METRICS_AFTER = """
kind: Configuration
spec:
  metrics:
    recordErrorCodes: true
    latencyDistributionBuckets: [7, 70000]
    http: {increasedCardinality: false, pathMatching: ["/{word}"], excludeVerbs: true}
    rules:
      - name: dapr_runtime_service_invocation_req_sent_total
        labels: [{name: dst_app_id, regex: {someone: "sh.p"}}]
"""
METRICS_OFF = "kind: Configuration\nspec: {metrics: {enabled: false}}\n"
REQUESTS = "dapr_http_server_request_count"


def bounds_of(text: str) -> set[str]:
    """The bounds of the API's latency."""
    return set(re.findall(r'^dapr_http_server_latency_bucket\{.*le="([^"]+)"', text, re.MULTILINE))


@pytest.mark.parametrize("engine", ENGINES)
async def test_metrics_are_of_the_shape_that_the_configuration_in_force_says(
    engine: str, mesh: Mesh, http_app: App
) -> None:
    path = mesh.write("metrics.yaml", METRICS_BEFORE)
    await mesh.sidecar("shop", app=http_app, flags=("--engine", engine))
    web = await mesh.sidecar("web", flags=("--engine", engine, "--config", str(path)))
    await call(web, "/echo")
    before = 'app_id="web",method="GET",path="/v1.0/invoke/shop/method/echo",status="200"'
    text = await metrics_of(web, f"{REQUESTS}{{{before}}} 1.0")
    assert len(bounds_of(text)) > 30
    edge = 'postern_edge_requests_total{code_class="2xx",direction="outbound",dst="shop.default",method_class="GET"'
    await metrics_of(web, edge)

    path.write_text(METRICS_AFTER)
    await web.process.line("policies reloaded.*generation=2")
    await web.process.line("metrics changed: the series of these begin anew")
    await call(web, "/echo")
    await request(web.http_port, "GET", invoke("nobody", "/echo"))
    after = 'app_id="web",method="",path="/v1.0/invoke/{app_id}/method/{word}",status="200"'
    text = await metrics_of(web, f"{REQUESTS}{{{after}}} 1.0")
    assert before not in text
    assert bounds_of(text) == {"7.0", "70000.0", "+Inf"}
    assert "dapr_http_server_response_count{" not in text
    sent = "dapr_runtime_service_invocation_req_sent_total"
    assert f'{sent}{{app_id="web",dst_app_id="someone",type="unary"}} 1.0' in text
    code = 'app_id="web",category="service-invocation",error_code="ERR_DIRECT_INVOKE"'
    await metrics_of(web, f"dapr_error_code_total{{{code}}} 1.0")
    # What kept its shape goes on.
    assert re.search(rf"^{re.escape(edge)}.* 2\.0$", text, re.MULTILINE)

    path.write_text(METRICS_BEFORE)
    await web.process.line("policies reloaded.*generation=3")
    await call(web, "/echo")
    text = await metrics_of(web, f"{REQUESTS}{{{before}}} 1.0")
    assert len(bounds_of(text)) > 30
    assert "restart to apply it" not in web.process.output


@pytest.mark.parametrize("engine", ENGINES)
async def test_port_of_metrics_closes_and_opens_as_the_configuration_in_force_says(
    engine: str, mesh: Mesh
) -> None:
    path = mesh.write("metrics.yaml", METRICS_BEFORE)
    web = await mesh.sidecar("web", flags=("--engine", engine, "--config", str(path)))
    assert (await request(web.metrics_port, "GET", "/metrics")).status == 200
    path.write_text(METRICS_OFF)
    web.process.send_signal(signal.SIGHUP)
    await web.process.line("the port of metrics changed.*port=closed")
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await request(web.metrics_port, "GET", "/metrics")
    path.write_text(METRICS_BEFORE)
    web.process.send_signal(signal.SIGHUP)
    found = await web.process.line(r"the port of metrics changed.*port=(\d+)")
    port = int(found[1])
    assert (await request(port, "GET", "/metrics")).status == 200
    (listed,) = [entry for entry in HostRegistry(mesh.root).entries() if entry.app_id == "web"]
    assert listed.metrics_port == port


async def test_metrics_that_cannot_be_made_leave_the_old_ones_in_force(mesh: Mesh) -> None:
    path = mesh.write("metrics.yaml", METRICS_BEFORE)
    web = await mesh.sidecar("web", flags=("--config", str(path)))
    path.write_text("kind: Configuration\nspec: {metrics: {http: {pathMatching: ['/a{b']}}}\n")
    await web.process.line("(metrics|policies) not (changed|reloaded).*pathMatching")
    await request(web.http_port, "GET", "/v1.0/healthz")
    assert 'path="/v1.0/healthz"' in (await metrics_of(web, REQUESTS))


def named_by(database: Path, **more: object) -> str:
    """A Configuration that has names resolved by this SQLite file."""
    settings = {"connectionString": str(database), "updateInterval": "2s", **more}
    spec = {"nameResolution": {"component": "sqlite", "configuration": settings}}
    return json.dumps({"kind": "Configuration", "spec": spec})


@pytest.mark.parametrize("engine", ENGINES)
async def test_names_are_resolved_as_the_configuration_in_force_says(
    engine: str, mesh: Mesh, http_app: App, tmp_path: Path
) -> None:
    path, one, two = mesh.write("names.yaml", "kind: Configuration\n"), tmp_path / "1.db", tmp_path / "2.db"
    flags = ("--engine", engine, "--config", str(path))
    cart = await mesh.sidecar("shop", app=http_app, flags=flags)
    web = await mesh.sidecar("web", flags=flags)
    await cart.process.line(ANNOUNCED)
    await call(web, "/echo")
    for generation, (database, asked) in enumerate([(one, False), (two, True)], 2):
        path.write_text(named_by(database))
        for sidecar in (cart, web):
            if asked:
                sidecar.process.send_signal(signal.SIGHUP)
            await sidecar.process.line(f"policies reloaded.*generation={generation}")

        async def is_found_there() -> bool:
            assert (await request(web.http_port, "GET", invoke("shop", "/echo"))).status == 200
            found = json.loads((await web.admin("/endpoints?app=shop")).body)["shop.default"]
            assert not found["stale"]
            return list(found["tried"]) == ["sqlite: 1 endpoint"]

        await eventually(is_found_there)
        with closing(sqlite3.connect(database)) as connection:
            rows = connection.execute("SELECT address FROM hosts WHERE app_id = 'shop'").fetchall()
        assert [at.rpartition(":")[2] for (at,) in rows] == [str(cart.peer_port)]

    async def is_withdrawn() -> bool:
        with closing(sqlite3.connect(one)) as connection:
            return not connection.execute("SELECT address FROM hosts WHERE app_id = 'shop'").fetchall()

    await eventually(is_withdrawn)
    path.write_text(
        json.dumps({"kind": "Configuration", "spec": {"nameResolution": {"component": "nonesuch"}}})
    )
    await web.process.line("(name resolution|policies) not (changed|reloaded).*nonesuch")
    await call(web, "/echo")
    assert "restart to apply it" not in web.process.output
    assert await cart.end() == 0
    gone = await request(web.http_port, "GET", invoke("shop", "/echo"))
    assert gone.status == 500
    assert str(two) in gone.body.decode()
    with closing(sqlite3.connect(two)) as connection:
        assert connection.execute("SELECT address FROM hosts WHERE app_id = 'shop'").fetchall() == []
