"""The HTTP/1.1 ends over real sockets, on both event loops: a caller, a relay of the two ends, an app."""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import pytest
import uvloop

from proxy.contract.engine import Limits
from proxy.contract.plan import Cause
from proxy.wire.http1_server import Http1Server
from proxy.wire.websocket import accept_of
from tests.conformance.corpus.http1 import BAD_BODIES, BAD_HEADS, GOOD
from tests.fakes.relay import Relay

App = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def on_both_loops(test: Callable[[], Coroutine[object, object, None]]) -> Callable[..., None]:
    """The test on asyncio's own loop and on uvloop."""

    @pytest.mark.parametrize(
        "make", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
    )
    def run(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=make) as runner:
            runner.run(test())

    return run


@dataclass
class Hop:
    """A relay in front of an app. `writers`: the callers' ends."""

    relay: Relay
    port: int
    ends: set[Http1Server]
    one_closed: asyncio.Event
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=10_000_000)
        self.writers.append(writer)
        return reader, writer

    async def say(self, data: bytes) -> bytes:
        """All that is answered to these bytes, until the connection closes."""
        reader, writer = await self.connect()
        writer.write(data)
        with suppress(ConnectionError):
            await writer.drain()
        answer = b""
        with suppress(ConnectionError):
            answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def relaying(app: App, limits: Limits | None = None) -> AsyncIterator[Hop]:
    """A hop, and its orderly end: every connection is closed before the loop is."""
    ends: set[Http1Server] = set()
    one_closed = asyncio.Event()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        connections: list[asyncio.Task[None]] = []
        accepted = asyncio.Event()

        async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                await app(reader, writer)
            await close(writer)

        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(group.create_task(until_closed(reader, writer)))
            accepted.set()

        def accept() -> Http1Server:
            def closed() -> None:
                ends.discard(end)
                one_closed.set()

            end = Http1Server(relay, limits or Limits(), lambda _: None, closed)
            ends.add(end)
            return end

        upstream = await asyncio.start_server(serve, "127.0.0.1", 0, limit=10_000_000)
        relay = Relay(group, "127.0.0.1", upstream.sockets[0].getsockname()[1], limits or Limits())
        server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
        hop = Hop(relay, server.sockets[0].getsockname()[1], ends, one_closed)
        yield hop
        server.close()
        for end in list(ends):
            end.close()
        for writer in hop.writers:
            await close(writer)
        while ends:
            one_closed.clear()
            await one_closed.wait()
        while len(connections) < relay.dialled:  # a connection may be closed before the app has accepted it
            accepted.clear()
            await accepted.wait()
        upstream.close()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with the sum of a body of known length."""
    head = await read_head(reader)
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
    body = await reader.readexactly(length)
    digest = hashlib.sha256(body).hexdigest().encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(digest), digest))
    writer.close()


@on_both_loops
async def test_large_bodies_travel_whole_in_both_directions() -> None:
    data = bytes(range(256)) * 20_000

    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data))
        left = len(data)
        while left:
            piece = await reader.read(100_000)
            left -= len(piece)
            writer.write(piece)
            await writer.drain()
        writer.close()

    async with relaying(mirror) as hop:
        reader, writer = await hop.connect()
        async with asyncio.TaskGroup() as group:
            writer.write(
                b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(data)
            )
            writer.write(data)
            group.create_task(writer.drain())
            answer = await reader.read()
        writer.close()
    assert answer.partition(b"\r\n\r\n")[2] == data


@on_both_loops
async def test_slow_reader_makes_the_app_wait_and_nothing_is_hoarded() -> None:
    sent = 0
    total = 30_000_000
    stuck = asyncio.Event()

    async def gusher(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(b"x" * 100_000)
            sent += 100_000
            try:
                async with asyncio.timeout(0.3):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                await writer.drain()
        writer.close()

    async with relaying(gusher) as hop:
        reader, writer = await hop.connect()
        transport = cast("asyncio.Transport", writer.transport)  # uvloop's is none by inheritance
        transport.pause_reading()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await stuck.wait()
        assert sent < total
        transport.resume_reading()
        answer = await reader.read()
        writer.close()
    assert len(answer.partition(b"\r\n\r\n")[2]) == total


@on_both_loops
async def test_truncated_answer_is_visibly_incomplete() -> None:
    async def liar(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        writer.close()

    async with relaying(liar) as hop:
        answer = await hop.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert hop.relay.lost[0][0] is Cause.RESET_LATE
    assert not answer.endswith(b"0\r\n\r\n")


@on_both_loops
async def test_truncated_answer_to_http_1_0_is_a_reset() -> None:
    async def liar(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        writer.close()

    async with relaying(liar) as hop:
        reader, writer = await hop.connect()
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


@on_both_loops
async def test_early_answer_reaches_a_caller_that_is_still_sending() -> None:
    async def refuser(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        await reader.read()
        writer.close()

    async with relaying(refuser) as hop:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n"
        reader, writer = await hop.connect()
        async with asyncio.TaskGroup() as group:

            async def upload() -> None:
                with suppress(ConnectionError):
                    writer.write(head + b"x" * 2_000_000)
                    await writer.drain()

            group.create_task(upload())
            answer = await read_head(reader)
            rest = await reader.readexactly(2)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert rest == b"no"


@on_both_loops
async def test_caller_that_leaves_closes_the_connection_to_the_app() -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def waiter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        arrived.set()
        with suppress(ConnectionError):
            await reader.read()
        left.set()
        writer.close()

    async with relaying(waiter) as hop:
        _, writer = await hop.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await arrived.wait()
        writer.close()
        await left.wait()


@on_both_loops
async def test_tunnel_carries_bytes_both_ways_and_ends_in_halves() -> None:
    async def websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\nwelcome" % accept_of(key)
        )
        heard = await reader.read()
        writer.write(b"heard " + heard)
        writer.close()

    async with relaying(websocket) as hop:
        reader, writer = await hop.connect()
        writer.write(
            b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = await read_head(reader)
        assert await reader.readexactly(7) == b"welcome"
        writer.write(b"frames")
        writer.write_eof()
        assert await reader.read() == b"heard frames"
        writer.close()
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head


@on_both_loops
async def test_bad_messages_of_the_corpus_never_reach_the_app_whole() -> None:
    seen: list[bytes] = []

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            seen.append(await reader.read())
        writer.close()

    async with relaying(app) as hop:
        for bad in (*BAD_HEADS, *BAD_BODIES):
            answer = await hop.say(bad.data)
            assert answer.startswith(b"HTTP/1.1 %d " % bad.status), bad.name
    assert not any(data.endswith(b"0\r\n\r\n") for data in seen)


@on_both_loops
async def test_good_messages_of_the_corpus_reach_the_app() -> None:
    async with relaying(echo) as hop:
        for good in GOOD:
            if good.method == b"CONNECT":
                continue
            reader, writer = await hop.connect()
            writer.write(good.data)
            head = await read_head(reader)
            writer.close()
            assert head.startswith(b"HTTP/1.1 200 "), good.name


@on_both_loops
async def test_drain_lets_calls_finish() -> None:
    release = asyncio.Event()
    arrived = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        arrived.set()
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    async with relaying(slow) as hop:
        idle_reader, idle = await hop.connect()
        reader, writer = await hop.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await arrived.wait()
        for end in list(hop.ends):
            end.start_drain()
        assert await idle_reader.read() == b""
        release.set()
        answer = await reader.read()
        idle.close()
        writer.close()
    assert answer.endswith(b"connection: close\r\n\r\nok")


@on_both_loops
async def test_silent_connection_with_half_a_head_is_told_408() -> None:
    async with relaying(echo, Limits(head_s=0.05)) as hop:
        answer = await hop.say(b"GET / HTTP/1.1\r\nHo")
    assert answer.startswith(b"HTTP/1.1 408 ")


@on_both_loops
async def test_caller_that_reads_nothing_can_not_hold_a_closing_connection() -> None:
    size = 16_000_000

    async def gusher(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size + 1) + b"x" * size)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with relaying(gusher, Limits(head_s=0.1, window_bytes=2 * size)) as hop:
        with socket.create_connection(("127.0.0.1", hop.port)) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await hop.one_closed.wait()
        assert hop.relay.lost[0][0] is Cause.RESET_LATE
