"""What the three profiles differ in: `daprd`'s defaults under its own name, production's denials, dev's trust in its namespace."""

import asyncio
import json
import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from sentry.join import mint
from tests.integration.mesh.test_access import configuration, policy
from tests.support.apps import App
from tests.support.engines import ENGINES
from tests.support.http_client import connect, request
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_port, free_ports
from tests.support.processes import Process
from tests.support.readiness import OUTBOUND_HEALTH, wait_status

DAPRD = Path(sys.executable).with_name("daprd")
RETRY = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: mesh}
spec:
  policies:
    retries: {two: {policy: constant, duration: 20ms, maxRetries: 2}}
  targets:
    apps: {CALLEE: {retry: two}}
"""
TRUST_DOMAIN = (
    "kind: Configuration\nspec: {accessControl: {trustDomain: shop.example, defaultAction: allow}}\n"
)


class Daprds:
    """Starts sidecars under the name daprd, with ports of their own; app-ids are unlike all others, as plaintext meshes meet."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.suffix = uuid.uuid4().hex[:8]

    def id(self, name: str) -> str:
        """An app-id of this test alone."""
        return f"{name}-{self.suffix}"

    async def start(
        self, name: str, *flags: str, app: App | None = None, env: Mapping[str, str] | None = None
    ) -> tuple[Process, int, int]:
        """Start one; the process, its HTTP port and its metrics port, once it can call out."""
        http, grpc, metrics = free_ports(3)
        ports = (f"-dapr-http-port={http}", "--dapr-grpc-port", str(grpc), "--metrics-port", str(metrics))
        to_app = ("--app-port", str(app.port)) if app else ()
        args = [DAPRD, "--app-id", self.id(name), *ports, *to_app, *flags]
        home = {"POSTERN_HOME": str(self.mesh.root), "HOME": str(self.mesh.files)}
        process = self.mesh.processes.start(
            args, name=f"daprd {name}", env={**home, **(env or {})}, cwd=self.mesh.files
        )
        await asyncio.to_thread(wait_status, http, OUTBOUND_HEALTH, 204, process)
        return process, http, metrics


@pytest.fixture
async def daprds(tmp_path: Path) -> AsyncIterator[Daprds]:
    """A runtime root without a sentry."""
    async with Mesh(tmp_path, with_sentry=False) as mesh:
        yield Daprds(mesh)


def listening() -> set[tuple[str, int]]:
    """The TCP addresses that are listened on here; who does so a sidecar shows to root alone."""
    import psutil  # noqa: PLC0415 - as only this asks

    found = psutil.net_connections(kind="tcp")
    return {
        (entry.laddr.ip, entry.laddr.port)
        for entry in found
        if entry.laddr and entry.status == psutil.CONN_LISTEN
    }


async def test_daprd_listens_everywhere_in_plaintext_and_bounds_heads_and_bodies(daprds: Daprds) -> None:
    app = await daprds.mesh.http_app()
    path = daprds.mesh.write("resources/retry.yaml", RETRY.replace("CALLEE", daprds.id("cart")))
    async with asyncio.TaskGroup() as tasks:
        start_cart = tasks.create_task(daprds.start("cart", app=app))
        start_web = tasks.create_task(daprds.start("web", "--resources-path", str(path.parent)))
    _, _, _ = start_cart.result()
    _, http, metrics = start_web.result()
    addresses = listening()
    assert ("0.0.0.0", http) in addresses
    assert ("0.0.0.0", metrics) in addresses
    assert not (daprds.mesh.root / "sentry").exists()
    base = f"/v1.0/invoke/{daprds.id('cart')}/method"
    assert (await request(http, "GET", f"{base}/echo")).status == 200
    # Bodies: 4 MiB, and 500 as daprd; kept whole for a written retry policy (dev keeps 64 KiB).
    body = b"x" * 300_000
    again = await request(http, "POST", f"{base}/script?key=again&codes=500,200", body=body)
    assert again.status == 200
    scripts = json.loads((await request(app.port, "GET", "/stats")).body)["scripts"]
    assert scripts["again"] == [len(body), len(body)]
    too_large = await request(http, "POST", f"{base}/sink", body=b"x" * (4 * 1024 * 1024 + 1), timeout_s=20.0)
    assert (too_large.status, too_large.get("postern-error")) == (500, "too-large")
    # Heads: some 4 KiB and a little slack pass, 64 KiB do not.
    assert (await request(http, "GET", f"{base}/echo", headers=[("x-a", "v" * 4_000)])).status == 200
    async with asyncio.timeout(10.0), connect(http) as connection:
        await connection.send_head("GET", f"{base}/echo", [("x-a", "v" * 20_000)] * 4)
        assert (await connection.read_response_head()).second == "431"


