"""Hostile bytes on every listener of a real sidecar: it stays up, serves others, and the app sees nothing of them."""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from sentry.spiffe import SpiffeId
from tests.conformance.corpus.http1 import BAD_BODIES, BAD_HEADS
from tests.conformance.frames import (
    END_HEADERS,
    PREFACE,
    FramePeer,
    Kind,
    Setting,
    dial,
    frame,
    reset,
    settings,
)
from tests.integration.mesh.peers import Forge, peer_connection, plain_context
from tests.integration.mesh.standing import Standing, invoke, standing
from tests.support.http_client import connect, request

LISTENERS: Final = ("http", "grpc", "own", "peer", "metrics", "public")
PLAIN: Final = ("http", "grpc", "own", "metrics", "public")
HTTP2: Final = ("http", "grpc", "own", "peer")
GARBAGE: Final = (
    b"\x00" * 4096,
    b"\xff\xfe\xfd" * 2000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # a ClientHello that leads nowhere
    b"GET / HTTP/9.9\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\r\n" * 5000,
    PREFACE + b"\xff" * 4096,
    b"A" * 300_000,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Standing]:
    """The module's mesh: `web` has every listener there is."""
    public = ("--dapr-public-port", "0", "--dapr-public-listen-address", "127.0.0.1")
    async with standing(
        tmp_path_factory.mktemp("wire"), web=("--upstream", "shop", *public), shop=("--log-level", "debug")
    ) as started:
        yield started


@pytest.fixture
async def mesh(shared: Standing) -> AsyncIterator[Standing]:
    """The shared mesh; after each test it must still serve, and no sidecar may have met a bug."""
    yield shared
    answer = await request(shared.web.http_port, "GET", invoke("shop", "/echo"))
    assert answer.status == 200
    for sidecar in shared.sidecars:
        assert sidecar.process.is_running
        assert "Traceback" not in sidecar.process.output, sidecar.process.output[-5000:]


async def port_of(mesh: Standing, listener: str) -> int:
    """The port of one of web's listeners."""
    status = await mesh.web.status()
    if listener == "own":
        upstreams = status["upstreams"]
        assert isinstance(upstreams, dict)
        return int(upstreams["shop"])
    ports = status["ports"]
    assert isinstance(ports, dict)
    return int(ports[listener])


async def say(port: int, data: bytes, *, end: bool = True) -> bytes:
    """Send bytes, end our half, and read all that comes until the other closes."""
    received = b""
    async with asyncio.timeout(15.0), peer_connection(port) as connection:
        with suppress(OSError):  # it may be closed before we are done
            await connection.send(data)
            if end and connection.writer.can_write_eof():
                connection.writer.write_eof()
            while more := await connection.reader.read(65536):
                received += more
    return received


async def app_requests(mesh: Standing) -> int:
    """How many requests the app has seen, but for those of this question."""
    stats = json.loads((await request(mesh.http_app.port, "GET", "/stats")).body)
    return sum(count for path, count in stats["requests"].items() if path != "/stats")


# --- bytes that are no HTTP ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", LISTENERS)
async def test_garbage_is_answered_by_a_refusal_or_a_close(mesh: Standing, listener: str) -> None:
    port = await port_of(mesh, listener)
    for garbage in GARBAGE:
        answer = await say(port, garbage)
        assert b" 200 " not in answer[:64], garbage[:20]


@pytest.mark.parametrize("listener", LISTENERS)
async def test_half_a_head_is_dropped_with_its_connection(mesh: Standing, listener: str) -> None:
    port = await port_of(mesh, listener)
    whole = b"GET /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for length in (1, 3, 24, len(whole) - 1):
        answer = await say(port, whole[:length])
        assert b" 20" not in answer[:64]


async def test_unfinished_heads_are_cut_while_others_are_served(mesh: Standing) -> None:
    """On each listener one that drips a byte now and then, and HEADERS without their end: none lasts longer than a head may take (10 s)."""

    async def drip(listener: str) -> None:
        async with peer_connection(await port_of(mesh, listener)) as connection:
            with suppress(ConnectionError):
                await connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
                while not connection.reader.at_eof():
                    await connection.send(b"X")
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.5):
                            assert b" 200 " not in await connection.reader.read(65536)

    async def leave_open() -> None:
        async with dial(mesh.web.http_port) as peer:
            peer.acking = False  # a frame between would break the rules, and so the connection
            block = peer.block([(b":method", b"GET")])
            await peer.send(frame(Kind.HEADERS, 0, peer.new_stream(), block))
            with suppress(ConnectionError, TimeoutError):
                while await peer.read(timeout_s=20.0) is not None:
                    pass
            assert peer.ended

    async with asyncio.timeout(25.0), asyncio.TaskGroup() as tasks:
        tasks.create_task(leave_open())
        for listener in LISTENERS:
            tasks.create_task(drip(listener))
        for _ in range(20):
            assert (await request(mesh.web.http_port, "GET", invoke("shop", "/echo"))).status == 200


