"""What bursts and early ends cost nobody, and what becomes of those who imitate them."""

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.conformance.apps import http_app
from tests.conformance.frames import (
    WIDE,
    Code,
    FramePeer,
    Kind,
    dial,
    frame,
    reset,
    serving,
    settings,
    window,
)
from tests.conformance.harness import PINGLESS, always, leading, plan, running
from tests.conformance.identities import Mint, spiffe

TIGHT = replace(
    PINGLESS, resets_per_s=1, resets_burst=40, control_per_s=1, control_burst=50, own_app_factor=1.0
)
PING = frame(Kind.PING, 0, 0, bytes(8))


async def app(peer: FramePeer) -> None:
    """An h2c app: `/wait` is never answered, `/gone` reset as if it had been, `/pings` answered after many PINGs."""
    while True:
        stream = await peer.next_request()
        path = peer.message(stream).get(b":path")
        if path == b"/gone":
            await peer.send(reset(stream, Code.NO_ERROR))
        elif path == b"/pings":
            await peer.send(PING * (TIGHT.control_burst * 8 // 5))
        if path in {b"/last", b"/pings"}:
            await peer.respond(stream, body=b"fine")


def begun(peer: FramePeer, path: bytes) -> tuple[int, bytes]:
    """A request's stream and frame, yet to be sent."""
    stream = peer.new_stream()
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"app"), (b":path", path))
    return stream, peer.head(stream, fields, end=True)


