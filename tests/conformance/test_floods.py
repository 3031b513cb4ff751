"""Peers that cost more than they spend: each flood ends its own connection, is counted, and harms nobody else's calls."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from msgspec.structs import replace

from proxy.contract.engine import Limits, WireProtocol
from proxy.contract.plan import Cause
from tests.conformance.apps import http_app, raw_app
from tests.conformance.frames import (
    ACK,
    END_HEADERS,
    PREFACE,
    WIDE,
    Code,
    FramePeer,
    Kind,
    Setting,
    dial,
    frame,
    reset,
    serving,
    settings,
    window,
)
from tests.conformance.harness import PINGLESS, Way, always, leading, plan, running
from tests.conformance.identities import Mint, spiffe
from tests.support.http_client import connect

TIGHT = Limits(
    resets_per_s=1,
    resets_burst=20,
    control_per_s=1,
    control_burst=50,
    continuations=4,
    head_bytes=8_192,
    header_count=64,
    head_s=0.3,
    idle_s=0.4,
    ping_s=PINGLESS.ping_s,
    own_app_factor=1.0,
)
PATIENT = replace(TIGHT, idle_s=30.0)  # where an end by idleness would be taken for one by a limit


@asynccontextmanager
async def beside(engine: str, limits: Limits = TIGHT) -> AsyncIterator[tuple[Way, FramePeer, FramePeer]]:
    """A way, an attacker's connection, and a bystander's with a call under way that must end well."""
    async with (
        http_app() as app,
        leading(engine, "one", app, limits=limits) as way,
        dial(way.port) as attacker,
        dial(way.port) as bystander,
    ):
        call = await bystander.request(b"/echo", method=b"POST", body=b"part", end=False)
        await bystander.settled()
        yield way, attacker, bystander
        await bystander.send_body(call, b"ial", end=True)
        message = await bystander.whole(call)
        assert message.status == 200
        assert b'"body": "partial"' in message.body
        assert (await bystander.whole(await bystander.request(b"/echo"))).status == 200


async def calmed(way: Way, attacker: FramePeer, kind: str) -> None:
    """The attacker was told to calm down, cut off, and counted."""
    await attacker.to_the_end()
    assert attacker.goaway is not None
    assert attacker.goaway.code == Code.ENHANCE_YOUR_CALM
    await way.front.seen.until(lambda: way.front.seen.refused[kind] >= 1)


async def test_rapid_reset_leaves_no_work_behind(engine: str) -> None:
    """CVE-2023-44487: each call that is cancelled ends here and at the app, and those under way are bounded; who cancels may go on."""
    async with beside(engine) as (way, attacker, _):
        for _ in range(5):
            for _ in range(100):
                stream = await attacker.request(b"/slow?s=30")
                await attacker.send(reset(stream))
            await way.front.seen.until(lambda: way.front.engine.stats().calls_in_flight == 1)
        assert (await attacker.whole(await attacker.request(b"/echo"))).status == 200
        assert not way.front.seen.refused


async def test_resets_of_calls_that_are_over_are_ended(engine: str) -> None:
    async with beside(engine) as (way, attacker, _):
        stream = await attacker.request(b"/echo")
        await attacker.whole(stream)
        with suppress(ConnectionError):
            await attacker.send(reset(stream) * 500)
            await attacker.to_the_end()
        await way.front.seen.until(lambda: way.front.seen.refused["reset"] >= 1)


async def test_resets_that_the_engine_is_made_to_send_count_too(engine: str) -> None:
    async with beside(engine, PATIENT) as (way, attacker, _):
        for _ in range(100):
            stream = await attacker.request(
                b"/early", method=b"POST", headers=((b"content-length", b"9"),), end=False
            )
            await attacker.send(frame(Kind.HEADERS, END_HEADERS, stream, attacker.block(((b"x", b"y"),))))
        await attacker.to_the_end()
        assert attacker.goaway is not None
        assert sum(way.front.seen.refused.values()) >= 1


async def test_data_after_the_end_of_a_stream_counts_as_resets(engine: str) -> None:
    async with beside(engine, PATIENT) as (way, attacker, _):
        for _ in range(100):
            stream = await attacker.request(b"/slow?s=30")
            await attacker.send(frame(Kind.DATA, 0, stream, b"late"))
        await attacker.to_the_end()
        assert sum(way.front.seen.refused.values()) >= 1
        await way.front.seen.until(lambda: way.front.engine.stats().calls_in_flight == 1)


_PROVOCATIONS: dict[str, Callable[[int], bytes]] = {  # on a stream whose request is whole
    "window-of-nothing": lambda stream: window(stream, 0),
    "window-too-large": lambda stream: window(stream, WIDE),
    "headers-after-the-end": lambda stream: frame(Kind.HEADERS, END_HEADERS | 1, stream, b"\x00\x01x\x01y"),
    "data-after-the-end": lambda stream: frame(Kind.DATA, 1, stream, b"late"),
    "depends-on-itself": lambda stream: frame(Kind.PRIORITY, 0, stream, stream.to_bytes(4, "big") + b"\0"),
    "short-priority": lambda stream: frame(Kind.PRIORITY, 0, stream, b"\0"),
    "empty-block": lambda stream: frame(Kind.HEADERS, END_HEADERS, stream + 1_000_000),
}


@pytest.mark.parametrize("provocation", _PROVOCATIONS)
async def test_provoked_resets_are_ended(engine: str, provocation: str) -> None:
    """MadeYouReset (CVE-2025-8671): resets that we are made to send cost as much as those of the peer."""
    async with beside(engine, PATIENT) as (way, attacker, _):
        attacker.acking = False
        with suppress(ConnectionError):
            for _ in range(100):
                stream = await attacker.request(b"/slow?s=30")
                await attacker.send(_PROVOCATIONS[provocation](stream))
            await attacker.to_the_end()
        await way.front.seen.until(lambda: sum(way.front.seen.refused.values()) >= 1)
        await way.front.seen.until(lambda: way.front.engine.stats().calls_in_flight == 1)


@pytest.mark.parametrize("field", [(b"content-length", b"x"), (b"host", b"other"), (b"te", b"gzip")])
async def test_malformed_requests_count_as_resets(engine: str, field: tuple[bytes, bytes]) -> None:
    async with beside(engine, PATIENT) as (way, attacker, _):
        with suppress(ConnectionError):
            for _ in range(100):
                await attacker.request(headers=(field,))
            await attacker.to_the_end()
        await way.front.seen.until(lambda: sum(way.front.seen.refused.values()) >= 1)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("ping", frame(Kind.PING, 0, 0, bytes(8))),
        ("settings", settings({})),
        ("settings", settings({Setting.MAX_CONCURRENT_STREAMS: 7})),
        ("priority", frame(Kind.PRIORITY, 0, 1, b"\x00\x00\x00\x00\x10")),
    ],
)
async def test_control_frames_beyond_the_burst_are_ended(engine: str, kind: str, data: bytes) -> None:
    async with beside(engine) as (way, attacker, _):
        await attacker.send(data * 200)
        await calmed(way, attacker, kind)


async def test_control_frames_within_the_burst_are_fine(engine: str) -> None:
    async with beside(engine) as (way, attacker, _):
        await attacker.send(frame(Kind.PING, 0, 0, bytes(8)) * 40)
        assert (await attacker.whole(await attacker.request(b"/echo"))).status == 200
        assert not way.front.seen.refused


@pytest.mark.parametrize("padding", [False, True])
async def test_empty_data_beyond_the_burst_is_ended(engine: str, padding: bool) -> None:
    async with beside(engine) as (way, attacker, _):
        stream = await attacker.request(b"/sink", method=b"POST", end=False)
        empty = frame(Kind.DATA, 0x8, stream, b"\x00") if padding else frame(Kind.DATA, 0, stream)
        await attacker.send(empty * 200)
        await calmed(way, attacker, "empty-data")


async def test_window_updates_beyond_the_burst_are_ended(engine: str) -> None:
    async with beside(engine) as (way, attacker, _):
        await attacker.send(window(0, 1) * 2_000)
        await calmed(way, attacker, "window-update")


async def test_window_updates_that_go_with_a_response_are_fine(engine: str) -> None:
    async with beside(engine) as (way, attacker, _):
        stream = await attacker.request(b"/bytes?n=100000")
        message = attacker.message(stream)
        while not message.over:
            before = len(message.body)
            await attacker.read()
            if got := len(message.body) - before:
                for _ in range(2):
                    await attacker.send(window(stream, max(1, got // 2)), window(0, max(1, got // 2)))
        assert len(message.body) == 100_000
        assert not way.front.seen.refused


async def test_unknown_frames_beyond_the_burst_are_ended(engine: str) -> None:
    async with beside(engine) as (way, attacker, _):
        await attacker.send(frame(0xF0, 0, 0, b"x") * 2_000)
        await calmed(way, attacker, "unknown")


async def test_unknown_frames_within_the_burst_are_ignored(engine: str) -> None:
    async with beside(engine) as (_way, attacker, _):
        await attacker.send(frame(0xF0, 0, 0, b"x") * 10)
        assert (await attacker.whole(await attacker.request(b"/echo"))).status == 200


async def test_continuations_beyond_the_limit_are_ended_before_they_are_decoded(engine: str) -> None:
    async with beside(engine) as (way, attacker, _):
        await attacker.send(frame(Kind.HEADERS, 0, 1, attacker.block(((b":method", b"GET"),))))
        await attacker.send(frame(Kind.CONTINUATION, 0, 1, b"") * 100)
        await calmed(way, attacker, "continuation")


async def test_block_in_as_many_continuations_as_allowed_is_read(engine: str) -> None:
    async with beside(engine) as (_, caller, _other):
        pseudo = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/echo"))
        block = caller.block((*pseudo, (b"x-long", b"y" * 100)))
        parts = [block[:10], block[10:20], block[20:30], block[30:]]
        stream = caller.new_stream()
        await caller.send(
            frame(Kind.HEADERS, 1, stream, parts[0]),
            *(frame(Kind.CONTINUATION, 0, stream, part) for part in parts[1:3]),
            frame(Kind.CONTINUATION, END_HEADERS, stream, parts[3]),
        )
        assert (await caller.whole(stream)).status == 200


async def test_header_list_beyond_the_limit_is_refused(engine: str) -> None:
    async with beside(engine) as (way, attacker, _):
        stream = await attacker.request(headers=[(b"x-%d" % n, b"y" * 1_000) for n in range(20)])
        message = await attacker.whole(stream)
        assert message.status in (0, 431)
        assert sum(way.front.seen.refused.values()) >= 1


@pytest.mark.parametrize("size", [20_000, 200_000])
async def test_head_over_the_limit_costs_no_other_call(engine: str, size: int) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, dial(way.port) as caller:
        other = await caller.request(b"/slow?s=0.5")
        large = await caller.request(headers=[(b"x-%d" % n, b"y" * (size // 5)) for n in range(20)])
        assert (await caller.whole(large)).status in (0, 431)
        assert (await caller.whole(other)).status == 200
        assert (await caller.whole(await caller.request(b"/echo"))).status == 200
        assert not caller.ended


async def test_header_list_that_unpacks_beyond_the_limit_is_refused(engine: str) -> None:
    async with beside(engine) as (way, attacker, _):
        attacker.block(((b"x-bomb", b"y" * 3_900),))  # in the table; each use is then one byte on the wire
        pseudo = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/echo"))
        first = attacker.block((*pseudo, (b"x-bomb", b"z" * 3_900)))
        stream = attacker.new_stream()
        await attacker.send(frame(Kind.HEADERS, END_HEADERS | 1, stream, first))
        assert (await attacker.whole(stream)).status in (200, 0)
        bomb = attacker.block((*pseudo, *((b"x-bomb", b"z" * 3_900),) * 60))
        stream = attacker.new_stream()
        await attacker.send(frame(Kind.HEADERS, END_HEADERS | 1, stream, bomb))
        message = await attacker.whole(stream)
        assert len(bomb) < 4_200
        assert message.status in (0, 431)
        assert sum(way.front.seen.refused.values()) >= 1


async def test_too_many_fields_are_a_431(engine: str) -> None:
    async with beside(engine) as (way, attacker, _):
        message = await attacker.whole(await attacker.request(headers=[(b"x", b"y")] * 100))
        assert (await attacker.whole(await attacker.request(b"/echo"))).status == 200
        assert message.status == 431
        assert way.front.seen.refused["header-count"] == 1


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "peer"])
@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("frame-size", b"\xff" * 200),
        ("continuation", frame(Kind.HEADERS, 0, 1, b"\x82") + frame(Kind.CONTINUATION, 0, 1, b"") * 100),
        (
            "head-size",
            frame(Kind.HEADERS, END_HEADERS, 1, b"\x40\x01a\x7f\x81\x1e" + b"b" * 4_000 + b"\xbe" * 12_000),
        ),
        ("ping", frame(Kind.PING, 0, 0, bytes(8)) * 200),
        ("protocol", frame(Kind.HEADERS, END_HEADERS, 0, b"\x82")),
        ("protocol", frame(Kind.HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff")),
    ],
)
async def test_flood_in_the_first_bytes_ends_the_connection_at_once(
    engine: str, mint: Mint, kind: str, data: bytes, tls: bool
) -> None:
    async with running(engine, limits=Limits(control_burst=50, own_app_factor=1.0)) as node:
        node.engine.set_identity(mint.identity("callee"))
        port = await node.listen(always(plan()), tls="mesh" if tls else None)
        context = mint.client_context("caller") if tls else None
        async with dial(port, tls=context, hello=False) as attacker, asyncio.timeout(30.0):
            attacker.acking = False
            await attacker.send(PREFACE + settings({}) + data)
            await attacker.to_the_end()
        await node.seen.until(lambda: node.seen.refused[kind] == 1)


async def test_streams_beyond_the_limit_are_refused(engine: str) -> None:
    limits = Limits(streams=5, resets_burst=100)
    async with http_app() as app, leading(engine, "one", app, limits=limits) as way, dial(way.port) as caller:
        await caller.until(lambda f: f.kind == Kind.SETTINGS)
        assert caller.peer_settings[Setting.MAX_CONCURRENT_STREAMS] == 5
        streams = [await caller.request(b"/slow?s=1") for _ in range(8)]
        messages = [await caller.whole(stream) for stream in streams]
    assert [message.status for message in messages[:5]] in ([200] * 5, [0] * 5)
    assert all(message.status != 200 for message in messages[5:])


async def test_flood_towards_an_app_ends_that_connection_alone(engine: str) -> None:
    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        if peer.message(stream).get(b":path") == b"/bad":
            await peer.send(frame(Kind.PING, 0, 0, bytes(8)) * 500)
            await peer.to_the_end()
        await peer.respond(stream, body=b"fine")
        await peer.to_the_end()

    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c", limits=TIGHT) as way,
        dial(way.port) as caller,
    ):
        bad = await caller.whole(await caller.request(b"/bad"))
        good = await caller.whole(await caller.request(b"/good"))
    assert (bad.status, good.status, way.front.seen.refused["ping"]) == (502, 200, 1)


async def test_attacker_that_reads_nothing_is_let_go_all_the_same(engine: str) -> None:
    async with beside(engine) as (_, attacker, _other):
        await attacker.request(b"/bytes?n=50000000")
        await attacker.until(lambda f: f.kind == Kind.DATA)
        await attacker.send(frame(Kind.PING, 0, 0, bytes(8)) * 200)
        async with asyncio.timeout(
            5.0
        ):  # our own reading has stopped, so only a write tells that we were reset
            with suppress(ConnectionError):
                while not attacker.writer.transport.is_closing():
                    attacker.writer.write(b"x")
                    await attacker.writer.drain()
                    await asyncio.sleep(0.01)


async def test_frame_larger_than_announced_is_refused_before_it_is_collected(engine: str) -> None:
    async with beside(engine) as (way, attacker, _):
        await attacker.request(b"/sink", method=b"POST", end=False)
        await attacker.settled()
        announced = attacker.peer_settings.get(Setting.MAX_FRAME_SIZE, 16_384)
        await attacker.send((announced + 1).to_bytes(3, "big") + bytes((Kind.DATA, 0, 0, 0, 0, 1)))
        await attacker.to_the_end()
        assert attacker.goaway is not None
        assert attacker.goaway.code == Code.FRAME_SIZE_ERROR
        assert way.front.seen.refused["frame-size"] == 1


# --- what is never a flood


async def test_ping_for_each_answer_is_fine_for_ever(engine: str) -> None:
    """gRPC's clients measure the path with a PING when data comes."""
    async with beside(engine, PATIENT) as (way, caller, _):
        for _ in range(1_000):
            stream = await caller.request(b"/echo")
            message = await caller.whole(stream)
            assert message.status == 200
            await caller.send(frame(Kind.PING, 0, 0, bytes(8)))
        assert not way.front.seen.refused


