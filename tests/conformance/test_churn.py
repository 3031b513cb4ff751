"""Calls that are cancelled, reset, refused, answered early and tried again, while identities rotate: afterwards nothing is left.

The windows are small, so that any credit that was lost stalls the calls that follow.
"""

import asyncio
import os
import random
from contextlib import suppress

import pytest

from proxy.contract.engine import Limits
from proxy.contract.plan import Cause
from tests.conformance.apps import raw_app
from tests.conformance.frames import Code, FramePeer, dial, reset, serving
from tests.conformance.harness import Node, Way, leading, retry
from tests.conformance.identities import Mint
from tests.support.http_wire import read_body, read_head

LIMITS = Limits(window_bytes=65_535, connection_window_bytes=65_535)
RULES = (
    retry(
        3,
        Cause.REFUSED,
        Cause.RESET_EARLY,
        http_codes=frozenset({503}),
        grpc_codes=frozenset({14}),
        delay_s=0.002,
    ),
)
GRPC = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
CALLS = 25


async def second(peer: FramePeer) -> None:
    """An HTTP/2 app of changing mood."""
    rng = random.Random(1)
    while True:
        stream = await peer.next_request()
        match rng.randrange(7):
            case 0:
                await peer.send(reset(stream))
            case 1:
                await peer.send(reset(stream, Code.REFUSED_STREAM))
            case 2:
                await peer.respond(stream)  # whatever of the request is still to come
            case 3:
                await peer.respond(stream, 503, body=b"busy")
            case 4:
                await peer.respond(stream, body=b"x" * 40, trailers=((b"grpc-status", b"14"),))
            case 5:
                await peer.respond(stream, body=bytes(90_000))
            case _:
                await peer.whole(stream)
                await peer.respond(stream, trailers=((b"grpc-status", b"14"),))


async def first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An HTTP/1.1 app of changing mood."""
    rng = random.Random(2)
    while (head := await read_head(reader)) is not None:
        match rng.randrange(6):
            case 0:
                writer.transport.abort()
                return
            case 1:
                writer.write(b"HTTP/1.1 413 Early\r\nContent-Length: 0\r\n\r\n")
                return
            case mood:
                async for _ in read_body(reader, head, []):
                    pass
                size, status = (
                    (90_000, b"200 OK") if mood == 2 else (4, b"503 Busy" if mood == 3 else b"200 OK")
                )
                writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, size, bytes(size)))
        await writer.drain()


async def caller(port: int, seed: int) -> None:
    """Calls one after another, half of them given up."""
    rng = random.Random(seed)
    left = CALLS
    while left:
        with suppress(ConnectionError):
            async with dial(port) as peer:
                while left:
                    left -= 1
                    await call(peer, rng)


async def call(peer: FramePeer, rng: random.Random) -> None:
    headers = GRPC if rng.random() < 0.5 else ()
    stream = await peer.request(b"/a.B/C", method=b"POST", headers=headers, end=False)
    mood = rng.randrange(4)
    if mood == 0:
        await peer.send(reset(stream))
    elif mood == 1:
        await peer.send_body(stream, bytes(rng.randrange(40_000)))
        await peer.send(reset(stream))
    else:
        await peer.send_body(stream, bytes(rng.choice([0, 10, 100_000])), end=True)
        await peer.whole(stream)


async def rotating(way: Way, mint: Mint, over: asyncio.Event) -> None:
    """New identities and other bounds, ten times a second."""
    rng = random.Random(3)
    while not over.is_set():
        way.front.engine.set_identity(mint.identity("caller"))
        way.back.engine.set_identity(mint.identity("callee"))
        way.front.gate("gate", rng.choice([2, 5, None]))
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await over.wait()


async def empty(node: Node) -> None:
    """Until no call is left; then no load either."""
    async with asyncio.timeout(10.0):
        while node.engine.stats().calls_in_flight:
            await node.seen.outcome(len(node.seen.outcomes))
    assert [load["inFlight"] for load in node.engine.loads("app")] == [0]


@pytest.mark.parametrize("wire", ["http1", "h2c"])
async def test_churn_leaves_nothing_behind(engine: str, mint: Mint, wire: str) -> None:
    app = serving(second) if wire == "h2c" else raw_app(first)
    async with app as port:
        descriptors = len(os.listdir("/proc/self/fd"))
        fields = {"retries": RULES, "attempt_s": 20.0, "total_s": 25.0, "gates": ("gate",)}
        way_to = leading(engine, "two", port, wire=wire, limits=LIMITS, mint=mint, **fields)  # type: ignore[arg-type]
        async with way_to as way:
            over = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(rotating(way, mint, over))
                async with asyncio.TaskGroup() as callers:
                    for seed in range(6):
                        callers.create_task(caller(way.port, seed))
                over.set()
            await empty(way.front)
            await empty(way.back)
            causes = {outcome.cause for outcome in way.front.seen.outcomes}
            assert Cause.TIMEOUT not in causes  # a stall: some credit, some wait or some gate was lost
            way.front.gate("gate", 1)  # nobody is left inside
            async with dial(way.port) as peer:
                for _ in range(3):
                    stream = await peer.request(b"/a.B/C", method=b"POST", body=bytes(100_000))
                    assert (await peer.whole(stream)).over
            await way.front.seen.until(lambda: way.front.seen.open == 0)
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 16
