"""Bodies, trailers, interim answers, events, WebSockets and broken ends, through two proxies and mutual TLS."""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from tests.integration.mesh.standing import Standing, eventually, invoke, standing
from tests.support.echo_client import EchoClient
from tests.support.errors import HttpSyntaxError
from tests.support.http_client import Connection, connect, request
from tests.support.http_wire import Headers, format_chunk, format_end
from tests.support.proto.echo_pb2 import EchoRequest
from tests.support.tools import tool
from tests.support.websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    accept_key,
    format_frame,
    new_key,
    read_frame,
)

MIB = 2**20
BLOCK = os.urandom(MIB)
GET_ONLY = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: guarded}
spec:
  accessControl:
    defaultAction: deny
    trustDomain: public
    policies:
      - appId: web
        defaultAction: deny
        trustDomain: public
        namespace: default
        operations:
          - {name: /ws, httpVerb: [GET], action: allow}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Standing]:
    """The module's mesh."""
    async with standing(tmp_path_factory.mktemp("streaming")) as started:
        yield started


def pieces(count: int) -> list[bytes]:
    """MiB-sized pieces, no two alike."""
    return [number.to_bytes(8, "big") + BLOCK[8:] for number in range(count)]


async def send_pieces(connection: Connection, parts: list[bytes], *, chunked: bool) -> None:
    """Send a body as fast as it is taken."""
    for part in parts:
        await connection.send(format_chunk(part) if chunked else part)
    if chunked:
        await connection.send(format_end([]))


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "length"])
async def test_64_mib_cross_intact_both_ways_at_once(mesh: Standing, chunked: bool) -> None:
    parts = pieces(64)
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(64 * MIB))
    received = hashlib.sha256()
    async with asyncio.timeout(50.0), connect(mesh.web.http_port) as connection:
        await connection.send_head("POST", invoke("shop", "/duplex"), [framing])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send_pieces(connection, parts, chunked=chunked))
            head = await connection.read_response_head()
            async for part in connection.body("POST", head, []):
                received.update(part)
    assert head.second == "200"
    assert received.digest() == hashlib.sha256(b"".join(parts)).digest()


@pytest.mark.parametrize("chunk", [0, 5000])
async def test_answer_keeps_its_framing_and_its_bytes(mesh: Standing, chunk: int) -> None:
    answer = await request(mesh.web.http_port, "GET", invoke("shop", f"/bytes?n=100000&chunk={chunk}"))
    block = bytes(range(256)) * 391
    assert answer.body == (block[:5000] * 20 if chunk else block[:100000])
    assert answer.get("content-length") == ("" if chunk else "100000")
    assert answer.get("transfer-encoding") == ("chunked" if chunk else "")


async def test_trailers_cross_both_ways(mesh: Standing) -> None:
    asked: Headers = [("x-sum", "9f"), ("x-note", "two words")]
    seen = await request(
        mesh.web.http_port, "POST", invoke("shop", "/echo"), chunks=[b"a", b"bc"], trailers=asked
    )
    content = json.loads(seen.body)
    assert content["body"] == "abc"
    assert [tuple(pair) for pair in content["trailers"]] == asked
    answer = await request(
        mesh.web.http_port,
        "POST",
        invoke("shop", "/trailers"),
        headers=[("TE", "trailers")],
        chunks=[b"a"],
        trailers=[("x-sum", "9f")],
    )
    assert answer.body == b"body"
    assert answer.trailers == [("x-checksum", "abc123"), ("x-got-x-sum", "9f")]


async def test_interim_answer_crosses(mesh: Standing) -> None:
    answer = await request(mesh.web.http_port, "GET", invoke("shop", "/hints"))
    assert [(head.second, head.get("link")) for head in answer.interim] == [("103", "</a.css>; rel=preload")]
    assert (answer.status, answer.body) == (200, b"hinted")


