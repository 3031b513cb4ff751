"""Our sidecars call apps behind daprds of several releases: HTTP and gRPC, streams, events, rules, failures."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import pytest

from tests.integration.daprd.releases import RELEASES, V1_9, V1_15, V1_17, V1_18, Asked, Release
from tests.integration.daprd.skew import OURS, Skew
from tests.integration.mesh.standing import eventually, invoke
from tests.support.dapr_client import DaprClient
from tests.support.echo_client import EchoClient
from tests.support.errors import HttpSyntaxError
from tests.support.http_client import connect, request
from tests.support.http_wire import format_chunk, format_end
from tests.support.proto.echo_pb2 import EchoRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEADLINE_S = 45.0
PERMISSION_DENIED, INTERNAL = 7, 13
EVENTS = [("Accept", "text/event-stream")]
STREAMING = [release for release in RELEASES if release.has_streams]
WITH_FORM = [V1_17, V1_18]
of_each = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.app_id)
of_each_that_streams = pytest.mark.parametrize("release", STREAMING, ids=lambda release: release.app_id)
of_each_with_form = pytest.mark.parametrize("release", WITH_FORM, ids=lambda release: release.app_id)


@of_each
async def test_request_and_answer_are_carried(among_releases: Skew, release: Release) -> None:
    asked: list[Asked] = []

    async def app(call: Asked) -> None:
        asked.append(call)
        body = b""
        while (piece := await call.piece()) is not None:
            body += piece
        call.begin(201, "text/x-note", x_app="theirs")
        call.write(body[::-1])
        call.end()

    among_releases.app = app
    sent = [("X-Twice", "a"), ("X-Twice", "b"), ("Connection", "X-Hop"), ("X-Hop", "1"), ("Cookie", "k=v")]
    target = invoke(release.app_id, "/a%20b//./c?x=1;y=%20")
    answer = await request(among_releases.http.http_port, "PUT", target, headers=sent, body=b"hello")
    assert (answer.status, answer.body, answer.get("content-type")) == (201, b"olleh", "text/x-note")
    assert answer.get("x-app") == "theirs"
    assert not answer.get("x-hop"), "a field of the hop between the app and its daprd"
    (one,) = asked
    assert (one.verb, one.method, one.query) == ("PUT", "a b/c", "x=1;y=%20")
    assert (one.field("X-Twice"), one.field("Cookie")) == (["a", "b"], ["k=v"])
    assert one.field("dapr-caller-app-id") == [OURS]
    assert (one.field("dapr-callee-app-id"), one.field("destination-app-id")) == ([release.app_id],) * 2
    assert not one.field("X-Hop")


@of_each
async def test_empty_bodies_and_statuses_are_carried(among_releases: Skew, release: Release) -> None:
    async def app(call: Asked) -> None:
        assert await call.piece() is None
        call.begin(int(call.method), location="/x")
        call.end()

    among_releases.app = app
    for code in (200, 204, 302, 404, 503):
        answer = await request(among_releases.http.http_port, "GET", invoke(release.app_id, f"/{code}"))
        assert (answer.status, answer.body, answer.get("location")) == (code, b"", "/x")


@of_each_that_streams
async def test_each_piece_arrives_before_the_next_is_sent(among_releases: Skew, release: Release) -> None:
    async def app(call: Asked) -> None:
        call.begin(200)
        while (piece := await call.piece()) is not None:
            call.write(piece)
        call.end()

    among_releases.app = app
    async with asyncio.timeout(DEADLINE_S), connect(among_releases.http.http_port) as connection:
        await connection.send_head("POST", invoke(release.app_id, "/x"), [("Transfer-Encoding", "chunked")])
        await connection.send(format_chunk(b"first"))
        head = await connection.read_response_head()
        body = connection.body("POST", head, [])
        assert await anext(body) == b"first"
        for word in (b"second", b"third"):
            await connection.send(format_chunk(word))
            assert await anext(body) == word
        await connection.send(format_end([]))
        assert [part async for part in body] == []


@of_each_that_streams
async def test_events_are_passed_on_as_they_come(among_releases: Skew, release: Release) -> None:
    go_on = asyncio.Event()

    async def app(call: Asked) -> None:
        call.begin(200, "text/event-stream", x_app="theirs")
        call.write(b"data: 1\n\n")
        await go_on.wait()
        call.write(b"data: 2\n\n")
        await call.call.gone.wait()

    among_releases.app = app
    async with asyncio.timeout(DEADLINE_S), connect(among_releases.http.http_port) as connection:
        await connection.send_head("GET", invoke(release.app_id, "/e"), EVENTS)
        head = await connection.read_response_head()
        assert (head.second, head.get("content-type")) == ("200", "text/event-stream")
        assert head.get("x-app") == "theirs"
        body = connection.body("GET", head, [])
        assert await anext(body) == b"data: 1\n\n"
        go_on.set()
        assert await anext(body) == b"data: 2\n\n"


@of_each_with_form
async def test_events_that_are_none_are_an_empty_stream(among_releases: Skew, release: Release) -> None:
    async def app(call: Asked) -> None:
        call.begin(200, "text/event-stream")
        call.end()

    among_releases.app = app
    answer = await request(among_releases.http.http_port, "GET", invoke(release.app_id, "/e"), headers=EVENTS)
    assert (answer.status, answer.body, answer.get("content-type")) == (200, b"", "text/event-stream")


@of_each_with_form
async def test_events_that_the_app_refuses_are_an_error(among_releases: Skew, release: Release) -> None:
    async def app(call: Asked) -> None:
        call.begin(404)
        call.end()

    among_releases.app = app
    answer = await request(among_releases.http.http_port, "GET", invoke(release.app_id, "/e"), headers=EVENTS)
    assert (answer.status, json.loads(answer.body)["errorCode"]) == (500, "ERR_DIRECT_INVOKE")
    assert "no response received from stream" in json.loads(answer.body)["message"]


@of_each
@pytest.mark.parametrize(("code", "status"), [(PERMISSION_DENIED, 403), (INTERNAL, 500), (2, 500)])
async def test_errors_of_the_daprd_are_told(
    among_releases: Skew, release: Release, code: int, status: int
) -> None:
    async def app(call: Asked) -> None:
        call.call.end(code, "access control policy has denied access, or the app is down")

    among_releases.app = app
    answer = await request(among_releases.http.http_port, "GET", invoke(release.app_id, "/x"))
    told = json.loads(answer.body)
    assert (answer.status, told["errorCode"]) == (status, "ERR_DIRECT_INVOKE")
    assert "denied access, or the app is down" in told["message"]


@of_each_that_streams
@pytest.mark.parametrize("how", ["status", "number"])
async def test_answer_that_breaks_off_is_seen(among_releases: Skew, release: Release, how: str) -> None:
    async def app(call: Asked) -> None:
        call.begin(200)
        call.write(b"half")
        if how == "status":
            call.call.end(INTERNAL, "unexpected EOF")
        else:
            call.call.send(b"out of order", seq=7)
            call.call.end()

    among_releases.app = app
    with pytest.raises(HttpSyntaxError):
        await request(among_releases.http.http_port, "GET", invoke(release.app_id, "/x"))


@of_each
async def test_caller_that_leaves_cancels_the_call(among_releases: Skew, release: Release) -> None:
    calls: list[Asked] = []

    async def app(call: Asked) -> None:
        calls.append(call)
        await call.call.gone.wait()

    async def is_asked() -> bool:
        return bool(calls)

    async def is_gone() -> bool:
        return calls[0].call.gone.is_set()

    among_releases.app = app
    async with asyncio.timeout(DEADLINE_S), connect(among_releases.http.http_port) as connection:
        await connection.send_head("GET", invoke(release.app_id, "/x"))
        await eventually(is_asked)
    await eventually(is_gone)


@of_each
async def test_invoke_service_crosses(among_releases: Skew, release: Release) -> None:
    async def app(call: Asked) -> None:
        body = b""
        while (piece := await call.piece()) is not None:
            body += piece
        call.begin(200, "application/json")
        call.write(json.dumps({"body": body.decode(), "verb": call.verb}).encode())
        call.end()

    among_releases.app = app
    async with grpc.aio.insecure_channel(f"127.0.0.1:{among_releases.http.grpc_port}") as channel:
        ended = await DaprClient(channel).invoke(release.app_id, "echo", verb="POST", data=b"data")
    assert json.loads(ended.response.data.value) == {"body": "data", "verb": "POST"}


@asynccontextmanager
async def client(among: Skew, release: Release) -> AsyncIterator[EchoClient]:
    """A client of the app behind a stand-in, at our sidecar."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{among.grpc.grpc_port}") as channel:
        yield EchoClient(
            channel, metadata=(("dapr-app-id", release.app_id), ("x-a", "1"), ("dapr-stream", "true"))
        )