async def test_daprd_with_mtls_joins_a_mesh_by_token(mesh: Mesh, http_app: App) -> None:
    port = free_port()
    await mesh.start_sentry("--port", str(port), "--listen-address", "127.0.0.1")
    await mesh.sidecar("cart", app=http_app)
    daprds = Daprds(mesh)
    spiffe = f"spiffe://public/ns/default/{daprds.id('web')}"
    token = mesh.write("token", mint(mesh.root, spiffe, "spiffe://localhost/ns/default/dapr-sentry"))
    anchors = (mesh.root / "sentry" / "authority" / "ca.crt").read_text()
    env = {"DAPR_TRUST_ANCHORS": anchors, "DAPR_SENTRY_TOKEN_FILE": str(token)}
    flags = ("--enable-mtls", "--sentry-address", f"127.0.0.1:{port}")
    process, http, _ = await daprds.start("web", *flags, env=env)
    answer = await request(http, "GET", "/v1.0/invoke/cart/method/echo")
    assert answer.status == 200, answer.body
    assert dict(json.loads(answer.body)["headers"])["dapr-caller-app-id"] == daprds.id("web")
    await process.line("Fetching initial identity certificate.*scope=dapr.runtime.security")
    await process.line("Security is initialized successfully")
    await process.line("Initialized name resolution to mdns")
    assert "mTLS is disabled" not in process.output


async def test_daprd_with_mtls_but_without_a_sentry_says_what_is_missing(daprds: Daprds) -> None:
    process = daprds.mesh.processes.start(
        [DAPRD, "--app-id", "x", "--enable-mtls"], name="daprd", env={"POSTERN_HOME": str(daprds.mesh.root)}
    )
    assert await process.ended() == 1
    assert "--sentry-address: missing" in process.output
    assert 'level=fatal msg="Fatal error from runtime: --sentry-address: missing' in last_line(process)


async def test_daprd_that_cannot_start_ends_with_daprs_last_words(daprds: Daprds) -> None:
    config = daprds.mesh.write("broken.yaml", "kind: Configuration\nspec: {tracing: 7}\n")
    port = free_port()
    common = ("--app-id", "x", "--dapr-http-port", "0", "--dapr-grpc-port", "0", "--metrics-port", "0")
    for flags, why in (
        (("--config", str(config)), "broken.yaml"),
        (("--dapr-internal-grpc-port", str(port)), f"can't listen on 0.0.0.0:{port}"),
        (("--app-port", "none"), "--app-port"),
    ):
        with socket.create_server(("0.0.0.0", port)):
            process = daprds.mesh.processes.start(
                [DAPRD, *common, *flags], name="daprd", env={"POSTERN_HOME": str(daprds.mesh.root)}
            )
            assert await process.ended(timeout_s=40.0) == 1  # a port that is taken is waited for
        last = last_line(process)
        assert 'level=fatal msg="Fatal error from runtime: ' in last
        assert why in last


def last_line(process: Process) -> str:
    """Of what a process has said."""
    return process.output.strip().splitlines()[-1]