async def test_expectation_is_answered_before_the_body_is_sent(mesh: Standing) -> None:
    async with asyncio.timeout(10.0), connect(mesh.web.http_port) as connection:
        headers = [("Expect", "100-continue"), ("Content-Length", "3")]
        await connection.send_head("POST", invoke("shop", "/echo"), headers)
        assert (await connection.reader.readline()).startswith(b"HTTP/1.1 100 ")
        assert await connection.reader.readline() == b"\r\n"
        await connection.send(b"abc")
        answer = await connection.read_response("POST")
    assert json.loads(answer.body)["body"] == "abc"


async def test_bodiless_answers_leave_the_connection_in_step(mesh: Standing) -> None:
    async with asyncio.timeout(10.0), connect(mesh.web.http_port) as connection:
        for _ in range(2):
            head = await connection.request("HEAD", invoke("shop", "/status?code=200"))
            assert (head.status, head.get("content-length"), head.body) == (200, "10", b"")
            empty = await connection.request("GET", invoke("shop", "/status?code=204"))
            assert (empty.status, empty.get("content-length"), empty.get("transfer-encoding")) == (
                204,
                "",
                "",
            )
            same = await connection.request("GET", invoke("shop", "/status?code=304&header=etag:%22x%22"))
            assert (same.status, same.get("etag"), same.get("transfer-encoding")) == (304, '"x"', "")
            whole = await connection.request("GET", invoke("shop", "/status?code=200"))
            assert (whole.status, whole.body) == (200, b"status 200")


async def test_events_are_delivered_one_by_one(mesh: Standing) -> None:
    async with asyncio.timeout(15.0), connect(mesh.web.http_port) as connection:
        await connection.send_head("GET", invoke("shop", "/sse?n=3&every_s=0.6"))
        head = await connection.read_response_head()
        arrived = [(time.monotonic(), part) async for part in connection.body("GET", head, [])]
    assert head.get("content-type") == "text/event-stream"
    assert b"".join(part for _, part in arrived).count(b"data: event ") == 3
    assert arrived[-1][0] - arrived[0][0] > 0.6


async def test_each_piece_goes_and_comes_before_the_next_is_sent(mesh: Standing) -> None:
    async with asyncio.timeout(15.0), connect(mesh.web.http_port) as connection:
        await connection.send_head("POST", invoke("shop", "/duplex"), [("Transfer-Encoding", "chunked")])
        head = await connection.read_response_head()
        body = connection.body("POST", head, [])
        for number in range(20):
            await connection.send(format_chunk(b"piece %d" % number))
            assert await anext(body) == b"piece %d" % number
        await connection.send(format_end([]))
        with pytest.raises(StopAsyncIteration):
            await anext(body)


async def test_early_answer_to_an_upload_arrives_while_it_goes_on(mesh: Standing) -> None:
    async with asyncio.timeout(20.0), connect(mesh.web.http_port) as connection:
        await connection.send_head(
            "POST", invoke("shop", "/early?code=413"), [("Content-Length", str(8 * MIB))]
        )
        await connection.send(BLOCK)
        head = await connection.read_response_head()
        assert head.second == "413"
        body = b"".join([part async for part in connection.body("POST", head, [])])
        assert body == b"early"
    assert (await request(mesh.web.http_port, "GET", invoke("shop", "/status"))).status == 200


async def test_early_answer_reaches_a_client_that_sends_all_first(mesh: Standing) -> None:
    answer = await request(
        mesh.web.http_port, "POST", invoke("shop", "/early?code=401"), body=BLOCK, timeout_s=20.0
    )
    assert (answer.status, answer.body) == (401, b"early")


@pytest.mark.parametrize("when", ["body", "length"])
async def test_answer_that_breaks_off_never_ends_cleanly(mesh: Standing, when: str) -> None:
    target = invoke("shop", f"/die?when={when}")
    with pytest.raises((HttpSyntaxError, ConnectionError)):
        await request(mesh.web.http_port, "GET", target)
    code, _ = await curl("--http2-prior-knowledge", f"http://localhost:{mesh.web.http_port}{target}")
    assert code in (18, 56, 92), code  # partial file, receive error, HTTP/2 stream error
    code, _ = await curl(f"http://localhost:{mesh.web.http_port}{target}")
    assert code in (18, 56), code


