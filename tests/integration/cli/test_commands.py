"""The other commands, on what `postern run` started and on nothing."""

import asyncio
import json
import os
import re
import socket
import sys

import pytest
import yaml

from tests.integration.cli.conftest import Commands
from tests.integration.cli.test_run import LISTENING, READY
from tests.support.ports import free_port

SAMPLED = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec: {tracing: {samplingRate: "1"}}
"""


async def running(commands: Commands) -> tuple[int, int]:
    """Run `cart`, wait until it is ready; its HTTP port and the pid of the command."""
    port = free_port()
    run = commands.run("cart", f"--app-port={port}")
    http = int((await run.line(READY))[1])
    await run.line(LISTENING)
    code, output = await commands.done("wait", "cart", "--timeout", "40s")
    assert (code, output) == (0, "")
    return http, run.pid


async def test_status_tells_how_a_sidecar_is(secured: Commands) -> None:
    http, _ = await running(secured)
    code, output = await secured.done("status")
    assert code == 0
    assert "APP ID" in output
    assert "ready" in output
    code, output = await secured.done("status", "cart", "-o", "json")
    (answer,) = json.loads(output)
    assert answer["ports"]["http"] == http
    assert answer["identity"]["state"] == "held"


async def test_app_that_is_started_elsewhere_may_hold_the_port(commands: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as app:
        ports = (
            "--dapr-http-port=0",
            "--dapr-grpc-port=0",
            "--metrics-port=0",
            "--drain=0s",
            *commands.flags,
        )
        commands.start("run", "--app-id", "cart", f"--app-port={app.getsockname()[1]}", *ports)
        told: dict[str, object] = {}
        async with asyncio.timeout(60):
            while not told.get("heldBy"):
                _, output = await commands.done("status", "cart", "-o", "json")
                told = json.loads(output)[0]["app"] if output.startswith("[") else {}
    assert (f"pid {os.getpid()}" in str(told["heldBy"]), told["heldByForeign"]) == (True, False)


async def test_list_shows_a_table(commands: Commands) -> None:
    http, pid = await running(commands)
    code, output = await commands.done("list")
    assert code == 0
    header, row = output.splitlines()
    assert header.startswith("APP ID")
    assert "STATUS" not in header
    assert str(http) in row
    assert str(pid) in row


@pytest.mark.parametrize(("status", "code"), [(200, 0), (404, 4), (503, 5)])
async def test_invoke_prints_the_body_and_exits_by_status(commands: Commands, status: int, code: int) -> None:
    await running(commands)
    words = ("invoke", "-a", "cart", "-m", f"x/{status}", "-d", "hi", "-i", "-H", "X-Test: 1")
    found, output = await commands.done(*words)
    assert found == code
    assert f"HTTP/1.1 {status}" in output
    assert f"cart POST /x/{status} hi" in output


async def test_invoke_through_a_sidecar_that_is_not_there_fails(commands: Commands) -> None:
    code, output = await commands.done("invoke", "-a", "cart", "-m", "x")
    assert (code, "no sidecar runs in" in output) == (1, True)
    await running(commands)
    code, output = await commands.done("invoke", "-a", "cart", "--from", "pay", "-m", "x")
    assert (code, "pay: no such app runs here; running: cart" in output) == (1, True)


async def test_stop_of_what_does_not_run_fails(commands: Commands) -> None:
    code, output = await commands.done("stop", "nobody")
    assert (code, "nobody: no such app" in output) == (1, True)
    code, _ = await commands.done("stop")
    assert code == 2
    await running(commands)
    code, output = await commands.done("stop", "cart", "nobody")
    assert (code, "cart: stopped" in output) == (3, True)


async def test_endpoints_and_trace_after_a_call(secured: Commands) -> None:
    config = secured.mesh.write("config.yaml", SAMPLED)
    other = await secured.mesh.sidecar("shop", flags=(f"--config={config}",))
    await running(secured)
    code, output = await secured.done("invoke", "-a", "cart", "--from", "shop", "-m", "hello")
    assert code == 0, other.process.output
    code, output = await secured.done("endpoints", "cart", "--from", "shop", "-o", "json")
    assert code == 0
    assert json.loads(output)[0]["app"] == "cart.default"
    code, output = await secured.done("trace", "--last", "-o", "json")
    assert code == 0
    trace = json.loads(output)
    services = {span["localEndpoint"]["serviceName"] for span in trace["spans"]}
    assert services == {"shop", "cart"}
    code, output = await secured.done("trace", trace["traceId"])
    assert code == 0
    assert "cart" in output


def here(endpoints: list[dict[str, object]]) -> list[dict[str, object]]:
    """Those of this mesh: other tests announce instances of this name, too, and without a mesh."""
    return [one for one in endpoints if one["source"] == "host registry"]


async def test_endpoints_of_an_app_that_nobody_called_yet_are_looked_up(commands: Commands) -> None:
    await running(commands)
    code, output = await commands.done("endpoints", "cart", "-o", "json")
    assert code == 0, output
    assert json.loads(output)[0]["source"] == "host registry"
    code, as_yaml = await commands.done("endpoints", "cart", "-o", "yaml")
    assert code == 0
    assert here(yaml.safe_load(as_yaml)) == here(json.loads(output))
    code, output = await commands.done("endpoints", "nobody")
    assert code == 1
    assert "nobody: no endpoint was found; host registry: no entry" in output
    await commands.mesh.sidecar("shop")  # it has heard of cart, which does not hear of itself
    code, output = await commands.done("endpoints", "crat")
    assert (code, "did you mean 'cart'? tried: host registry" in output) == (1, True), output


async def test_services_are_looked_up_and_listed_with_who_said_so(commands: Commands) -> None:
    await running(commands)
    declares = ("--app-protocol", "grpc", "--grpc-service", "shop.Basket")
    await commands.mesh.sidecar("web", flags=("--route", "shop.Cart=cart", *declares), app_port=free_port())
    code, output = await commands.done("endpoints", "shop.Cart", "--from", "web", "-o", "json")
    assert code == 0, output
    assert json.loads(output)[0]["app"] == "cart.default"
    code, output = await commands.done("endpoints", "shop.v1.Crat", "--from", "web")
    assert code == 1
    assert "no app is known to serve shop.v1.Crat" in output
    code, output = await commands.done("status", "web", "-o", "wide")
    rows = [line.split() for line in output.splitlines()]
    assert ["shop.Cart", "cart", "route", "web", "yes", "web"] in rows, output
    assert ["shop.Basket", "web", "declared", "web", "yes", "web"] in rows, output


async def test_wait_for_what_never_comes_fails_in_time(commands: Commands) -> None:
    code, output = await commands.done("wait", "nobody", "--timeout=300ms")
    assert (code, "no sidecar of it was started within 0.3 s" in output) == (1, True)
    code, output = await commands.done("wait", "--port=1", "--timeout=300ms")
    assert (code, "port 1: no ready sidecar within 0.3 s" in output) == (1, True)


async def test_wait_and_status_say_the_same_of_an_app_that_is_not_there_yet(commands: Commands) -> None:
    port = free_port()
    run = commands.run("cart", f"--app-port={port}", command=("sleep", "60"))
    http = int((await run.line(READY))[1])
    why = f"app: nothing listens on 127.0.0.1:{port} yet"
    code, output = await commands.done("wait", "cart", "--timeout=500ms")
    assert (code, why in output) == (1, True)
    code, output = await commands.done("status", "cart")
    assert (code, "not ready" in output, why in output) == (1, True, True)
    assert (await commands.done("wait", f"--port={http}", "--timeout=40s"))[0] == 0  # for the app itself


async def test_app_that_speaks_another_protocol_than_told_is_not_ready(commands: Commands) -> None:
    port = free_port()
    run = commands.run("cart", f"--app-port={port}", "--app-protocol=grpc")
    await run.line(LISTENING)
    await run.line("the app does not speak HTTP/2")
    code, output = await commands.done("status", "cart")
    assert code == 1
    assert "does not speak HTTP/2, and --app-protocol is grpc" in output


async def test_commands_of_other_building_blocks_are_refused(commands: Commands) -> None:
    assert (await commands.done("publish"))[0] == 2


@pytest.mark.parametrize(
    "words", [["version"], ["--version"], ["sidecar", "--version"], ["wait", "--port=1", "--timeout=0s"]]
)
async def test_quick_commands_load_no_framework(commands: Commands, words: list[str]) -> None:
    script = (
        "import sys; from proxy.cli.__main__ import main; main(sys.argv[1:]);"
        "heavy = {'typer', 'rich', 'asyncio', 'ssl', 'grpc', 'yaml', 'proxy.contract.plan'} & set(sys.modules);"
        "print('loaded', sorted(heavy))"
    )
    process = commands.mesh.processes.start([sys.executable, "-I", "-c", script, *words], name="quick")
    await process.ended()
    if words[0] != "wait":
        assert "loaded []" in process.output
    assert "typer" not in process.output


async def test_failed_call_that_was_not_sampled_is_listed_and_shown(secured: Commands) -> None:
    never = secured.mesh.write("never.yaml", SAMPLED.replace('"1"', '"0"'))
    await secured.mesh.sidecar("shop", flags=(f"--config={never}",))
    await running(secured)
    code, output = await secured.done("invoke", "-a", "cart", "--from", "shop", "-m", "status/503")
    trace_id = re.search(r"trace ([0-9a-f]{32})", output)
    assert (code, trace_id is not None) == (5, True), output
    assert trace_id is not None
    code, output = await secured.done("trace", "--list", "--error", "--app", "cart")
    assert code == 0, output
    assert re.search(
        rf"{trace_id[1]} .* shop +cart +/status/503 +503 .* errors?: 503 Service Unavailable", output
    ), output
    assert "from memory of 2 sidecars" in output
    code, output = await secured.done("trace", "--list", "--slower", "1m", "-o", "json")
    assert (code, json.loads(output)["traces"]) == (0, [])
    code, output = await secured.done("trace", trace_id[1])
    assert code == 0
    assert re.search(r"· resolve \S+ \S+, queue ", output), output
    code, output = await secured.done("trace", "--list", "--since", "yesterday")
    assert (code, "--since 'yesterday'" in output) == (2, True)