async def test_daprd_takes_its_own_ports_or_ends(daprds: Daprds) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        args: list[str | Path] = [
            DAPRD,
            "--app-id",
            "x",
            "--dapr-http-port",
            str(port),
            "--dapr-grpc-port=0",
            "--metrics-port=0",
        ]
        process = daprds.mesh.processes.start(args, name="daprd", env={"POSTERN_HOME": str(daprds.mesh.root)})
        assert await process.ended(timeout_s=40.0) == 1
    assert "--dapr-http-port" in last_line(process)
    (told,) = [line for line in process.output.splitlines() if "a port is taken" in line]
    assert f"(pid {os.getpid()})" in told


@pytest.mark.parametrize("flag", ["--dapr-http-port", "--metrics-port"])
async def test_daprd_waits_for_a_port_that_becomes_free(daprds: Daprds, flag: str) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        ports = {"--dapr-http-port": "0", "--dapr-grpc-port": "0", "--metrics-port": "0"}
        ports[flag] = str(taken.getsockname()[1])
        args: list[str | Path] = [DAPRD, "--app-id", "x", *(word for pair in ports.items() for word in pair)]
        process = daprds.mesh.processes.start(args, name="daprd", env={"POSTERN_HOME": str(daprds.mesh.root)})
        await process.line("a port is taken")
    await process.line("Status: Running")


async def test_daprd_accepts_flags_of_what_is_not_built_and_names_them(daprds: Daprds) -> None:
    process, http, _ = await daprds.start(
        "web",
        "--placement-host-address",
        "localhost:50005",
        "-scheduler-host-address=localhost:50006",
        "--enable-profiling",
    )
    await process.line("--placement-host-address has no effect")
    await process.line("--scheduler-host-address has no effect")
    assert (await request(http, "GET", "/v1.0/healthz")).status == 204
    assert os.fspath(DAPRD).endswith("daprd")


@pytest.mark.parametrize("engine", ENGINES)
async def test_daprd_logs_its_life_in_the_words_that_scripts_wait_for(daprds: Daprds, engine: str) -> None:
    port = free_port()
    flags = ("--engine", engine, "--app-port", str(port), "--dapr-block-shutdown-duration", "1ms")
    process, http, _ = await daprds.start("web", *flags)
    await process.line(rf'msg="HTTP server is running on port {http}" app_id={daprds.id("web")} .*ver=')
    await process.line(
        f"application protocol: http. waiting on port {port}.  This will block until the app is listening on that port."
    )
    assert "dapr initialized" not in process.output
    app = await daprds.mesh.http_app("web", "--port", str(port))
    await process.line(f"application discovered on port {port}")
    await process.line(r"dapr initialized. Status: Running. Init Elapsed \d+ms")
    assert "Application configuration loaded" in process.output.partition("dapr initialized")[0]
    stats = json.loads((await request(app.port, "GET", "/stats")).body)
    assert stats["requests"]["/dapr/config"] == 1
    assert (await request(http, "POST", "/v1.0/shutdown")).status == 204
    assert await process.ended() == 0
    assert "Shutdown requested via API" in process.output
    assert "Daprd shutdown gracefully" in process.output.splitlines()[-1]
    assert "Blocking graceful shutdown" not in process.output  # which the API skips
    await app.process.end()


async def test_daprd_says_that_a_signal_ends_it_and_delays_it(daprds: Daprds) -> None:
    process, _, _ = await daprds.start(
        "web",
        "--dapr-block-shutdown-duration",
        "200ms",
        "--log-as-json",
        "--dapr-graceful-shutdown-seconds",
        "1",
    )
    assert await process.end() == 0
    lines = [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]
    told = [line["msg"] for line in lines if str(line["scope"]).startswith("dapr.")]
    assert "dapr initialized. Status: Running. Init Elapsed " in " ".join(told)
    assert told[-6:] == [
        "Received signal 'terminated'; beginning shutdown",
        "Blocking graceful shutdown for 200ms or until app reports unhealthy...",
        "Block shutdown period expired, entering shutdown...",
        "Dapr is shutting down",
        "Dapr runtime stopped",
        "Daprd shutdown gracefully",
    ]


