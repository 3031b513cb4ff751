"""GOAWAY and `Connection: close`: drain, unlisten, and the end of an engine."""

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest

from proxy.contract.engine import ListenerSpec
from proxy.contract.plan import Cause
from proxy.errors import ListenError
from tests.conformance.apps import http_app, raw_app
from tests.conformance.frames import Code, Kind, dial
from tests.conformance.harness import always, leading, plan, running
from tests.conformance.identities import Mint
from tests.support.http_client import connect
from tests.support.http_wire import read_head


class Waiting:
    """An app whose answers wait for `go`."""

    def __init__(self) -> None:
        self.begun = asyncio.Semaphore(0)
        self.go = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            self.begun.release()
            await self.go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def refused(port: int) -> None:
    """Nobody listens there."""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_drain_sends_goaway_and_lets_calls_finish(engine: str) -> None:
    app = Waiting()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port) as way,
        dial(way.port) as second,
        connect(way.port) as first,
        # Connections are dealt out: each of two threads has one of these, which ends as soon as it drains.
        dial(way.port) as idle,
        dial(way.port) as also_idle,
    ):
        await idle.settled()
        await also_idle.settled()
        stream = await second.request()
        await first.send_head("GET", "/")
        await app.begun.acquire()
        await app.begun.acquire()
        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(way.front.engine.drain(["in"], 5.0))
            goaway = await second.until(lambda f: f.kind == Kind.GOAWAY)
            await idle.to_the_end()
            await also_idle.to_the_end()
            await refused(way.port)
            app.go.set()
            message = await second.whole(stream)
            response = await first.read_response("GET")
            await second.to_the_end()
            assert await first.reader.read() == b""
        cut = draining.result()
    assert goaway.code == Code.NO_ERROR
    assert (message.status, response.status, response.body, cut) == (200, 200, b"ok", 0)
    assert response.get("connection") == "close"


async def test_drain_cuts_what_does_not_end_in_time_and_counts_it(engine: str) -> None:
    app = Waiting()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port) as way,
        dial(way.port) as second,
        connect(way.port) as first,
    ):
        stream = await second.request()
        await first.send_head("GET", "/")
        await app.begun.acquire()
        await app.begun.acquire()
        cut = await way.front.engine.drain(["in"], 0.05)
        message = await second.whole(stream)
        with suppress(ConnectionError):
            assert await first.reader.read() == b""
        await way.front.seen.until(lambda: len(way.front.seen.outcomes) == 2)
    assert cut == 2
    assert not message.ended
    assert {outcome.cause for outcome in way.front.seen.outcomes} == {Cause.DRAINING}


async def test_drain_of_one_listener_leaves_the_others_be(engine: str) -> None:
    async with http_app() as app, running(engine) as node:
        node.cluster("app", app)
        inbound = await node.listen(always(plan()), name="peer")
        outbound = await node.listen(always(plan()), name="http")
        async with connect(outbound) as caller:
            assert (await caller.request("GET", "/echo")).status == 200
            assert await node.engine.drain(["peer"], 1.0) == 0
            await refused(inbound)
            assert (await caller.request("GET", "/echo")).status == 200
            async with connect(outbound) as fresh:
                assert (await fresh.request("GET", "/echo")).status == 200


async def test_call_that_crosses_the_goaway_is_still_answered(engine: str) -> None:
    app = Waiting()
    async with raw_app(app) as port, leading(engine, "one", port) as way, dial(way.port) as caller:
        caller.acking = False  # the answer to the PING would say that we have seen the GOAWAY
        first = await caller.request()
        await app.begun.acquire()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(way.front.engine.drain(["in"], 5.0))
            await caller.until(lambda f: f.kind == Kind.GOAWAY)
            second = await caller.request()
            await app.begun.acquire()
            app.go.set()
            statuses = [(await caller.whole(stream)).status for stream in (first, second)]
            await caller.answer_pings()
    assert statuses == [200, 200]


