"""What a scrape holds: little while nobody calls, and names as Prometheus wants them, on both engines."""

import asyncio
from pathlib import Path

import grpc.aio
import pytest

from tests.integration.mesh.standing import NO_SECRET_FOR_WEB, eventually, invoke, standing
from tests.integration.sentry.process import running_sentry
from tests.integration.sentry.test_server import fetch, scraped
from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import DAPR_APP_ID, Mesh, Sidecar
from tests.support.promtool import complaints
from tests.support.proto.echo_pb2 import EchoRequest

# With what stands for a probe of the host's or of Kubernetes, which asks for health and metrics time and again.
IDLE_LINES = 75
ALERTED_AT_ZERO = {
    "postern_policy_reload_errors_total 0.0",
    'postern_reports_lost_total{kind="call"} 0.0',
    'postern_reports_lost_total{kind="span"} 0.0',
}


async def scrape(sidecar: Sidecar) -> bytes:
    """The text of a scrape."""
    return (await request(sidecar.metrics_port, "GET", "/metrics")).body


@pytest.mark.parametrize("engine", ENGINES)
async def test_idle_sidecar_has_few_series(engine: str, mesh: Mesh, http_app: App) -> None:
    cart = await mesh.sidecar("cart", app=http_app, flags=("--engine", engine))
    await scrape(cart)
    for _ in range(3):
        await request(cart.http_port, "GET", "/v1.0/healthz")
    lines = (await scrape(cart)).decode().splitlines()
    assert set(lines) >= ALERTED_AT_ZERO
    assert len(lines) <= IDLE_LINES, "\n".join(lines)
    names = {line.partition("{")[0].partition(" ")[0] for line in lines if not line.startswith("#")}
    assert "dapr_http_server_request_count" in names
    assert not {name for name in names if name.startswith("dapr_") and name.endswith("_bucket")}
    assert not {name for name in names if name.startswith(("postern_edge", "postern_acl", "postern_retries"))}
    kinds = {line.partition('kind="')[2].partition('"')[0] for line in lines if "postern_cert_expiry" in line}
    assert kinds >= {"workload", "issuer", "root"}


@pytest.mark.parametrize("engine", ENGINES)
async def test_names_of_busy_sidecars_are_as_prometheus_wants_them(engine: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(NO_SECRET_FOR_WEB)
    async with standing(tmp_path, flags=("--engine", engine), shop=("--config", str(rules))) as mesh:
        port = mesh.web.http_port
        for target in (
            "/v1.0/metadata",
            invoke("shop", "/echo"),
            invoke("shop", "/secret"),
            invoke("no", "/"),
        ):
            await request(port, "GET", target)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{mesh.web.grpc_port}") as channel:
            await EchoClient(channel, metadata=((DAPR_APP_ID, "echo"),)).unary(EchoRequest())

        async def is_counted() -> bool:
            return b"postern_acl_decisions_total" in await scrape(mesh.echo)

        await eventually(is_counted)
        for sidecar in mesh.sidecars:
            text = await scrape(sidecar)
            assert b"postern_edge_duration_seconds_bucket" in text
            assert await asyncio.to_thread(complaints, text) == []


async def test_names_of_sentry_are_as_prometheus_wants_them(tmp_path: Path) -> None:
    with running_sentry(tmp_path, "--metrics-port", "0") as sentry:
        await fetch(sentry.client())
        text = await asyncio.to_thread(scraped, sentry.metrics)
        assert await asyncio.to_thread(complaints, text.encode()) == []
