"""Who leaves is noticed at the other end, and who breaks never looks as if it had ended well."""

import asyncio
from contextlib import suppress

import pytest

from proxy.contract.engine import Limits
from proxy.contract.plan import Cause
from tests.conformance.apps import raw_app
from tests.conformance.frames import Code, FramePeer, Kind, dial, reset, serving
from tests.conformance.harness import leading
from tests.support.http_client import connect
from tests.support.http_wire import read_head


class SilentApp:
    """An HTTP/1.1 app that reads a head, sends what it was given, and then waits to be left."""

    def __init__(self, answer: bytes = b"") -> None:
        self._answer = answer
        self.begun = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(self._answer)
        self.begun.set()
        with suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        self.left.set()

    async def sees_it(self) -> None:
        """The app was left."""
        async with asyncio.timeout(30.0):
            await self.left.wait()


class SilentHttp2App:
    """The same on HTTP/2."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, peer: FramePeer) -> None:
        await peer.next_request()
        self.begun.set()
        await peer.until(lambda f: f.kind == Kind.RST_STREAM)
        self.left.set()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"])
async def test_http1_caller_that_hangs_up_ends_the_apps_call(engine: str, hops: str, answer: bytes) -> None:
    app = SilentApp(answer)
    async with raw_app(app) as port, leading(engine, hops, port) as way, connect(way.port) as caller:
        await caller.send_head("POST", "/", [("Content-Length", "10")])
        await app.begun.wait()
        caller.writer.close()
        await app.sees_it()
        outcome = await way.front.seen.outcome()
    assert outcome.cause is Cause.CALLER_LEFT


async def test_http2_caller_that_resets_ends_the_apps_call(engine: str, hops: str) -> None:
    app = SilentApp()
    async with raw_app(app) as port, leading(engine, hops, port) as way, dial(way.port) as caller:
        stream = await caller.request()
        await app.begun.wait()
        await caller.send(reset(stream))
        await app.sees_it()
        outcome = await way.front.seen.outcome()
    assert outcome.cause is Cause.CALLER_LEFT


async def test_http2_caller_that_disconnects_resets_the_apps_stream(engine: str, hops: str) -> None:
    app = SilentHttp2App()
    async with serving(app) as port, leading(engine, hops, port, wire="h2c") as way:
        async with dial(way.port) as caller:
            await caller.request()
            await app.begun.wait()
        async with asyncio.timeout(30.0):
            await app.left.wait()
        outcome = await way.front.seen.outcome()
    assert outcome.cause is Cause.CALLER_LEFT


@pytest.mark.parametrize("code", [Code.INTERNAL_ERROR, Code.CANCEL, Code.PROTOCOL_ERROR])
async def test_reset_before_an_answer_is_a_502(engine: str, code: int) -> None:
    async def app(peer: FramePeer) -> None:
        await peer.send(reset(await peer.next_request(), code))
        await peer.to_the_end()

    async with (
        serving(app) as port,
        leading(engine, "one", port, wire="h2c") as way,
        connect(way.port) as caller,
    ):
        response = await caller.request("GET", "/")
    assert (response.status, response.get("postern-error")) == (502, "reset-early")


async def test_reset_after_the_head_cuts_an_http1_caller(engine: str, hops: str) -> None:
    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        await peer.respond(stream, body=b"some", end=False)
        await peer.settled()
        await peer.send(reset(stream, Code.INTERNAL_ERROR))
        await peer.to_the_end()

    async with (
        serving(app) as port,
        leading(engine, hops, port, wire="h2c") as way,
        connect(way.port) as caller,
    ):
        await caller.send_head("GET", "/")
        rest = b""
        with suppress(ConnectionResetError):
            rest = await caller.reader.read()
    assert rest.startswith(b"HTTP/1.1 200")
    assert not rest.endswith(b"0\r\n\r\n")


async def test_connection_that_dies_mid_body_resets_every_call_on_it(engine: str, hops: str) -> None:
    async def app(peer: FramePeer) -> None:
        streams = [await peer.next_request() for _ in range(3)]
        for stream in streams:
            await peer.respond(stream, body=b"some", end=False)
        await peer.settled()
        peer.writer.transport.abort()

    async with serving(app) as port, leading(engine, hops, port, wire="h2c") as way, dial(way.port) as caller:
        streams = [await caller.request() for _ in range(3)]
        messages = [await caller.whole(stream) for stream in streams]
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 3)
    assert [message.ended for message in messages] == [False] * 3
    assert None not in [message.reset for message in messages]
    assert {outcome.cause for outcome in way.front.seen.outcomes} == {Cause.RESET_LATE}


async def test_caller_that_leaves_while_held_is_forgotten(engine: str) -> None:
    async with leading(engine, "one", 1, total_s=30.0, gates=("g",)) as way:
        way.front.gate("g", 0)
        async with dial(way.port) as caller:
            await caller.request()
            async with asyncio.timeout(10.0):
                while way.front.engine.stats().calls_in_flight != 1:  # a thread of the engine begins it
                    await caller.settled()
        outcome = await way.front.seen.outcome()
    assert outcome.cause is Cause.CALLER_LEFT
    assert way.front.engine.stats().calls_in_flight == 0


async def test_caller_that_leaves_while_dialling_is_forgotten(engine: str) -> None:
    dialled = asyncio.Event()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.set()
        await reader.read()  # an HTTP/2 server that never says SETTINGS

    async with raw_app(app) as port, leading(engine, "one", port, wire="h2c", connect_s=0.5) as way:
        async with dial(way.port) as caller:
            await caller.request()
            await dialled.wait()
        outcome = await way.front.seen.outcome()
        await way.front.seen.until(lambda: bool(way.front.seen.upstream_failures))
    assert outcome.cause is Cause.CALLER_LEFT


async def test_pending_body_of_a_caller_that_leaves_is_dropped(engine: str) -> None:
    app = SilentApp()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, limits=Limits(window_bytes=4_096)) as way,
        connect(way.port) as caller,
    ):
        await caller.send_head("POST", "/", [("Content-Length", "1000000")])
        await app.begun.wait()
        await caller.send(b"x" * 10_000)
        caller.writer.transport.abort()
        await app.sees_it()
        outcome = await way.front.seen.outcome()
    assert outcome.cause is Cause.CALLER_LEFT
