"""What an app meets at its own proxy beside the calls themselves, on each engine: building blocks, traces, baggage, failures."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import grpc
import pytest
import pytest_asyncio

from telemetry.context import extract, format_grpc_trace_bin
from tests.integration.mesh.standing import eventually
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import connect, request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest
from tests.support.websocket import new_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """`web` calls `cart` (HTTP) and `echo` (gRPC); `daprd` calls itself, `strict` lets nobody in."""

    mesh: Mesh
    web: Sidecar
    cart: Sidecar
    echo: Sidecar
    daprd: Sidecar
    strict: Sidecar


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def edge(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Edge]:
    """One for the module and engine: nobody changes it."""
    engine = ("--engine", str(request.param))
    async with Mesh(tmp_path_factory.mktemp("edge")) as mesh:
        http, grpc_app = await mesh.http_app(), await mesh.grpc_app()
        await mesh.start_sentry()
        async with asyncio.TaskGroup() as tasks:
            cart = tasks.create_task(mesh.sidecar("cart", app=http, flags=engine))
            echo = tasks.create_task(mesh.sidecar("echo", app=grpc_app, flags=engine))
            web = tasks.create_task(mesh.sidecar("web", flags=engine))
            production = (*engine, "--profile", "production")
            strict = tasks.create_task(mesh.sidecar("strict", app=http, flags=production))
            compat = (*engine, "--profile", "daprd", "--read-buffer-size", "64Ki")
            daprd = tasks.create_task(mesh.sidecar("daprd", app=http, flags=compat))
        yield Edge(
            mesh=mesh,
            web=web.result(),
            cart=cart.result(),
            echo=echo.result(),
            daprd=daprd.result(),
            strict=strict.result(),
        )


# --- building blocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "code", "word"),
    [
        ("/v1.0/state/store/key", "ERR_STATE_STORE_NOT_CONFIGURED", "state store"),
        ("/v1.0-alpha1/state/store/query", "ERR_STATE_STORE_NOT_CONFIGURED", "state store"),
        ("/v1.0/publish/pubsub/topic", "ERR_PUBSUB_NOT_CONFIGURED", "publish"),
        ("/v1.0/bindings/cron", "ERR_INVOKE_OUTPUT_BINDING", "bindings"),
        ("/v1.0/secrets/vault/key", "ERR_SECRET_STORES_NOT_CONFIGURED", "secret store"),
        ("/v1.0/actors/T/1/method/m", "ERR_ACTOR_RUNTIME_NOT_FOUND", "actors"),
        ("/v1.0-beta1/workflows/dapr/w/start", "ERR_WORKFLOW_COMPONENT_NOT_FOUND", "workflows"),
        ("/v1.0/configuration/store", "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "configuration"),
        ("/v1.0-alpha1/lock/store", "ERR_LOCK_STORE_NOT_CONFIGURED", "lock"),
        ("/v1.0-alpha1/crypto/keys/encrypt", "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED", "cryptography"),
        ("/v1.0-alpha1/jobs/one", "ERR_JOBS_NOT_CONFIGURED", "jobs"),
        ("/v1.0-alpha2/conversation/llm/converse", "ERR_CONVERSATION_NOT_CONFIGURED", "conversations"),
    ],
)
async def test_building_block_that_is_missing_is_named(edge: Edge, path: str, code: str, word: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = await request(edge.web.http_port, method, path, body=b"{}" if method == "POST" else None)
        told = json.loads(answer.body)
        assert (answer.status, told["errorCode"], answer.get("postern-error")) == (501, code, "unsupported")
        assert "postern carries service invocation only" in told["message"]
        assert word in told["message"]
    named = await request(edge.web.http_port, "GET", path, headers=[("dapr-app-id", "cart")])
    assert (named.status, json.loads(named.body)["target"]) == (200, path)


async def test_path_that_is_no_building_block_names_no_app(edge: Edge) -> None:
    for path in ("/v1.0/states/x", "/v1.0", "/v1.0-gamma/state/x", "/v2.0/state/x"):
        answer = await request(edge.web.http_port, "GET", path)
        assert (answer.status, answer.get("postern-error")) == (404, "no-app")


@pytest.mark.parametrize(
    ("method", "left", "status", "sent"),
    [
        ("OPTIONS", "0", 200, None),
        ("OPTIONS", "2", 200, "1"),
        ("TRACE", "0", 501, None),
        ("GET", "0", 200, "0"),
    ],
)
async def test_max_forwards_counts_the_callers_proxy(
    edge: Edge, method: str, left: str, status: int, sent: str | None
) -> None:
    """RFC 9110 §7.6.2; the callee's proxy is of the same hop."""
    headers = [("dapr-app-id", "cart"), ("Max-Forwards", left)]
    answer = await request(edge.web.http_port, method, "/echo", headers=headers)
    assert answer.status == status
    if sent is None:
        assert b'"target"' not in answer.body
    else:
        told = {name.lower(): value for name, value in json.loads(answer.body)["headers"]}
        assert told["max-forwards"] == sent


