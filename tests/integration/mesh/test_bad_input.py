"""What a sidecar makes of bad flags, documents, ports, apps and bytes: it says what is wrong and where, and never falls over."""

import asyncio
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from proxy.settings.version import has_native
from sentry.spiffe import SpiffeId
from tests.integration.mesh.peers import Forge, h2_head, h2_request, peer_connection, until_closed
from tests.integration.mesh.standing import eventually
from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.http_client import Connection, connect, request
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.proto.echo_pb2 import EchoRequest

# --- at start ----------------------------------------------------------------------------------------------------------------


async def failed_start(mesh: Mesh, *flags: str) -> tuple[int, str]:
    """Start a sidecar that can't; its exit code and what it said, which holds no stack."""
    arguments = mesh.arguments("web", flags=("--insecure-plaintext", *flags))
    process = mesh.processes.start_python("proxy", *arguments, name="failing sidecar")
    code = await process.ended(timeout_s=20.0)
    assert "Traceback" not in process.output
    return code, process.output


HEAD = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: x}\n"
DOCUMENTS = {
    "no YAML": (b"spec: [1, 2\nkind: {", r"bad\.yaml:\d+:"),
    "not text": (b"\xff\xfe\x00\x01kind", r"bad\.yaml"),
    "wrong type": (f"{HEAD}spec:\n  tracing: 7\n".encode(), r"bad\.yaml:5: spec\.tracing: .*expected"),
    "unknown key": (
        f"{HEAD}spec:\n  accessControl:\n    defaultaction: deny\n".encode(),
        r"bad\.yaml:6: spec\.accessControl\.defaultaction: ",
    ),
    "null rules": (f"{HEAD}spec:\n  accessControl:\n".encode(), r"bad\.yaml:5: spec\.accessControl: "),
    "unset variable": (
        f'{HEAD}spec:\n  tracing: {{samplingRate: "$NOBODY_SET_THIS"}}\n'.encode(),
        r"bad\.yaml:5(:\d+)?: ",
    ),
}


async def test_faulty_configuration_ends_the_start_with_file_line_and_field(mesh: Mesh) -> None:
    async def start(number: int, content: bytes) -> tuple[int, str]:
        path = mesh.files / str(number) / "bad.yaml"
        path.parent.mkdir()
        path.write_bytes(content)
        return await failed_start(mesh, "--config", str(path))

    async with asyncio.TaskGroup() as tasks:
        starts = [
            tasks.create_task(start(number, content))
            for number, (content, _) in enumerate(DOCUMENTS.values())
        ]
    for started, (fault, (_, pattern)) in zip(starts, DOCUMENTS.items(), strict=True):
        code, said = started.result()
        assert code in (1, 2), fault
        assert re.search(pattern, said), (fault, said)


async def test_faulty_resiliency_names_every_fault(mesh: Mesh) -> None:
    spec = "spec:\n  policies:\n    timeouts: {a: soon}\n    retries: {b: {duration: later}}\n"
    path = mesh.write("resources/res.yaml", HEAD.replace("Configuration", "Resiliency") + spec)
    code, said = await failed_start(mesh, "--resources-path", str(path.parent))
    assert code in (1, 2)
    assert re.search(r"res\.yaml:6: spec\.policies\.timeouts\.a: ", said), said
    assert re.search(r"res\.yaml:7: spec\.policies\.retries\.b\.duration: ", said), said


async def test_faulty_endpoints_file_ends_the_start(mesh: Mesh) -> None:
    (mesh.root / "endpoints.yaml").write_text("cart: nowhere\n")
    code, said = await failed_start(mesh)
    assert code in (1, 2)
    assert "endpoints.yaml" in said
    assert "expected host:port" in said


async def test_all_faulty_flags_are_told_at_once_with_suggestions(mesh: Mesh) -> None:
    code, said = await failed_start(
        mesh,
        "--app-protocl=grpc",
        "--app-port=70000",
        "--enable-mtls=maybe",
        "--config",
        str(mesh.files / "absent.yaml"),
        "--resources-path=/etc/hostname",
        "--upstream=cart=x",
        "--route=nothing",
        "stray",
        "--log-level",
    )
    assert code == 2
    for wanted in (
        "--app-protocl: unknown flag; did you mean --app-protocol?",
        "--app-port: '70000', expected a port number from 0 to 65535",
        "--enable-mtls: 'maybe', expected true or false",
        "absent.yaml' does not exist, expected a file",
        "--resources-path: '/etc/hostname', expected a folder",
        "--upstream: 'cart=x', expected app=port",
        "--route: 'nothing', expected service=app",
        "'stray': unexpected argument",
        "--log-level: a value is missing",
    ):
        assert wanted in said, said


