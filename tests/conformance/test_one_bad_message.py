"""HTTP/2 messages that break a rule: each costs its call alone, and connections end with the code that RFC 9113 names."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.conformance.apps import http_app, raw_app
from tests.conformance.frames import Code, FramePeer, Kind, dial, frame, reset, serving, window
from tests.conformance.harness import leading
from tests.support.http_client import connect

BAD_FIELDS = [
    ((b"X-Upper", b"1"),),
    ((b"te", b"gzip"),),
    ((b"connection", b"close"),),
    ((b"transfer-encoding", b"chunked"),),
    ((b"x", b"a\x00"),),
    ((b":late", b"1"),),
    ((b"content-length", b"x"),),
    ((b"content-length", b"1"), (b"content-length", b"1")),
]
Answer = Callable[[FramePeer, int], Awaitable[None]]


async def _announce_more(peer: FramePeer, stream: int) -> None:
    await peer.respond(stream, headers=((b"content-length", b"9"),), body=b"short")


async def _announce_less(peer: FramePeer, stream: int) -> None:
    await peer.respond(stream, headers=((b"content-length", b"2"),), body=b"too long")


async def _switch(peer: FramePeer, stream: int) -> None:
    await peer.send(peer.head(stream, ((b":status", b"101"),)))
    await peer.respond(stream, body=b"x")


async def _end_with_inform(peer: FramePeer, stream: int) -> None:
    await peer.send(peer.head(stream, ((b":status", b"103"),), end=True))


async def _begin_with_body(peer: FramePeer, stream: int) -> None:
    await peer.send(frame(Kind.DATA, 0, stream, b"x"))
    await peer.respond(stream)


async def _go_on_after_trailers(peer: FramePeer, stream: int) -> None:
    trailers = peer.head(stream, ((b"x", b"1"),))
    await peer.respond(stream, body=b"x", end=False)
    await peer.send(trailers + trailers + frame(Kind.DATA, 1, stream, b"x"))


async def _inform_after_the_head(peer: FramePeer, stream: int) -> None:
    await peer.respond(stream, end=False)
    await peer.send(peer.head(stream, ((b":status", b"103"),)))


# Their heads are sound, so that they are passed on.
_BROKEN_LATE = (_announce_more, _announce_less, _go_on_after_trailers, _inform_after_the_head)


def _with(fields: tuple[tuple[bytes, bytes], ...]) -> Answer:
    async def answer(peer: FramePeer, stream: int) -> None:
        await peer.respond(stream, headers=fields, body=b"x")

    return answer


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=lambda fields: repr(fields[0]))
async def test_malformed_request_costs_no_other_call(
    engine: str, fields: tuple[tuple[bytes, bytes], ...]
) -> None:
    """RFC 9113 §8.1.1: a stream error."""
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        other = await caller.request(b"/echo", method=b"POST", end=False)
        for _ in range(2):  # the second time the fields come out of the table
            bad = await caller.whole(await caller.request(headers=fields))
            assert bad.reset == Code.PROTOCOL_ERROR
        await caller.send_body(other, b"fine", end=True)
        message = await caller.whole(other)
    assert (message.status, caller.goaway) == (200, None)


@pytest.mark.parametrize("fields", [((b"x", b"1"),), ((b":status", b"103"),)])
@pytest.mark.parametrize("times", [1, 2])
async def test_request_that_goes_on_after_trailers_costs_no_other_call(
    engine: str, fields: tuple[tuple[bytes, bytes], ...], times: int
) -> None:
    """RFC 9113 §8.1: trailers end a message."""
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        other = await caller.request(b"/echo", method=b"POST", end=False)
        stream = await caller.request(b"/echo", method=b"POST", body=b"x", end=False)
        await caller.send(b"".join(caller.head(stream, fields) for _ in range(times)))
        bad = await caller.whole(stream)
        await caller.send_body(other, b"fine", end=True)
        message = await caller.whole(other)
    assert bad.reset == Code.PROTOCOL_ERROR
    assert (message.status, caller.goaway) == (200, None)


@pytest.mark.parametrize("end", [True, False])
async def test_request_that_is_an_answer_costs_no_other_call(engine: str, *, end: bool) -> None:
    """RFC 9113 §8.3."""
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        other = await caller.request(b"/echo", method=b"POST", end=False)
        stream = caller.new_stream()
        await caller.send(caller.head(stream, ((b":status", b"103"),), end=end))
        bad = await caller.whole(stream)
        await caller.send_body(other, b"fine", end=True)
        message = await caller.whole(other)
    assert bad.reset == Code.PROTOCOL_ERROR
    assert (message.status, caller.goaway) == (200, None)


async def test_window_update_of_nothing_costs_no_other_call(engine: str) -> None:
    """RFC 9113 §6.9."""
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        other = await caller.request(b"/echo", method=b"POST", end=False)
        stream = await caller.request(b"/echo", method=b"POST", end=False)
        await caller.send(window(stream, 0))
        bad = await caller.whole(stream)
        await caller.send_body(other, b"fine", end=True)
        message = await caller.whole(other)
    assert bad.reset == Code.PROTOCOL_ERROR
    assert (message.status, caller.goaway) == (200, None)


@pytest.mark.parametrize("body", [b"", b"short", b"far too long a body"])
async def test_request_of_another_length_than_announced_costs_no_other_call(engine: str, body: bytes) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        other = await caller.request(b"/echo", method=b"POST", end=False)
        headers = ((b"content-length", b"9"),)
        bad = await caller.whole(await caller.request(b"/echo", method=b"POST", headers=headers, body=body))
        assert bad.reset == Code.PROTOCOL_ERROR or bad.status == 400
        await caller.send_body(other, b"fine", end=True)
        message = await caller.whole(other)
    assert (message.status, caller.goaway) == (200, None)


@pytest.mark.parametrize(
    "answer",
    [
        *(_with(fields) for fields in BAD_FIELDS),
        *_BROKEN_LATE,
        _switch,
        _end_with_inform,
        _begin_with_body,
    ],
)
async def test_malformed_answer_costs_no_other_call_and_is_502(engine: str, answer: Answer) -> None:
    """RFC 9112 §6.3, RFC 9113 §8.1.1, §8.6."""
    goaways = []
    begun = asyncio.Event()

    async def app(peer: FramePeer) -> None:
        good = await peer.next_request()
        begun.set()
        for _ in range(2):
            await answer(peer, await peer.next_request())
        await peer.respond(good, body=b"fine")
        await peer.to_the_end()
        goaways.append(peer.goaway)

    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c") as way,
        connect(way.port) as first,
    ):
        await first.send_head("GET", "/good", [])
        await begun.wait()  # another connection's call may overtake it
        async with connect(way.port) as second:
            for _ in range(2):
                await second.send_head("GET", "/bad", [("Connection", "keep-alive")])
                async with asyncio.timeout(30.0):
                    head = await second.reader.readuntil(b"\r\n\r\n")
                if answer in _BROKEN_LATE:
                    break
                assert head.startswith(b"HTTP/1.1 502 ")
                assert b"\r\npostern-error: invalid-answer\r\n" in head
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await second.reader.readexactly(length)
        if answer in _BROKEN_LATE:
            async with connect(way.port) as third:
                await third.send_head("GET", "/bad", [])
                response = await first.read_response("GET")
        else:
            response = await first.read_response("GET")
        assert (response.status, response.body) == (200, b"fine")


@pytest.mark.parametrize(
    ("kind", "flags", "on_stream", "length"),
    [
        (Kind.PING, 0, False, 7),
        (Kind.RST_STREAM, 0, True, 3),
        (Kind.WINDOW_UPDATE, 0, False, 5),
        (Kind.SETTINGS, 0, False, 7),
        (Kind.SETTINGS, 1, False, 6),
        (Kind.PRIORITY, 0, True, 4),
        (Kind.GOAWAY, 0, False, 7),
    ],
)
async def test_frame_of_a_wrong_size_is_told_so(
    engine: str, kind: Kind, flags: int, on_stream: bool, length: int
) -> None:
    """RFC 9113 §6.3 to §6.9."""
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        stream = await caller.request(method=b"POST", end=False)
        await caller.send(frame(kind, flags, stream if on_stream else 0, bytes(length)))
        await caller.to_the_end()
    assert caller.goaway is not None
    assert int.from_bytes(caller.goaway.payload[4:8], "big") == Code.FRAME_SIZE_ERROR


async def test_peer_that_sends_on_after_a_bad_frame_reads_why_it_was_sent_away(engine: str) -> None:
    """A close with bytes unread is a reset, which may take the GOAWAY with it (RFC 9113 §5.4.1)."""
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        await caller.settled()
        await caller.send(frame(Kind.PING, 0, 0, bytes(7)), bytes(1 << 20))
        for _ in range(20):
            await caller.send(bytes(1 << 18))
        said = await asyncio.wait_for(caller.reader.read(), 5.0)  # a reset would raise
    assert said[-17:-8] == frame(Kind.GOAWAY, 0, 0, bytes(8))[:9]
    assert said[-4:] == Code.FRAME_SIZE_ERROR.to_bytes(4, "big")


@pytest.mark.parametrize("with_data", [False, True])
async def test_head_after_the_end_of_a_request_is_told_so(engine: str, with_data: bool) -> None:
    """RFC 9113 §5.1, half-closed (remote)."""

    async def silent(peer: FramePeer) -> None:
        await peer.to_the_end()

    async with (
        serving(silent) as app,
        leading(engine, "one", app, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(method=b"POST", body=b"x" if with_data else None)
        await caller.send(caller.head(stream, ((b"x", b"1"),), end=True))
        told = await caller.until(lambda got: got.kind in (Kind.RST_STREAM, Kind.GOAWAY))
    code = (
        told.payload[4:8] if told.kind == Kind.GOAWAY else told.payload
    )  # an error of the stream, or of all (§5.4.1)
    assert int.from_bytes(code, "big") == Code.STREAM_CLOSED


async def test_head_after_the_reset_of_a_call_under_way_is_told_so(engine: str) -> None:
    """RFC 9113 §5.1, closed: nothing but PRIORITY may follow a RST_STREAM."""
    begun = asyncio.Event()

    async def silent(peer: FramePeer) -> None:
        await peer.next_request()
        begun.set()
        await peer.to_the_end()

    async with (
        serving(silent) as app,
        leading(engine, "one", app, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(method=b"POST", end=False)
        await begun.wait()
        await caller.send(reset(stream) + caller.head(stream, ((b"x", b"1"),)))
        told = await caller.until(lambda got: got.kind in (Kind.RST_STREAM, Kind.GOAWAY))
    code = told.payload[4:8] if told.kind == Kind.GOAWAY else told.payload
    assert int.from_bytes(code, "big") == Code.STREAM_CLOSED


async def test_header_block_that_is_none_is_told_so(engine: str) -> None:
    """RFC 9113 §4.3."""
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        await caller.send(frame(Kind.HEADERS, 0x5, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff"))
        await caller.to_the_end()
    assert caller.goaway is not None
    assert int.from_bytes(caller.goaway.payload[4:8], "big") == Code.COMPRESSION_ERROR


@pytest.mark.parametrize(
    "between",
    [
        frame(Kind.WINDOW_UPDATE, 0, 1, bytes(4)),
        frame(Kind.GOAWAY, 0, 0, bytes(8)),
        frame(Kind.PING, 0, 0, bytes(8)),
    ],
    ids=("window-update", "goaway", "ping"),
)
async def test_nothing_comes_within_a_header_block(engine: str, between: bytes) -> None:
    """RFC 9113 §4.3."""
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        block = caller.block(
            ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a"))
        )
        await caller.send(
            frame(Kind.HEADERS, 1, 1, block[:5]) + between + frame(Kind.CONTINUATION, 4, 1, block[5:])
        )
        await caller.to_the_end()
        assert not way.front.seen.outcomes
    assert caller.goaway is not None
    assert int.from_bytes(caller.goaway.payload[4:8], "big") == Code.PROTOCOL_ERROR


@pytest.mark.parametrize("target", [b"/a<b>c`d", b'/a?q="<x>"'])
async def test_target_with_characters_that_want_escapes_is_carried(
    engine: str, hops: str, target: bytes
) -> None:
    """Some clients send them raw; HTTP/2's :path has none (RFC 3986 §2), so they leave in escapes."""
    paths = []

    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        paths.append((await peer.whole(stream)).get(b":path"))
        await peer.respond(stream)
        await peer.to_the_end()

    async with (
        serving(app) as port,
        leading(engine, hops, port, wire="h2c") as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("GET", target.decode())
    assert response.status == 200
    escapes = {b'"': b"%22", b"<": b"%3C", b">": b"%3E", b"`": b"%60"}
    for raw, escape in escapes.items():
        target = target.replace(raw, escape)
    assert paths == [target]


async def test_app_that_speaks_http2_where_http1_is_expected_is_told_as_such(engine: str) -> None:
    """A gRPC server without `--app-protocol grpc`: it answers with its SETTINGS (RFC 9113 §3.4)."""

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(Kind.SETTINGS, 0, 0, b"\x00\x03\x00\x00\x00\x64"))
        await writer.drain()

    async with raw_app(app) as port, leading(engine, "one", port) as way, connect(way.port) as caller:
        response = await caller.request("GET", "/")
    assert (response.status, response.get("postern-error")) == (502, "invalid-answer")
    assert b"frames of HTTP/2" in response.body