# --- who may call without a policy ---------------------------------------------------------------------------------------------


async def status_of(caller: Sidecar, callee: str) -> int:
    """What a GET is answered with."""
    return (await request(caller.http_port, "GET", f"/v1.0/invoke/{callee}/method/echo")).status


async def test_without_a_policy_production_denies_and_dev_admits_its_namespace(
    mesh: Mesh, http_app: App
) -> None:
    async with asyncio.TaskGroup() as tasks:
        strict = tasks.create_task(mesh.sidecar("strict", app=http_app, flags=("--profile", "production")))
        tasks.create_task(mesh.sidecar("friendly", app=http_app))
        near = tasks.create_task(mesh.sidecar("near"))
        far = tasks.create_task(mesh.sidecar("far", flags=("--namespace", "prod")))
    assert await status_of(near.result(), "strict") == 403
    assert await status_of(near.result(), "friendly") == 200
    assert await status_of(far.result(), "friendly.default") == 403
    assert await status_of(far.result(), "strict.default") == 403
    told = await request(near.result().http_port, "GET", "/v1.0/invoke/strict/method/echo")
    assert b"reason=no-policy, profile production" in told.body
    await strict.result().process.line("no access policy: .*--profile dev")
    await strict.result().process.line("access denied.*reason=no-policy profile=production")
    assert await status_of(strict.result(), "strict") == 200  # itself
    assert await status_of(strict.result(), "friendly") == 200


async def test_production_admits_whom_a_policy_names(mesh: Mesh, http_app: App) -> None:
    path = mesh.write("rules.yaml", configuration("deny", policy("near", "allow")))
    flags = ("--profile", "production", "--config", str(path))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(mesh.sidecar("strict", app=http_app, flags=flags))
        near = tasks.create_task(mesh.sidecar("near", flags=("--profile", "production")))
        other = tasks.create_task(mesh.sidecar("other"))
    assert await status_of(near.result(), "strict") == 200
    assert await status_of(other.result(), "strict") == 403
    assert (await near.result().status())["profile"] == "production"


async def test_idle_daprd_leaves_at_once(daprds: Daprds) -> None:
    process, _, _ = await daprds.start("idle", "--drain", "1h")
    assert await process.end(timeout_s=15.0) == 0


async def test_trust_domain_of_a_configuration_is_the_identitys_own(mesh: Mesh) -> None:
    path = mesh.write("domain.yaml", TRUST_DOMAIN)
    named = await mesh.sidecar("named", flags=("--config", str(path)))
    identity = (await named.status())["identity"]
    assert isinstance(identity, dict)
    assert identity["spiffeId"] == "spiffe://shop.example/ns/default/named"


@pytest.mark.parametrize("engine", ENGINES)
async def test_daprd_holds_no_large_body_for_another_attempt(daprds: Daprds, engine: str) -> None:
    """With a large limit of bodies and a retry policy, an upload of unknown length streams once 4 MiB are behind."""
    app = await daprds.mesh.http_app()
    path = daprds.mesh.write("resources/retry.yaml", RETRY.replace("CALLEE", daprds.id("cart")))
    flags = ("--max-body-size", "512Mi", "--engine", engine)
    await daprds.start("cart", *flags, app=app)
    web, http, _ = await daprds.start("web", *flags, "--resources-path", str(path.parent))
    target = f"/v1.0/invoke/{daprds.id('cart')}/method/sink"
    assert (await request(http, "POST", target, chunks=[b"x"])).status == 200
    before = web.rss_mb()
    answer = await request(http, "POST", target, chunks=[b"x" * 65_536] * 1_024, timeout_s=60.0)
    assert answer.status == 200
    assert web.rss_mb() - before < 32  # of 64 MiB; what is freed stays with the process for a while
