"""Connections that are kept between short calls to one server."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from proxy.wire.http_client import LocalHttpError, LocalResponse, TooLargeError
from proxy.wire.kept_connections import KeptConnections
from tests.support.http_wire import read_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(slots=True)
class Server:
    """Answers so many requests on each connection. Mutable state: what it saw, and how it answers."""

    answer: bytes = OK
    answers_each: int = 1_000_000
    closes_after: bool = False
    connections: int = 0
    asked: list[str] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answered = 0
        try:
            while (head := await read_head(reader)) is not None:
                self.asked.append(head.second)
                if answered >= self.answers_each:
                    return
                await self.go.wait()
                writer.write(self.answer)
                answered += 1
                if self.closes_after and answered == self.answers_each:
                    return
        finally:
            writer.close()
            self.ended.set()


class Calls(KeptConnections):
    """To the server of a test."""

    async def get(self, target: str = "/") -> LocalResponse:
        return await self.request("GET", target, timeout_s=30.0, limit_bytes=1000)


@asynccontextmanager
async def running(at_most: int = 10) -> AsyncIterator[tuple[Server, Calls]]:
    made = Server()
    made.go.set()
    server = await asyncio.start_server(made, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    calls = Calls(f"127.0.0.1:{made.port}", at_most=at_most)
    try:
        yield made, calls
    finally:
        calls.close()
        server.close()


async def test_calls_in_turn_share_one_connection() -> None:
    async with running() as (server, calls):
        for number in range(20):
            answer = await calls.get(f"/{number}")
            assert (answer.status, answer.body) == (200, b"ok")
    assert (server.connections, len(server.asked)) == (1, 20)


async def test_connection_that_answered_head_is_not_kept_as_a_body_may_follow() -> None:
    async with running() as (server, calls):
        for _ in range(2):
            await calls.request("HEAD", "/", timeout_s=30.0, limit_bytes=1000)
    assert server.connections == 2


async def test_a_name_is_looked_up_where_it_leads_and_its_first_address_that_answers_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as (server, _):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        calls = Calls(f"judge.example:{server.port}", at_most=1)
        assert (await calls.get()).body == b"ok"
        calls.close()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found[:1])
        with pytest.raises(LocalHttpError, match=r"judge\.example:\d+: .*refused"):
            await Calls(f"judge.example:{server.port}", at_most=1).get()


async def test_a_name_server_that_hangs_takes_one_thread_and_none_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, asked = threading.Event(), []

    def hang(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        answers.wait(60.0)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    calls = Calls("judge.example:80", at_most=100)

    async def one() -> None:
        with pytest.raises(TimeoutError):
            await calls.request("GET", "/", timeout_s=0.05, limit_bytes=1000)

    try:
        await asyncio.gather(*(one() for _ in range(50)))
        assert asked == ["judge.example"]
        assert await asyncio.to_thread(lambda: 1) == 1
    finally:
        answers.set()
    with pytest.raises(LocalHttpError, match=r"judge\.example:80: Temporary failure"):
        await calls.get()


async def test_calls_at_once_open_no_more_than_allowed() -> None:
    async with running(at_most=3) as (server, calls):
        answers = await asyncio.gather(*(calls.get() for _ in range(20)))
    assert [one.body for one in answers] == [b"ok"] * 20
    assert server.connections <= 3
    assert len(server.asked) == 20


async def test_connection_that_the_server_closed_between_calls_fails_none() -> None:
    async with running() as (server, calls):
        server.answers_each, server.closes_after = 1, True
        for _ in range(5):
            assert (await calls.get()).body == b"ok"
    assert server.connections == 5


async def test_call_that_meets_the_close_is_made_again_once() -> None:
    async with running() as (server, calls):
        server.answers_each = 1
        await calls.get("/a")
        assert (await calls.get("/b")).body == b"ok"  # asked twice: closed on, then answered
        assert (server.connections, server.asked) == (2, ["/a", "/b", "/b"])
        server.answers_each = 0
        with pytest.raises(LocalHttpError, match="closed the connection"):
            await calls.get("/c")
        assert server.asked[3:] == ["/c", "/c"]
        with pytest.raises(LocalHttpError, match="closed the connection"):
            await calls.get("/d")  # no connection is left that may have been closed meanwhile
        assert server.asked[5:] == ["/d"]


async def test_broken_and_oversized_answers_are_not_asked_for_again() -> None:
    async with running() as (server, calls):
        for answer, kind in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", LocalHttpError),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + bytes(2000), TooLargeError),
        ):
            server.answer = OK
            await calls.get("/ok")
            server.answer = answer
            with pytest.raises(kind):
                await calls.get("/bad")
    assert server.asked == ["/ok", "/bad", "/ok", "/bad"]


async def test_connection_whose_call_is_given_up_is_not_kept() -> None:
    async with running(at_most=1) as (server, calls):
        await calls.get("/a")
        server.go.clear()
        server.ended.clear()
        with pytest.raises(TimeoutError):
            await calls.request("GET", "/late", timeout_s=0.05, limit_bytes=1000)
        server.go.set()
        await server.ended.wait()
        assert (await calls.get("/b")).body == b"ok"
    assert server.connections == 2


async def test_nothing_is_kept_once_closed() -> None:
    async with running() as (server, calls):
        await calls.get()
        calls.close()
        await server.ended.wait()
        server.ended.clear()
        assert (await calls.get()).body == b"ok"  # of a caller that was under way
        await server.ended.wait()
    assert server.connections == 2
