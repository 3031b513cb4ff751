"""Peers that are there no more, found by a PING where calls wait; and callers that are there, but neither send nor read."""

import asyncio
from contextlib import suppress

from proxy.contract.engine import Limits
from proxy.contract.plan import Cause
from tests.conformance.apps import http_app
from tests.conformance.frames import WIDE, FramePeer, Kind, dial, frame, serving, window
from tests.conformance.harness import leading
from tests.support.http_client import connect

LIMITS = Limits(ping_s=0.5, pong_s=0.5)
PATIENT = Limits(ping_s=0.5)  # with one that answers: a busy machine takes its time


async def test_caller_that_answers_no_ping_is_let_go(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app, limits=LIMITS) as way, dial(way.port) as caller:
        await caller.request(b"/slow?s=30")
        await caller.settled()
        caller.acking = False
        await caller.to_the_end()
        outcome = await way.front.seen.outcome()
    assert caller.unanswered
    assert way.front.seen.refused["ping-unanswered"] == 1
    assert outcome.cause in (Cause.CALLER_LEFT, Cause.DRAINING)


async def test_caller_that_answers_pings_may_wait(engine: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, limits=PATIENT) as way,
        dial(way.port) as caller,
    ):
        message = await caller.whole(await caller.request(b"/slow?s=4"))
    assert message.status == 200
    assert not way.front.seen.refused


async def test_silent_caller_without_calls_is_not_asked(engine: str) -> None:
    limits = Limits(ping_s=1.5, pong_s=0.5)  # later than the call ends
    async with http_app() as app, leading(engine, "one", app, limits=limits) as way, dial(way.port) as caller:
        await caller.settled()
        caller.acking = False
        stream = await caller.request(b"/slow?s=0.1")
        await caller.whole(stream)
        await way.front.seen.outcome()
        async with dial(way.port) as other:
            assert (await other.whole(await other.request(b"/slow?s=3"))).status == 200
        assert (await caller.whole(await caller.request(b"/echo"))).status == 200
    assert not caller.unanswered
    assert not way.front.seen.refused


async def test_app_that_answers_no_ping_loses_its_connection_and_is_dialled_anew(engine: str) -> None:
    dialled = 0

    async def app(peer: FramePeer) -> None:
        nonlocal dialled
        dialled += 1
        stream = await peer.next_request()
        if dialled == 1:
            peer.acking = False
        else:
            await peer.respond(stream, body=b"fine")
        await peer.to_the_end()

    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c", limits=LIMITS) as way,
        dial(way.port) as caller,
    ):
        lost = await caller.whole(await caller.request())
        good = await caller.whole(await caller.request())
    assert (lost.status, good.status, dialled) == (502, 200, 2)
    assert way.front.seen.refused["ping-unanswered"] == 1


# --- callers that are there, and stall

STALLING = Limits(stall_s=1.0, head_s=1.0)  # head_s: what is left to a caller that is let go
SECONDS_OF_PATIENCE = 4  # several times as long as a caller may stall


async def test_announced_body_that_trickles_is_cut_off(engine: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, limits=STALLING) as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(
            b"/sink", method=b"POST", headers=((b"content-length", b"900"),), end=False
        )
        async with asyncio.timeout(10.0), asyncio.TaskGroup() as tasks:
            whole = tasks.create_task(caller.whole(stream))
            while not whole.done():
                await caller.send(frame(Kind.DATA, 0, stream, b"x"))
                await asyncio.wait((whole,), timeout=0.05)
        assert whole.result().reset is not None
        assert (await caller.whole(await caller.request(b"/echo"))).status == 200
        outcome = await way.front.seen.outcome()
    assert outcome.cause is Cause.CALLER_LEFT
    assert way.front.seen.refused["slow-body"] == 1


