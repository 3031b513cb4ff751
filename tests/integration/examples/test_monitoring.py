"""The monitoring example with a real Prometheus over a mesh that is busy: the rules, and every expression of the board."""

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import grpc.aio
import pytest

from proxy.settings.version import has_native
from tests.integration.mesh.standing import NO_SECRET_FOR_WEB, eventually, invoke
from tests.integration.telemetry.collector import collecting
from tests.support.echo_client import EchoClient
from tests.support.http_client import request
from tests.support.mesh import DAPR_APP_ID, Mesh, Sidecar
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.proto.echo_pb2 import EchoRequest
from tests.support.tools import tool

MONITORING = Path(__file__).parents[3] / "examples" / "monitoring"
# What has no series in a mesh that is well, or none within a minute: the board shows nothing there.
EMPTY = {
    "sum by (reason) (rate(postern_sentry_refusals_total[10s]))",
    'sum by (app) (increase(dapr_runtime_mtls_workload_cert_rotated_total{app=~".*"}[1h]))',
    'sum by (app, reason) (increase(dapr_runtime_mtls_workload_cert_rotated_fail_total{app=~".*"}[1h]))',
    'sum by (app, kind) (rate(postern_h2_frames_refused_total{app=~".*"}[10s]))',
    'postern_series_folded_total{app=~".*"}',
}
TRACED = """
  tracing: {{samplingRate: "1", zipkin: {{endpointAddress: "{url}"}}}}
"""
TWICE = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: again}
spec:
  policies: {retries: {twice: {policy: constant, duration: 5ms, maxRetries: 1, matching: {httpStatusCodes: "503"}}}}
  targets: {apps: {shop: {retry: twice}}}
"""


@pytest.mark.parametrize(
    "command", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")], ids=" ".join
)
def test_promtool_is_content(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [tool("promtool"), *command], cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def board_expressions() -> list[str]:
    """Each expression of the board, for all apps."""
    board = json.loads((MONITORING / "board.json").read_text(encoding="utf-8"))
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    for variable in ("app", "src", "dst"):
        found = [expr.replace(f"${variable}", ".*") for expr in found]
    return [expr.replace("$__rate_interval", "10s") for expr in found]


class Prometheus:
    """A running server's HTTP API."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer."""
        response = await request(self.port, "GET", f"/api/v1/{path}?{urlencode(parameters)}")
        answer = json.loads(response.body)
        assert answer["status"] == "success", answer
        return answer["data"]

    async def alerts(self) -> dict[str, str]:
        """The state of each alert that is raised or about to be."""
        return {
            found["labels"]["alertname"]: found["state"] for found in (await self.ask("alerts"))["alerts"]
        }


@asynccontextmanager
async def prometheus(processes: Processes, folder: Path) -> AsyncIterator[Prometheus]:
    """A server with the configuration in a folder, scraping each second."""
    config = folder / "prometheus.yml"
    config.write_text(config.read_text(encoding="utf-8").replace("15s", "1s"), encoding="utf-8")
    port = free_port()
    process = processes.start(
        [
            tool("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
        ],
        name="prometheus",
    )
    await process.line("Server is ready to receive web requests", timeout_s=30.0)
    yield Prometheus(port)
    await process.end()


async def knock(port: int) -> None:
    """At a peer port, without a certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        await reader.read()
        writer.close()


async def keep_calling(web: Sidecar, shop: Sidecar) -> None:
    """Of every kind, until cancelled."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{web.grpc_port}") as channel:
        echo = EchoClient(channel, metadata=((DAPR_APP_ID, "echo"),))
        while True:
            for target in ("/echo", "/echo", "/status?code=503", "/secret"):
                await request(web.http_port, "GET", invoke("shop", target))
            await echo.unary(EchoRequest())
            await knock(shop.peer_port)
            await asyncio.sleep(0.05)  # a pace, not a wait: other tests run beside it


async def test_every_panel_has_data_and_every_rule_works(tmp_path: Path) -> None:
    tool("prometheus")
    folder = tmp_path / "monitoring"
    shutil.copytree(MONITORING, folder)
    native = "native" if has_native() else "portable"
    async with collecting() as collector, Mesh(tmp_path) as mesh:
        metrics_port = free_port()
        sentry = await mesh.start_sentry("--metrics-port", str(metrics_port))
        (folder / "sentry.json").write_text(json.dumps([{"targets": [f"127.0.0.1:{metrics_port}"]}]))
        rules = NO_SECRET_FOR_WEB + TRACED.format(url=collector.url)
        config = ("--config", str(mesh.write("rules.yaml", rules)))
        mesh.write("resources/again.yaml", TWICE)
        resources = ("--resources-path", str(tmp_path / "resources"))
        http, rpc = await mesh.http_app("shop"), await mesh.grpc_app("echo")
        shop = await mesh.sidecar("shop", app=http, flags=("--engine", "portable", *config))
        await mesh.sidecar("echo", app=rpc, flags=("--engine", native, *config))
        web = await mesh.sidecar("web", flags=("--engine", native, *config, *resources))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {"POSTERN_HOME": str(mesh.root), "PATH": path}
        made = mesh.processes.start([sys.executable, "targets.py"], name="targets.py", cwd=folder, env=env)
        assert await made.ended() == 0
        assert len(json.loads((folder / "sidecars.json").read_text())) == 3
        async with prometheus(mesh.processes, folder) as server, asyncio.TaskGroup() as tasks:
            calling = tasks.create_task(keep_calling(web, shop))
            await until_the_board_has_data(server)
            assert await server.ask(
                "query_exemplars", query="postern_edge_duration_seconds_bucket", **ago(60)
            )
            groups = (await server.ask("rules"))["groups"]
            unhealthy = [rule for group in groups for rule in group["rules"] if rule["health"] != "ok"]
            assert not unhealthy
            await until_alerts(server, PosternDenials="firing", PosternHandshakesRefused="firing")
            await sentry.end()
            await until_alerts(server, PosternSentryAway="pending")
            calling.cancel()


def ago(seconds: float) -> dict[str, str]:
    """From then to now."""
    now = time.time()
    return {"start": f"{now - seconds:.0f}", "end": f"{now + 1:.0f}"}


async def until_the_board_has_data(server: Prometheus) -> None:
    """In all panels but those that are empty by nature."""
    wanted = board_expressions()
    assert set(wanted) >= EMPTY
    empty = wanted

    async def has_data() -> bool:
        nonlocal empty
        empty = [expr for expr in wanted if not (await server.ask("query", query=expr))["result"]]
        return set(empty) == EMPTY

    try:
        await eventually(has_data, within_s=60.0)
    except TimeoutError:
        pytest.fail(f"without data: {set(empty) - EMPTY}; with data: {EMPTY - set(empty)}")


async def until_alerts(server: Prometheus, **states: str) -> None:
    """Until these alerts are in these states."""
    found: dict[str, str] = {}

    async def are_there() -> bool:
        nonlocal found
        found = await server.alerts()
        return states.items() <= found.items()

    try:
        await eventually(are_there, within_s=30.0)
    except TimeoutError:
        pytest.fail(f"expected {states}, got {found}")
