"""What a scrape holds: little while nobody calls, and names as Prometheus wants them, on both engines."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import grpc.aio
import pytest

from proxy.contract.outcome import PHASED
from tests.integration.mesh.standing import NO_SECRET_FOR_WEB, eventually, invoke, pair, standing
from tests.integration.sentry.process import running_sentry
from tests.integration.sentry.test_server import fetch, scraped
from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import DAPR_APP_ID, Mesh, SharedSentry, Sidecar
from tests.support.processes import REPOSITORY
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
    text = (await scrape(cart)).decode()
    lines = [
        line for line in text.splitlines() if 'status="500"' not in line
    ]  # it was asked before it was ready
    assert set(lines) >= ALERTED_AT_ZERO
    assert len(lines) <= IDLE_LINES, "\n".join(lines)
    names = {line.partition("{")[0].partition(" ")[0] for line in lines if not line.startswith("#")}
    assert "dapr_http_server_request_count" in names
    assert not {name for name in names if name.startswith("dapr_") and name.endswith("_bucket")}
    assert not {name for name in names if name.startswith(("postern_edge", "postern_acl", "postern_retries"))}
    kinds = {line.partition('kind="')[2].partition('"')[0] for line in lines if "postern_cert_expiry" in line}
    assert kinds >= {"workload", "issuer", "root"}


@pytest.mark.parametrize("engine", ENGINES)
async def test_names_of_busy_sidecars_are_as_prometheus_wants_them(
    engine: str, tmp_path: Path, shared: SharedSentry
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(NO_SECRET_FOR_WEB)
    async with standing(
        tmp_path, shared=shared, flags=("--engine", engine), shop=("--config", str(rules))
    ) as mesh:
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


async def test_names_of_sentry_are_as_prometheus_wants_them_and_in_its_readme(tmp_path: Path) -> None:
    readme = (REPOSITORY / "sentry" / "README.md").read_text(encoding="utf-8")
    with running_sentry(tmp_path, "--metrics-port", "0") as sentry:
        await fetch(sentry.client())
        text = await asyncio.to_thread(scraped, sentry.metrics)
        assert await asyncio.to_thread(complaints, text.encode()) == []
        names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
        assert not [name for name in names if not name.startswith("process_") and f"`{name}`" not in readme]


def values(text: bytes, name: str) -> dict[str, float]:
    """The samples of a name, by their labels."""
    lines = [line for line in text.decode().splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    return {line[len(name) :].rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_is_open_and_where_time_goes_is_told_on_both_sides(
    engine: str, tmp_path: Path, shared: SharedSentry
) -> None:
    async with pair(tmp_path, shared, flags=("--engine", engine)) as mesh:
        web, shop = mesh.web, mesh.shop
        edge = '{direction="%s",dst="shop.default",src="web.default"}'

        async def is_under_way() -> bool:
            out, back = await scrape(web), await scrape(shop)
            return (
                values(out, "postern_edge_in_flight").get(edge % "outbound") == 1
                and values(back, "postern_edge_in_flight").get(edge % "inbound") == 1
                and values(out, "postern_http2_streams_open").get('{direction="out"}') == 1
                and values(back, "postern_http2_streams_open").get('{direction="in"}') == 1
                and values(out, "postern_replay_buffer_bytes").get("") == 9
            )

        async with asyncio.TaskGroup() as tasks:
            slow = invoke("shop", "/slow?s=60")
            call = tasks.create_task(request(web.http_port, "POST", slow, body=b"nine here"))
            await eventually(is_under_way)
            call.cancel()

        async def has_ended() -> bool:
            out = await scrape(web)
            return (
                values(out, "postern_edge_in_flight").get(edge % "outbound") == 0
                and values(out, "postern_replay_buffer_bytes").get("") == 0
            )

        await eventually(has_ended)
        for _ in range(2 * PHASED):
            await request(web.http_port, "GET", invoke("shop", "/echo"))
        for sidecar, direction, has_tls in ((web, "outbound", True), (shop, "inbound", False)):
            counts = values(await scrape(sidecar), "postern_phase_seconds_count")
            wanted = ["resolve", "queue", "upstream_ttfb", "body", "proxy_overhead", "connect"]
            for phase in [*wanted, *(("tls",) if has_tls else ())]:
                assert counts[f'{{direction="{direction}",phase="{phase}"}}'] >= 1

        async def is_measured() -> bool:  # now and then, so for the first time when the calls may be over
            text = await scrape(web)
            lags = values(text, "postern_engine_lag_seconds")
            return (
                values(text, "postern_gc_pause_seconds_count").get("", 0) > 0
                and 0 <= values(text, "postern_loop_lag_seconds").get("", -1) < 60
                and ("" in lags) == (engine == "native")
            )

        await eventually(is_measured)
        assert values(await scrape(web), "postern_connections_open")['{direction="in",listener="http"}'] >= 0


async def test_endpoints_that_are_gone_leave_no_number_behind(mesh: Mesh, http_app: App) -> None:
    shop, web = await mesh.sidecar("shop", app=http_app), await mesh.sidecar("web")

    async def endpoints() -> float:
        found = values(await scrape(web), "postern_resolver_endpoints")
        return sum(count for labels, count in found.items() if 'app_id="shop"' in labels)

    await request(web.http_port, "GET", invoke("shop", "/echo"))
    assert await endpoints() == 1
    await shop.end()

    async def are_gone() -> bool:
        return await endpoints() == 0

    await eventually(are_gone)


@pytest.mark.parametrize("engine", ENGINES)
async def test_components_are_counted_by_type(engine: str, mesh: Mesh) -> None:
    kind = "middleware.http.uppercase"
    spec = f"{{type: {kind}, version: v1}}"
    mesh.write("components/upper.yaml", f"kind: Component\nmetadata: {{name: upper}}\nspec: {spec}\n")
    handlers = f"{{handlers: [{{name: upper, type: {kind}}}]}}"
    config = mesh.write("config.yaml", f"kind: Configuration\nspec: {{httpPipeline: {handlers}}}\n")
    folder = str(config.parent / "components")
    web = await mesh.sidecar(
        "web", flags=("--engine", engine, "--config", str(config), "--resources-path", folder)
    )
    text = await scrape(web)
    assert values(text, "dapr_runtime_component_loaded") == {'{app_id="web"}': 1}
    assert values(text, "dapr_runtime_component_init_total") == {f'{{app_id="web",component="{kind}"}}': 1}


@pytest.mark.parametrize("engine", ENGINES)
async def test_refused_peers_are_counted_by_reason(engine: str, mesh: Mesh, http_app: App) -> None:
    shop = await mesh.sidecar("shop", app=http_app, flags=("--engine", engine))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])

    async def is_counted() -> bool:
        found = values(await scrape(shop), "postern_handshakes_refused_total")
        return found.get('{reason="no-certificate"}', 0) >= 1

    with suppress(OSError):  # nobody without a certificate is let in
        reader, writer = await asyncio.open_connection("127.0.0.1", shop.peer_port, ssl=context)
        await reader.read()
        writer.close()
    await eventually(is_counted)
