"""What a mesh tells of its calls: spans in a real Zipkin, trace headers at the apps, metrics, logs, `postern trace`."""

import asyncio
import base64
import json
import re
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.conformance.frames import FramePeer, serving
from tests.integration.mesh.standing import Standing, eventually, invoke, standing
from tests.support import zipkin as zipkin_server
from tests.support.echo_client import EchoClient, Metadata
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_port
from tests.support.proto.echo_pb2 import EchoReply, EchoRequest
from tests.support.zipkin import ZipkinServer

# The first use may download the server: that has its own deadline, the tests keep the usual one.
pytestmark = pytest.mark.timeout(func_only=True)

Span = dict[str, Any]
CONFIG = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {{name: traced}}
spec:
  tracing:
    samplingRate: "{rate}"
    zipkin: {{endpointAddress: "{endpoint}"}}
"""
DENY = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: closed}
spec:
  accessControl: {defaultAction: deny, trustDomain: public}
"""
RETRIES = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: again}
spec:
  policies:
    retries:
      twice: {policy: constant, duration: 20ms, maxRetries: 2, matching: {httpStatusCodes: "503"}}
  targets:
    apps:
      shop: {retry: twice}
"""
FAMILIES = {
    "web": (
        'dapr_runtime_service_invocation_req_sent_total{app_id="web",dst_app_id="shop"',
        'dapr_runtime_service_invocation_res_recv_total{app_id="web",src_app_id="shop",status="200"',
        "dapr_runtime_service_invocation_res_recv_latency_ms_bucket{",
        'dapr_http_server_request_count{app_id="web"',
        'dapr_http_server_latency_count{app_id="web"',
        'dapr_grpc_io_server_completed_rpcs{app_id="web",grpc_server_method="/testing.EchoService/Unary"',
        "postern_edge_requests_total{",
        "postern_edge_duration_seconds_bucket{",
        "postern_plan_cache_",
        "postern_cert_expiry_timestamp_seconds{",
    ),
    "shop": (
        'dapr_runtime_service_invocation_req_recv_total{app_id="shop",src_app_id="web"}',
        'dapr_runtime_service_invocation_res_sent_total{app_id="shop",dst_app_id="web",status="200"}',
        'dapr_http_client_completed_count{app_id="shop"',
        "dapr_runtime_acl_",
        "postern_edge_requests_total{",
    ),
    "echo": ("postern_edge_requests_total{", "postern_edge_duration_seconds_count{"),
}


@pytest.fixture(scope="module")
def zipkin() -> Iterator[ZipkinServer]:
    """A running Zipkin; tests are skipped, saying why, where there is no Java or Maven."""
    missing = zipkin_server.reason_missing()
    if missing is not None:
        pytest.skip(f"Zipkin: {missing}")
    with zipkin_server.launch() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Standing]:
    """A mesh in which all is traced, with no collector."""
    async with standing(tmp_path_factory.mktemp("telemetry")) as started:
        yield started


def ids() -> tuple[str, str]:
    """A trace id and a span id of our own."""
    return secrets.token_hex(16), secrets.token_hex(8)


def parts(header: str) -> tuple[str, str, str]:
    """Trace id, span id and flags of a valid traceparent."""
    found = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", header)
    assert found is not None, header
    assert int(found[1], 16), header
    assert int(found[2], 16), header
    return found[1], found[2], found[3]


def received(answer: Response, name: str) -> list[str]:
    """Every value of a header at the HTTP app."""
    return [value for key, value in json.loads(answer.body)["headers"] if key.lower() == name]


async def call(sidecar: Sidecar, target: str, *headers: tuple[str, str]) -> Response:
    """A call that must succeed."""
    answer = await request(sidecar.http_port, "GET", target, headers=headers)
    assert answer.status == 200, answer.body
    return answer


async def unary(sidecar: Sidecar, *metadata: tuple[str, str | bytes]) -> EchoReply:
    """A gRPC call to `echo`."""
    async with grpc.aio.insecure_channel(f"localhost:{sidecar.grpc_port}") as channel:
        reply: EchoReply = await EchoClient(channel, metadata=(("dapr-app-id", "echo"), *metadata)).unary(
            EchoRequest(message="m")
        )
    return reply


def at_app(reply: EchoReply, name: str) -> list[bytes]:
    """Every value of a metadata key at the gRPC app."""
    return [item.value for item in reply.metadata if item.name == name]


async def remembered(sidecar: Sidecar, trace_id: str, count: int) -> list[Span]:
    """The spans of a trace that a sidecar has in memory; a call's is there only once the call is quite over."""
    spans: list[Span] = []

    async def are_there() -> bool:
        answer = await sidecar.admin(f"/trace?id={trace_id}")
        spans[:] = json.loads(answer.body)["spans"]
        return len(spans) >= count

    await eventually(are_there)
    return spans


