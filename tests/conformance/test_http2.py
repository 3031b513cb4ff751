"""HTTP/2 callers and apps at the level of frames, through one engine and through two."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from proxy.contract.plan import Cause
from tests.conformance.apps import http_app, raw_app
from tests.conformance.frames import (
    WIDE,
    Code,
    FramePeer,
    Kind,
    Message,
    Setting,
    dial,
    frame,
    goaway,
    serving,
    settings,
    window,
)
from tests.conformance.harness import leading
from tests.support.http_client import connect
from tests.support.http_wire import read_head


async def answer_all(peer: FramePeer) -> None:
    """200 with the request's body, once the request is complete."""
    while True:
        stream = await peer.next_request()
        message = await peer.whole(stream)
        if message.reset is None:
            await peer.respond(
                stream,
                headers=((b"x-path", message.get(b":path")), (b"x-authority", message.get(b":authority"))),
                body=bytes(message.body),
            )


async def test_request_crosses_as_http2_end_to_end(engine: str, hops: str) -> None:
    async with (
        serving(answer_all) as app,
        leading(engine, hops, app, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(b"/a/b?c=%20", method=b"POST", body=b"hello")
        message = await caller.whole(stream)
    assert (message.status, bytes(message.body), message.get(b"x-path")) == (200, b"hello", b"/a/b?c=%20")
    assert message.ended


async def test_http1_caller_reaches_an_http2_app(engine: str, hops: str) -> None:
    async with (
        serving(answer_all) as app,
        leading(engine, hops, app, wire="h2c") as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("POST", "/x", body=b"hello")
    assert (response.status, response.body, response.get("x-path")) == (200, b"hello", "/x")


async def test_http2_caller_reaches_an_http1_app(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, dial(way.port) as caller:
        message = await caller.whole(await caller.request(b"/echo", method=b"POST", body=b"hello"))
    assert message.status == 200
    assert b'"body": "hello"' in message.body
    assert b'"host", "app"' in message.body.lower()


async def test_cookie_crumbs_become_one_cookie_for_an_http1_app(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, dial(way.port) as caller:
        stream = await caller.request(b"/echo", headers=((b"cookie", b"a=1"), (b"cookie", b"b=2")))
        message = await caller.whole(stream)
    assert b'"a=1; b=2"' in message.body


async def test_request_without_length_is_chunked_for_an_http1_app(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, dial(way.port) as caller:
        message = await caller.whole(await caller.request(b"/echo", method=b"POST", body=b"x"))
    assert b'"chunked"' in message.body
    assert b"content-length" not in message.body.lower()


async def test_request_without_body_announces_none_on_a_warm_connection(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, dial(way.port) as caller:
        for _ in range(3):
            message = await caller.whole(await caller.request(b"/echo"))
            assert b"chunked" not in message.body.lower()


async def test_trailers_cross_in_both_directions(engine: str, hops: str) -> None:
    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        got = await peer.whole(stream)
        await peer.respond(stream, body=b"x", trailers=(*got.trailers, (b"x-sum", b"9")))
        await peer.to_the_end()

    async with serving(app) as port, leading(engine, hops, port, wire="h2c") as way, dial(way.port) as caller:
        stream = await caller.request(method=b"POST", body=b"x", end=False)
        await caller.send(caller.head(stream, ((b"x-asked", b"1"),), end=True))
        message = await caller.whole(stream)
    assert message.trailers == [(b"x-asked", b"1"), (b"x-sum", b"9")]


async def test_trailers_only_response_crosses(engine: str, hops: str) -> None:
    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        await peer.respond(stream, headers=((b"x-only", b"1"),))
        await peer.to_the_end()

    async with serving(app) as port, leading(engine, hops, port, wire="h2c") as way, dial(way.port) as caller:
        message = await caller.whole(await caller.request())
    assert (message.status, message.get(b"x-only"), message.ended, message.trailers) == (200, b"1", True, [])


async def test_informational_answers_cross(engine: str, hops: str) -> None:
    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        await peer.send(peer.head(stream, ((b":status", b"103"), (b"link", b"</a.css>"))))
        await peer.respond(stream, body=b"x")
        await peer.to_the_end()

    async with serving(app) as port, leading(engine, hops, port, wire="h2c") as way, dial(way.port) as caller:
        message = await caller.whole(await caller.request())
    assert message.informs == [[(b":status", b"103"), (b"link", b"</a.css>")]]
    assert (message.status, bytes(message.body)) == (200, b"x")


async def test_body_flows_in_both_directions_at_once(engine: str, hops: str) -> None:
    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        await peer.respond(stream, body=b"first", end=False)
        await peer.until(lambda f: f.kind == Kind.DATA)
        await peer.send_body(stream, b"second", end=True)
        await peer.to_the_end()

    async with serving(app) as port, leading(engine, hops, port, wire="h2c") as way, dial(way.port) as caller:
        stream = await caller.request(method=b"POST", end=False)
        await caller.until(lambda f: f.kind == Kind.DATA)
        await caller.send_body(stream, b"more", end=True)
        message = await caller.whole(stream)
    assert bytes(message.body) == b"firstsecond"


async def test_many_calls_share_one_connection(engine: str, hops: str) -> None:
    async with (
        serving(answer_all) as app,
        leading(engine, hops, app, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        streams = [await caller.request(b"/%d" % n, method=b"POST", body=b"%d" % n) for n in range(50)]
        got = [bytes((await caller.whole(stream)).body) for stream in streams]
    assert got == [b"%d" % n for n in range(50)]
    assert way.front.engine.stats().calls_in_flight == 0


async def test_connections_of_a_peak_are_not_shared_out_among_few_calls_after_it(engine: str) -> None:
    peak, few = 150, 20  # the first need more than one connection
    came: list[tuple[FramePeer, int]] = []

    async def app(peer: FramePeer) -> None:
        while True:
            came.append((peer, await peer.next_request()))
            if len(came) in (peak, peak + few):  # all at once, so that they were in flight together
                for asker, stream in came[-few:] if len(came) > peak else came:
                    await asker.respond(stream, body=b"x")

    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        for count in (peak, few):
            streams = [await caller.request() for _ in range(count)]
            assert {(await caller.whole(stream)).status for stream in streams} == {200}
    assert len({peer for peer, _ in came[:peak]}) > 1
    assert len({peer for peer, _ in came[peak:]}) == 1


async def test_padded_data_is_passed_without_its_padding(engine: str, hops: str) -> None:
    async with (
        serving(answer_all) as app,
        leading(engine, hops, app, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(method=b"POST", end=False)
        for _ in range(40):  # more padding than any window: credit for it must come back
            await caller.send(frame(Kind.DATA, 0x8, stream, b"\xff" + b"x" + bytes(255)))
        await caller.send(frame(Kind.DATA, 0x1, stream))
        message = await caller.whole(stream)
    assert bytes(message.body) == b"x" * 40


async def test_head_keeps_the_content_length(engine: str, hops: str) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")

    async with raw_app(app) as port, leading(engine, hops, port) as way, dial(way.port) as caller:
        for _ in range(2):
            message = await caller.whole(await caller.request(method=b"HEAD"))
            assert (message.status, message.get(b"content-length"), message.ended) == (200, b"100", True)


async def test_early_answer_stops_the_upload_without_an_error(engine: str, hops: str) -> None:
    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        await peer.respond(stream, 413, body=b"no")
        await peer.to_the_end()

    async with serving(app) as port, leading(engine, hops, port, wire="h2c") as way, dial(way.port) as caller:
        stream = await caller.request(method=b"POST", end=False)
        message = await caller.whole(stream)
        code = (await caller.until(lambda f: f.kind == Kind.RST_STREAM)).code
    assert (message.status, bytes(message.body), code) == (413, b"no", Code.NO_ERROR)


async def test_truncated_answer_of_an_http1_app_resets_the_stream(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, dial(way.port) as caller:
        message = await caller.whole(await caller.request(b"/die?when=body"))
        outcome = await way.front.seen.outcome()
    assert (bytes(message.body), message.ended) == (b"half of a body", False)
    assert message.reset not in (None, Code.NO_ERROR)
    assert outcome.cause is Cause.RESET_LATE


async def test_app_with_no_room_for_streams_fails_the_call_and_is_not_dialled_on_and_on(engine: str) -> None:
    dialled = 0

    async def app(peer: FramePeer) -> None:
        nonlocal dialled
        dialled += 1
        await peer.to_the_end()

    none = {Setting.MAX_CONCURRENT_STREAMS: 0}
    async with (
        serving(app, extra=none) as port,
        leading(engine, "one", port, wire="h2c", total_s=0.5) as way,
        dial(way.port) as caller,
    ):
        message = await caller.whole(await caller.request())
    assert message.status in (502, 503, 504)
    assert dialled <= 8


async def test_calls_beyond_the_apps_stream_limit_wait_or_use_another_connection(engine: str) -> None:
    most = 0
    answered: Counter[FramePeer] = Counter()

    async def app(peer: FramePeer) -> None:
        nonlocal most
        while True:
            stream = await peer.next_request()
            await peer.settled()  # whatever else was sent by now is here
            most = max(most, sum(1 for message in peer.messages.values() if message.headers) - answered[peer])
            await peer.respond(stream, body=b"x")
            answered[peer] += 1

    two = {Setting.MAX_CONCURRENT_STREAMS: 2}
    async with (
        serving(app, extra=two) as port,
        leading(engine, "one", port, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        streams = [await caller.request() for _ in range(20)]
        statuses = [(await caller.whole(stream)).status for stream in streams]
    assert statuses == [200] * 20
    assert most <= 2


async def test_window_raised_by_settings_releases_a_held_body(engine: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app) as way,
        dial(way.port, window_bytes=1_000) as caller,
    ):
        stream = await caller.request(b"/bytes?n=5000")
        await caller.headed(stream)
        while len(caller.message(stream).body) < 1_000:
            await caller.read()
        await caller.send(settings({Setting.INITIAL_WINDOW_SIZE: WIDE}))
        message = await caller.whole(stream)
    assert len(message.body) == 5_000


async def test_connection_window_is_honoured_across_streams(engine: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app) as way,
        dial(way.port, extra={Setting.INITIAL_WINDOW_SIZE: WIDE}, window_bytes=WIDE - 1) as caller,
    ):
        streams = [await caller.request(b"/bytes?n=40000") for _ in range(3)]
        while sum(len(caller.message(s).body) for s in streams) < 65_535:
            await caller.read()
        await caller.settled()
        held = sum(len(caller.message(s).body) for s in streams)
        await caller.send(window(0, 1 << 20))
        bodies = [len((await caller.whole(s)).body) for s in streams]
    assert held == 65_535
    assert bodies == [40_000] * 3


async def test_goaway_of_the_caller_lets_its_calls_finish(engine: str) -> None:
    async with (
        serving(answer_all) as app,
        leading(engine, "one", app, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(method=b"POST", end=False)
        await caller.send(goaway(0))
        await caller.settled()
        await caller.send_body(stream, b"late", end=True)
        message = await caller.whole(stream)
        await caller.to_the_end()  # and then the connection closes
    assert bytes(message.body) == b"late"


async def test_goaway_of_the_app_lets_its_calls_finish_and_sends_no_new_ones(engine: str) -> None:
    connections: list[int] = []

    async def app(peer: FramePeer) -> None:
        number = len(connections)
        connections.append(0)
        while True:
            stream = await peer.next_request()
            connections[number] += 1
            if number == 0:
                await peer.send(goaway(stream))
                await peer.settled()
            await peer.respond(stream, body=b"%d" % number)

    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        bodies = [bytes((await caller.whole(await caller.request())).body) for _ in range(3)]
    assert bodies == [b"0", b"1", b"1"]
    assert connections == [1, 2]


async def _bad_then_good(engine: str, answer_badly: Callable[[FramePeer, int], Awaitable[None]]) -> Message:
    """What a caller gets of an app that answers one call badly, and the next one well."""

    async def app(peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            if peer.message(stream).get(b":path") == b"/bad":
                await answer_badly(peer, stream)
            else:
                await peer.respond(stream, headers=((b"content-length", b"4"),), body=b"fine")

    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        bad = await caller.whole(await caller.request(b"/bad"))
        good = await caller.whole(await caller.request(b"/good"))
    assert (good.status, bytes(good.body)) == (200, b"fine")
    return bad


@pytest.mark.parametrize("status", [b"20", b"abc", b"+20", b"2_0", b"2000", b"099"])
async def test_malformed_status_of_an_app_fails_its_call_alone(engine: str, status: bytes) -> None:
    async def answer(peer: FramePeer, stream: int) -> None:
        await peer.send(peer.head(stream, ((b":status", status),), end=True))

    assert (await _bad_then_good(engine, answer)).status == 502


async def test_answer_with_two_lengths_fails_its_call_alone(engine: str) -> None:
    async def answer(peer: FramePeer, stream: int) -> None:
        await peer.respond(stream, headers=((b"content-length", b"4"),) * 2, body=b"fine")

    assert (await _bad_then_good(engine, answer)).status == 502


async def test_plain_connect_is_refused_and_harms_no_other_call(engine: str, hops: str) -> None:
    async with (
        serving(answer_all) as app,
        leading(engine, hops, app, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        other = await caller.request(method=b"POST", end=False)
        stream = caller.new_stream()
        await caller.send(caller.head(stream, ((b":method", b"CONNECT"), (b":authority", b"db:5432"))))
        refused = await caller.whole(stream)
        await caller.send_body(other, b"fine", end=True)
        message = await caller.whole(other)
    assert refused.status >= 400
    assert (message.status, bytes(message.body)) == (200, b"fine")


@pytest.mark.parametrize(
    "fields",
    [
        [(b"X-Upper", b"1")],
        [(b"x", b"a\r\nb: c")],
        [(b"x", b"a\x00")],
        [(b"connection", b"close")],
        [(b"transfer-encoding", b"chunked")],
        [(b"te", b"gzip")],
        [(b"content-length", b"+5")],
        [(b"content-length", b"1_0")],
        [(b"content-length", b"5"), (b"content-length", b"6")],
        [(b"content-length", b"5"), (b"content-length", b"5")],
        [(b"content-length", b"5, 5")],
        [(b"content-length", b"")],
        [(b":late", b"1")],
        [(b"", b"1")],
        [(b"a b", b"1")],
        [(b"x:y", b"1")],
        [(b"host", b"evil")],
    ],
    ids=lambda fields: "+".join(f"{k!r}={v!r}" for k, v in fields),
)
async def test_malformed_request_is_refused_and_never_reaches_the_app(
    engine: str, fields: list[tuple[bytes, bytes]]
) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        stream = await caller.request(headers=fields, method=b"POST", end=False)
        message = await caller.whole(stream)
        async with dial(way.port) as other:
            good = await other.whole(await other.request())
    assert message.status in (0, 400)
    assert good.status == 200
    assert len(way.front.seen.outcomes) == 1


@pytest.mark.parametrize(
    "fields",
    [
        [(b":authority", b"user@app")],
        [(b":authority", b"a b")],
        [(b":authority", b"a/b")],
        [(b":authority", b"a\x80")],
        [(b"host", b"user@app")],
        [(b"host", b"app"), (b"host", b"app")],
    ],
    ids=lambda fields: "+".join(f"{k!r}={v!r}" for k, v in fields),
)
async def test_request_with_an_unsound_authority_is_refused(
    engine: str, fields: list[tuple[bytes, bytes]]
) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        message = await caller.whole(await caller.request(headers=fields, authority=None))
        async with dial(way.port) as other:
            good = await other.whole(await other.request())
    assert (message.status, good.status) == (0, 200)
    assert len(way.front.seen.outcomes) == 1


async def test_request_without_authority_is_carried(engine: str, hops: str) -> None:
    """As HTTP/1.0 needs no Host, what was made of it has neither (RFC 9113 §8.3.1)."""
    async with http_app() as app, leading(engine, hops, app) as way, dial(way.port) as caller:
        message = await caller.whole(await caller.request(authority=None))
    assert message.status == 200


async def test_authority_with_escapes_is_carried(engine: str, hops: str) -> None:
    """gRPC's clients of a Unix socket send its path so."""
    async with (
        serving(answer_all) as app,
        leading(engine, hops, app, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        message = await caller.whole(await caller.request(authority=b"%2Frun%2Fapi.socket"))
    assert message.status == 200


@pytest.mark.parametrize("body", [None, b"", b"1234", b"123456"], ids=["none", "empty", "short", "long"])
async def test_body_unlike_its_content_length_is_no_whole_request(
    engine: str, hops: str, body: bytes | None
) -> None:
    async with http_app() as app, leading(engine, hops, app) as way, dial(way.port) as caller:
        stream = await caller.request(method=b"POST", headers=((b"content-length", b"5"),), body=body)
        message = await caller.whole(stream)
    assert message.status != 200


@pytest.mark.parametrize("path", [b"/a#b", b"/a%00b", b"/a%1fb", b"/%zz", b"/a%7F", b"x"])
async def test_invalid_target_is_a_400(engine: str, path: bytes) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        message = await caller.whole(await caller.request(path))
    assert (message.status, message.get(b"postern-error")) == (400, b"bad-request")
