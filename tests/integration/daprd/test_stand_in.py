"""Our sidecar with a stand-in for daprds newer and older than the real one of the other tests: streams, events, failures, CallLocal."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.api.daprd.internals_pb2 import InternalInvokeResponse
from sentry.spiffe import SpiffeId
from tests.integration.mesh.peers import Forge
from tests.integration.mesh.standing import eventually, invoke
from tests.support.engines import ENGINES
from tests.support.errors import HttpSyntaxError
from tests.support.fake_daprd import Call, fake_daprd, http
from tests.support.http_client import connect, request
from tests.support.http_wire import format_chunk, format_end
from tests.support.mesh import Mesh, Sidecar

FAKE = SpiffeId("public", "default", "fake")
DEADLINE_S = 20.0
UNIMPLEMENTED, INTERNAL = 12, 13


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The engine of our sidecar."""
    return str(request.param)


@asynccontextmanager
async def beside(
    files: Path, engine: str, answer: Callable[[Call], Awaitable[None]]
) -> AsyncIterator[Sidecar]:
    """Our sidecar `web`, which knows the stand-in as `fake`."""
    async with Mesh(files) as mesh:
        await mesh.start_sentry()
        context = Forge.of(mesh.root, files / "forged").server_context(FAKE, alpn=("h2",))
        async with fake_daprd(context, answer) as port:
            (mesh.root / "endpoints.yaml").write_text(f"fake: 127.0.0.1:{port}\n")
            yield await mesh.sidecar("web", flags=("--engine", engine))


async def test_bodies_stream_both_ways_at_once(tmp_path: Path, engine: str) -> None:
    async def echo(call: Call) -> None:
        first = await call.part()
        assert first is not None
        assert (first.request.message.method, first.request.metadata["X-A"].values[0]) == ("a b", "1")
        call.send(response=http(200))
        while (part := await call.part()) is not None:
            call.send(part.payload.data)
        call.end()

    async with beside(tmp_path, engine, echo) as web, connect(web.http_port) as connection:
        async with asyncio.timeout(DEADLINE_S):
            headers = [("Transfer-Encoding", "chunked"), ("x-a", "1")]
            await connection.send_head("POST", invoke("fake", "/a%20b"), headers)
            head = await connection.read_response_head()
            assert head.second == "200"
            body = connection.body("POST", head, [])
            for word in (b"first", b"second"):
                await connection.send(format_chunk(word))
                assert await anext(body) == word
            await connection.send(format_end([]))
            assert [part async for part in body] == []


async def test_events_are_passed_on_as_they_come(tmp_path: Path, engine: str) -> None:
    go_on = asyncio.Event()

    async def events(call: Call) -> None:
        first = await call.part()
        assert first is not None
        assert first.request.metadata["Accept"].values[0] == "text/event-stream"
        response = InternalInvokeResponse()
        response.status.SetInParent()
        response.headers["Cache-Control"].values.append("no-cache")
        call.send(b"data: 1\n\n", response=response)
        await go_on.wait()
        call.send(b"data: 2\n\n", response=InternalInvokeResponse())
        call.end()

    async with beside(tmp_path, engine, events) as web, connect(web.http_port) as connection:
        async with asyncio.timeout(DEADLINE_S):
            await connection.send_head("GET", invoke("fake", "/e"), [("Accept", "text/event-stream")])
            head = await connection.read_response_head()
            assert (head.second, head.get("content-type")) == ("200", "text/event-stream")
            body = connection.body("GET", head, [])
            assert await anext(body) == b"data: 1\n\n"
            go_on.set()
            assert await anext(body) == b"data: 2\n\n"


@pytest.mark.parametrize("how", ["status", "number"])
async def test_answer_that_breaks_off_is_seen(tmp_path: Path, engine: str, how: str) -> None:
    async def breaks(call: Call) -> None:
        call.send(b"half", response=http(200))
        if how == "status":
            call.end(INTERNAL, "the app is gone")
        else:
            call.send(b"out of order", seq=7)
            call.end()

    async with beside(tmp_path, engine, breaks) as web:
        with pytest.raises(HttpSyntaxError):
            await request(web.http_port, "GET", invoke("fake", "/x"))


async def test_caller_that_leaves_cancels_the_call(tmp_path: Path, engine: str) -> None:
    calls: list[Call] = []

    async def waits(call: Call) -> None:
        calls.append(call)
        call.send(b"begun", response=http(200))
        await call.gone.wait()

    async with beside(tmp_path, engine, waits) as web:
        async with asyncio.timeout(DEADLINE_S), connect(web.http_port) as connection:
            await connection.send_head("GET", invoke("fake", "/x"))
            head = await connection.read_response_head()
            assert await anext(connection.body("GET", head, [])) == b"begun"

        async def is_gone() -> bool:
            return calls[0].gone.is_set()

        await eventually(is_gone)


async def test_daprd_without_streams_is_called_whole(tmp_path: Path, engine: str) -> None:
    async def old(call: Call) -> None:
        if call.method == "CallLocalStream":
            call.end(UNIMPLEMENTED, "unknown method CallLocalStream")
            return
        asked = await call.whole()
        response = http(201)
        response.message.data.value = asked.message.data.value[::-1]
        call.send_whole(response)
        call.end()

    async with beside(tmp_path, engine, old) as web:
        answer = await request(web.http_port, "POST", invoke("fake", "/x"), body=b"body")
        assert (answer.status, answer.body) == (201, b"ydob")
        empty = await request(web.http_port, "GET", invoke("fake", "/x"))
        assert (empty.status, empty.body) == (201, b"")
        beyond = await request(web.http_port, "POST", invoke("fake", "/x"), body=b"x" * 300_000)
        assert (beyond.status, beyond.get("postern-error")) == (500, "unsupported")
        assert "too old" in json.loads(beyond.body)["message"]


async def test_own_surface_has_its_own_words(tmp_path: Path, engine: str) -> None:
    async def denies(call: Call) -> None:
        call.end(7, "no access")

    async with beside(tmp_path, engine, denies) as web:
        answer = await request(web.http_port, "GET", "/x", headers=[("Host", "fake.localhost")])
        assert (answer.status, answer.get("postern-error")) == (403, "denied")
        assert json.loads(answer.body)["errorCode"] == "ERR_DENIED"
        ours = await request(web.http_port, "GET", invoke("fake", "/x"))
        assert (ours.status, json.loads(ours.body)["errorCode"]) == (403, "ERR_DIRECT_INVOKE")