# --- Zipkin -------------------------------------------------------------------------------------------------------------------


async def test_spans_of_every_kind_of_call_reach_zipkin(
    tmp_path_factory: pytest.TempPathFactory, zipkin: ZipkinServer
) -> None:
    files = tmp_path_factory.mktemp("zipkin")
    config = files / "traced.yaml"
    config.write_text(CONFIG.format(rate="1", endpoint=zipkin.endpoint))
    async with standing(files, flags=("--config", str(config))) as mesh:
        asked = {kind: ids() for kind in ("dapr", "own", "grpc")}
        parent = {kind: f"00-{trace}-{span}-01" for kind, (trace, span) in asked.items()}
        seen = {
            "dapr": received(
                await call(mesh.web, invoke("shop", "/echo?q=1"), ("traceparent", parent["dapr"])),
                "traceparent",
            ),
            "own": received(
                await call(mesh.web, "/echo", ("Host", "shop.localhost"), ("traceparent", parent["own"])),
                "traceparent",
            ),
            "grpc": [
                value.decode()
                for value in at_app(await unary(mesh.web, ("traceparent", parent["grpc"])), "traceparent")
            ],
        }
        for sidecar in mesh.sidecars:
            assert await sidecar.end() == 0  # an orderly end exports what is left
        endpoints = {"web": mesh.shop.peer_port, "echo": mesh.echo.peer_port}
    for kind, (trace_id, span_id) in asked.items():
        spans = await asyncio.to_thread(zipkin.wait_trace, trace_id, 2)
        callee = "echo" if kind == "grpc" else "shop"
        name = "/testing.echoservice/unary" if kind == "grpc" else "calllocal/shop/echo"
        by_kind = {span["kind"]: span for span in spans}
        client, server = by_kind["CLIENT"], by_kind["SERVER"]
        assert len(spans) == 2
        assert (client["localEndpoint"]["serviceName"], server["localEndpoint"]["serviceName"]) == (
            "web",
            callee,
        )
        assert (client["parentId"], server["parentId"]) == (span_id, client["id"])
        assert (client["name"], server["name"]) == (name, name)
        assert client["remoteEndpoint"]["serviceName"] == callee
        assert client["remoteEndpoint"]["port"] == endpoints["echo" if kind == "grpc" else "web"]
        assert server["remoteEndpoint"]["serviceName"] == "web"
        assert client["duration"] >= 1
        assert client["timestamp"] <= server["timestamp"]
        assert "q=1" not in json.dumps(spans)
        assert len(seen[kind]) == 1
        assert parts(seen[kind][0]) == (trace_id, server["id"], "01")
    links = {(link["parent"], link["child"]) for link in await asyncio.to_thread(zipkin.dependencies)}
    assert {("web", "shop"), ("web", "echo")} <= links


# --- headers ------------------------------------------------------------------------------------------------------------------