LISTENERS = {  # the flag and its value
    "--dapr-http-port": "{}",
    "--dapr-grpc-port": "{}",
    "--dapr-internal-grpc-port": "{}",
    "--metrics-port": "{}",
    "--dapr-public-port": "{}",
    "--upstream": "cart={}",
}


async def test_taken_port_is_told_with_the_flag_that_moves_it(mesh: Mesh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with asyncio.TaskGroup() as tasks:
            starts = {
                flag: tasks.create_task(failed_start(mesh, flag, value.format(port)))
                for flag, value in LISTENERS.items()
            }
    for flag, started in starts.items():
        code, said = started.result()
        assert code == 1
        assert f":{port}" in said
        assert flag in said.partition("can't listen")[2], said
        assert "in use" in said


async def test_long_socket_folder_is_told(mesh: Mesh) -> None:
    folder = mesh.files / ("deep" * 30)
    folder.mkdir()
    code, said = await failed_start(mesh, "--unix-domain-socket", str(folder))
    assert code == 1
    assert "can't listen" in said
    assert "--unix-domain-socket" in said


# --- the app -----------------------------------------------------------------------------------------------------------------


async def test_app_that_is_not_up_yet_is_named_and_found_once_it_is(mesh: Mesh) -> None:
    port = free_port()
    async with asyncio.TaskGroup() as tasks:
        start = tasks.create_task(mesh.sidecar("late", app_port=port))
        start_web = tasks.create_task(mesh.sidecar("web"))
    late, web = start.result(), start_web.result()
    target = "/v1.0/invoke/late/method/echo"
    early = await request(web.http_port, "GET", target)
    assert early.status == 500
    said = json.loads(early.body)["message"]
    assert "late" in said
    assert f"does not listen yet on port {port}" in said
    assert "app" in json.loads((await request(late.http_port, "GET", "/v1.0/healthz")).body)["message"]
    await mesh.http_app("late", "--port", str(port))
    await late.process.line("the app is listening")

    async def answers() -> bool:
        return (await request(web.http_port, "GET", target)).status == 200

    await eventually(answers)
    assert (await request(late.http_port, "GET", "/v1.0/healthz")).status == 204


async def test_wrong_app_protocol_is_named_on_both_sides(mesh: Mesh, http_app: App, grpc_app: App) -> None:
    engines = ("portable", "native") if has_native() else ("portable",)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(mesh.sidecar("web-as-grpc", app=http_app, app_protocol="grpc"))
        tasks.create_task(mesh.sidecar("grpc-as-web", app=grpc_app, app_protocol="http"))
        for engine in engines:
            tasks.create_task(mesh.sidecar(f"grpc-{engine}", app=grpc_app, flags=("--engine", engine)))
        start = tasks.create_task(mesh.sidecar("caller"))
    caller = start.result()
    async with grpc.aio.insecure_channel(f"localhost:{caller.grpc_port}") as channel:
        for callee, code in (
            ("web-as-grpc", grpc.StatusCode.UNAVAILABLE),
            ("grpc-as-web", grpc.StatusCode.UNIMPLEMENTED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await EchoClient(channel, metadata=(("dapr-app-id", callee),)).unary(EchoRequest())
            assert caught.value.code() is code, caught.value.details()
            said = str(caught.value.details())
            assert callee in said
            assert "--app-protocol" in said, said
    for callee in ("web-as-grpc", "grpc-as-web"):
        answer = await request(caller.http_port, "POST", f"/v1.0/invoke/{callee}/method/echo", chunks=[b"x"])
        assert answer.status == 500
        said = json.loads(answer.body)["message"]
        assert callee in said
        assert "--app-protocol" in said, said
    for engine in engines:
        answer = await request(caller.http_port, "GET", f"/v1.0/invoke/grpc-{engine}/method/echo")
        said = json.loads(answer.body)["message"]
        assert "the app speaks gRPC and does not implement this method in AppCallback/OnInvoke" in said, said
        own = await request(caller.http_port, "GET", "/echo", headers=[("Host", f"grpc-{engine}.localhost")])
        said = json.loads(own.body)["message"]
        assert "the call came as HTTP, and the app speaks gRPC (--app-protocol grpc)" in said, said
        assert "AppCallback/OnInvoke" in said


# --- sizes and bytes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A sidecar with every listener that there is, in front of an app and beside a callee; bodies of at most 1 KiB."""

    mesh: Mesh
    web: Sidecar
    cart: Sidecar
    public_port: int
    own_port: int

    @property
    def ports(self) -> dict[str, int]:
        """TCP ports without TLS."""
        web = self.web
        return {
            "http": web.http_port,
            "grpc": web.grpc_port,
            "own": self.own_port,
            "metrics": web.metrics_port,
            "public": self.public_port,
        }

    async def still_serves(self) -> None:
        """The process lives, and a call goes through it."""
        assert self.web.process.is_running
        assert "Traceback" not in self.web.process.output, self.web.process.tail
        assert "never retrieved" not in self.web.process.output, self.web.process.tail
        assert (await request(self.own_port, "GET", "/echo")).status == 200
        assert (await request(self.web.metrics_port, "GET", "/metrics")).status == 200
        assert (await request(self.public_port, "GET", "/v1.0/healthz")).status == 204
        assert (await self.web.status())["ready"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """One for the module: nothing that is sent may harm it."""
    async with Mesh(tmp_path_factory.mktemp("bytes")) as mesh:
        http, echo = await mesh.http_app(), await mesh.grpc_app()
        public, own = free_port(), free_port()
        flags = ("--upstream", f"cart={own}", "--dapr-public-port", str(public), "--max-body-size", "1Ki")
        async with asyncio.TaskGroup() as tasks:
            cart = tasks.create_task(mesh.sidecar("cart", app=http))
            web = tasks.create_task(mesh.sidecar("web", app=http, flags=flags))
            tasks.create_task(mesh.sidecar("echo", app=echo))
        await web.result().wait_app()
        yield Target(mesh=mesh, web=web.result(), cart=cart.result(), public_port=public, own_port=own)


@pytest.mark.parametrize("port", ["http", "grpc", "own"])
async def test_head_over_the_limit_is_431(target: Target, port: str) -> None:
    headers = [(f"x-{number}", "v" * 8_000) for number in range(50)]
    async with asyncio.timeout(10.0), connect(target.ports[port]) as connection:
        await connection.send_head("GET", "/echo", headers)
        assert (await connection.read_response_head()).second == "431"
    answer = await h2_request(
        target.ports[port], [*h2_head("GET", "/echo"), *((name, value) for name, value in headers)]
    )
    assert answer.status == 431 or answer.reset is not None
    await target.still_serves()


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_body_over_the_limit_is_refused_by_every_surface(target: Target, framing: str) -> None:
    big = b"x" * 1025
    how = {"body": big} if framing == "length" else {"chunks": [big[:600], big[600:]]}
    own = await request(target.own_port, "POST", "/sink", **how)
    dapr = await request(target.web.http_port, "POST", "/v1.0/invoke/cart/method/sink", **how)
    assert (own.status, own.get("postern-error")) == (413, "too-large")
    assert (dapr.status, dapr.get("postern-error")) == (500, "too-large")
    assert "--max-body-size" in json.loads(own.body)["message"]
    fits = await request(target.own_port, "POST", "/sink", body=big[:1024])
    assert json.loads(fits.body)["bytes"] == 1024


async def test_grpc_message_over_the_limit_is_resource_exhausted(target: Target) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{target.web.grpc_port}") as channel:
        client = EchoClient(channel, metadata=(("dapr-app-id", "echo"),))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary(EchoRequest(message="x" * 2_000))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await client.unary(EchoRequest(message="x" * 500))).message == "x" * 500


HTTP1 = {
    "noise": b"\x00\x01\x02\x03\xff\xfe\r\n\r\n",
    "nothing": b"\r\n\r\n\r\n\r\n",
    "no target": b"GET\r\n\r\n",
    "no version": b"GET /echo\r\n\r\n",
    "version 9.9": b"GET /echo HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "bare line feeds": b"GET /echo HTTP/1.1\nHost: localhost\n\n",
    "no host": b"GET /echo HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /echo HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n\r\n",
    "space before colon": b"GET /echo HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "folded line": b"GET /echo HTTP/1.1\r\nHost: localhost\r\nx-a: 1\r\n 2\r\n\r\n",
    "nul in a value": b"GET /echo HTTP/1.1\r\nHost: localhost\r\nx-a: \x00\r\n\r\n",
    "no header name": b"GET /echo HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n",
    "two lengths": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3, 3\r\n\r\nabc",
    "lengths that differ": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "negative length": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "length and chunked": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "no chunk size": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "a client hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
}
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
HTTP2 = {
    "preface, then noise": PREFACE + b"\xff" * 200,
    "half a preface": PREFACE[:-4] + b"XXXX\r\n\r\n",
    "frame too large": PREFACE + SETTINGS + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "no settings first": PREFACE + b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + b"12345678",
    "settings of 5 bytes": PREFACE + b"\x00\x00\x05\x04\x00\x00\x00\x00\x00" + b"12345",
    "settings on a stream": PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x01",
    "headers on stream 0": PREFACE + SETTINGS + b"\x00\x00\x01\x01\x05\x00\x00\x00\x00\x82",
    "data on an idle stream": PREFACE + SETTINGS + b"\x00\x00\x01\x00\x01\x00\x00\x00\x01x",
    "broken compression": PREFACE + SETTINGS + b"\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
    "even stream": PREFACE + SETTINGS + b"\x00\x00\x01\x01\x05\x00\x00\x00\x02\x82",
    "push": PREFACE + SETTINGS + b"\x00\x00\x04\x05\x04\x00\x00\x00\x01\x00\x00\x00\x02",
    "window of nothing": PREFACE + SETTINGS + b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
}
GOAWAY = 7


async def answer_to(connection: Connection, payload: bytes) -> bytes:
    """What a payload brings until the other end closes."""
    await connection.send(payload)
    if connection.writer.can_write_eof():
        connection.writer.write_eof()
        return await until_closed(connection)
    return await until_closed(
        connection, patience_s=0.2
    )  # TLS has no half-close: an unfinished head is waited for


@pytest.mark.parametrize("port", ["http", "grpc", "own", "metrics", "public"])
async def test_malformed_bytes_end_one_connection_only(target: Target, port: str) -> None:
    for name, payload in HTTP1.items():
        async with connect(target.ports[port]) as connection:
            received = await answer_to(connection, payload)
        assert not received or re.match(rb"HTTP/1\.[01] (4\d\d|50[15]) ", received), (name, received[:200])
    for name, payload in HTTP2.items():
        async with connect(target.ports[port]) as connection:
            received = await answer_to(connection, payload)
        assert b":status" not in received, name
        assert not received.startswith(b"HTTP/1.1 2"), (name, received[:200])
    await target.still_serves()


async def test_malformed_bytes_at_the_admin_socket_end_one_connection_only(target: Target) -> None:
    for payload in (*HTTP1.values(), *HTTP2.values()):
        async with connect(0, unix=target.web.admin_socket) as connection:
            received = await answer_to(connection, payload)
        assert not received.startswith(b"HTTP/1.1 2"), received[:200]
    await target.still_serves()


@pytest.mark.parametrize("inside", [False, True], ids=["outside TLS", "inside TLS"])
async def test_malformed_bytes_at_the_peer_port_end_one_connection_only(
    target: Target, tmp_path: Path, inside: bool
) -> None:
    friend = Forge.of(target.mesh.root, tmp_path).context(SpiffeId("public", "default", "web"))
    for name, payload in {**HTTP1, **HTTP2}.items():
        received = b""
        try:
            async with peer_connection(target.cart.peer_port, friend if inside else None) as connection:
                received = await answer_to(connection, payload)
        except (ConnectionError, ssl.SSLError):
            pass
        assert not received.startswith(b"HTTP/1.1 2"), (name, received[:200])
    assert target.cart.process.is_running
    assert "Traceback" not in target.cart.process.output, target.cart.process.tail
    await target.still_serves()


async def test_missing_app_id_is_told_without_a_stack(processes: Processes, tmp_path: Path) -> None:
    process = processes.start_python("proxy", "--runtime-path", str(tmp_path / "x" / "y"), name="nameless")
    assert await process.ended() == 2
    assert "--app-id: missing" in process.output
    assert "Traceback" not in process.output
