"""`postern explain` between real sidecars: what would come of a call, said by both ends, without a call."""

import json

from tests.integration.cli.conftest import Commands
from tests.integration.mesh.test_access import ANY, configuration, policy

RESILIENCY = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: guards}
spec:
  policies: {circuitBreakers: {guard: {trip: consecutiveFailures > 0, timeout: 1h}}}
  targets: {apps: {cart: {circuitBreaker: guard}}}
"""


async def test_allowed_denied_and_unknown_are_told_apart_and_why(secured: Commands) -> None:
    mesh = secured.mesh
    app = await mesh.http_app()
    rules = mesh.write("rules.yaml", configuration("allow", policy("web", "allow", ("/admin", ANY, "deny"))))
    await mesh.sidecar("cart", app=app, flags=(f"--config={rules}",))
    mesh.write("web/resiliency.yaml", RESILIENCY)
    await mesh.sidecar("web", flags=("--resources-path", str(mesh.files / "web")))
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
        "timeouts connect 30 s, attempt",
        "breaker of /items at cart: closed, not asked so far",
    ):
        assert told in text, (told, output)
    await secured.done(
        "invoke", "--app-id", "cart", "--from", "web", "--method", "status?code=500", "--verb", "GET"
    )
    code, output = await secured.done(*asked, "/v1.0/invoke/cart/method/status")
    assert "breaker guard of /status at cart: open for 3" in " ".join(output.split()), output

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