async def test_unsampled_parent_is_passed_on_and_not_recorded(mesh: Standing) -> None:
    trace_id, span_id = ids()
    answer = await call(mesh.web, invoke("shop", "/echo"), ("traceparent", f"00-{trace_id}-{span_id}-00"))
    (header,) = received(answer, "traceparent")
    found = parts(header)
    assert (found[0], found[2]) == (trace_id, "00")
    assert found[1] != span_id
    witness = ids()
    await call(mesh.web, invoke("shop", "/echo"), ("traceparent", f"00-{witness[0]}-{witness[1]}-01"))
    for sidecar in (mesh.web, mesh.shop):
        await remembered(sidecar, witness[0], 1)  # what came later is there already
        assert await remembered(sidecar, trace_id, 0) == []


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00-0-0-00",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"ff-{'1' * 32}-{'1' * 16}-01",
        f"00-{'A' * 32}-{'1' * 16}-01",
    ],
)
async def test_app_always_gets_one_valid_traceparent(mesh: Standing, header: str) -> None:
    given = (("traceparent", header),) if header else ()
    (one,) = received(await call(mesh.web, invoke("shop", "/echo"), *given), "traceparent")
    parts(one)
    (own,) = received(await call(mesh.web, "/echo", ("Host", "shop.localhost"), *given), "traceparent")
    assert parts(own)[0] != parts(one)[0]


async def test_tracestate_and_baggage_are_kept(mesh: Standing) -> None:
    trace_id, span_id = ids()
    headers = (
        ("traceparent", f"00-{trace_id}-{span_id}-01"),
        ("tracestate", "vendor=a1,other=b2"),
        ("baggage", "user=7,plan=gold"),
    )
    answer = await call(mesh.web, invoke("shop", "/echo"), *headers)
    assert received(answer, "tracestate") == ["vendor=a1,other=b2"]
    assert received(answer, "baggage") == ["user=7,plan=gold"]
    reply = await unary(mesh.web, *headers)
    assert at_app(reply, "tracestate") == [b"vendor=a1,other=b2"]
    assert at_app(reply, "baggage") == [b"user=7,plan=gold"]


@pytest.mark.parametrize("given", ["nothing", "traceparent", "grpc-trace-bin", "both"])
async def test_grpc_app_gets_one_context_in_both_forms(mesh: Standing, given: str) -> None:
    trace_id, span_id = ids()
    binary = b"\0\0" + bytes.fromhex(trace_id) + b"\x01" + bytes.fromhex(span_id) + b"\x02\x01"
    metadata: list[tuple[str, str | bytes]] = []
    if given in ("grpc-trace-bin", "both"):
        metadata.append(("grpc-trace-bin", binary))
    if given in ("traceparent", "both"):
        other = ids() if given == "both" else (trace_id, span_id)
        metadata.append(("traceparent", f"00-{other[0]}-{other[1]}-01"))
    reply = await unary(mesh.web, *metadata)
    (text,) = at_app(reply, "traceparent")
    found = parts(text.decode())
    if given != "nothing":
        assert found[0] == trace_id
    (server,) = await remembered(mesh.echo, found[0], 1)
    assert server["id"] == found[1]