async def test_426_says_what_to_upgrade_to_across_the_mesh(edge: Edge) -> None:
    """RFC 9110 §15.5.22; to the app's own proxy alike."""
    for sidecar in (edge.web, edge.cart):
        target = "/status?code=426&header=upgrade:foo/2"
        answer = await request(sidecar.http_port, "GET", target, headers=[("dapr-app-id", "cart")])
        options = ",".join(value for name, value in answer.headers if name.lower() == "connection")
        assert (answer.status, answer.get("upgrade")) == (426, "foo/2")
        assert "upgrade" in options


async def test_app_that_declines_a_websocket_with_200_is_heard_across_the_mesh(edge: Edge) -> None:
    offer = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", new_key())]
    async with connect(edge.web.http_port) as caller:
        headers = [*offer, ("Connection", "Upgrade"), ("dapr-app-id", "cart")]
        await caller.send_head("GET", "/status?code=200", headers)
        answer = await caller.read_response("GET")
    assert (answer.status, answer.body) == (200, b"status 200")


async def test_grpc_api_of_dapr_says_what_is_carried(edge: Edge) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{edge.web.grpc_port}") as channel:
        client = EchoClient(channel, service="dapr.proto.runtime.v1.Dapr")
        call = client.unary(EchoRequest(), method="GetState")
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "service invocation only" in await call.details()


# --- trace context and baggage -----------------------------------------------------------------------------------------------

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


async def test_http_answer_tells_its_trace(edge: Edge) -> None:
    port = edge.web.http_port
    for target, way in (
        ("/v1.0/invoke/cart/method/echo", ()),
        ("/echo", (("dapr-app-id", "cart"),)),
        ("/echo", (("Host", "cart.localhost"),)),
    ):
        answer = await request(port, "GET", target, headers=[*way, ("traceparent", PARENT)])
        (told,) = [value for name, value in answer.headers if name.lower() == "traceparent"]
        seen = received(answer.body, "traceparent")
        assert told.split("-")[1] == seen.split("-")[1] == TRACE
        assert len({told, seen, PARENT}) == 3  # the caller's span, the callee's, and the parent of both
        without = await request(port, "GET", target, headers=way)
        assert without.get("traceparent").split("-")[1] == received(without.body, "traceparent").split("-")[1]


async def test_app_that_tells_a_trace_itself_is_heard(edge: Edge) -> None:
    answer = await request(edge.web.http_port, "GET", "/v1.0/invoke/cart/method/traced")
    assert [value for name, value in answer.headers if name.lower() == "traceparent"] == ["00-app-app-00"]


def told_trace(answer: Response) -> str:
    """The trace that the body of an error names."""
    (detail,) = json.loads(answer.body)["details"]
    return str(detail["requestId"])


async def test_answer_of_a_proxy_tells_its_trace(edge: Edge) -> None:
    for target in ("/v1.0/nowhere", "/v1.0/state/s", "/v1.0/invoke/strict/method/x"):
        answer = await request(edge.web.http_port, "GET", target, headers=[("traceparent", PARENT)])
        assert answer.get("postern-error")
        assert answer.get("traceparent").split("-")[1] == told_trace(answer) == TRACE
    async with grpc.aio.insecure_channel(f"localhost:{edge.web.grpc_port}") as channel:
        metadata = (("dapr-app-id", "cart"), ("traceparent", PARENT))
        call = EchoClient(channel, metadata=metadata).unary(EchoRequest())
        assert await call.code() is not grpc.StatusCode.OK
        found = dict([*(await call.initial_metadata()), *(await call.trailing_metadata())])
        assert str(found["traceparent"]).split("-")[1] == TRACE


