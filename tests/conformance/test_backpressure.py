"""A slow end slows the other end down; what lies between stays small."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from proxy.contract.engine import Limits
from tests.conformance.apps import http_app, raw_app
from tests.conformance.frames import FramePeer, Kind, Setting, dial, frame, serving
from tests.conformance.harness import leading
from tests.support.http_client import Connection, connect
from tests.support.http_wire import read_head
from tests.support.processes import Processes

WINDOW = 65_536
SMALL = Limits(window_bytes=WINDOW, connection_window_bytes=4 * WINDOW)
# What may lie between two ends that do not read: socket buffers on both sides of each engine, and its windows.
BETWEEN = 16 << 20
SIZE = 64 << 20


async def stalled(writer: asyncio.StreamWriter, size: int = SIZE) -> int:
    """Write until nobody has taken a byte for a while; how many bytes went."""
    block = bytes(65_536)
    sent = 0
    try:
        while sent < size:
            writer.write(block)
            async with asyncio.timeout(0.5):
                await writer.drain()
            sent += len(block)
    except TimeoutError:
        pass
    return sent


async def test_app_that_does_not_read_stops_the_caller(engine: str, hops: str) -> None:
    go = asyncio.Event()
    got = 0

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await read_head(reader)
        await go.wait()
        while got < SIZE:
            got += len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with (
        raw_app(app) as port,
        leading(engine, hops, port, limits=SMALL) as way,
        connect(way.port) as caller,
    ):
        await caller.send_head("POST", "/", [("Content-Length", str(SIZE))])
        sent = await stalled(caller.writer)
        go.set()
        block = bytes(65_536)
        async with asyncio.timeout(30):
            left = SIZE - sent - len(block)  # one block more is in the writer's own buffer
            while left > 0:
                await caller.send(block[:left])
                left -= len(block)
            response = await caller.read_response("POST")
    assert sent < BETWEEN
    assert (response.status, got) == (200, SIZE)


async def test_caller_that_does_not_read_stops_the_app(engine: str, hops: str) -> None:
    stopped: asyncio.Queue[int] = asyncio.Queue()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        sent = await stalled(writer)
        stopped.put_nowait(sent)
        left = SIZE - sent - 65_536
        while left > 0:
            writer.write(bytes(min(left, 65_536)))
            await writer.drain()
            left -= 65_536

    async with (
        raw_app(app) as port,
        leading(engine, hops, port, limits=SMALL) as way,
        connect(way.port) as caller,
    ):
        await caller.send_head("GET", "/")
        async with asyncio.timeout(30):
            sent = await stopped.get()
            response = await caller.read_response("GET")
    assert sent < BETWEEN
    assert len(response.body) == SIZE


async def test_http2_caller_without_a_window_stops_the_app(engine: str, hops: str) -> None:
    stopped: asyncio.Queue[int] = asyncio.Queue()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        stopped.put_nowait(await stalled(writer))

    async with (
        raw_app(app) as port,
        leading(engine, hops, port, limits=SMALL) as way,
        dial(way.port, window_bytes=1_000) as caller,
    ):
        stream = await caller.request()
        async with asyncio.timeout(30):
            sent = await stopped.get()
        await caller.settled()
        got = len(caller.message(stream).body)
    assert sent < BETWEEN
    assert got == 1_000


async def test_http2_app_without_a_window_gives_the_caller_no_further_credit(engine: str) -> None:
    async def app(peer: FramePeer) -> None:
        await peer.next_request()
        await peer.to_the_end()

    credit: list[int] = []
    async with (
        serving(app, window_bytes=0) as port,
        leading(engine, "one", port, wire="h2c", limits=SMALL) as way,
        dial(way.port) as caller,
    ):
        stream = await caller.request(method=b"POST", end=False)
        await caller.send(frame(Kind.DATA, 0, stream, bytes(16_384)) * (WINDOW // 16_384))
        await caller.send(frame(Kind.PING, 0, 0, bytes(8)))
        while (got := await caller.read()) is not None and got.kind != Kind.PING:
            if got.kind == Kind.WINDOW_UPDATE and got.stream == stream:
                credit.append(got.stream)
    assert credit == []


async def test_one_slow_stream_does_not_stop_the_others_of_its_connection(engine: str, hops: str) -> None:
    async with (
        http_app() as app,
        leading(engine, hops, app) as way,
        dial(way.port, window_bytes=1_000) as caller,
    ):
        slow = await caller.request(b"/bytes?n=10000000")
        await caller.headed(slow)
        for _ in range(20):
            message = await caller.whole(await caller.request(b"/bytes?n=900"))
            assert len(message.body) == 900


@asynccontextmanager
async def engine_process(engine: str, app_port: int) -> AsyncIterator[tuple[int, psutil.Process]]:
    """An engine in a process of its own; its port, and the process to measure."""
    with Processes() as processes:
        process = processes.start_python(
            "tests.conformance.relay_process", engine, str(app_port), name="engine"
        )
        port = int((await process.line(r"^port (\d+)")).group(1))
        yield port, psutil.Process(process.pid)


async def pump(caller: Connection, size: int, grown: list[int], process: psutil.Process) -> None:
    """Upload and download `size` bytes at once, noting the process's memory."""
    block = os.urandom(1 << 20)

    async def upload() -> None:
        for _ in range(size // len(block)):
            await caller.send(block)

    async with asyncio.TaskGroup() as tasks:
        await caller.send_head("POST", "/duplex", [("Content-Length", str(size))])
        tasks.create_task(upload())
        head = await caller.read_response_head()
        got = 0
        async for part in caller.body("POST", head, []):
            got += len(part)
            if got // (16 << 20) > len(grown):
                grown.append(process.memory_info().rss)
    assert got == size


async def test_large_body_goes_on_in_whole_frames(engine: str) -> None:
    """A part of a frame costs about as much as a whole one; some there are, where the caller was slow."""
    whole, size = 65_527, 32 << 20
    sizes: list[int] = []

    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        while sum(sizes) < size:
            got = await peer.until(lambda f: f.kind == Kind.DATA)
            sizes.append(len(got.payload))
        await peer.respond(stream)
        await peer.to_the_end()

    async with (
        serving(app, extra={Setting.MAX_FRAME_SIZE: whole}) as port,
        leading(engine, "one", port, wire="h2c") as way,
        connect(way.port) as caller,
    ):
        assert (await caller.request("POST", "/", body=bytes(size))).status == 200
    assert len(sizes) < 2 * size / whole


async def test_memory_stays_flat_over_a_large_body(engine: str) -> None:
    rss: list[int] = []
    async with http_app() as app, engine_process(engine, app) as (port, process), connect(port) as caller:
        async with asyncio.timeout(40):
            await pump(caller, 64 << 20, rss, process)
    assert max(rss) - rss[0] < 32 << 20


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_memory_stays_flat_over_a_gibibyte_each_way(engine: str) -> None:
    rss: list[int] = []
    async with http_app() as app, engine_process(engine, app) as (port, process), connect(port) as caller:
        await pump(caller, 1 << 30, rss, process)
    assert max(rss) - rss[0] < 32 << 20
