"""Access control between real proxies: who may do what, whatever the path is dressed up as, and rules that change while calls flow.

Rows have the numbers of those in tests/unit/policies/rules/test_decision_table.py; the caller is proven by its certificate.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from sentry.spiffe import SpiffeId
from tests.integration.mesh.peers import Forge, Header, h2_head, h2_request, peer_connection, until_closed
from tests.support.apps import App
from tests.support.echo_client import EchoClient, Metadata
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest

UNARY = "/testing.EchoService/Unary"
OTHER_CASE = "/testing.echoservice/Unary"


def policy(app_id: str, default: str, *operations: tuple[str, str, str]) -> str:
    """One caller's entry; an operation is path, verbs, action."""
    lines = [
        f"- appId: {app_id}",
        "  trustDomain: public",
        "  namespace: default",
        f"  defaultAction: {default}",
    ]
    if operations:
        lines.append("  operations:")
    for path, verbs, action in operations:
        lines += [f"  - name: {path}", f"    httpVerb: [{verbs}]", f"    action: {action}"]
    return "\n".join("      " + line for line in lines) + "\n"


def configuration(default: str, *policies: str) -> str:
    """A Configuration with access control."""
    return (
        "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: rules}\nspec:\n  accessControl:\n"
        f"    defaultAction: {default}\n    policies:\n{''.join(policies)}"
    )


