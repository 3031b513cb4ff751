"""Streams of tiny pieces without an end, to a daprd or from one: the sidecar's own API and its end don't wait for them."""

import asyncio
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from sentry.spiffe import SpiffeId
from tests.integration.daprd.calling import EndedError, Invocation, client_context, connected
from tests.integration.daprd.releases import V1_17
from tests.integration.mesh.peers import Forge
from tests.integration.mesh.standing import invoke
from tests.support.engines import ENGINES
from tests.support.fake_daprd import Call, fake_daprd, http
from tests.support.http_client import connect, request
from tests.support.http_wire import format_chunk
from tests.support.mesh import Mesh, Sidecar

pytestmark = pytest.mark.serial
FAKE: Final = SpiffeId("public", "default", "fake")
EVENT: Final = b"data: 1\n\n"
MANY: Final = format_chunk(EVENT) * 4_000
ASKED: Final = 20
PROMPT_S: Final = 3.0  # for two answers of the API: tens of milliseconds on an idle machine, tens of seconds where events starve it
BRIEF: Final = ("--dapr-graceful-shutdown-seconds", "2", "--drain", "0s")
END_S: Final = 10.0  # 2 s, on a busy machine; 5 s where they are not given
BEGUN: Final = 50_000  # bytes of a stream


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The engine of our sidecar."""
    return str(request.param)


@asynccontextmanager
async def events_app() -> AsyncIterator[int]:
    """An app that answers with events as fast as they are taken; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            kind = b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            writer.write(b"HTTP/1.1 200 OK\r\n" + kind)
            while True:
                writer.write(MANY)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Reader:
    """A daprd that calls our app and reads without an end. Mutable state: what it has read."""

    def __init__(self) -> None:
        self.count = 0
        self.has_begun = asyncio.Event()

    async def read(self, port: int, context: ssl.SSLContext) -> None:
        """Call, and read until the sidecar ends."""
        async with connected(port, context, "web") as client:
            call = Invocation(client, V1_17, "web", "GET", "/events")
            call.finish()
            await call.head()
            while (piece := await call.piece()) is not None:
                self.count += len(piece)
                if self.count > BEGUN:
                    self.has_begun.set()


@asynccontextmanager
async def beside(
    files: Path, engine: str, answer: Callable[[Call], Awaitable[None]]
) -> AsyncIterator[Sidecar]:
    """Our sidecar `web`, and a daprd `fake` that answers so."""
    async with Mesh(files) as mesh:
        await mesh.start_sentry()
        context = Forge.of(mesh.root, files / "forged").server_context(FAKE, alpn=("h2",))
        async with fake_daprd(context, answer) as port:
            (mesh.root / "endpoints.yaml").write_text(f"fake: 127.0.0.1:{port}\n")
            yield await mesh.sidecar("web", flags=("--engine", engine, *BRIEF))


async def is_prompt(sidecar: Sidecar) -> None:
    """Whether questions to the API are answered at once."""
    worst = 0.0
    for _ in range(ASKED):
        began = time.monotonic()
        await sidecar.admin("/status", timeout_s=30.0)
        assert (
            await request(sidecar.http_port, "GET", "/v1.0/healthz/outbound", timeout_s=30.0)
        ).status == 204
        worst = max(worst, time.monotonic() - began)
    assert worst < PROMPT_S


async def ends_in_time(sidecar: Sidecar) -> None:
    """Whether its end takes the grace and little more."""
    began = time.monotonic()
    sidecar.process.send_signal(signal.SIGTERM)
    await sidecar.process.ended(timeout_s=30.0)
    assert time.monotonic() - began < END_S


@asynccontextmanager
async def at_work(*works: Awaitable[None]) -> AsyncIterator[None]:
    """Have them run beside what is done in it, until the sidecar is over."""

    async def run(work: Awaitable[None]) -> None:
        with suppress(ConnectionError, EndedError):
            await work

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(run(work)) for work in works]
        yield
        for task in running:
            task.cancel()


@pytest.mark.parametrize("streams", [1, 8])
async def test_events_of_an_app_to_daprds(tmp_path: Path, engine: str, streams: int) -> None:
    async with Mesh(tmp_path) as mesh, events_app() as app_port:
        web = await mesh.sidecar("web", app_port=app_port, flags=("--engine", engine, *BRIEF))
        context = client_context(Forge.of(mesh.root, tmp_path / "forged"), V1_17)
        readers = [Reader() for _ in range(streams)]
        async with at_work(*(reader.read(web.peer_port, context) for reader in readers)):
            async with asyncio.timeout(60.0):
                for reader in readers:
                    await reader.has_begun.wait()
            before = [reader.count for reader in readers]
            await is_prompt(web)
            assert all(reader.count > was for reader, was in zip(readers, before, strict=True))
            await ends_in_time(web)


async def test_pieces_of_a_daprds_answer(tmp_path: Path, engine: str) -> None:
    async def pour(call: Call) -> None:
        call.send(response=http(200, "text/event-stream"))
        while not call.gone.is_set():
            for _ in range(200):
                call.send(EVENT)
            await asyncio.sleep(0)

    async with beside(tmp_path, engine, pour) as web, connect(web.http_port) as connection:
        await connection.send_head("GET", invoke("fake", "/e"), [("Accept", "text/event-stream")])
        assert (await connection.read_response_head()).second == "200"

        async def read() -> None:
            while await connection.reader.read(1 << 20):
                pass

        async with at_work(read()):
            await is_prompt(web)
            await ends_in_time(web)


async def test_an_upload_of_tiny_pieces_to_a_daprd(tmp_path: Path, engine: str) -> None:
    async def swallow(call: Call) -> None:
        while await call.part() is not None:
            pass

    async with beside(tmp_path, engine, swallow) as web, connect(web.http_port) as connection:
        await connection.send_head("POST", invoke("fake", "/e"), [("Transfer-Encoding", "chunked")])

        async def write() -> None:
            while True:
                await connection.send(MANY)

        async with at_work(write()):
            await is_prompt(web)
            await ends_in_time(web)
