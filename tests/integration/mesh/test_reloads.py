"""What a reload changes beside policies: where spans go. Of real sidecars, on both engines."""

import signal

import pytest

from tests.integration.mesh.standing import eventually, invoke
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


async def test_section_that_wants_a_restart_says_so(mesh: Mesh) -> None:
    path = mesh.write("metrics.yaml", "kind: Configuration\n")
    web = await mesh.sidecar("web", flags=("--config", str(path)))
    path.write_text("kind: Configuration\nspec: {metrics: {http: {excludeVerbs: true}}}\n")
    await web.process.line("section changed: restart to apply it.*section=spec.metrics")

    async def is_serving() -> bool:
        return (await request(web.http_port, "GET", "/v1.0/healthz")).status == 204

    await eventually(is_serving)
