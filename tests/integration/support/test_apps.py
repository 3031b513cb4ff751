"""The apps under test do what the tests that use them rely on."""

import json
from typing import Any

import grpc
import pytest

from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.errors import HttpSyntaxError
from tests.support.http_client import connect, request
from tests.support.proto.echo_pb2 import EchoRequest
from tests.support.websocket import CLOSE, TEXT, Frame, format_frame, new_key, read_frame


async def test_echo_shows_method_target_headers_and_body(http_app: App) -> None:
    answer = await request(
        http_app.port, "PUT", "/echo?a=1", headers=[("X-One", "1"), ("x-one", "2")], body=b"hi"
    )
    content = json.loads(answer.body)
    assert (answer.status, content["method"], content["target"], content["body"]) == (
        200,
        "PUT",
        "/echo?a=1",
        "hi",
    )
    assert [pair for pair in content["headers"] if pair[0].lower() == "x-one"] == [
        ["X-One", "1"],
        ["x-one", "2"],
    ]


async def test_sink_counts_chunks_and_shows_trailers(http_app: App) -> None:
    answer = await request(
        http_app.port, "POST", "/sink", chunks=[b"abc", b"defg"], trailers=[("x-sum", "7")]
    )
    assert json.loads(answer.body) == {"bytes": 7, "trailers": [["x-sum", "7"]]}


@pytest.mark.parametrize("query", ["n=300000", "n=300000&chunk=1000"])
async def test_bytes_has_the_length_asked_for(http_app: App, query: str) -> None:
    answer = await request(http_app.port, "GET", f"/bytes?{query}")
    assert len(answer.body) == 300_000


async def test_trailers_and_interim_answers_arrive(http_app: App) -> None:
    with_trailers = await request(http_app.port, "GET", "/trailers")
    assert with_trailers.trailers == [("x-checksum", "abc123")]
    hinted = await request(http_app.port, "GET", "/hints")
    assert [head.second for head in hinted.interim] == ["103"]
    assert hinted.body == b"hinted"


async def test_early_answers_before_the_body_and_keeps_the_connection(http_app: App) -> None:
    async with connect(http_app.port) as connection:
        await connection.send_head("POST", "/early?code=409", [("content-length", "4")])
        early = await connection.read_response("POST")
        await connection.send(b"late")
        assert early.status == 409
        assert (await connection.request("GET", "/status?code=204")).status == 204


@pytest.mark.parametrize("when", ["head", "body", "length"])
async def test_die_cuts_the_answer(http_app: App, when: str) -> None:
    with pytest.raises(HttpSyntaxError):
        await request(http_app.port, "GET", f"/die?when={when}")


async def test_events_arrive_in_order(http_app: App) -> None:
    answer = await request(http_app.port, "GET", "/sse?n=3&every_s=0")
    assert answer.get("content-type") == "text/event-stream"
    assert answer.body.count(b"data: event") == 3


async def test_websocket_echoes_frames_of_every_length_form(http_app: App) -> None:
    async with connect(http_app.port) as connection:
        upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", new_key())]
        await connection.send_head("GET", "/ws", [*upgrade, ("Sec-WebSocket-Version", "13")])
        assert (await connection.read_response_head()).second == "101"
        for size in (5, 126, 70_000):
            await connection.send(format_frame(Frame(TEXT, b"x" * size), is_client=True))
            assert await read_frame(connection.reader) == Frame(TEXT, b"x" * size)
        await connection.send(format_frame(Frame(CLOSE, b"\x03\xe8"), is_client=True))
        assert (await read_frame(connection.reader)).opcode == CLOSE


async def test_grpc_app_serves_all_four_kinds(grpc_app: App) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_app.port}") as channel:
        client = EchoClient(channel, metadata=(("x-asked", "yes"), ("x-bin", b"\x00\xff")))
        call = client.unary(EchoRequest(message="hello", padding=10))
        reply = await call
        assert (reply.message, len(reply.padding), reply.deadline_s > 0) == ("hello", 10, True)
        assert {"x-asked": b"yes", "x-bin": b"\x00\xff"}.items() <= {
            i.name: i.value for i in reply.metadata
        }.items()
        assert ("x-trailer", "unary") in list(await call.trailing_metadata())
        joined = await client.client_stream([EchoRequest(message="a"), EchoRequest(message="b")])
        assert (joined.message, joined.number) == ("a b", 2)
        numbers = [reply.number async for reply in client.server_stream(EchoRequest(count=3))]
        assert numbers == [0, 1, 2]
        bidi = client.bidi()
        await bidi.write(EchoRequest(message="ping"))
        assert (await bidi.read()).message == "ping"
        await bidi.done_writing()
        assert (await bidi.code()) is grpc.StatusCode.OK


async def test_grpc_app_gives_errors_with_details_and_sees_cancellation(grpc_app: App) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_app.port}") as channel:
        client = EchoClient(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary(EchoRequest(code=9, message="not now", details=b"\x01\x02"), method="Fail")
        assert (caught.value.code(), caught.value.details()) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "not now",
        )
        details = [value for name, value in _pairs(caught.value.trailing_metadata()) if name.endswith("-bin")]
        assert details == [b"\x01\x02"]
        stream = client.server_stream(EchoRequest(count=1000, delay_s=1))
        await stream.read()
        stream.cancel()
        probe = await client.probe(cancellations=1, wait_s=20)
        assert dict(probe.cancelled) == {"ServerStream": 1}


def _pairs(metadata: Any) -> list[tuple[str, bytes]]:
    """grpcio's metadata as what it is; its stubs say otherwise."""
    return list(metadata)
