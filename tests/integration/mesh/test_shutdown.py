"""A sidecar's orderly end: what callers, peers, the registry and the supervisor see of it, in which order."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from nameresolution.host_registry import HostRegistry
from sentry.spiffe import SpiffeId
from tests.conformance.frames import dial
from tests.integration.mesh.peers import Forge, h2_head, h2_request
from tests.integration.mesh.rolling import known, rolling
from tests.integration.mesh.standing import Standing, eventually, invoke, standing
from tests.support.http_client import connect, request

RESTARTS = 5
POLICY = "kind: Configuration\nspec: {accessControl: {defaultAction: allow}}\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Standing]:
    """The module's mesh; each test ends sidecars of its own."""
    async with standing(tmp_path_factory.mktemp("shutdown")) as started:
        yield started


async def call(mesh: Standing, app_id: str, path: str = "/echo") -> int:
    """The status of a call from `web`."""
    return (await request(mesh.web.http_port, "GET", invoke(app_id, path))).status


async def test_leaving_is_unready_says_goodbye_and_serves_on(mesh: Standing, tmp_path: Path) -> None:
    leaving = await mesh.mesh.sidecar("leaving", app=mesh.http_app, flags=("--drain", "8s"))
    assert await call(mesh, "leaving") == 200
    assert len(await known(mesh, "leaving")) == 1
    started = time.monotonic()
    leaving.process.send_signal(signal.SIGTERM)

    async def is_unready() -> bool:
        return (await request(leaving.http_port, "GET", "/v1.0/healthz")).status == 500

    await eventually(is_unready)
    health = json.loads((await request(leaving.http_port, "GET", "/v1.0/healthz")).body)
    assert health["errorCode"] == "ERR_HEALTH_NOT_READY"
    assert "leaving" in health["message"]
    assert (await leaving.status())["shutdown"] == "draining"

    async def is_forgotten() -> bool:
        return not await known(mesh, "leaving")

    await eventually(is_forgotten)
    entries = HostRegistry(mesh.mesh.root).entries()
    assert not [entry for entry in entries if entry.app_id == "leaving" and entry.serving]
    # Peers that have not heard yet are served: this one goes straight to the port, past naming.
    peer = Forge.of(mesh.mesh.root, tmp_path / "forge").context(SpiffeId("public", "default", "web"))
    late = [*h2_head("GET", "/echo", authority="leaving.default"), ("postern-callee", "leaving.default")]
    assert (await h2_request(leaving.peer_port, late, context=peer)).status == 200
    out = await request(leaving.http_port, "GET", invoke("shop", "/echo"))
    assert out.status == 200
    assert leaving.process.is_running
    assert await leaving.process.ended() == 0
    assert time.monotonic() - started >= 8.0
    assert "stopped" in leaving.process.output


async def test_call_in_flight_finishes_and_new_ones_still_find_the_way_out(mesh: Standing) -> None:
    leaving = await mesh.mesh.sidecar("busy", app=mesh.http_app)
    async with asyncio.timeout(20.0), connect(mesh.web.http_port) as slow:
        await slow.send_head("POST", invoke("busy", "/duplex"), [("Content-Length", "4")])
        await slow.send(b"ab")
        head = await slow.read_response_head()
        body = slow.body("POST", head, [])
        assert await anext(body) == b"ab"
        leaving.process.send_signal(signal.SIGTERM)
        await leaving.process.line("shutting down")
        assert (await request(leaving.http_port, "GET", invoke("shop", "/echo"))).status == 200
        assert leaving.process.is_running
        await slow.send(b"cd")
        assert await anext(body) == b"cd"
        with pytest.raises(StopAsyncIteration):
            await anext(body)
    assert await leaving.process.ended() == 0
    assert "cut at shutdown" not in leaving.process.output


async def test_http2_client_is_told_by_goaway(mesh: Standing) -> None:
    leaving = await mesh.mesh.sidecar("goaway")
    async with asyncio.timeout(20.0), dial(leaving.grpc_port) as peer:
        await peer.settled()
        leaving.process.send_signal(signal.SIGTERM)
        await peer.to_the_end()
        assert peer.goaway is not None
        assert peer.goaway.code == 0
    assert await leaving.process.ended() == 0


async def test_idle_keep_alive_connection_is_closed_and_does_not_hold_the_end(mesh: Standing) -> None:
    leaving = await mesh.mesh.sidecar("idle", flags=("--dapr-graceful-shutdown-seconds", "60"))
    async with asyncio.timeout(20.0), connect(leaving.http_port) as connection:
        assert (await connection.request("GET", "/v1.0/healthz")).status == 204
        started = time.monotonic()
        leaving.process.send_signal(signal.SIGTERM)
        assert await connection.reader.read() == b""
        assert await leaving.process.ended() == 0
    assert time.monotonic() - started < 30.0  # less than the bound on calls in flight


async def test_second_signal_ends_at_once(mesh: Standing) -> None:
    leaving = await mesh.mesh.sidecar("hurried", flags=("--drain", "60s"))
    leaving.process.send_signal(signal.SIGTERM)
    await leaving.process.line("shutting down")
    started = time.monotonic()
    leaving.process.send_signal(signal.SIGINT)
    assert await leaving.process.ended() == 128 + signal.SIGINT
    assert time.monotonic() - started < 30.0


