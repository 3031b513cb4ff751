"""WebSockets: HTTP/1.1 Upgrade at both ends, RFC 8441 between the engines."""

import asyncio

import pytest

from proxy.contract.plan import Cause
from tests.conformance.apps import http_app, raw_app
from tests.conformance.frames import END_STREAM, Kind, Setting, dial, frame, serving
from tests.conformance.harness import leading
from tests.support.http_client import Connection, connect
from tests.support.http_wire import Head, read_head
from tests.support.websocket import BINARY, CLOSE, TEXT, Frame, accept_key, format_frame, new_key, read_frame


async def upgrade(caller: Connection, target: str = "/ws", *more: tuple[str, str]) -> tuple[Head, str]:
    """Ask for a WebSocket; the answer's head and the key."""
    key = new_key()
    await caller.send_head(
        "GET",
        target,
        [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", key),
            *more,
        ],
    )
    return await caller.read_response_head(), key


async def test_frames_are_echoed_and_the_close_is_answered(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        head, key = await upgrade(caller, "/ws", ("Sec-WebSocket-Protocol", "chat, other"))
        got = []
        for sent in (
            Frame(TEXT, b"hello"),
            Frame(BINARY, bytes(range(256)) * 400),
            Frame(CLOSE, b"\x03\xe8"),
        ):
            await caller.send(format_frame(sent, is_client=True))
            got.append(await read_frame(caller.reader))
        end = await caller.reader.read()
        outcome = await way.front.seen.outcome()
    assert (head.second, head.get("sec-websocket-accept")) == ("101", accept_key(key))
    assert head.get("sec-websocket-protocol") == "chat"
    assert [frame.payload for frame in got] == [b"hello", bytes(range(256)) * 400, b"\x03\xe8"]
    assert (end, outcome.cause, outcome.head.protocol) == (b"", None, "websocket")


async def test_refused_upgrade_is_the_apps_answer(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        head, _ = await upgrade(caller, "/ws?refuse=403")
        body = b"".join([part async for part in caller.body("GET", head, [])])
    assert (head.second, body) == ("403", b"refused")


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_app_that_goes_on_in_http_is_heard(engine: str, hops: str, status: int) -> None:
    """It may ignore Upgrade (RFC 9110 §7.8)."""
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        for _ in range(2):
            head, _ = await upgrade(caller, f"/status?code={status}")
            body = b"".join([part async for part in caller.body("GET", head, [])])
            assert (head.second, body) == (str(status), b"" if status == 204 else b"status %d" % status)
            assert not head.get("postern-declined", "")


async def test_an_apps_own_word_on_declining_is_dropped(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, connect(way.port) as caller:
        head, _ = await upgrade(caller, "/status?code=501&header=postern-declined:204")
        body = b"".join([part async for part in caller.body("GET", head, [])])
    assert (head.second, head.get("postern-declined", ""), body) == ("501", "", b"status 501")


async def test_http2_caller_hears_that_no_websocket_was_opened(engine: str) -> None:
    """Over HTTP/2 a 2xx would have opened it (RFC 8441 §5)."""
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        stream = caller.new_stream()
        pseudo = ((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"))
        target = ((b":authority", b"app"), (b":path", b"/status?code=200"))
        await caller.send(caller.head(stream, (*pseudo, *target, (b"sec-websocket-version", b"13"))))
        message = await caller.headed(stream)
    assert message.status == 501


async def test_close_of_the_app_reaches_the_caller(engine: str, hops: str) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert head is not None
        accept = accept_key(head.get("sec-websocket-key"))
        writer.write(
            f"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        writer.write(format_frame(Frame(CLOSE, b"\x03\xe9"), is_client=False))
        got.append((await read_frame(reader)).payload)

    got: list[bytes] = []
    async with raw_app(app) as port, leading(engine, hops, port) as way, connect(way.port) as caller:
        await upgrade(caller, "/")
        close = await read_frame(caller.reader)
        await caller.send(format_frame(Frame(CLOSE, b"\x03\xe9"), is_client=True))
        end = await caller.reader.read()
    assert (close.payload, end, got) == (b"\x03\xe9", b"", [b"\x03\xe9"])


async def test_half_closed_tunnel_still_flows_the_other_way(engine: str, hops: str) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert head is not None
        accept = accept_key(head.get("sec-websocket-key"))
        writer.write(
            f"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        data = await reader.read()  # until the caller's direction ends
        writer.write(b"got " + data)

    async with raw_app(app) as port, leading(engine, hops, port) as way, connect(way.port) as caller:
        await upgrade(caller, "/")
        await caller.send(b"bytes")
        caller.writer.write_eof()
        end = await caller.reader.read()
    assert end == b"got bytes"


async def test_caller_that_is_cut_off_cuts_the_app_off(engine: str, hops: str) -> None:
    ended = asyncio.Event()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert head is not None
        accept = accept_key(head.get("sec-websocket-key"))
        writer.write(
            f"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        try:
            while await reader.read(1000):
                pass
        finally:
            ended.set()

    async with raw_app(app) as port, leading(engine, hops, port) as way, connect(way.port) as caller:
        await upgrade(caller, "/")
        await caller.send(b"bytes")
        caller.writer.transport.abort()
        async with asyncio.timeout(30.0):
            await ended.wait()
        outcome = await way.front.seen.outcome()
    assert outcome.head.protocol == "websocket"


async def test_app_that_dies_resets_the_caller(engine: str, hops: str) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert head is not None
        accept = accept_key(head.get("sec-websocket-key"))
        writer.write(
            f"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        await reader.readexactly(5)
        writer.transport.abort()

    async with raw_app(app) as port, leading(engine, hops, port) as way, connect(way.port) as caller:
        await upgrade(caller, "/")
        await caller.send(b"bytes")
        async with asyncio.timeout(30.0):
            try:
                end = await caller.reader.read()
            except ConnectionResetError:
                end = b""
        outcome = await way.front.seen.outcome()
    assert end == b""
    assert outcome.cause in (None, Cause.RESET_LATE)


async def test_attempt_limit_ends_with_the_acceptance(engine: str, hops: str) -> None:
    async with (
        http_app() as app,
        leading(engine, hops, app, attempt_s=0.3) as way,
        connect(way.port) as caller,
        connect(way.port) as other,
    ):
        await upgrade(caller)
        slow = await other.request("GET", "/slow?s=30")  # begun later, so its limit passes after ours
        await caller.send(format_frame(Frame(TEXT, b"still here"), is_client=True))
        echo = await read_frame(caller.reader)
    assert (slow.status, echo.payload) == (504, b"still here")


async def test_http2_caller_opens_a_websocket_by_extended_connect(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, dial(way.port) as caller:
        stream = caller.new_stream()
        pseudo = (
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"http"),
            (b":authority", b"app"),
            (b":path", b"/ws"),
        )
        await caller.send(caller.head(stream, (*pseudo, (b"sec-websocket-version", b"13"))))
        head = await caller.headed(stream)
        await caller.send(frame(Kind.DATA, 0, stream, format_frame(Frame(TEXT, b"hi"), is_client=True)))
        await caller.until(lambda f: f.kind == Kind.DATA)
        await caller.send(
            frame(Kind.DATA, END_STREAM, stream, format_frame(Frame(CLOSE, b""), is_client=True))
        )
        message = await caller.whole(stream)
    assert caller.peer_settings[Setting.ENABLE_CONNECT_PROTOCOL] == 1
    assert head.status == 200
    assert bytes(message.body) == format_frame(Frame(TEXT, b"hi"), is_client=False) + format_frame(
        Frame(CLOSE, b""), is_client=False
    )


async def test_peer_without_extended_connect_is_unsupported(engine: str) -> None:
    async def app(peer: object) -> None:
        await peer.to_the_end()  # type: ignore[attr-defined]

    off = {Setting.ENABLE_CONNECT_PROTOCOL: 0}
    async with (
        serving(app, extra=off) as port,
        leading(engine, "one", port, wire="h2c") as way,
        connect(way.port) as caller,
    ):
        head, _ = await upgrade(caller, "/")
    assert (head.second, head.get("postern-error")) == ("501", "unsupported")


@pytest.mark.parametrize(
    "changed",
    [("Sec-WebSocket-Version", "8"), ("Sec-WebSocket-Key", "short"), ("Upgrade", "h2c")],
    ids=lambda pair: pair[0],
)
async def test_half_an_offer_is_an_ordinary_request(engine: str, changed: tuple[str, str]) -> None:
    offer = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": new_key()}
    offer[changed[0]] = changed[1]
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        await caller.send_head("GET", "/ws", [("Connection", "Upgrade"), *offer.items()])
        head = await caller.read_response_head()
    assert head.second == "426"