@pytest.mark.parametrize("listener", PLAIN)
async def test_heads_that_http_forbids_are_refused_and_reach_nobody(mesh: Standing, listener: str) -> None:
    port = await port_of(mesh, listener)
    before = await app_requests(mesh)
    for bad in BAD_HEADS:
        if len(bad.data) < 20_000:  # limits are the sidecar's own
            answer = await say(port, bad.data, end=False)
            assert answer.startswith(b"HTTP/1.1 %d " % bad.status), (bad.name, answer[:100])
            assert b"onnection: close" in answer, bad.name
    assert await app_requests(mesh) == before


async def test_bodies_that_http_forbids_never_reach_the_app_whole(mesh: Standing) -> None:
    port = await port_of(mesh, "own")
    for bad in BAD_BODIES:
        if len(bad.data) > 20_000:  # limits are the sidecar's own
            continue
        data = bad.data.replace(b"POST / ", b"POST /sink ", 1).replace(
            b"Host: a\r\n", b"Host: localhost\r\n", 1
        )
        answer = await say(port, data, end=False)
        assert answer.startswith(b"HTTP/1.1 %d " % bad.status), (bad.name, answer[:100])


@pytest.mark.parametrize("listener", ["http", "grpc", "own"])
async def test_lengths_that_disagree_are_refused(mesh: Standing, listener: str) -> None:
    port = await port_of(mesh, listener)
    for framing in (
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3, 4",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Content-Length: +3",
    ):
        head = f"POST {invoke('shop', '/echo')} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\nabc"
        answer = await say(port, head.encode(), end=False)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), (framing, answer[:100])


@pytest.mark.parametrize("listener", PLAIN)
async def test_head_without_end_is_refused_at_the_limit(mesh: Standing, listener: str) -> None:
    head = b"GET /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 1_000_000
    answer = await say(await port_of(mesh, listener), head, end=False)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 "), answer[:100]


# --- headers of one hop ---------------------------------------------------------------------------------------------------------


async def test_headers_of_one_hop_stay_on_it(mesh: Standing) -> None:
    hop = [
        ("Connection", "keep-alive, X-Secret, close"),
        ("X-Secret", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("TE", "trailers, deflate"),
        ("Trailer", "x-sum"),
        ("X-Kept", "yes"),
    ]
    async with asyncio.timeout(10.0), connect(mesh.web.http_port) as connection:
        answer = await connection.request("POST", invoke("shop", "/echo"), headers=hop, body=b"x")
    seen = {name.lower(): value for name, value in json.loads(answer.body)["headers"]}
    assert seen["x-kept"] == "yes"
    assert not seen.keys() & {"x-secret", "keep-alive", "proxy-connection", "proxy-authorization"}
    assert "x-secret" not in seen.get("connection", "").lower()
    assert "deflate" not in seen.get("te", "")


async def test_apps_headers_of_one_hop_stay_on_it(mesh: Standing) -> None:
    query = "&".join(
        f"header={pair}"
        for pair in (
            "connection:x-inner",
            "x-inner:1",
            "keep-alive:timeout=9",
            "proxy-connection:x",
            "x-kept:yes",
        )
    )
    answer = await request(mesh.web.http_port, "GET", invoke("shop", f"/status?{query}"))
    assert (answer.status, answer.get("x-kept")) == (200, "yes")
    names = {name.lower() for name, _ in answer.headers}
    assert not names & {"x-inner", "keep-alive", "proxy-connection"}


async def test_connection_cannot_name_away_what_the_proxies_write(mesh: Standing) -> None:
    headers = [("Connection", "dapr-caller-app-id, traceparent, postern-callee, host, content-length, close")]
    answer = await request(mesh.web.http_port, "POST", invoke("shop", "/echo"), headers=headers, body=b"abc")
    if answer.status == 200:
        content = json.loads(answer.body)
        seen = {name.lower(): value for name, value in content["headers"]}
        assert seen["dapr-caller-app-id"] == "web"
        assert "traceparent" in seen
        assert content["body"] == "abc"
    else:
        assert answer.status == 400


@pytest.mark.parametrize("listener", ["http", "grpc", "own"])
async def test_upgrade_to_h2c_goes_no_further(mesh: Standing, listener: str) -> None:
    headers = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("dapr-app-id", "shop"),
    ]
    async with asyncio.timeout(10.0), connect(await port_of(mesh, listener)) as connection:
        body = await connection.request("POST", "/echo", headers=headers, body=b"abc")
        await connection.send_head("GET", "/echo", headers)
        head = await connection.read_response_head()
        peer = FramePeer(connection.reader, connection.writer)
        await peer.send(peer.hello(client=True))
        taken = await peer.whole(1)
    assert (body.status, head.second, taken.status) == (200, "101", 200)
    for answer in (body.body, taken.body):
        seen = {name.lower() for name, _ in json.loads(answer)["headers"]}
        assert not seen & {"upgrade", "http2-settings"}


# --- HTTP/2 floods --------------------------------------------------------------------------------------------------------------


def _rapid_resets(peer: FramePeer) -> bytes:
    fields = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"localhost"),
        (b":path", invoke("shop", "/slow?s=5").encode()),
    ]
    streams = [peer.new_stream() for _ in range(1_000)]
    return b"".join(peer.head(stream, fields, end=True) + reset(stream) for stream in streams)


