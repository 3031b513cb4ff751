"""`postern check` on real sidecars, a real sentry and real interfaces: what is well, and what each fault looks like."""

import asyncio
import json
import os
import pty
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.conftest import POSTERN, Commands
from tests.integration.mesh.standing import eventually
from tests.integration.mesh.test_multicast import block_multicast
from tests.support import netns

_WHY_NOT = netns.unavailable_reason()


async def checked(commands: Commands, *words: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Exit code, and findings by id."""
    code, output = await commands.done("check", *words, "-o", "json")
    told: dict[str, Any] = json.loads(output)
    assert told["ok"] is (code == 0)
    found: dict[str, list[dict[str, str]]] = {}
    for each in told["checks"]:
        assert set(each) == {"id", "group", "state", "text", "hint"}
        assert each["state"] == "ok" or each["hint"] or each["id"] == "app"
        found.setdefault(each["id"], []).append(each)
    return code, found


async def test_before_anything_runs_only_host_and_network_are_looked_at(commands: Commands) -> None:
    code, output = await commands.done("check", "--pre")
    assert code == 0, output
    assert "✓ runtime root" in output
    assert "IPv4 multicast on lo" in output
    assert "\nnetwork\n" in output
    assert "\nsidecars\n" not in output
    assert output.splitlines()[-1].startswith("no failures")
    commands.mesh.root.chmod(0o755)
    code, output = await commands.done("check", "--pre", "-o", "short")
    assert code == 1
    assert "✗ " in output
    assert "has mode 0755" in " ".join(output.split())
    assert "[runtime-root]\n    → " in output
    assert "✓" not in output


async def test_mesh_that_is_well_passes_and_each_fault_is_told(secured: Commands) -> None:
    mesh = secured.mesh
    app = await mesh.http_app()
    rules = mesh.write(
        "rules.yaml", "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec: {}\n"
    )
    cart = await mesh.sidecar("cart", app=app, flags=(f"--config={rules}",))
    web = await mesh.sidecar("web")
    code, found = await checked(secured, "--wait", "--timeout=40s")
    assert code == 0, found
    assert [each["text"].partition(" (")[0] for each in found["sidecar"]] == ["cart is ready", "web is ready"]
    assert found["sentry"][0]["text"].endswith("answers as spiffe://localhost/ns/default/dapr-sentry")
    # other meshes of this machine may announce a cart, too
    assert found["name"][0]["text"].startswith("cart.default is found: ")
    assert "(host registry" in found["name"][0]["text"]
    assert len(found["certificate"]) == 2
    assert found["same-anchors"][0]["state"] == "ok"
    assert {each["state"] for each in found["clock"]} == {"ok"}

    rules.write_text("kind: Configuration\nspec: {accessControl: {defaultAction: maybe}}\n")
    assert mesh.sentry is not None
    await mesh.sentry.end()
    os.kill(web.process.pid, signal.SIGSTOP)
    try:
        code, found = await checked(secured, "--wait", "--timeout=3s")
        assert code == 1
        assert "nobody listens on" in found["sentry"][0]["text"]
        assert [each["state"] for each in found["sidecar"]] == ["ok", "failed"]
        assert "does not answer on" in found["sidecar"][1]["text"]
        assert str(rules) in found["policy"][0]["text"]
    finally:
        os.kill(web.process.pid, signal.SIGCONT)
    await cart.end()


async def test_one_proxy_sees_the_wrong_protocol_and_names_that_nobody_has(commands: Commands) -> None:
    mesh = commands.mesh
    app = await mesh.http_app()
    await mesh.sidecar("cart", app=app, flags=("--insecure-plaintext",))
    wrong = ("--insecure-plaintext", "--app-protocol=grpc", "--upstream=cart=0", "--upstream=ghost=0")
    await mesh.sidecar("web", app=app, flags=wrong, until_ready=False)

    async def has_looked_at_the_app() -> bool:
        return "app" in (await checked(commands, "web", "--proxy"))[1]

    await eventually(has_looked_at_the_app, within_s=30.0)
    code, found = await checked(commands, "web", "--proxy")
    assert code == 1
    assert found["app"][0]["text"].endswith("speaks HTTP/1.1, but was named grpc: use --app-protocol http")
    assert [each["state"] for each in found["name"]] == ["ok", "failed"]
    assert "ghost.default is not found by the sidecar of web" in found["name"][1]["text"]
    code, output = await commands.done("check", "--proxy", "ghost")
    assert code == 1
    assert "✗ ghost: no such app runs here; running: cart, web" in output
    code, output = await commands.done("check", "web")
    assert (code, "`postern check web --proxy` checks one sidecar" in output) == (2, True)


async def test_wait_ends_once_all_is_well(commands: Commands) -> None:
    waiting = commands.start("check", "--proxy", "late", "--wait", "--timeout=30s")
    await waiting.line("waiting for: sidecar", timeout_s=60.0)
    await commands.mesh.sidecar("late", flags=("--insecure-plaintext",))
    assert await waiting.ended(timeout_s=30.0) == 0
    assert "late is ready" in waiting.output


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
async def test_colours_are_for_terminals_that_want_them(
    commands: Commands, variables: dict[str, str], coloured: bool
) -> None:
    ours, theirs = pty.openpty()
    try:
        env = {name: text for name, text in os.environ.items() if name != "NO_COLOR"}
        process = await asyncio.create_subprocess_exec(
            *(*POSTERN, "check", "--proxy"),
            stdout=theirs,
            stderr=asyncio.subprocess.DEVNULL,
            env={**env, "POSTERN_HOME": str(commands.mesh.root), **variables},
        )
        async with asyncio.timeout(30.0):
            assert await process.wait() == 1
        shown = os.read(ours, 65_536)
    finally:
        os.close(theirs)
        os.close(ours)
    assert ("\x1b[31m✗\x1b[0m".encode() in shown) is coloured
    assert "✗".encode() in shown


@pytest.mark.netns
@pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "")
def test_multicast_is_tried_on_each_interface(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    command = (*POSTERN, "check", "--pre", "--runtime-path", str(tmp_path))
    assert command[0] == sys.executable
    with netns.joined_hosts(1) as (host,):
        output = host.run(*command)
        assert f"✓ IPv4 multicast on eth0 ({host.address}) works" in output
        assert "✓ IPv4 multicast on lo (127.0.0.1) works" in output
        host.run("ip", "link", "set", "eth0", "multicast", "off")
        output = host.run(*command)
        assert "‼ no interface but the loopback can multicast over IPv4" in output
        host.run("ip", "link", "set", "eth0", "multicast", "on")
        block_multicast(host)
        output = " ".join(host.run(*command).split())
        assert (
            f"‼ IPv4 multicast on eth0 ({host.address}): No buffer space available: raise net.ipv4.igmp_max_memberships"
            in output
        )
        assert "→ allow UDP 224.0.0.251 port 5353" in output