async def test_app_may_ping_for_each_piece_of_a_body(engine: str) -> None:
    async def app(peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            message = peer.message(stream)
            while not message.ended:
                before = len(message.body)
                await peer.read()
                if len(message.body) > before:
                    await peer.send(frame(Kind.PING, 0, 0, bytes(8)))
            await peer.respond(stream, body=b"fine")

    async with (
        serving(app) as port,
        leading(engine, "two", port, wire="h2c", limits=PATIENT) as way,
        dial(way.port) as caller,
    ):
        for _ in range(200):
            stream = await caller.request(b"/", method=b"POST", body=b"x" * 20_000)
            assert (await caller.whole(stream)).status == 200
        assert not way.front.seen.refused
        assert not way.back.seen.refused


@pytest.mark.parametrize("calls", [1_000])
async def test_app_that_answers_before_the_body_ends_costs_nobody_a_call(engine: str, calls: int) -> None:
    """RFC 9113 §8.1: an early answer may be followed by RST_STREAM with NO_ERROR, as Go's servers do."""

    async def app(peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            if peer.message(stream).get(b":path") == b"/early":
                await peer.respond(stream, body=b"early")
                await peer.send(reset(stream, Code.NO_ERROR))
            elif peer.message(stream).get(b":path") == b"/last":
                await peer.respond(stream, body=b"fine")

    async with (
        serving(app) as port,
        leading(engine, "two", port, wire="h2c", limits=PATIENT) as way,
        dial(way.port) as caller,
        dial(way.port) as neighbour,
    ):
        waiting = await neighbour.request(b"/wait")
        for _ in range(calls // 50):
            streams = [
                await caller.request(b"/early", method=b"POST", body=b"x" * 100, end=False) for _ in range(50)
            ]
            for stream in streams:
                message = await caller.whole(stream)
                assert (message.status, bytes(message.body)) == (200, b"early")
        assert not neighbour.message(waiting).over
        assert (await caller.whole(await caller.request(b"/last"))).status == 200
        assert not way.front.seen.refused
        assert not way.back.seen.refused


async def test_caller_may_cancel_all_of_its_calls(engine: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "two", app, limits=PATIENT) as way,
        dial(way.port) as caller,
        dial(way.port) as neighbour,
    ):
        call = await neighbour.request(b"/echo", method=b"POST", body=b"part", end=False)
        await neighbour.settled()
        for _ in range(20):
            streams = [await caller.request(b"/slow?s=30") for _ in range(50)]
            await caller.settled()
            await caller.send(*(reset(stream) for stream in streams))
            await way.back.seen.until(lambda: way.back.engine.stats().calls_in_flight <= 1)
        await neighbour.send_body(call, b"ial", end=True)
        assert (await neighbour.whole(call)).status == 200
        assert (await caller.whole(await caller.request(b"/echo"))).status == 200
        assert not way.front.seen.refused
        assert not way.back.seen.refused


async def test_app_whose_every_answer_is_malformed_keeps_its_connection(engine: str) -> None:
    async def app(peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            if peer.message(stream).get(b":path") == b"/bad":
                await peer.respond(stream, headers=((b"content-length", b"9"),), body=b"less")
            elif peer.message(stream).get(b":path") == b"/last":
                await peer.respond(stream, body=b"fine")

    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c", limits=PATIENT) as way,
        dial(way.port) as caller,
        dial(way.port) as neighbour,
    ):
        waiting = await neighbour.request(b"/wait")
        for _ in range(100):
            await caller.whole(await caller.request(b"/bad"))
        assert not neighbour.message(waiting).over
        assert (await caller.whole(await caller.request(b"/last"))).status == 200


async def test_peer_beyond_its_budget_ends_its_calls_in_peace_and_is_named(engine: str, mint: Mint) -> None:
    async with http_app() as app, running(engine, limits=PATIENT) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", app)
        port = await node.listen(always(plan()), name="peer", tls="mesh")
        async with dial(port, tls=mint.client_context("noisy")) as peer:
            call = await peer.request(b"/echo", method=b"POST", body=b"part", end=False)
            await peer.settled()
            await peer.send(frame(Kind.PING, 0, 0, bytes(8)) * (PATIENT.control_burst * 8 // 5))
            goaway = await peer.until(lambda f: f.kind == Kind.GOAWAY)
            await peer.send_body(call, b"ial", end=True)
            message = await peer.whole(call)
            await peer.to_the_end()
    assert goaway.code == Code.NO_ERROR
    assert message.status == 200
    assert [(kind, spiffe("noisy") in who) for kind, who in node.seen.refused_of] == [("ping", True)]


# --- slow and silent peers


@pytest.mark.parametrize(
    "data",
    [b"G", b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"PRI * HTTP/2.0\r\n", PREFACE[:-1], b""],
    ids=["letter", "half-head", "half-preface", "almost-preface", "nothing"],
)
async def test_slow_head_is_cut_off(engine: str, data: bytes) -> None:
    async with beside(engine) as (way, _, _other):
        opened = way.front.seen.open
        async with connect(way.port) as caller:
            await way.front.seen.until(lambda: way.front.seen.open == opened + 1)
            await caller.send(data)
            async with asyncio.timeout(30.0):
                try:
                    answer = await caller.reader.read()
                except ConnectionError:
                    answer = b""
            assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
        await way.front.seen.until(lambda: way.front.seen.open <= opened)


async def test_dribbled_head_is_cut_off_all_the_same(engine: str) -> None:
    async with running(engine, limits=TIGHT) as node:
        port = await node.listen(always(plan()))
        async with connect(port) as caller, asyncio.timeout(30.0):
            await caller.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
            answer = None
            while answer is None:
                await caller.send(b"X")
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        answer = await caller.reader.read(1000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408")


async def test_idle_http1_connection_is_closed(engine: str) -> None:
    async with beside(engine) as (way, _, _other), connect(way.port) as caller:
        await caller.request("GET", "/echo")
        async with asyncio.timeout(30.0):
            assert await caller.reader.read() == b""


async def test_idle_http2_connection_gets_a_goaway(engine: str) -> None:
    async with beside(engine) as (_, caller, _other):
        assert (await caller.whole(await caller.request(b"/echo"))).status == 200
        await caller.to_the_end()
        assert caller.goaway is not None
        assert caller.goaway.code == Code.NO_ERROR


async def test_idle_http2_connection_that_answers_nothing_is_closed_all_the_same(engine: str) -> None:
    async with beside(engine) as (way, attacker, _):
        attacker.acking = False
        await attacker.send(frame(Kind.SETTINGS, ACK))
        await attacker.to_the_end()
        await way.front.seen.until(lambda: way.front.seen.open == 1)


async def test_header_block_that_never_ends_is_cut_off(engine: str) -> None:
    async with beside(engine) as (way, attacker, _):
        attacker.acking = False
        await attacker.send(frame(Kind.HEADERS, 0, 1, attacker.block(((b":method", b"GET"),))))
        await attacker.to_the_end()
        await way.front.seen.until(lambda: way.front.seen.open == 1)


async def test_connections_beyond_the_cap_are_closed_at_once(engine: str) -> None:
    limits = Limits(connections=2)
    async with http_app() as app, leading(engine, "one", app, limits=limits) as way:
        async with connect(way.port) as one, connect(way.port) as two:
            assert (await one.request("GET", "/echo")).status == 200
            assert (await two.request("GET", "/echo")).status == 200
            async with connect(way.port) as three:
                with pytest.raises((ConnectionError, Exception)):
                    await three.request("GET", "/echo")
        await way.front.seen.until(lambda: way.front.seen.open == 0)
        async with connect(way.port) as again:
            assert (await again.request("GET", "/echo")).status == 200
    assert way.front.seen.refused["connections"] == 1


GARBAGE = (
    bytes(range(256)) * 4,
    b"\x16\x03\x01\x02\x00" + bytes(600),
    PREFACE + bytes(range(256)) * 4,
    PREFACE + b"\xff" * 100,
    b"\r\n" * 1_000,
    b"A" * 100_000,
    b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
)


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "peer"])
async def test_garbage_ends_its_connection_and_no_other(
    engine: str, mint: Mint, tls: bool, data: bytes
) -> None:
    async with http_app() as app, running(engine, limits=TIGHT) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", app)
        port = await node.listen(always(plan()), tls="mesh" if tls else None)
        context = mint.client_context("caller") if tls else None
        async with dial(port, tls=context) as bystander:
            call = await bystander.request(b"/slow?s=0.1")
            async with dial(port, tls=context, hello=False) as attacker:
                await attacker.send(data)
                async with asyncio.timeout(5.0):
                    try:
                        answer = await attacker.reader.read()
                    except OSError:
                        answer = b""
            assert (await bystander.whole(call)).status == 200
    assert b" 200 " not in answer


async def test_call_to_an_app_that_answers_garbage_is_a_502(engine: str) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"\xff" * 1_000)

    wires: tuple[WireProtocol, ...] = ("http1", "h2c")
    for wire in wires:
        async with (
            raw_app(app) as port,
            leading(engine, "one", port, wire=wire) as way,
            connect(way.port) as caller,
        ):
            response = await caller.request("GET", "/")
            outcome = await way.front.seen.outcome()
        assert response.status in (501, 502)
        assert outcome.cause in (Cause.UNSUPPORTED, Cause.CONNECT, Cause.RESET_EARLY)


def _surplus_head(peer: FramePeer, number: int, *, indexed: bool) -> bytes:
    """A head of 300 small fields, none like another's; `indexed`: each goes into the table."""
    pseudo = peer.block(
        ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a"))
    )
    start = b"\x40" if indexed else b"\x00"
    fields = b"".join(
        start + b"\x02" + b"%02d" % (field % 100) + b"\x06" + b"%06d" % (number * 300 + field)
        for field in range(300)
    )
    return frame(Kind.HEADERS, END_HEADERS | 1, peer.new_stream(), pseudo + fields)


@pytest.mark.parametrize("indexed", [False, True])
async def test_heads_of_too_many_fields_do_not_take_the_loop_from_others(engine: str, indexed: bool) -> None:
    """A connection has its turn as any other: a caller beside it isn't served after all that has come there."""
    heads = 800
    limits = Limits(resets_burst=10 * heads, streams=2 * heads)
    async with (
        http_app() as app,
        leading(engine, "one", app, limits=limits) as way,
        dial(way.port) as attacker,
        dial(way.port) as honest,
    ):
        assert (await honest.whole(await honest.request(b"/echo"))).status == 200
        await attacker.settled()
        flood = [_surplus_head(attacker, number, indexed=indexed) for number in range(heads)]
        attacker.writer.write(b"".join(flood))
        assert (await honest.whole(await honest.request(b"/echo"))).status == 200
        refused = way.front.seen.refused["header-count"]
        assert (
            engine == "native" or refused < heads // 2
        )  # that one may be through with all before this loop has sent the call
        while (stream := 2 * heads - 1) not in attacker.messages or not attacker.messages[stream].over:
            assert await attacker.read() is not None
        assert {attacker.messages[2 * number + 1].status for number in range(heads)} == {431}