async def test_stuck_call_is_cut_at_the_bound_and_said_so(mesh: Standing) -> None:
    stuck = await mesh.mesh.sidecar(
        "stuck", app=mesh.http_app, flags=("--dapr-graceful-shutdown-seconds", "1")
    )
    async with asyncio.timeout(20.0), connect(mesh.web.http_port) as slow:
        await slow.send_head("GET", invoke("stuck", "/slow?s=60"))

        async def is_under_way() -> bool:
            stats = (await stuck.status())["engineStats"]
            assert isinstance(stats, dict)
            return bool(stats["callsInFlight"])

        await eventually(is_under_way)
        stuck.process.send_signal(signal.SIGTERM)
        head = await slow.read_response_head()
        assert head.second == "500"
        assert head.get("postern-error")
    assert await stuck.process.ended() == 1
    assert "calls were cut at shutdown" in stuck.process.output


async def test_blocked_shutdown_is_unready_and_announced_and_goodbye_comes_after_it(mesh: Standing) -> None:
    flags = ("--dapr-block-shutdown-duration", "1500ms", "--drain", "0s")
    blocked = await mesh.mesh.sidecar("blocked", app=mesh.http_app, flags=flags)
    assert await call(mesh, "blocked") == 200
    started = time.monotonic()
    blocked.process.send_signal(signal.SIGTERM)
    await blocked.process.line("delaying the shutdown")
    assert (await request(blocked.http_port, "GET", "/v1.0/healthz")).status == 500
    entries = HostRegistry(mesh.mesh.root).entries()
    assert [entry.serving for entry in entries if entry.app_id == "blocked"] == [True]
    assert await call(mesh, "blocked") == 200
    assert await blocked.process.ended() == 0
    assert time.monotonic() - started >= 1.5


async def test_shutdown_by_api_is_not_blocked(mesh: Standing) -> None:
    flags = ("--dapr-block-shutdown-duration", "1h", "--drain", "0s")
    unblocked = await mesh.mesh.sidecar("unblocked", flags=flags)
    assert (await request(unblocked.http_port, "POST", "/v1.0/shutdown")).status == 204
    assert await unblocked.process.ended() == 0


async def test_hangup_reloads_and_serves_on(mesh: Standing) -> None:
    policy = mesh.mesh.write("hup.yaml", POLICY)
    reloaded = await mesh.mesh.sidecar("reloaded", app=mesh.http_app, flags=("--config", str(policy)))
    bare = await mesh.mesh.sidecar("bare")
    for sidecar, told in ((reloaded, "policies reloaded"), (bare, "nothing to reload")):
        sidecar.process.send_signal(signal.SIGHUP)
        await sidecar.process.line(told)
        assert sidecar.process.is_running
    assert await call(mesh, "reloaded") == 200


# --- with a supervisor --------------------------------------------------------------------------------------------------------


async def test_supervised_app_is_reachable_until_drained_and_calls_out_until_it_has_ended(
    mesh: Standing,
) -> None:
    """As `postern run` does it: the socket says drained, the app is told to end, its last calls still go out."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(15.0)
        args = mesh.mesh.arguments(
            "kept",
            app=mesh.http_app,
            flags=("--ready-fd", str(theirs.fileno()), "--cli-pid", str(os.getpid()), "--drain", "300ms"),
        )
        command = [sys.executable, "-I", "-m", "proxy", *args]
        kept = mesh.mesh.processes.start(command, name="sidecar kept", pass_fds=(theirs.fileno(),))
        theirs.close()
        lines = ours.makefile("r")
        ready = json.loads(await asyncio.to_thread(lines.readline))
        port = ready["ports"]["http"]

        async def is_ready() -> bool:
            return (await request(port, "GET", "/v1.0/healthz")).status == 204

        await eventually(is_ready)
        assert await call(mesh, "kept") == 200
        kept.send_signal(signal.SIGTERM)
        assert json.loads(await asyncio.to_thread(lines.readline)) == {"drained": True}
        for _ in range(3):
            assert (await request(port, "GET", invoke("shop", "/echo"))).status == 200
        assert kept.is_running
        ours.shutdown(socket.SHUT_WR)
        assert await kept.ended() == 0
        lines.close()


async def test_sidecar_ends_with_its_supervisor(mesh: Standing) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        args = mesh.mesh.arguments(
            "orphan", flags=("--ready-fd", str(theirs.fileno()), "--cli-pid", str(os.getpid()))
        )
        command = [sys.executable, "-I", "-m", "proxy", *args]
        orphan = mesh.mesh.processes.start(command, name="sidecar orphan", pass_fds=(theirs.fileno(),))
        theirs.close()
        assert await asyncio.to_thread(ours.recv, 4096)
        ours.close()
        assert await orphan.ended() == 0


# --- rolling restarts ---------------------------------------------------------------------------------------------------------


async def test_rolling_restart_under_load_fails_no_call(mesh: Standing) -> None:
    load = await rolling(mesh, RESTARTS)
    assert load.failures == []
    assert load.calls > 50