def _continuations(peer: FramePeer) -> bytes:
    start = frame(Kind.HEADERS, 0, peer.new_stream(), peer.block([(b":method", b"GET")]))
    return start + frame(Kind.CONTINUATION, 0, 1, b"\x40\x01a\x01b") * 1_000


def _header_bomb(peer: FramePeer) -> bytes:
    """One large field put into the table, then named some ten thousand times."""
    stream = peer.new_stream()
    return frame(
        Kind.HEADERS, END_HEADERS, stream, b"\x40\x01a\x7f\x81\x1e" + b"b" * 4_000 + b"\xbe" * 12_000
    )


FLOODS: Final[dict[str, Callable[[FramePeer], bytes]]] = {
    "ping": lambda _: frame(Kind.PING, 0, 0, bytes(8)) * 20_000,
    "settings": lambda _: settings({Setting.ENABLE_PUSH: 0}) * 20_000,
    "priority": lambda _: frame(Kind.PRIORITY, 0, 1, bytes(5)) * 20_000,
    "continuation": _continuations,
    "header-bomb": _header_bomb,
}


SLOWED: Final = ("ping", "settings", "priority")


async def _send(peer: FramePeer, data: bytes) -> None:
    with suppress(ConnectionError):
        await peer.send(data)


def _tls_to(mesh: Standing, tmp_path: Path, listener: str) -> ssl.SSLContext | None:
    """What a stranger with a certificate of the mesh dials the peers' port with; the others are plain."""
    if listener != "peer":
        return None
    return Forge.of(mesh.mesh.root, tmp_path / "forge").context(SpiffeId("public", "default", "rogue"))


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("listener", HTTP2)
async def test_http2_flood_ends_or_slows_its_connection_alone(
    mesh: Standing, tmp_path: Path, listener: str, flood: str
) -> None:
    """Control frames of our own app are read as slowly as their budget has it; anybody else is sent away for them."""
    is_slowed = listener != "peer" and flood in SLOWED
    port = await port_of(mesh, listener)
    async with (
        asyncio.timeout(20.0),
        dial(port, tls=_tls_to(mesh, tmp_path, listener)) as peer,
        asyncio.TaskGroup() as tasks,
    ):
        other = tasks.create_task(request(mesh.web.http_port, "GET", invoke("shop", "/echo"), timeout_s=15.0))
        sending = tasks.create_task(_send(peer, FLOODS[flood](peer)))
        with suppress(ConnectionError):
            while not is_slowed and peer.goaway is None and await peer.read(timeout_s=15.0) is not None:
                pass
        assert (await other).status == 200
        assert is_slowed or peer.ended or peer.goaway is not None
        sending.cancel()


@pytest.mark.parametrize("listener", HTTP2)
async def test_requests_cancelled_at_once_cost_nobody_a_call(
    mesh: Standing, tmp_path: Path, listener: str
) -> None:
    """A request that is cancelled before anybody looked at it never becomes a call (CVE-2023-44487)."""
    port = await port_of(mesh, listener)
    async with (
        asyncio.timeout(20.0),
        dial(port, tls=_tls_to(mesh, tmp_path, listener)) as peer,
        asyncio.TaskGroup() as tasks,
    ):
        other = tasks.create_task(request(mesh.web.http_port, "GET", invoke("shop", "/echo"), timeout_s=15.0))
        await peer.send(_rapid_resets(peer))
        await peer.settled()
    assert other.result().status == 200


@pytest.mark.parametrize("with_certificate", [False, True])
async def test_peer_port_serves_nobody_in_the_clear(mesh: Standing, with_certificate: bool) -> None:
    """Neither plaintext nor TLS without a certificate gets an answer; a stranger's certificate is test_identity's."""
    if with_certificate:
        async with peer_connection(mesh.web.peer_port, plain_context()) as connection:
            with suppress(ConnectionError, OSError):
                await connection.send(b"GET /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                async with asyncio.timeout(10.0):
                    assert await connection.reader.read() == b""
    else:
        answer = await say(mesh.web.peer_port, b"GET /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1" not in answer


@pytest.mark.parametrize("listener", ["http", "metrics"])
async def test_many_silent_connections_keep_nobody_else_out(mesh: Standing, listener: str) -> None:
    port = await port_of(mesh, listener)
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
    try:
        async with asyncio.timeout(10.0):
            answer = await request(port, "GET", "/metrics" if listener == "metrics" else "/v1.0/healthz")
        assert answer.status in (200, 204)
    finally:
        for _, writer in silent:
            writer.transport.abort()


async def test_random_frames_bring_nobody_down(mesh: Standing) -> None:
    for _ in range(60):
        noise = os.urandom(20)
        frames = b"".join(
            frame(noise[n] % 11, noise[n + 1], noise[n + 2] % 4, os.urandom(noise[n + 3] % 40))
            for n in range(0, 16, 4)
        )
        async with dial(mesh.web.grpc_port) as peer:
            await peer.send(frames)