async def test_binary_trace_context_is_passed_on_over_http_too(edge: Edge) -> None:
    context = extract([(b"traceparent", PARENT.encode())], grpc=False)
    assert context is not None
    headers = [("grpc-trace-bin", format_grpc_trace_bin(context).decode())]
    answer = await request(edge.web.http_port, "GET", "/v1.0/invoke/cart/method/echo", headers=headers)
    sent = received(answer.body, "grpc-trace-bin").encode()
    passed = extract([(b"grpc-trace-bin", sent)], grpc=True)
    assert passed is not None
    assert passed.trace_id == context.trace_id
    assert passed.span_id != context.span_id
    assert received(answer.body, "traceparent").split("-")[1] == TRACE
    plain = await request(edge.web.http_port, "GET", "/v1.0/invoke/cart/method/echo")
    assert received(plain.body, "grpc-trace-bin") == ""


def received(body: bytes, name: str) -> str:
    """The value of a header that the app was sent, "" for none; several are joined."""
    return "|".join(value for key, value in json.loads(body)["headers"] if key.lower() == name)


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [("a=1,b=2;p", "a=1,b=2;p"), ("a=1,broken,b=2", "a=1,b=2"), ("broken", ""), ("a=" + "x" * 8191, "")],
)
async def test_sound_baggage_is_passed_on_and_the_rest_is_dropped(
    edge: Edge, sent: str, arrives: str
) -> None:
    headers = [("baggage", sent)]
    answer = await request(edge.web.http_port, "GET", "/v1.0/invoke/cart/method/echo", headers=headers)
    assert (answer.status, answer.get("baggage")) == (200, "")
    assert received(answer.body, "baggage") == arrives


async def test_dropped_baggage_is_counted(edge: Edge) -> None:
    headers = [("baggage", ",".join("k=1" for _ in range(65)))]
    for _ in range(3):
        await request(edge.web.http_port, "GET", "/v1.0/invoke/cart/method/echo", headers=headers)
    await eventually(partial(_is_counted, edge.web.metrics_port))


async def _is_counted(port: int) -> bool:
    scraped = (await request(port, "GET", "/metrics")).body
    return b'postern_baggage_dropped_total{reason="too-many"} 3.0' in scraped


async def test_daprd_refuses_bad_baggage_and_echoes_good(edge: Edge) -> None:
    target = "/v1.0/invoke/daprd/method/echo"
    port = edge.daprd.http_port
    for wrong in ("broken", "a=" + "x" * 8191, ",".join("k=1" for _ in range(65))):
        answer = await request(port, "GET", target, headers=[("baggage", wrong)])
        assert (answer.status, answer.get("content-type")[:10]) == (400, "text/plain")
        assert answer.body.startswith(b"invalid baggage header: ")
    answer = await request(port, "GET", target, headers=[("baggage", "a=1, b=2;p")])
    assert (answer.status, answer.get("baggage")) == (200, "a=1, b=2;p")
    assert received(answer.body, "baggage") == "a=1, b=2;p"


# --- calls that fail ---------------------------------------------------------------------------------------------------------


async def test_call_that_failed_is_told_in_the_callers_log(edge: Edge) -> None:
    for number, (target, headers, callee, by) in enumerate(
        (
            ("/v1.0/nowhere", [], "- cause=no-app", "this proxy"),
            ("/v1.0/invoke/strict/method/x", [], "strict.default cause=denied", "the callee's proxy"),
            ("/v1.0/invoke/cart/method/x", [("Origin", "null")], "- cause=forbidden-origin", "this proxy"),
        )
    ):
        trace = f"{number + 1:032x}"
        parent = ("traceparent", f"00-{trace}-b7ad6b7169203331-00")
        origin = [] if headers else [parent]  # which excuses an origin
        answer = await request(edge.cart.http_port, "GET", target, headers=[*headers, *origin])
        assert answer.status in (403, 404, 500)
        told = told_trace(answer)
        assert told == trace or headers
        line = await edge.cart.process.line(f"call failed.*trace_id={told}")
        for part in (f"callee={callee}", f'by="{by}"', "attempts="):
            assert part in line.string, line.string
    assert "trace_id=" in (await edge.strict.process.line("access denied.*")).group()


async def test_answer_of_the_app_is_no_failure_of_ours(edge: Edge) -> None:
    parent = ("traceparent", f"00-{'e' * 32}-b7ad6b7169203331-00")
    for target in ("/v1.0/invoke/cart/method/status?code=500", "/v1.0/nowhere"):
        await request(edge.cart.http_port, "GET", target, headers=[parent])
    await edge.cart.process.line(f"call failed.*path=/v1.0/nowhere.*trace_id={'e' * 32}")
    assert "path=/status" not in edge.cart.process.output
