"""`postern explain` between real sidecars: what would come of a call, said by both ends, without a call."""

import json

from tests.integration.cli.conftest import Commands
from tests.integration.mesh.test_access import ANY, configuration, policy


async def test_allowed_denied_and_unknown_are_told_apart_and_why(secured: Commands) -> None:
    mesh = secured.mesh
    app = await mesh.http_app()
    rules = mesh.write("rules.yaml", configuration("allow", policy("web", "allow", ("/admin", ANY, "deny"))))
    await mesh.sidecar("cart", app=app, flags=(f"--config={rules}",))
    await mesh.sidecar("web")
    asked = ("explain", "--from", "web", "GET")

    code, output = await secured.done(*asked, "/v1.0/invoke/cart/method/items?n=1")
    assert code == 0, output
    lines = output.splitlines()
    assert lines[0] == "✓ web.default → cart.default: would be carried"
    assert max(map(len, lines)) <= 80
    text = " ".join(output.split())
    for told in (
        "named by the path /v1.0/invoke/<app-id>/method/…",
        "identity expected: spiffe://public/ns/default/cart",
        "(host registry)",
        "caller spiffe://public/ns/default/web",
        "access allowed: policy=web",
        "sends GET /items?n=1",
        "timeouts connect 5 s, attempt",
    ):
        assert told in text, (told, output)

    code, output = await secured.done(*asked, "http://cart.localhost:3500/admin/x")
    assert (code, output.splitlines()[0]) == (
        0,
        "✗ web.default → cart.default: would be answered by the sidecar of cart: 403",
    )
    assert "access       denied: policy=web rule=/admin reason=rule" in output

    code, output = await secured.done(*asked, "/v1.0/invoke/crat/method/items", "-o", "json")
    told = json.loads(output)
    assert (code, told["callee"], told["caller"]["verdict"]) == (0, None, "held")
    assert "did you mean 'cart'?" in told["caller"]["answer"]["message"]

    code, output = await secured.done("explain", "GET", "/x")
    assert (code, output.strip()) == (
        2,
        "postern explain: several apps run here; say which one asks with --from: cart.default, web.default",
    )
    code, output = await secured.done(*asked, "cart/items")
    assert code == 2
    assert "expected /path or http://host[:port]/path" in output