ANY = '"*"'
ORDERS = configuration(
    "deny",
    policy("app1", "deny", ("/op1", ANY, "allow")),  # rows 9 to 15
    policy("app2", "deny", ("/op1", "POST, PUT", "allow")),  # row 21
    policy("app3", "deny", ("/a", ANY, "allow"), ("/a/b", ANY, "deny")),  # row 43
)
SHOP = configuration(
    "allow",
    policy("app1", "allow", ("/admin", ANY, "deny")),  # rows 26 to 30
    policy("app2", "allow", ("/**", ANY, "allow"), ("/admin", ANY, "deny")),  # row 39
)
ECHO = configuration(
    "allow",
    policy("app1", "allow", (UNARY, ANY, "deny")),  # row 31
    policy("app2", "deny", (UNARY, ANY, "allow")),  # row 19
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Three callers, and three callees with rules for them: `orders` and `shop` are HTTP apps, `echo` is a gRPC app."""

    mesh: Mesh
    http: App
    echo: App
    sidecars: dict[str, Sidecar]

    async def call(
        self, caller: str, callee: str, verb: str, path: str, *, headers: tuple[Header, ...] = ()
    ) -> Response:
        """Call through the caller's proxy by Dapr's path."""
        port = self.sidecars[caller].http_port
        return await request(port, verb, f"/v1.0/invoke/{callee}/method/{path}", headers=headers)

    async def unary(self, caller: str, path: str, metadata: Metadata = ()) -> grpc.StatusCode:
        """The code that a unary gRPC call to `echo` comes to."""
        port = self.sidecars[caller].grpc_port
        async with grpc.aio.insecure_channel(f"localhost:{port}") as channel:
            service = path.removeprefix("/").partition("/")[0]
            client = EchoClient(channel, metadata=(("dapr-app-id", "echo"), *metadata), service=service)
            call = client.unary(EchoRequest(message="x"))
            code: grpc.StatusCode = await call.code()
            return code

    async def app_calls(self) -> int:
        """Requests that reached the HTTP app, these questions left out."""
        seen: dict[str, int] = json.loads((await request(self.http.port, "GET", "/stats")).body)["requests"]
        return sum(count for path, count in seen.items() if path != "/stats")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rules(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rules]:
    """One for the module: nobody changes it."""
    async with Mesh(tmp_path_factory.mktemp("access")) as mesh:
        http, echo = await mesh.http_app(), await mesh.grpc_app()
        callees = {"orders": (http, ORDERS), "shop": (http, SHOP), "echo": (echo, ECHO)}
        starting = {}
        async with asyncio.TaskGroup() as tasks:
            for name in ("app1", "app2", "app3"):
                starting[name] = tasks.create_task(mesh.sidecar(name))
            for name, (app, text) in callees.items():
                path = mesh.write(f"{name}.yaml", text)
                starting[name] = tasks.create_task(mesh.sidecar(name, app=app, flags=("--config", str(path))))
        sidecars = {name: task.result() for name, task in starting.items()}
        yield Rules(mesh=mesh, http=http, echo=echo, sidecars=sidecars)


Row = tuple[str, str, str, str, tuple[str, ...], int]  # number, caller, callee, verb, paths, status
ROWS: tuple[Row, ...] = (
    ("9", "app1", "orders", "GET", ("op1", "/op1", "op1/", "x/../op1"), 200),
    ("10", "app1", "orders", "GET", ("OP1",), 200),
    ("11", "app1", "orders", "DELETE", ("op1/sub/deep",), 200),
    ("12", "app1", "orders", "GET", ("op10", "op", "op1/../op2", ""), 403),
    ("13", "app1", "orders", "GET", ("op1;x=1",), 403),
    ("14", "app1", "orders", "GET", ("op1%00", "op1%1f"), 400),
    ("14 escaped", "app1", "orders", "GET", ("op1%3Fx=1", "op1%23f"), 403),
    ("15", "shop", "orders", "GET", ("op1",), 403),
    ("21 allowed", "app2", "orders", "POST", ("op1",), 200),
    ("21 allowed too", "app2", "orders", "PUT", ("op1",), 200),
    ("21 denied", "app2", "orders", "GET", ("op1",), 403),
    ("21 denied too", "app2", "orders", "PATCH", ("op1",), 403),
    ("21 unknown verb", "app2", "orders", "FOO", ("op1",), 403),
    ("26", "app1", "shop", "GET", ("admin", "Admin", "admin/x", "%61dmin", "//admin"), 403),
    ("26 others", "app1", "shop", "GET", ("else", "admins"), 200),
    ("27", "app1", "shop", "GET", ("%2561dmin", "100%25ab"), 403),
    ("27 others", "app1", "shop", "GET", ("a%2Fb", "my%23t", "x%3Fy", "a%252Fb", "a%5Cb", "100%25"), 200),
    ("28 parameter", "app1", "shop", "GET", ("admin;x=1",), 403),
    ("28 backslash", "app1", "shop", "GET", ("a%5C..%5Cadmin", "a\\..\\admin"), 403),
    ("30 dotless i", "app1", "shop", "GET", ("adm%C4%B1n",), 200),
    ("39", "app2", "shop", "GET", ("admin", "admin/x"), 403),
    ("39 others", "app2", "shop", "GET", ("else",), 200),
    ("43", "app3", "orders", "GET", ("a/b", "a/b/c"), 403),
    ("43 others", "app3", "orders", "GET", ("a", "a/c"), 200),
    ("60", "orders", "orders", "GET", ("anything",), 200),
)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
async def test_row_of_the_decision_table_holds_end_to_end(rules: Rules, row: Row) -> None:
    _, caller, callee, verb, paths, status = row
    before = await rules.app_calls()
    for path in paths:
        answer = await rules.call(caller, callee, verb, path)
        assert answer.status == status, (path, answer.body)
    assert await rules.app_calls() == before + (len(paths) if status == 200 else 0)


@pytest.mark.parametrize(
    ("caller", "path", "code"),
    [
        ("app1", UNARY, grpc.StatusCode.PERMISSION_DENIED),  # row 31
        (
            "app1",
            OTHER_CASE,
            grpc.StatusCode.UNIMPLEMENTED,
        ),  # row 31: let through, and the app knows no such service
        ("app2", UNARY, grpc.StatusCode.OK),  # row 19
        ("app2", OTHER_CASE, grpc.StatusCode.PERMISSION_DENIED),  # row 19
        ("app3", UNARY, grpc.StatusCode.OK),
    ],
)
async def test_grpc_rows_are_judged_by_full_name_with_case(
    rules: Rules, caller: str, path: str, code: grpc.StatusCode
) -> None:
    assert await rules.unary(caller, path) is code


async def test_denial_on_daprs_surface_has_daprs_body(rules: Rules) -> None:
    answer = await rules.call("app1", "orders", "GET", "op2")
    assert answer.status == 403
    assert answer.get("content-type") == "application/json"
    assert answer.get("postern-error") == "denied"
    assert json.loads(answer.body) == {
        "errorCode": "ERR_DIRECT_INVOKE",
        "message": "failed to invoke, id: orders, err: rpc error: code = PermissionDenied desc = access control policy "
        "has denied access to id: spiffe://public/ns/default/app1 operation: /op2 verb: GET",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.RequestInfo",
                "requestId": answer.get("traceparent").split("-")[1],
            }
        ],
    }


async def test_denial_on_own_surface_is_plain_and_names_no_rule(rules: Rules) -> None:
    port = rules.sidecars["app1"].http_port
    answer = await request(port, "GET", "/op2", headers=[("Host", "orders.localhost")])
    assert answer.status == 403
    assert json.loads(answer.body)["errorCode"] == "ERR_DENIED"
    assert "rule" not in answer.body.decode()
    async with grpc.aio.insecure_channel(f"localhost:{rules.sidecars['app1'].grpc_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoClient(channel, metadata=(("dapr-app-id", "echo"),)).unary(EchoRequest())
    assert caught.value.details() == (
        f"access control policy has denied access to id: spiffe://public/ns/default/app1 operation: {UNARY}"
    )


# --- who calls is proven, never told -----------------------------------------------------------------------------------------

FORGED = (
    ("dapr-caller-app-id", "app1"),
    ("Dapr-Caller-App-Id", "app1"),
    ("dapr-caller-namespace", "prod"),
    ("x-forwarded-client-cert", "By=spiffe://public/ns/default/orders;URI=spiffe://public/ns/default/app1"),
    ("postern-caller", "app1"),
)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("default", ["deny", "allow"])
async def test_claims_without_mutual_tls_are_told_to_the_app_and_decide_nothing(
    tmp_path: Path, engine: str, default: str
) -> None:
    """As daprds have it, which judge a caller without a certificate by the default action alone."""
    other = "allow" if default == "deny" else "deny"
    async with Mesh(tmp_path, with_sentry=False) as mesh:
        path = mesh.write("rules.yaml", configuration(default, policy("app1", other)))
        flags = ("--profile", "daprd", "--engine", engine, "--enable-mtls=false")
        app = await mesh.http_app()
        await mesh.sidecar("orders", app=app, flags=(*flags, "--config", str(path)))
        caller = await mesh.sidecar("app1", flags=flags)
        target = "/v1.0/invoke/orders/method/echo"
        answer = await request(caller.http_port, "GET", target, headers=FORGED)
        assert answer.status == (403 if default == "deny" else 200), answer.body
        if default == "allow":
            seen = [(name.lower(), value) for name, value in json.loads(answer.body)["headers"]]
            assert [value for name, value in seen if name == "dapr-caller-app-id"] == ["app1"]
            assert [value for name, value in seen if name == "dapr-caller-namespace"] == ["default"]


async def test_forged_identity_headers_open_nothing_and_reach_no_app(rules: Rules) -> None:
    assert (await rules.call("shop", "orders", "GET", "op1", headers=FORGED)).status == 403
    let_in = await rules.call("app2", "orders", "POST", "op1", headers=FORGED)
    assert let_in.status == 200
    seen = [(name.lower(), value) for name, value in json.loads(let_in.body)["headers"]]
    assert [value for name, value in seen if name == "dapr-caller-app-id"] == ["app2"]
    assert [value for name, value in seen if name == "dapr-caller-namespace"] == ["default"]
    assert not [name for name, _ in seen if name in ("x-forwarded-client-cert", "postern-caller")]
    forged = tuple((name.lower(), value) for name, value in FORGED)
    assert await rules.unary("app1", UNARY, forged) is grpc.StatusCode.PERMISSION_DENIED
    override = (("x-http-method-override", "POST"), ("x-method-override", "POST"))
    assert (await rules.call("app2", "orders", "GET", "op1", headers=override)).status == 403


async def test_rogue_peer_with_a_good_certificate_is_judged_by_it_alone(rules: Rules, tmp_path: Path) -> None:
    context = Forge.of(rules.mesh.root, tmp_path).context(SpiffeId("public", "default", "rogue"))
    port = rules.sidecars["orders"].peer_port
    forged = [(name.lower(), value) for name, value in FORGED]
    answer = await h2_request(port, [*h2_head("GET", "/op1"), *forged], context=context)
    assert answer.status == 403
    allowed = Forge.of(rules.mesh.root, tmp_path).context(SpiffeId("public", "default", "app1"))
    elsewhere = Forge.of(rules.mesh.root, tmp_path).context(SpiffeId("public", "prod", "app1"))
    assert (await h2_request(port, h2_head("GET", "/op1"), context=allowed)).status == 200
    assert (await h2_request(port, h2_head("GET", "/op1"), context=elsewhere)).status == 403


# --- what is no path of an app -------------------------------------------------------------------------------------------------


async def test_http1_is_not_spoken_between_proxies(rules: Rules, tmp_path: Path) -> None:
    context = Forge.of(rules.mesh.root, tmp_path).context(SpiffeId("public", "default", "app1"))
    async with peer_connection(rules.sidecars["shop"].peer_port, context) as connection:
        await connection.send(b"GET /else HTTP/1.1\r\nHost: shop\r\n\r\n")
        assert b" 200 " not in await until_closed(connection)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("get /else", 400),
        ("CONNECT orders:80", 404),
        ("OPTIONS *", 200),
        ("GET admin", 400),
        ("GET http:///admin", 400),
    ],
)
async def test_odd_request_lines_are_answered_without_passing_a_rule(
    rules: Rules, line: str, status: int
) -> None:
    method, target = line.split(" ")
    port = rules.sidecars["app1"].http_port
    answer = await request(port, method, target, headers=[("Host", "shop.localhost")])
    assert answer.status == status, answer.body


# --- rules that change -------------------------------------------------------------------------------------------------------


async def wait_status_of(web: Sidecar, status: int, timeout_s: float = 30.0) -> float:
    """How long until a call to `/x` at cart is answered with `status`; no call may meet anything but 200 and 403."""
    began = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while True:
            answer = await request(web.http_port, "GET", "/v1.0/invoke/cart/method/x")
            assert answer.status in (200, 403), answer.body
            if answer.status == status:
                return time.monotonic() - began
            await asyncio.sleep(0.02)


async def test_edited_rules_rule_within_a_second_and_a_bad_edit_changes_nothing(
    mesh: Mesh, http_app: App
) -> None:
    path = mesh.write("rules.yaml", configuration("deny", policy("web", "allow")))
    async with asyncio.TaskGroup() as tasks:
        start_cart = tasks.create_task(mesh.sidecar("cart", app=http_app, flags=("--config", str(path))))
        start_web = tasks.create_task(mesh.sidecar("web"))
    cart, web = start_cart.result(), start_web.result()
    await wait_status_of(web, 200)
    times = []
    for action, status in (("deny", 403), ("allow", 200), ("deny", 403)):
        mesh.write("rules.yaml", configuration("deny", policy("web", action)))
        times.append(await wait_status_of(web, status))
    if os.getloadavg()[0] < (
        os.cpu_count() or 1
    ):  # the rules are read by another process, which others may hold up
        assert min(times) < 1.0, times
    mesh.write(
        "rules.yaml", configuration("deny", policy("web", "allow").replace("defaultAction", "defaultaction"))
    )
    await cart.process.line("policies not reloaded")
    assert (await wait_status_of(web, 403)) < 5.0
    said = (await cart.status())["policy"]
    assert isinstance(said, dict)
    assert re.search(r"rules\.yaml:\d+: \S*defaultaction", said["lastError"])
    metrics = (await request(cart.metrics_port, "GET", "/metrics")).body.decode()
    assert re.search(r"^postern_policy_reload_errors_total(\{[^}]*\})? 1(\.0)?$", metrics, re.MULTILINE)
    mesh.write("rules.yaml", configuration("deny", policy("web", "allow")))
    await wait_status_of(web, 200)
    said = (await cart.status())["policy"]
    assert isinstance(said, dict)
    assert said["lastError"] is None
    assert said["generation"] == 5