async def test_unlisten_keeps_open_connections_and_takes_no_new_ones(engine: str) -> None:
    async with http_app() as app, leading(engine, "one", app) as way, connect(way.port) as caller:
        assert (await caller.request("GET", "/echo")).status == 200
        await way.front.engine.unlisten("in")
        await refused(way.port)
        assert (await caller.request("GET", "/echo")).status == 200


async def test_sockets_opened_after_an_unlisten_work(engine: str) -> None:
    """A closed listening socket's descriptor is used again at once; nothing may still watch it."""
    async with http_app() as app, running(engine) as node:
        node.cluster("app", app)
        for number in range(20):
            port = await node.listen(always(plan()), name=f"l{number}")
            async with connect(port) as caller:
                assert (await caller.request("GET", "/echo")).status == 200
            await node.engine.unlisten(f"l{number}")


async def test_address_in_use_is_a_listen_error_that_names_it(engine: str) -> None:
    async with running(engine) as node:
        port = await node.listen(always(plan()))
        spec = ListenerSpec(name="again", address=f"127.0.0.1:{port}", decide=always(plan()))
        with pytest.raises(ListenError) as caught:
            await node.engine.listen(spec)
    assert f"127.0.0.1:{port}" in str(caught.value)


async def test_end_of_the_engine_ends_its_connections(engine: str) -> None:
    app = Waiting()
    async with raw_app(app) as port, leading(engine, "one", port) as way:
        caller = await asyncio.open_connection("127.0.0.1", way.port)
        caller[1].write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await app.begun.acquire()
        await way.front.engine.drain(["in"], 0.0)
    async with asyncio.timeout(30.0):
        with suppress(ConnectionError):
            assert await caller[0].read() == b""
    caller[1].close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "peer"])
async def test_end_of_the_engine_leaves_no_connection_and_no_call_behind(
    engine: str, mint: Mint, tls: bool
) -> None:
    app = Waiting()
    async with raw_app(app) as port, AsyncExitStack() as callers:
        async with running(engine) as node:
            node.engine.set_identity(mint.identity("callee"))
            node.cluster("app", port)
            entry = await node.listen(always(plan()), tls="mesh" if tls else None)
            context = mint.client_context("caller") if tls else None
            busy = await callers.enter_async_context(dial(entry, tls=context))
            idle = await callers.enter_async_context(dial(entry, tls=context))
            stream = await busy.request()
            await app.begun.acquire()
            await idle.settled()
        # the engine's `run` is over
        assert (node.seen.open, node.engine.stats().connections) == (0, 0)
        assert [outcome.cause for outcome in node.seen.outcomes] == [Cause.DRAINING]
        message = await busy.whole(stream)
        await idle.to_the_end()
    assert not message.ended


async def test_end_of_the_engine_is_not_held_up_by_a_caller_that_reads_nothing(engine: str) -> None:
    async with http_app() as app, AsyncExitStack() as callers:
        async with running(engine) as node:
            node.cluster("app", app)
            entry = await node.listen(always(plan()))
            caller = await callers.enter_async_context(dial(entry))
            await caller.request(b"/bytes?n=50000000")
            await caller.until(lambda f: f.kind == Kind.DATA)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 5.0
        assert node.seen.open == 0


async def test_unix_socket_serves_and_is_removed(
    engine: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("s") / "a.sock"
    async with http_app() as app, running(engine) as node:
        node.cluster("app", app)
        bound = await node.engine.listen(
            ListenerSpec(name="in", address=f"unix:{path}", decide=always(plan()))
        )
        mode = path.stat().st_mode & 0o777
        async with connect(0, unix=str(path)) as caller:
            response = await caller.request("GET", "/echo")
        await node.engine.unlisten("in")
    assert (bound, mode, response.status, path.exists()) == (f"unix:{path}", 0o600, 200, False)