async def test_announced_body_that_trickles_over_http1_ends_its_connection(engine: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, limits=STALLING) as way,
        connect(way.port) as caller,
    ):
        await caller.send_head("POST", "/sink", [("content-length", "900")])
        answer = None
        async with asyncio.timeout(10.0):
            while answer is None:
                with suppress(TimeoutError, ConnectionError):
                    await caller.send(b"x")
                    async with asyncio.timeout(0.05):
                        answer = await caller.reader.read()
                if caller.reader.at_eof() or caller.reader.exception() is not None:
                    break
    assert not answer
    assert way.front.seen.refused["slow-body"] == 1


async def test_body_of_unknown_length_may_pause(engine: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, limits=STALLING) as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(b"/echo", method=b"POST", body=b"part", end=False)
        assert (await caller.whole(await caller.request(b"/slow?s=%d" % SECONDS_OF_PATIENCE))).status == 200
        await caller.send_body(stream, b"ial", end=True)
        message = await caller.whole(stream)
    assert (message.status, b"partial" in message.body) == (200, True)
    assert not way.front.seen.refused


async def test_answer_that_nobody_reads_is_cut_off(engine: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, limits=STALLING) as way,
        dial(way.port, window_bytes=1_000) as caller,
    ):
        message = await caller.whole(await caller.request(b"/bytes?n=5000000"))
        outcome = await way.front.seen.outcome()
    assert (message.status, message.ended, message.reset is not None) == (200, False, True)
    assert outcome.cause is Cause.CALLER_LEFT
    assert way.front.seen.refused["slow-reader"] == 1


async def test_answer_that_nobody_reads_over_http1_is_cut_off(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app, limits=STALLING) as way:
        reader, writer = await asyncio.open_connection("127.0.0.1", way.port, limit=1_000)
        writer.write(b"GET /bytes?n=50000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        outcome = await way.front.seen.outcome()
        await way.front.seen.until(lambda: way.front.seen.open == 0)
        writer.transport.abort()
        del reader
    assert outcome.cause is Cause.CALLER_LEFT
    assert way.front.seen.refused["slow-reader"] == 1


async def test_grpc_caller_may_read_when_it_likes(engine: str) -> None:
    async with (
        serving(_stream_much) as app,
        leading(engine, "one", app, wire="h2c", limits=STALLING) as way,
        dial(way.port, window_bytes=1_000) as caller,
        dial(way.port) as other,
    ):
        stream = await caller.request(
            method=b"POST", headers=((b"content-type", b"application/grpc"),), body=b""
        )
        await caller.headed(stream)
        assert (await other.whole(await other.request(b"/slow?s=%d" % SECONDS_OF_PATIENCE))).status == 200
        await caller.send(window(stream, WIDE - 1_000))
        message = await caller.whole(stream)
    assert len(message.body) == 60_000
    assert not way.front.seen.refused


async def _take_time(time_s: float) -> None:
    """What an app does that is slow by itself."""
    await asyncio.sleep(time_s)


async def _stream_much(peer: FramePeer) -> None:
    while True:
        stream = await peer.next_request()
        if b"slow" in peer.message(stream).get(b":path"):
            await _take_time(SECONDS_OF_PATIENCE)
            await peer.respond(stream, body=b"late")
        else:
            await peer.respond(stream, body=b"x" * 60_000, trailers=((b"grpc-status", b"0"),))


async def test_slow_app_is_not_taken_for_a_slow_caller(engine: str) -> None:
    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        await _take_time(SECONDS_OF_PATIENCE)
        while not peer.message(stream).ended:
            await peer.read()
            await peer.send(window(0, 100_000), window(stream, 100_000))
        await peer.respond(stream, body=b"at last")
        await peer.to_the_end()

    async with (
        serving(app, window_bytes=1_000) as port,
        leading(engine, "one", port, wire="h2c", limits=STALLING) as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(
            method=b"POST", headers=((b"content-length", b"90000"),), body=b"x" * 90_000
        )
        message = await caller.whole(stream)
    assert (message.status, bytes(message.body)) == (200, b"at last")
    assert not way.front.seen.refused
