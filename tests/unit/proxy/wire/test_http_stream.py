"""Answers that go on, from the server to who reads them line by line, over a real socket."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from proxy.api.server import LocalRequest
from proxy.wire.http_client import LocalHttpError, LocalResponse, LocalStream
from proxy.wire.http_stream import open_stream
from tests.unit.proxy.api.test_server import serving


class Pieces:
    """A handler whose answer goes on with what is put in; None ends it. `closed`: nobody reads it any more."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.taken = 0

    async def __call__(self, asked: LocalRequest) -> LocalResponse | LocalStream:
        if asked.target != "/":
            return LocalResponse(404, (), b"none here")
        return LocalStream(self._lines())

    async def _lines(self) -> AsyncGenerator[bytes]:
        try:
            while (piece := await self.pieces.get()) is not None:
                self.taken += 1
                yield piece
        finally:
            self.closed.set()


async def test_lines_come_as_they_are_made_and_end_with_the_answer() -> None:
    made = Pieces()
    async with serving(made) as address, open_stream(address, "/", timeout_s=30) as stream:
        assert stream.status == 200
        lines = stream.lines()
        made.pieces.put_nowait(b"one\ntw")
        assert await anext(lines) == b"one\n"
        made.pieces.put_nowait(b"o\n")
        assert await anext(lines) == b"two\n"
        made.pieces.put_nowait(None)
        assert [line async for line in lines] == []
        assert made.closed.is_set()


async def test_reader_that_leaves_closes_the_answer() -> None:
    made = Pieces()
    async with serving(made) as address:
        async with open_stream(address, "/", timeout_s=30):
            pass
        async with asyncio.timeout(30):
            await made.closed.wait()


async def test_reader_that_does_not_read_is_not_sent_all() -> None:
    made = Pieces()
    async with serving(made) as address, open_stream(address, "/", timeout_s=30) as stream:
        for _ in range(400):
            made.pieces.put_nowait(b"x" * 65_535 + b"\n")
        made.pieces.put_nowait(None)
        lines = stream.lines()
        await anext(lines)
        assert made.taken < 400
        assert len([line async for line in lines]) == 399


async def test_other_answer_is_read_whole() -> None:
    async with serving(Pieces()) as address, open_stream(address, "/other", timeout_s=30) as stream:
        assert stream.status == 404
        assert await stream.rest() == b"none here"


async def test_line_without_an_end_is_refused() -> None:
    made = Pieces()
    made.pieces.put_nowait(b"x" * 2_000_000)
    async with serving(made) as address, open_stream(address, "/", timeout_s=30) as stream:
        with pytest.raises(LocalHttpError, match="longer than"):
            await anext(stream.lines())


async def test_nobody_there_is_told() -> None:
    with pytest.raises(LocalHttpError):
        async with open_stream("unix:/nowhere/at/all", "/", timeout_s=30):
            pass
