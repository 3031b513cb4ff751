"""Peers that are there no more, and nobody said so: a PING finds them where calls wait, and only them."""

from proxy.engine.base import Limits
from proxy.plan import Cause
from tests.conformance.apps import http_app
from tests.conformance.frames import FramePeer, dial, serving
from tests.conformance.harness import leading

LIMITS = Limits(ping_s=0.5, pong_s=0.5)


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
    async with http_app() as app, leading(engine, "one", app, limits=LIMITS) as way, dial(way.port) as caller:
        message = await caller.whole(await caller.request(b"/slow?s=4"))
    assert message.status == 200
    assert not way.front.seen.refused


async def test_silent_caller_without_calls_is_not_asked(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app, limits=LIMITS) as way, dial(way.port) as caller:
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
