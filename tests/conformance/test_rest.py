"""HTTP/2 connections that have no call for a while, and go on as if nothing had been. The native engine lets them rest."""

from proxy.contract.engine import Limits
from tests.conformance.apps import http_app
from tests.conformance.frames import Code, FramePeer, Kind, Setting, dial, frame, reset, window
from tests.conformance.harness import Way, leading

LIMITS = Limits(rest_s=0.01)  # looked for once a second
MANY = tuple((b"x-field-%d" % number, b"value of %d" % number) for number in range(30))
STREAM_CLOSED = 5


async def rested(way: Way) -> None:
    """A while, in which nobody else says anything."""
    async with dial(way.port) as other:
        assert (await other.whole(await other.request(b"/slow?s=2.2"))).status == 200


async def call(caller: FramePeer, size: int) -> None:
    """Send so many bytes, and have as many sent."""
    sent = await caller.whole(await caller.request(b"/sink", method=b"POST", headers=MANY, body=b"x" * size))
    got = await caller.whole(await caller.request(b"/bytes?n=%d" % size, headers=MANY))
    assert (sent.status, got.status, len(got.body)) == (200, 200, size)


async def test_calls_go_on_after_a_rest(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app, limits=LIMITS) as way, dial(way.port) as caller:
        for _ in range(3):
            await call(caller, 6_000_000)
            await rested(way)
        await call(caller, 6_000_000)
        await caller.settled()
    assert not way.front.seen.refused
    assert caller.goaway is None


async def test_windows_are_what_they_were(engine: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, limits=LIMITS) as way,
        dial(way.port, window_bytes=150_000) as caller,
    ):
        await caller.send(window(0, 100_000))
        assert len((await caller.whole(await caller.request(b"/bytes?n=60000"))).body) == 60_000
        await rested(way)
        stream = await caller.request(b"/bytes?n=200000")
        message = await caller.headed(stream)
        while len(message.body) < 65_535 + 100_000 - 60_000:
            await caller.read()
        await caller.settled()
        assert len(message.body) == 65_535 + 100_000 - 60_000
        await caller.send(window(0, 200_000))
        while len(message.body) < 150_000:
            await caller.read()
        await caller.settled()
        assert len(message.body) == 150_000
        await caller.send(window(stream, 50_000))
        assert len((await caller.whole(stream)).body) == 200_000


async def test_settings_are_what_they_were(engine: str) -> None:
    extra = {Setting.MAX_FRAME_SIZE: 20_000, Setting.INITIAL_WINDOW_SIZE: 1_000_000}
    async with (
        http_app() as app,
        leading(engine, "one", app, limits=LIMITS) as way,
        dial(way.port, extra=extra) as caller,
    ):
        await caller.settled()
        await rested(way)
        stream = await caller.request(b"/bytes?n=900000")
        longest = 0
        while not caller.message(stream).over:
            got = await caller.until(lambda f: f.stream == stream)
            longest = max(longest, len(got.payload))
        assert len(caller.message(stream).body) == 900_000
        assert 16_384 < longest <= 20_000


async def test_what_comes_late_of_a_call_before_the_rest_harms_nobody(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app, limits=LIMITS) as way, dial(way.port) as caller:
        stream = await caller.request(b"/bytes?n=10")
        await caller.whole(stream)
        await rested(way)
        await caller.send(window(stream, 100), reset(stream, Code.NO_ERROR))
        await call(caller, 10)
    assert not way.front.seen.refused


async def test_body_of_a_call_before_the_rest_is_refused(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app, limits=LIMITS) as way, dial(way.port) as caller:
        stream = await caller.request(b"/bytes?n=10")
        await caller.whole(stream)
        await rested(way)
        await caller.send(frame(Kind.DATA, 0, stream, b"late"))
        refusal = await caller.until(lambda f: f.kind in (Kind.GOAWAY, Kind.RST_STREAM))
    assert refusal.code == STREAM_CLOSED


async def test_caller_at_rest_is_sent_goaway(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app, limits=LIMITS) as way, dial(way.port) as caller:
        await call(caller, 10)
        await rested(way)
        assert await way.front.engine.drain(["in"], 5.0) == 0
        await caller.to_the_end()
    assert caller.goaway is not None
    assert caller.goaway.code == Code.NO_ERROR


async def test_caller_that_leaves_at_rest_is_counted_out(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app, limits=LIMITS) as way:
        async with dial(way.port) as caller:
            await call(caller, 10)
            await rested(way)
            await caller.send(frame(Kind.PING, 0, 0, b"at rest?"))
            await caller.until(lambda f: f.kind == Kind.PING)
        async with dial(way.port) as other:
            await call(other, 10)
    assert not way.front.seen.refused