async def test_app_that_hangs_up_without_an_answer_is_told_as_such(mesh: Standing) -> None:
    answer = await request(mesh.web.http_port, "POST", invoke("shop", "/die?when=head"), body=b"x")
    assert answer.status == 500
    assert answer.get("postern-error")
    assert "shop" in json.loads(answer.body)["message"]


# --- those who leave ------------------------------------------------------------------------------------------------------


async def cuts(mesh: Standing) -> int:
    """How many exchanges the app saw broken off, asked of the app itself."""
    answer = await request(mesh.http_app.port, "GET", "/stats")
    return int(json.loads(answer.body)["cut"])


async def wait_cuts(mesh: Standing, count: int) -> None:
    """Ask until the app has seen so many."""

    async def are_seen() -> bool:
        return await cuts(mesh) >= count

    await eventually(are_seen)


@pytest.mark.parametrize("way", ["download", "upload"])
async def test_client_that_hangs_up_is_hung_up_on_at_the_app(mesh: Standing, way: str) -> None:
    before = await cuts(mesh)
    async with asyncio.timeout(10.0), connect(mesh.web.http_port) as connection:
        if way == "download":
            await connection.send_head("GET", invoke("shop", "/sse?n=100000&every_s=0.01"))
            head = await connection.read_response_head()
            await anext(connection.body("GET", head, []))
        else:
            await connection.send_head("POST", invoke("shop", "/duplex"), [("Content-Length", "1000")])
            await connection.send(b"half")
            head = await connection.read_response_head()
            await anext(connection.body("POST", head, []))
        connection.writer.transport.abort()
    await wait_cuts(mesh, before + 1)


async def test_grpc_client_that_hangs_up_is_cancelled_at_the_app(mesh: Standing) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{mesh.web.grpc_port}") as asking:
        client = EchoClient(asking, metadata=(("dapr-app-id", "echo"),))
        before = sum((await client.probe()).cancelled.values())
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"localhost:{mesh.web.grpc_port}", options=options) as leaving:
            stream = EchoClient(leaving, metadata=(("dapr-app-id", "echo"),)).server_stream(
                EchoRequest(count=1_000_000, delay_s=0.01)
            )
            await stream.read()
            await leaving.close(None)
        probe = await client.probe(cancellations=before + 1, wait_s=20.0)
    assert sum(probe.cancelled.values()) == before + 1


# --- WebSockets -------------------------------------------------------------------------------------------------------------


async def upgrade(connection: Connection, target: str, headers: Headers | None = None) -> str:
    """Offer a WebSocket; the status."""
    key = new_key()
    offer = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    ]
    await connection.send_head("GET", target, [*offer, *(headers or [])])
    head = await connection.read_response_head()
    if head.second == "101":
        assert head.get("sec-websocket-accept") == accept_key(key)
        assert head.get("upgrade").lower() == "websocket"
    return head.second


async def exchange(connection: Connection, frame: Frame) -> Frame:
    """Send a frame and read the one that answers."""
    await connection.send(format_frame(frame, is_client=True))
    return await read_frame(connection.reader)


async def test_websocket_crosses_with_every_kind_of_frame(mesh: Standing) -> None:
    async with asyncio.timeout(15.0), connect(mesh.web.http_port) as connection:
        assert await upgrade(connection, invoke("shop", "/ws")) == "101"
        assert await exchange(connection, Frame(TEXT, "grüße".encode())) == Frame(TEXT, "grüße".encode())
        large = os.urandom(300_000)
        assert await exchange(connection, Frame(BINARY, large)) == Frame(BINARY, large)
        assert await exchange(connection, Frame(PING, b"there?")) == Frame(PONG, b"there?")
        goodbye = Frame(CLOSE, (1000).to_bytes(2, "big") + b"done")
        assert await exchange(connection, goodbye) == goodbye
        assert await connection.reader.read() == b""


