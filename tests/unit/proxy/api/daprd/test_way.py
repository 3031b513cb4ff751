"""Calls into the engine, over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.api.daprd import way as way_module
from proxy.api.daprd.way import Way
from proxy.contract.engine import Limits
from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.wire.http2_server import Http2Server
from proxy.wire.streams import RawHead
from proxy.wire.turns import Rota
from tests.fakes.exchange import HeardRequest, Requests

HEAD = RawHead("http2", b"POST", b"localhost", b"/x", (), "stream", None)


# SETTINGS, and credit of nothing for a stream that has not begun.
COME_AND_GONE = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)) + bytes((0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0))


class Heard:
    """ResponseEvents."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.status = 0
        self.lost: Cause | None = None

    def response_inform(self, status: int, headers: Headers) -> None:
        """See ResponseEvents."""

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """See ResponseEvents."""
        self.status = status
        if end:
            self.over.set()

    def response_data(self, data: bytes) -> None:
        """See ResponseEvents."""

    def response_end(self, trailers: Headers) -> None:
        """See ResponseEvents."""
        self.over.set()

    def response_lost(self, cause: Cause, detail: str) -> None:
        """See ResponseEvents."""
        self.lost = cause
        self.over.set()

    def request_drained(self, count: int) -> None:
        """See ResponseEvents."""


@asynccontextmanager
async def leading(
    path: Path, then: Callable[[HeardRequest], None]
) -> AsyncIterator[tuple[Way, list[Http2Server]]]:
    """A way to a server that answers by `then`, and how many connections came."""
    connections: list[Http2Server] = []

    def made() -> Http2Server:
        connections.append(Http2Server(Requests(then), Limits(), lambda _: None, lambda _: None))
        return connections[-1]

    server = await asyncio.get_running_loop().create_unix_server(made, str(path))
    async with asyncio.TaskGroup() as tasks:
        way = Way(str(path), tasks.create_task, Rota())
        yield way, connections
        way.close()
    for end in connections:
        end.end()
    server.close()
    await asyncio.sleep(0)


def at_once(request: HeardRequest) -> None:
    """Answer without a body."""
    request.down.respond(204, (), end=True)


async def called(way: Way) -> Heard:
    """One call, to its end."""
    heard = Heard()
    call = way.open(heard)
    call.start(HEAD, end=False)
    call.send(b"body")
    call.finish(())
    async with asyncio.timeout(10.0):
        await heard.over.wait()
    return heard


async def test_connections_are_used_again_by_one_call_at_a_time(tmp_path: Path) -> None:
    async with leading(tmp_path / "way", at_once) as (way, connections):
        for _ in range(3):
            assert (await called(way)).status == 204
        assert len(connections) == 1
        both = await asyncio.gather(called(way), called(way))
        assert [heard.status for heard in both] == [204, 204]
        assert len(connections) == 2


async def test_call_that_is_cancelled_before_its_connection_is_not_sent(tmp_path: Path) -> None:
    seen: list[HeardRequest] = []
    async with leading(tmp_path / "way", seen.append) as (way, connections):
        heard = Heard()
        call = way.open(heard)
        call.start(HEAD, end=True)
        call.abort()
    assert (len(connections), seen, heard.over.is_set()) == (1, [], False)


async def test_nobody_there_is_a_refusal(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        heard = await called(Way(str(tmp_path / "nobody"), tasks.create_task, Rota()))
    assert heard.lost is Cause.REFUSED


async def test_calls_at_once_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way_module, "_CALLS", 1)
    async with leading(tmp_path / "way", lambda _: None) as (way, _):
        first = Heard()
        call = way.open(first)
        call.start(HEAD, end=True)
        assert (await called(way)).lost is Cause.SHED
        call.abort()


async def test_connection_that_breaks_as_it_comes_up_keeps_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(way_module, "_CALLS", 1)
    connections: list[asyncio.StreamWriter] = []

    def broken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(COME_AND_GONE)

    path = str(tmp_path / "way")
    server = await asyncio.start_unix_server(broken, path)
    async with asyncio.TaskGroup() as tasks:
        way = Way(path, tasks.create_task, Rota())
        lost = [(await called(way)).lost for _ in range(3)]
    for writer in connections:
        writer.close()
    server.close()
    assert (lost, len(connections)) == ([Cause.REFUSED] * 3, 3)


async def test_connection_that_does_not_come_up_in_time_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(way_module, "_CONNECT_S", 0.05)  # it waits for nothing else
    closed = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        closed.set()
        writer.close()

    path = str(tmp_path / "way")
    server = await asyncio.start_unix_server(silent, path)
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(10.0):
        assert (await called(Way(path, tasks.create_task, Rota()))).lost is Cause.REFUSED
        await closed.wait()
    server.close()
