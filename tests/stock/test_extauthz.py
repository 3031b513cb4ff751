"""Istio's sample of an external authorizer, on Envoy's own messages in Go, judges calls over gRPC and over HTTP, on both engines.

It lets pass what has `x-ext-authz: allow`, and tells in headers what it was asked.
"""

import json
from typing import Any

import grpc
import pytest

from tests.integration.mesh.standing import invoke
from tests.integration.mesh.test_access_policies import SERVICE, policy, rule
from tests.stock.programs import BUILT, GO_INSTALL, Program
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh
from tests.support.proto.echo_pb2 import EchoRequest

EXT_AUTHZ = Program(
    command=(str(BUILT / "extauthz"), "-http", "0", "-grpc", "0"),
    built=BUILT / "extauthz",
    tools=("go",),
    install=GO_INSTALL,
)
OVERRIDE = "x-ext-authz-additional-header-override"
RESULT = "x-ext-authz-check-result"
RULES = (
    rule("asked", "authorize", "web", authorizer="istio", to={"paths": ["/asked/{**}"]}),
    rule("echo", "authorize", "web", authorizer="istio", to={"grpc": {"services": ["testing.*"]}}),
)
pytestmark = pytest.mark.timeout(120)


async def started(mesh: Mesh) -> tuple[str, str]:
    """The ports of HTTP and gRPC of one that runs now."""
    if missing := EXT_AUTHZ.reason_missing():
        pytest.skip(missing)
    process = mesh.processes.start(EXT_AUTHZ.command, name="extauthz")
    http = await process.line(r"Starting HTTP server at \S+:(\d+)$")
    served = await process.line(r"Starting gRPC server at \S+:(\d+)$")
    return http[1], served[1]


def asking(**entry: Any) -> str:
    return policy(*RULES, authorizers=[{"name": "istio", "timeout": "10s", **entry}])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["grpc", "http"])
async def test_calls_are_judged_as_envoy_has_them_judged(engine: str, kind: str, mesh: Mesh) -> None:
    http, served = await started(mesh)
    headers = ["x-ext-authz", OVERRIDE]
    text = {
        "grpc": asking(grpc=f"127.0.0.1:{served}"),
        "http": asking(http=f"http://127.0.0.1:{http}", headers=headers, toApp=[RESULT, OVERRIDE]),
    }[kind]
    folder = mesh.write("resources/policy.yaml", text).parent
    flags = ("--engine", engine, "--profile", "production", "--resources-path", str(folder))
    await mesh.sidecar("shop", app=await mesh.http_app(), flags=flags)
    await mesh.sidecar("echo", app=await mesh.grpc_app(), flags=flags)
    web = await mesh.sidecar("web", flags=("--engine", engine))
    target = invoke("shop", "/asked/echo?x=1")

    sent = (("x-ext-authz", "allow"), (RESULT, "forged"), (OVERRIDE, "mine"))
    answer = await request(web.http_port, "GET", target, headers=sent)
    seen = {name.lower(): value for name, value in json.loads(answer.body)["headers"]}
    overridden = "grpc-additional-header-override-value" if kind == "grpc" else "mine"
    assert (answer.status, seen[RESULT], seen[OVERRIDE]) == (200, "allowed", overridden)

    answer = await request(web.http_port, "POST", target, headers=[("x-ext-authz", "deny")], body=b"hello")
    assert (answer.status, answer.get(RESULT), answer.get("postern-error")) == (403, "denied", "denied")
    assert answer.body.startswith(b"denied by ext_authz for not found header `x-ext-authz: allow`")
    received = answer.get("x-ext-authz-check-received")
    assert "spiffe://public/ns/default/web" in received
    assert "/asked/echo?x=1" in received

    async with grpc.aio.insecure_channel(f"localhost:{web.grpc_port}") as channel:
        allowed = (("dapr-app-id", "echo"), ("x-ext-authz", "allow"))
        reply = await EchoClient(channel, metadata=allowed, service=SERVICE).unary(EchoRequest(message="hi"))
        assert reply.message == "hi"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await EchoClient(channel, metadata=allowed[:1], service=SERVICE).unary(EchoRequest(message="hi"))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert (refused.value.details() or "").startswith("denied by ext_authz")