async def test_what_was_under_way_of_a_cancelled_call_is_dropped(engine: str) -> None:
    """Servers such as Node's count resets, and leave after too many: one a call is what it takes."""
    resets: list[int] = []

    async def late_app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        await peer.send(peer.head(stream, ((b":status", b"200"),)))
        await peer.until(lambda f: f.kind == Kind.RST_STREAM)
        await peer.send(frame(Kind.DATA, 0, stream, b"late") * 20 + PING)
        while (got := await peer.read()) is not None and got.kind != Kind.PING:
            resets.extend([got.stream] * (got.kind == Kind.RST_STREAM))
        await peer.respond(await peer.next_request(), body=b"fine")

    async with (
        serving(late_app) as port,
        leading(engine, "one", port, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(b"/pages")
        await caller.headed(stream)
        await caller.send(reset(stream))
        assert (await caller.whole(await caller.request(b"/last"))).body == b"fine"
    assert not resets


async def test_app_that_stops_a_request_itself_hears_of_no_reset(engine: str) -> None:
    resets: list[int] = []

    async def early_app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        answer = peer.head(stream, ((b":status", b"200"),), end=True)
        await peer.send(answer + PING)
        while (got := await peer.read()) is not None and got.kind != Kind.PING:
            resets.extend([got.stream] * (got.kind == Kind.RST_STREAM))
        await peer.send(reset(stream, Code.NO_ERROR))
        while (got := await peer.read()) is not None and got.kind != Kind.HEADERS:
            resets.extend([got.stream] * (got.kind == Kind.RST_STREAM))
        await peer.respond(got.stream if got is not None else 0, body=b"fine")

    async with (
        serving(early_app) as port,
        leading(engine, "one", port, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(b"/early", method=b"POST", body=b"some", end=False)
        assert (await caller.headed(stream)).status == 200
        assert (await caller.whole(await caller.request(b"/last"))).body == b"fine"
    assert not resets


async def test_request_that_was_answered_early_holds_no_window_back_from_others(engine: str) -> None:
    """A server may answer and not read the rest (RFC 9113 §8.1): until the stream ends, its connection's window is for other calls."""
    all_came = asyncio.Event()
    arrived: list[bool] = []

    async def early_app(peer: FramePeer) -> None:
        early = await peer.next_request()
        while len(peer.message(early).body) < 65_535:  # the connection's window (RFC 9113 §6.9.2)
            await peer.read()
        await peer.respond(early)
        last = await peer.next_request()
        await all_came.wait()
        await peer.send(window(0, 20_000))
        for _ in range(20):  # some milliseconds; the early stream is reset after half a second
            await peer.settled()
        arrived.append(peer.message(last).ended)
        await peer.respond(last, body=b"fine")

    async with (
        serving(early_app, window_bytes=1 << 20) as port,
        leading(engine, "one", port, wire="h2c") as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(b"/early", method=b"POST", body=bytes(200_000), end=False)
        assert (await caller.headed(stream)).status == 200
        last = await caller.request(b"/last", method=b"POST", body=bytes(10_000))
        await caller.settled()
        all_came.set()
        assert (await caller.whole(last)).body == b"fine"
    assert arrived == [True]


@pytest.mark.parametrize("at_once", [1, 200])
async def test_burst_of_cancellations_costs_no_other_call(engine: str, hops: str, at_once: int) -> None:
    """CVE-2023-44487: what is cancelled before it was looked at never becomes a call."""
    async with (
        serving(app) as port,
        leading(engine, hops, port, wire="h2c") as way,
        dial(way.port) as caller,
        dial(way.port) as neighbour,
    ):
        waiting = await neighbour.request(b"/wait")
        await neighbour.settled()
        burst = b""
        for _ in range(2_000 // at_once):
            calls = [begun(caller, b"/wait") for _ in range(at_once)]
            burst += b"".join(head for _, head in calls) + b"".join(reset(stream) for stream, _ in calls)
        last, head = begun(caller, b"/last")
        await caller.send(burst + head)
        message = await caller.whole(last)
        assert (message.status, message.reset, message.lost) == (200, None, False)
        assert (await neighbour.whole(await neighbour.request(b"/last"))).status == 200
        assert not neighbour.message(waiting).over
        await way.front.seen.until(lambda: way.front.engine.stats().calls_in_flight == 1)
        assert not way.front.seen.refused
        assert not way.back.seen.refused


async def test_reader_may_give_credit_for_every_few_bytes(engine: str) -> None:
    """Go's HTTP/2 gives it for each read of a body, however small."""
    async with (
        http_app() as port,
        leading(engine, "one", port, limits=TIGHT) as way,
        dial(way.port, window_bytes=65_535) as caller,
    ):
        stream = await caller.request(b"/bytes?n=200000")
        while not caller.message(stream).over:
            got = await caller.read()
            assert got is not None
            if got.kind == Kind.DATA:
                whole, rest = divmod(len(got.payload), 256)
                credit = [256] * whole + [rest] * (rest > 0)
                await caller.send(*(window(0, some) + window(stream, some) for some in credit))
        assert len(caller.message(stream).body) == 200_000
        assert not way.front.seen.refused


async def test_app_that_resets_without_an_answer_fails_those_calls_alone(engine: str) -> None:
    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c", limits=TIGHT) as way,
        dial(way.port) as caller,
        dial(way.port) as neighbour,
    ):
        waiting = await neighbour.request(b"/wait")
        await neighbour.settled()
        for _ in range(300):
            assert (await caller.whole(await caller.request(b"/gone"))).status == 502
        assert (await caller.whole(await caller.request(b"/last"))).status == 200
        assert not neighbour.message(waiting).over
        assert not way.front.seen.refused


async def test_app_beyond_its_budget_still_answers_what_it_was_asked(engine: str) -> None:
    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c", limits=TIGHT) as way,
        dial(way.port) as caller,
    ):
        assert (await caller.whole(await caller.request(b"/pings"))).status == 200
        assert (await caller.whole(await caller.request(b"/last"))).status == 200
    assert way.front.seen.refused_of == [("ping", f"app at 127.0.0.1:{port}")]


_FLOODS: dict[str, Callable[[int], bytes]] = {
    "calls-that-earn": lambda stream: reset(stream) + PING * 20,
    "alternating": lambda stream: (
        PING
        + settings({})
        + frame(Kind.PRIORITY, 0, stream, bytes(4) + b"\x01")
        + reset(stream)
        + frame(0xF0)
    ),
    "resets-of-nothing": lambda stream: reset(stream, Code.NO_ERROR) * 8,
}


@pytest.mark.parametrize("flood", _FLOODS)
async def test_calls_opened_to_earn_a_budget_buy_no_flood(engine: str, flood: str) -> None:
    async with (
        http_app() as port,
        leading(engine, "one", port, limits=TIGHT) as way,
        dial(way.port) as attacker,
        dial(way.port) as neighbour,
    ):
        attacker.acking = False
        for _ in range(200):
            stream, head = begun(attacker, b"/slow?s=30")
            await attacker.send(head + _FLOODS[flood](stream))
        await attacker.to_the_end()
        assert attacker.goaway is not None
        assert attacker.goaway.code == Code.ENHANCE_YOUR_CALM
        assert sum(way.front.seen.refused.values()) >= 1
        assert (await neighbour.whole(await neighbour.request(b"/echo"))).status == 200
        await way.front.seen.until(lambda: way.front.engine.stats().calls_in_flight == 0)


async def test_peer_that_provokes_resets_ends_its_calls_in_peace_and_is_named(
    engine: str, mint: Mint
) -> None:
    """CVE-2025-8671."""
    async with http_app() as port, running(engine, limits=TIGHT) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", port)
        at = await node.listen(always(plan()), name="peer", tls="mesh")
        async with dial(at, tls=mint.client_context("noisy")) as peer:
            call = await peer.request(b"/echo", method=b"POST", body=b"part", end=False)
            await peer.settled()
            for _ in range(TIGHT.resets_burst * 8 // 5):
                stream, head = begun(peer, b"/slow?s=30")
                await peer.send(head + window(stream, WIDE))  # a stream error (RFC 9113 §6.9.1)
            goaway = await peer.until(lambda f: f.kind == Kind.GOAWAY)
            await peer.send_body(call, b"ial", end=True)
            message = await peer.whole(call)
    assert (goaway.code, message.status) == (Code.NO_ERROR, 200)
    assert [(kind, spiffe("noisy") in who) for kind, who in node.seen.refused_of] == [("reset", True)]