async def test_websocket_by_own_names_and_with_a_subprotocol(mesh: Standing) -> None:
    async with asyncio.timeout(15.0), connect(mesh.web.http_port) as connection:
        key = new_key()
        headers = [
            ("Host", "shop.localhost"),
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "WebSocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", key),
            ("Sec-WebSocket-Protocol", "chat.v2, chat.v1"),
        ]
        await connection.send_head("GET", "/ws?room=1", headers)
        head = await connection.read_response_head()
        assert (head.second, head.get("sec-websocket-protocol")) == ("101", "chat.v2")
        assert head.get("sec-websocket-accept") == accept_key(key)
        assert await exchange(connection, Frame(TEXT, b"hi")) == Frame(TEXT, b"hi")


async def test_websocket_refused_by_the_app_is_its_plain_answer(mesh: Standing) -> None:
    async with asyncio.timeout(15.0), connect(mesh.web.http_port) as connection:
        assert await upgrade(connection, invoke("shop", "/ws?refuse=403")) == "403"


async def test_websocket_ends_at_both_ends_when_the_client_is_gone(mesh: Standing) -> None:
    before = await cuts(mesh)
    async with asyncio.timeout(15.0), connect(mesh.web.http_port) as connection:
        assert await upgrade(connection, invoke("shop", "/ws")) == "101"
        await exchange(connection, Frame(TEXT, b"hi"))
        connection.writer.transport.abort()
    await wait_cuts(mesh, before + 1)


async def test_websocket_is_judged_as_a_get(mesh: Standing) -> None:
    config = mesh.mesh.write("guarded.yaml", GET_ONLY)
    guarded = await mesh.mesh.sidecar("guarded", app=mesh.http_app, flags=("--config", str(config)))
    async with asyncio.timeout(15.0), connect(mesh.web.http_port) as connection:
        assert await upgrade(connection, invoke("guarded", "/ws")) == "101"
        assert await exchange(connection, Frame(TEXT, b"hi")) == Frame(TEXT, b"hi")
    async with asyncio.timeout(15.0), connect(mesh.web.http_port) as connection:
        assert await upgrade(connection, invoke("guarded", "/other")) == "403"
    assert (await request(mesh.web.http_port, "POST", invoke("guarded", "/ws"))).status == 403
    assert await guarded.end() == 0


# --- HTTP/2 clients without TLS ---------------------------------------------------------------------------------------------


async def curl(*args: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """Run curl; its exit code and what it received."""
    return await run("curl", "-sS", "--noproxy", "*", "--max-time", "15", *args, stdin=stdin)


async def run(program: str, *args: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """Run a program to its end."""
    process = await asyncio.create_subprocess_exec(
        tool(program),
        *args,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(20.0):
        output, _ = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, output


@pytest.mark.parametrize("listener", ["http", "grpc"])
async def test_curl_by_prior_knowledge_is_served_on_both_ports(mesh: Standing, listener: str) -> None:
    port = mesh.web.http_port if listener == "http" else mesh.web.grpc_port
    url = f"http://localhost:{port}{invoke('shop', '/duplex')}"
    code, body = await curl("--http2-prior-knowledge", "--data-binary", "@-", url, stdin=BLOCK)
    assert (code, hashlib.sha256(body).digest()) == (0, hashlib.sha256(BLOCK).digest())
    code, seen = await curl(
        "--http2-prior-knowledge", "-w", "%{http_version} %{response_code}", "-o", "/dev/null", url
    )
    assert (code, seen) == (0, b"2 200")


@pytest.mark.parametrize("listener", ["http", "grpc"])
async def test_nghttp_sees_trailers_and_interim_answers(mesh: Standing, listener: str) -> None:
    port = mesh.web.http_port if listener == "http" else mesh.web.grpc_port
    base = f"http://localhost:{port}"
    code, shown = await run("nghttp", "-nv", "--no-dep", base + invoke("shop", "/trailers"))
    assert code == 0
    assert b"x-checksum: abc123" in shown
    code, shown = await run("nghttp", "-nv", "--no-dep", base + invoke("shop", "/hints"))
    assert code == 0
    assert b":status: 103" in shown
    assert b":status: 200" in shown
