"""Engines side by side: the same bytes go to each, and what reached the app and came back is told in one form.

Only what a peer may rely on is compared: order between fields of different names, chunk borders and the words of our own error pages
are left out.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from proxy.contract.plan import Cause
from proxy.settings.version import has_native
from tests.conformance.apps import raw_app
from tests.conformance.harness import ENGINES, Way, leading
from tests.conformance.identities import Mint
from tests.support.errors import HttpSyntaxError
from tests.support.http_wire import Head, Headers, read_body, read_head

NEEDS_BOTH_ENGINES: Final = pytest.mark.skipif(
    not has_native(), reason="one engine alone: this installation has no native one"
)
DEADLINE_S: Final = 20.0
_ERROR_FIELD: Final = "postern-error"
REFUSED: Final = "refused"  # an end whose form is free: what is reported may differ, too
ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CaseT = TypeVar("CaseT")
ItemT = TypeVar("ItemT")


class Told(Struct, frozen=True):
    """One message: its start line's parts, values by field name, body and trailers; `cut`: it did not come whole."""

    start: tuple[str, ...]
    fields: dict[str, list[str]]
    body: bytes = b""
    trailers: dict[str, list[str]] = {}
    cut: bool = False


class Course(Struct, frozen=True):
    """What became of the bytes: requests at the app, answers at the caller, how it ended there, and what the engine reported."""

    requests: list[Told]
    answers: list[Told]
    end: str
    causes: list[tuple[int, Cause | None]]


Answered = tuple[list[Told], str]  # the answers, and how it ended
Drive = Callable[[Way], Awaitable[Answered]]


class App:
    """An HTTP/1.1 app that notes what it is sent and answers with the bytes of the moment. Mutable state: `answer`, `noted`."""

    def __init__(self) -> None:
        self.answer = ANSWER
        self.closes = False
        self.noted: list[Told] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        while (head := await read_head(reader)) is not None:
            number = len(self.noted)
            self.noted.append(told((head.first, head.second, head.third), head.headers, cut=True))
            trailers: Headers = []
            body = b"".join([part async for part in read_body(reader, head, trailers)])
            self.noted[number] = told((head.first, head.second, head.third), head.headers, body, trailers)
            writer.write(self.answer)
            await writer.drain()
            if self.closes:
                return


def told(
    start: tuple[str, ...],
    headers: Headers,
    body: bytes = b"",
    trailers: Sequence[tuple[str, str]] = (),
    *,
    cut: bool = False,
) -> Told:
    """A message in the form that is compared."""
    fields = grouped(headers)
    if _ERROR_FIELD in fields:
        body = b""
        fields.pop("content-length", None)
        fields.pop(
            "traceparent", None
        )  # of a head that can't be read: where the tracer says how an engine begins spans
    fields.pop("transfer-encoding", None)  # who re-frames a body may choose
    fields.pop("date", None)  # added where an answer has none; the engines are asked one after another
    return Told(start, fields, body, grouped(trailers), cut)


def grouped(headers: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Values by lower-case name, in order."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value)
    return found


class Beside(Struct, frozen=True):
    """The engines, each with a way to the same app."""

    app: App
    ways: dict[str, Way]
    loop: asyncio.AbstractEventLoop

    async def compare(
        self, cases: st.SearchStrategy[CaseT], drive: Callable[[Way, CaseT], Awaitable[Answered]]
    ) -> None:
        """Drive every engine with each of the generated cases. Asserts that the same happens."""

        @given(cases)
        def check(case: CaseT) -> None:
            self._compare(lambda way: drive(way, case))

        await asyncio.to_thread(check)

    def _compare(self, drive: Drive) -> None:
        """Each engine in turn, from a thread beside the loop."""
        courses = {name: self._course(way, drive) for name, way in self.ways.items()}
        (first, expected), *others = courses.items()
        for name, met in others:
            for part in Course.__struct_fields__:
                mine, theirs = getattr(met, part), getattr(expected, part)
                assert mine == theirs, f"{part}: {name} has {mine}, {first} has {theirs}"

    def _course(self, way: Way, drive: Drive) -> Course:
        self.app.noted.clear()
        way.front.seen.outcomes.clear()
        driving = asyncio.run_coroutine_threadsafe(self._reported(way, drive), self.loop)
        answers, end = driving.result()
        causes = (
            [] if end == REFUSED else [(outcome.status, outcome.cause) for outcome in way.front.seen.outcomes]
        )
        # How soon a bad body is seen is chance; without bytes, a request is whole before its bad trailers come.
        noted = (request for request in self.app.noted if not request.cut)
        whole = [request for request in noted if request.body or end != REFUSED]
        # A head that can't be read may be reported before the call ahead of it has ended.
        return Course(whole, answers, end, sorted(causes, key=repr))

    async def _reported(self, way: Way, drive: Drive) -> Answered:
        """Drive, and wait for the report of each call that reached the app: a native engine's comes a little later."""
        async with asyncio.timeout(DEADLINE_S):
            driven = await drive(way)
        with suppress(TimeoutError):
            await way.front.seen.until(
                lambda: len(way.front.seen.outcomes) >= len(self.app.noted), timeout_s=5.0
            )
        return driven


def field_lines(names: Sequence[str], values: Sequence[str]) -> st.SearchStrategy[str]:
    """Lines with one of these names and one of these values, or one of any visible characters."""
    visible = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
    return st.tuples(st.sampled_from(names), st.sampled_from(values) | visible).map(": ".join)


def insert(draw: st.DrawFn, items: list[ItemT], strategy: st.SearchStrategy[ItemT]) -> None:
    """Draw one more item, to stand anywhere."""
    items.insert(draw(st.integers(0, len(items))), draw(strategy))


@asynccontextmanager
async def beside(hops: str) -> AsyncIterator[Beside]:
    """Every engine of this installation, running, with a way over `hops` to one app."""
    app = App()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(raw_app(app.serve))
        mint = Mint()
        ways = {
            name: await stack.enter_async_context(leading(name, hops, port, mint=mint)) for name in ENGINES
        }
        yield Beside(app, ways, asyncio.get_running_loop())


async def read_answers(reader: asyncio.StreamReader, methods: Sequence[str]) -> Answered:
    """All answers up to the end of a connection, to requests of these methods; and how the connection ended."""
    data, end = bytearray(), "closed"
    try:
        while part := await reader.read(65_536):
            data += part
    except ConnectionError:
        end = "reset"
    whole = asyncio.StreamReader()
    whole.feed_data(bytes(data))
    whole.feed_eof()
    answers: list[Told] = []
    waiting = list(methods)
    with suppress(HttpSyntaxError):
        while (head := await read_head(whole)) is not None:
            is_interim = head.second.startswith("1")
            method = "" if is_interim or not waiting else waiting.pop(0)
            answers.append(await _answer(whole, head, method, is_interim=is_interim))
    return answers, end


async def _answer(reader: asyncio.StreamReader, head: Head, method: str, *, is_interim: bool) -> Told:
    start = (head.second,)
    if is_interim or method == "HEAD" or head.second in {"204", "304"}:
        return told(start, head.headers)
    trailers: Headers = []
    try:
        body = b"".join([part async for part in read_body(reader, head, trailers, until_close=True)])
    except HttpSyntaxError:
        return told(start, head.headers, cut=True)  # how much of it came before is chance
    return told(start, head.headers, body, trailers)