@of_each
async def test_grpc_calls_stream_live_and_end_with_their_caller(
    among_releases: Skew, release: Release
) -> None:
    async with client(among_releases, release) as echo:
        bidi = echo.bidi()
        for word in ("one", "two"):
            await bidi.write(EchoRequest(message=word))
            reply = await bidi.read()
            assert (reply.message, reply.app) == (word, release.app_id)
            named = {one.name: one.value for one in reply.metadata}
            assert (named["x-a"], named["dapr-stream"]) == (b"1", b"true")
            assert named["dapr-caller-app-id"] == b"ours-grpc"
        await bidi.done_writing()
        assert await bidi.read() is grpc.aio.EOF  # type: ignore[attr-defined] # missing in the stubs
        assert (await echo.unary(EchoRequest(message="u"))).message == "u"
        endless = echo.server_stream(EchoRequest(message="m"))
        assert (await endless.read()).message == "m"
        endless.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await echo.unary(EchoRequest(message="no", code=9), method="Fail")
        assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_release_without_streams_is_asked_again_only_for_what_was_kept(among_releases: Skew) -> None:
    asked: list[str] = []

    async def app(call: Asked) -> None:
        asked.append(call.call.method)
        call.begin(200)
        call.end()

    among_releases.app = app
    large = b"x" * 300_000
    answer = await request(among_releases.http.http_port, "POST", invoke(V1_9.app_id, "/x"), body=large)
    assert (answer.status, answer.get("postern-error"), asked) == (500, "unsupported", [])
    assert "too old" in json.loads(answer.body)["message"]
    answer = await request(among_releases.http.http_port, "POST", invoke(V1_15.app_id, "/x"), body=large)
    assert answer.status == 200


async def test_own_surface_has_its_own_words(among_releases: Skew) -> None:
    async def denies(call: Asked) -> None:
        call.call.end(PERMISSION_DENIED, "no access")

    among_releases.app = denies
    host = [("Host", f"{V1_18.app_id}.localhost")]
    answer = await request(among_releases.http.http_port, "GET", "/x", headers=host)
    assert (answer.status, answer.get("postern-error")) == (403, "denied")
    assert json.loads(answer.body)["errorCode"] == "ERR_DENIED"
