"""Bodies in upper case, as a Plan may have them sent on: ASCII letters alone, of HTTP alone."""

import asyncio
import json
from typing import Any, Final

import grpc
import pytest

from proxy.contract.plan import Cause
from tests.conformance.apps import grpc_app, http_app, raw_app
from tests.conformance.frames import dial
from tests.conformance.harness import leading, retry
from tests.support.echo_client import EchoClient
from tests.support.http_client import connect
from tests.support.http_wire import read_body, read_head
from tests.support.proto.echo_pb2 import EchoRequest
from tests.support.websocket import TEXT, Frame, format_frame, new_key, read_frame

EVERY_BYTE = bytes(range(256))
BOTH: Final[dict[str, Any]] = {"upper_request": True, "upper_response": True}
LARGE = EVERY_BYTE * 4_000 + b"the end"


class Mirror:
    """An app that answers with what it gets, after so many failures."""

    def __init__(self, failures: int = 0) -> None:
        self.seen: list[bytes] = []
        self._failures = failures

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await read_head(reader):
            body = b"".join([part async for part in read_body(reader, head, [])])
            self.seen.append(body)
            status = b"503 Busy" if len(self.seen) <= self._failures else b"200 OK"
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)


@pytest.mark.parametrize("request_too", [True, False])
@pytest.mark.parametrize("response_too", [True, False])
async def test_letters_go_on_in_upper_case(
    engine: str, hops: str, request_too: bool, response_too: bool
) -> None:
    app = Mirror()
    upper: dict[str, Any] = {"upper_request": request_too, "upper_response": response_too}
    async with raw_app(app) as port, leading(engine, hops, port, **upper) as way, connect(way.port) as caller:
        answers = [
            await caller.request("POST", "/", body=LARGE),
            await caller.request("POST", "/", chunks=[EVERY_BYTE, b"more"]),
        ]
        outcome = await way.front.seen.outcome()
    sent = [LARGE, EVERY_BYTE + b"more"]
    got = [body.upper() for body in sent] if request_too else sent
    assert app.seen == got
    assert [answer.body for answer in answers] == ([body.upper() for body in got] if response_too else got)
    assert (outcome.up_bytes, outcome.down_bytes) == (len(LARGE), len(LARGE))


async def test_so_do_those_of_http2(engine: str, hops: str) -> None:
    app = Mirror()
    async with raw_app(app) as port, leading(engine, hops, port, **BOTH) as way, dial(way.port) as caller:
        message = await caller.whole(await caller.request(b"/", method=b"POST", body=LARGE))
    assert (app.seen, bytes(message.body)) == ([LARGE.upper()], LARGE.upper())


async def test_every_attempt_sends_the_same(engine: str) -> None:
    app = Mirror(failures=2)
    rules = (retry(3, Cause.STATUS, http_codes=None),)
    upper: dict[str, Any] = {"upper_request": True}
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, retries=rules, **upper) as way,
        connect(way.port) as caller,
    ):
        answer = await caller.request("POST", "/", body=EVERY_BYTE)
    assert app.seen == [EVERY_BYTE.upper()] * 3
    assert (answer.status, answer.body) == (200, EVERY_BYTE.upper())


async def test_answers_of_the_proxys_own_stay(engine: str) -> None:
    async with leading(engine, "one", 1, **BOTH) as way, connect(way.port) as caller:
        answer = await caller.request("GET", "/")
    assert json.loads(answer.body)["message"].startswith(Cause.CONNECT.value)


async def test_grpc_passes_unchanged(engine: str, hops: str) -> None:
    async with (
        grpc_app() as app,
        leading(engine, hops, app, wire="h2c", **BOTH) as way,
        grpc.aio.insecure_channel(f"127.0.0.1:{way.port}") as channel,
    ):
        reply = await EchoClient(channel).unary(EchoRequest(message="hi"))
    assert reply.message == "hi"


async def test_websocket_passes_unchanged(engine: str, hops: str) -> None:
    async with http_app() as app, leading(engine, hops, app, **BOTH) as way, connect(way.port) as caller:
        handshake = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
        await caller.send_head("GET", "/ws", [*handshake, ("Sec-WebSocket-Key", new_key())])
        assert (await caller.read_response_head()).second == "101"
        await caller.send(format_frame(Frame(TEXT, b"hello"), is_client=True))
        frame = await read_frame(caller.reader)
    assert frame.payload == b"hello"


async def test_grpc_web_passes_unchanged(engine: str) -> None:
    app = Mirror()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, **BOTH) as way,
        connect(way.port) as caller,
    ):
        headers = [("Content-Type", "application/grpc-web+proto")]
        answer = await caller.request("POST", "/", headers=headers, body=EVERY_BYTE)
    assert (app.seen, answer.body) == ([EVERY_BYTE], EVERY_BYTE)
