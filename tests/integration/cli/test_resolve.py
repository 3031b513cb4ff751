"""`postern resolve` by a real sidecar: each source with its time, and where a call would go."""

import json
import secrets
from typing import Any

from tests.integration.cli.conftest import Commands
from tests.support.http_client import request

PLAIN = ("--insecure-plaintext",)


async def resolved(commands: Commands, *words: str) -> tuple[int, dict[str, Any]]:
    code, output = await commands.done("resolve", *words, "-o", "json")
    told: dict[str, Any] = json.loads(output)
    return code, told


async def test_sources_are_told_with_their_times_and_the_endpoint_that_calls_prefer(
    commands: Commands,
) -> None:
    mesh = commands.mesh
    (mesh.root / "endpoints.yaml").write_text("fixed: [127.0.0.1:1, 127.0.0.1:2]\n")
    app = await mesh.http_app()
    cart = await mesh.sidecar("cart", app=app, flags=PLAIN)
    web = await mesh.sidecar("web", flags=PLAIN)
    code, told = await resolved(commands, "cart", "--from", "web")
    assert (code, told["name"], told["by"]) == (0, "cart.default", "web.default")
    assert [each["source"] for each in told["sources"]] == ["file", "host registry", "mdns"]
    assert all(0 <= each["tookMs"] < 3_000 for each in told["sources"])
    assert told["sources"][1]["endpoints"][0]["address"] == f"127.0.0.1:{cart.peer_port}"
    assert told["endpoints"][0]["why"] == "known to this host, not called yet"

    answer = await request(web.http_port, "GET", "/v1.0/invoke/cart/method/echo")
    assert answer.status == 200
    code, told = await resolved(commands, "cart.default", "--from", "web")
    assert told["endpoints"][0]["verdict"] == "preferred"
    assert told["endpoints"][0]["why"].startswith("answered before (")

    code, output = await commands.done("resolve", "fixed", "--from", "web")
    assert code == 0, output
    lines = output.splitlines()
    assert lines[0] == "✓ fixed.default: web.default calls 127.0.0.1:1"
    assert lines[2] == "sources"
    assert lines[3].startswith("file ")
    assert "candidate" in output

    code, output = await commands.done("resolve", "crat", "--from", "web")
    assert code == 1
    assert output.splitlines()[0] == "✗ crat.default: web.default finds nobody; did you mean 'cart'?"
    assert "no entry" in output
    code, output = await commands.done("resolve", "no/name", "--from", "web")
    assert (code, "is not the name of an app" in output) == (2, True)
    code, output = await commands.done("resolve", "cart")
    assert (code, output.splitlines()[0]) == (
        0,
        f"✓ cart.default: web.default calls 127.0.0.1:{cart.peer_port}",
    )


async def test_watch_tells_of_an_instance_that_comes(commands: Commands) -> None:
    mesh = commands.mesh
    app = await mesh.http_app()
    await mesh.sidecar("web", flags=PLAIN)
    name = f"late-{secrets.token_hex(4)}"  # other meshes of this machine may announce any other
    watching = commands.start("resolve", name, "--watch")
    await watching.line(f"✗ {name}.default: web.default finds nobody", timeout_s=60.0)
    await mesh.sidecar(name, app=app, flags=PLAIN)
    await watching.line(f"✓ {name}.default: web.default calls 127.0.0.1:", timeout_s=60.0)
    await watching.end()