async def test_context_stands_once_in_each_form_on_the_wire_to_a_grpc_app(mesh: Standing) -> None:
    """grpcio hides grpc-trace-bin from a Python app, so this app is bare HTTP/2."""
    seen: list[list[tuple[bytes, bytes]]] = []

    async def app(peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            headers = peer.message(stream).headers
            if dict(headers)[b":path"] == b"/raw.Service/Call":
                seen.append(headers)
            grpc_head = ((b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-status", b"0"))
            await peer.send(peer.head(stream, grpc_head, end=True))

    trace_id, span_id = ids()
    binary = b"\0\0" + bytes.fromhex(trace_id) + b"\x01" + bytes.fromhex(span_id) + b"\x02\x01"
    metadata: Metadata = (
        ("dapr-app-id", "raw"),
        ("grpc-trace-bin", binary),
        ("traceparent", f"00-{ids()[0]}-{span_id}-01"),
    )
    async with serving(app) as port:
        raw = await mesh.mesh.sidecar("raw", app_port=port, app_protocol="grpc")
        async with grpc.aio.insecure_channel(f"localhost:{mesh.web.grpc_port}") as channel:
            echo = EchoClient(channel, metadata=metadata, service="raw.Service")
            with suppress(grpc.aio.AioRpcError):  # the answer holds no message
                await echo.unary(EchoRequest(), method="Call")
        assert await raw.end() == 0
    (headers,) = seen
    (text,) = [data for name, data in headers if name == b"traceparent"]
    (form,) = [data for name, data in headers if name == b"grpc-trace-bin"]
    found = parts(text.decode())
    assert found[0] == trace_id
    decoded = base64.b64decode(form + b"=" * (-len(form) % 4))
    assert (decoded[2:18].hex(), decoded[19:27].hex(), decoded[28]) == (*found[:2], 1)


async def test_rate_decides_only_where_no_parent_does(mesh: Standing) -> None:
    config = mesh.mesh.write(
        "never.yaml", CONFIG.format(rate="0", endpoint="http://127.0.0.1:9/api/v2/spans")
    )
    quiet = await mesh.mesh.sidecar("quiet", flags=("--config", str(config)))
    fresh = [parts(received(await call(quiet, invoke("shop", "/echo")), "traceparent")[0]) for _ in range(10)]
    assert {flags for _, _, flags in fresh} == {"00"}
    trace_id, span_id = ids()
    await call(quiet, invoke("shop", "/echo"), ("traceparent", f"00-{trace_id}-{span_id}-01"))
    assert len(await remembered(quiet, trace_id, 1)) == 1
    # One that takes long is kept: on a busy machine some do.
    assert [] in [await remembered(quiet, of_call, 0) for of_call, _, _ in fresh]
    assert await quiet.end() == 0


# --- what went wrong ------------------------------------------------------------------------------------------------------------


async def test_retries_show_in_the_callers_span(mesh: Standing) -> None:
    mesh.mesh.write("again/resiliency.yaml", RETRIES)
    again = await mesh.mesh.sidecar("again", flags=("--resources-path", str(mesh.mesh.files / "again")))
    trace_id, span_id = ids()
    target = invoke("shop", f"/script?key={trace_id}&codes=503,503,200")
    answer = await call(again, target, ("traceparent", f"00-{trace_id}-{span_id}-01"))
    assert answer.body == b"attempt 3"
    (client,) = await remembered(again, trace_id, 1)
    notes = [note["value"] for note in client["annotations"] if note["value"].startswith("retry")]
    assert [note.split(" endpoint=")[0].split(" delay_ms=")[0] for note in notes] == [
        "retry attempt=2 reason=503",
        "retry attempt=3 reason=503",
    ]
    assert client["tags"]["http.request.resend_count"] == "2"
    servers = await remembered(mesh.shop, trace_id, 3)
    assert {span["parentId"] for span in servers} == {client["id"]}
    assert await again.end() == 0


async def test_denied_call_is_counted_logged_and_shown(mesh: Standing) -> None:
    config = mesh.mesh.write("deny.yaml", DENY)
    closed = await mesh.mesh.sidecar("closed", app=mesh.http_app, flags=("--config", str(config)))
    trace_id, span_id = ids()
    parent = ("traceparent", f"00-{trace_id}-{span_id}-01")
    answer = await request(mesh.web.http_port, "GET", invoke("closed", "/echo"), headers=[parent])
    assert answer.status == 403
    (server,) = await remembered(closed, trace_id, 1)
    assert server["tags"]["error.type"] == "denied"
    metrics = await scraped(closed)
    blocked = [line for line in metrics if re.match(r"dapr_runtime_acl_\w+_blocked_total\{", line)]
    assert sum(float(line.rpartition(" ")[2]) for line in blocked) == 1
    assert any(
        'code_class="acl"' in line for line in metrics if line.startswith("postern_edge_requests_total")
    )
    await closed.process.line("access denied.*spiffe://public/ns/default/web")
    more = [request(mesh.web.http_port, "GET", invoke("closed", "/echo")) for _ in range(40)]
    assert {answer.status for answer in await asyncio.gather(*more)} == {403}
    seen = [
        line
        for line in await scraped(mesh.web)
        if line.startswith("postern_edge_requests_total{") and 'dst="closed.default"' in line
    ]
    assert sum(float(line.rpartition(" ")[2]) for line in seen) == 41
    assert all('code_class="acl"' in line and 'direction="outbound"' in line for line in seen)
    assert await closed.end() == 0


@pytest.mark.parametrize("collector", ["closed", "silent"])
async def test_dead_collector_neither_fails_nor_slows_a_call(mesh: Standing, collector: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if collector == "silent" else free_port()
        config = mesh.mesh.write(
            f"{collector}.yaml", CONFIG.format(rate="1", endpoint=f"http://127.0.0.1:{port}/api/v2/spans")
        )
        lost = await mesh.mesh.sidecar("lost", flags=("--config", str(config)))
        started = time.monotonic()
        for _ in range(50):
            await call(lost, invoke("shop", "/echo"))
        assert time.monotonic() - started < 30.0

        async def all_are_counted() -> bool:
            counts = [
                line for line in await scraped(lost) if re.match(r"postern_span(s_dropped|_queue)", line)
            ]
            return sum(float(line.rpartition(" ")[2]) for line in counts) == 50

        await eventually(all_are_counted)  # engines tell of calls in batches
        started = time.monotonic()
        assert await lost.end() == 0
        assert time.monotonic() - started < 30.0


# --- metrics, logs, the command -------------------------------------------------------------------------------------------------


async def scraped(sidecar: Sidecar) -> list[str]:
    """The lines of a sidecar's metrics port."""
    answer = await request(sidecar.metrics_port, "GET", "/metrics")
    assert answer.status == 200
    assert answer.get("content-type").startswith("text/plain")
    return answer.body.decode().splitlines()


async def test_metrics_tell_of_calls_of_each_kind(mesh: Standing) -> None:
    await call(mesh.web, invoke("shop", "/echo"))
    await call(mesh.web, "/echo", ("Host", "shop.localhost"))
    await unary(mesh.web)
    for sidecar in mesh.sidecars:
        missing = set(FAMILIES[sidecar.app_id])

        async def are_told(sidecar: Sidecar = sidecar, missing: set[str] = missing) -> bool:
            told = await scraped(sidecar)  # a finished call is counted within a moment, each by itself
            missing -= {wanted for wanted in missing if any(line.startswith(wanted) for line in told)}
            return not missing

        with suppress(TimeoutError):
            await eventually(are_told)
        assert not missing, sidecar.app_id


async def test_openmetrics_is_given_to_who_asks(mesh: Standing) -> None:
    accept = ("Accept", "application/openmetrics-text; version=1.0.0; charset=utf-8")
    answer = await request(mesh.web.metrics_port, "GET", "/metrics", headers=[accept])
    assert answer.get("content-type").startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


async def test_json_logs_are_one_object_a_line(mesh: Standing) -> None:
    chatty = await mesh.mesh.sidecar("chatty", flags=("--log-as-json", "--log-level", "debug"))
    await call(chatty, invoke("shop", "/echo"))
    assert await chatty.end() == 0
    lines = [json.loads(line) for line in chatty.process.output.splitlines()]
    assert len(lines) >= 4
    for line in lines:
        assert {"time", "level", "msg", "app_id", "instance", "scope", "type", "ver"} <= line.keys()
        assert (line["app_id"], line["type"]) == ("chatty", "log")
    assert {"listening", "shutting down", "stopped"} <= {line["msg"] for line in lines}


async def test_trace_command_draws_the_newest_call(mesh: Standing) -> None:
    trace_id, span_id = ids()
    await call(mesh.web, invoke("shop", "/status"), ("traceparent", f"00-{trace_id}-{span_id}-01"))
    await remembered(mesh.web, trace_id, 1)
    await remembered(mesh.shop, trace_id, 1)
    assert trace_id in await postern(mesh.mesh, "trace", "--last", "-o", "json")
    drawn = await postern(mesh.mesh, "trace", trace_id)
    web, shop = drawn.index("web"), drawn.index("shop")
    assert web < shop
    assert "CallLocal/shop/status" in drawn


async def postern(mesh: Mesh, *words: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-I", "-m", "proxy.cli", *words, "--runtime-path", str(mesh.root)]
    process = mesh.processes.start(command, name="postern", cwd=mesh.files)
    assert await process.ended() == 0, process.output
    return process.output
