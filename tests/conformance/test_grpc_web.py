"""Calls of gRPC-Web: translated for an app that speaks gRPC where the Plan says so, else passed on as the HTTP that they are."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.contract.plan import Edit, Op, Route
from tests.conformance.apps import raw_app
from tests.conformance.frames import FramePeer, dial, serving
from tests.conformance.harness import EDITS, Way, always, leading, plan
from tests.support.http_client import connect
from tests.support.http_wire import read_head
from tests.support.ports import free_port

MESSAGE = b"\x00\x00\x00\x00\x05hello"
TYPES = ("application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text+proto")
HEAD = ((b":status", b"200"), (b"content-type", b"application/grpc+proto"), (b"x-head", b"1"))
TRAILERS = (
    (b"grpc-status", b"0"),
    (b"grpc-message", b"fine"),
    (b"postern-error", b"forged"),
    (b"x-end", b"2"),
)


@asynccontextmanager
async def way_to(engine: str, app_port: int) -> AsyncIterator[Way]:
    """Through one engine to an app that speaks gRPC only."""
    translating = plan(routes=(Route(cluster="app", edits=(*EDITS, Edit(op=Op.GRPC_WEB))),))
    async with leading(engine, "one", app_port, wire="h2c", decide=always(translating)) as way:
        yield way


def read_answer(content_type: str, body: bytes) -> tuple[bytes, dict[str, str]]:
    """The messages as they came, and the trailers."""
    if "-text" in content_type:
        groups = (body[at : at + 4] for at in range(0, len(body), 4))
        body = b"".join(base64.b64decode(group, validate=True) for group in groups)
    messages = b""
    while body and not body[0] & 0x80:
        size = 5 + int.from_bytes(body[1:5], "big")
        messages, body = messages + body[:size], body[size:]
    assert int.from_bytes(body[1:5], "big") == len(body) - 5
    lines = body[5:].decode().removesuffix("\r\n").split("\r\n")
    return messages, dict(tuple(line.split(": ", 1)) for line in lines)  # type: ignore[misc]


async def echo(peer: FramePeer) -> None:
    """An app that speaks gRPC; /only answers by trailers alone."""
    while True:
        stream = await peer.next_request()
        message = peer.message(stream)
        while not message.over:
            await peer.read()
        if message.reset is not None:
            continue
        assert message.get(b"content-type").startswith(b"application/grpc+") or (
            message.get(b"content-type") == b"application/grpc"
        )
        assert (message.get(b"te"), message.get(b"content-length")) == (b"trailers", b"")
        if message.get(b":path") == b"/shop.Cart/Only":
            await peer.send(
                peer.head(stream, (*HEAD[:2], (b"grpc-status", b"5"), (b"grpc-message", b"none")), end=True)
            )
        else:
            await peer.respond(stream, headers=HEAD[1:], body=bytes(message.body), trailers=TRAILERS)


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("http", ["http1", "http2"])
async def test_call_and_its_answer_are_translated(engine: str, content_type: str, http: str) -> None:
    many = MESSAGE * 3_000
    body = many
    if "-text" in content_type:
        # each message by itself, padded, as clients that stream do
        body = b"".join(base64.b64encode(part) for part in (MESSAGE, MESSAGE, many[: -2 * len(MESSAGE)]))
    async with serving(echo) as app, way_to(engine, app) as way:
        if http == "http1":
            pieces = [body[at : at + 997] for at in range(0, len(body), 997)]
            async with connect(way.port) as caller:
                response = await caller.request(
                    "POST", "/shop.Cart/Get", headers=[("Content-Type", content_type)], chunks=pieces
                )
            status, answered, got, head = response.status, response.body, response.get("content-type"), ""
            head = response.get("x-head")
        else:
            async with dial(way.port) as caller:
                stream = await caller.request(
                    b"/shop.Cart/Get",
                    method=b"POST",
                    headers=(
                        (b"content-type", content_type.encode()),
                        (b"content-length", b"%d" % len(body)),
                    ),
                    body=body,
                )
                message = await caller.whole(stream)
            status, answered, got = message.status, bytes(message.body), message.get(b"content-type").decode()
            head = message.get(b"x-head").decode()
        outcome = await way.front.seen.outcome()
    messages, trailers = read_answer(content_type, answered)
    assert (status, got, head, messages) == (200, content_type, "1", many)
    assert trailers == {"grpc-status": "0", "grpc-message": "fine", "x-end": "2"}
    assert (outcome.status, outcome.grpc_code, outcome.attempts[-1].grpc_code) == (200, 0, 0)


@pytest.mark.parametrize("content_type", TYPES[1:])
async def test_bodies_beyond_all_windows_pass_both_ways(engine: str, content_type: str) -> None:
    size = 3 << 19
    message = b"\x00" + size.to_bytes(4, "big") + bytes(size)
    body = base64.b64encode(message) if "-text" in content_type else message
    async with serving(echo) as app, way_to(engine, app) as way, connect(way.port) as caller:
        response = await caller.request(
            "POST", "/shop.Cart/Get", headers=[("Content-Type", content_type)], body=body
        )
    messages, trailers = read_answer(content_type, response.body)
    assert (response.status, messages == message, trailers["grpc-status"]) == (200, True, "0")


@pytest.mark.parametrize("content_type", TYPES)
async def test_answer_of_trailers_alone_has_them_in_its_body(engine: str, content_type: str) -> None:
    async with serving(echo) as app, way_to(engine, app) as way, connect(way.port) as caller:
        response = await caller.request(
            "POST", "/shop.Cart/Only", headers=[("Content-Type", content_type)], body=b""
        )
        outcome = await way.front.seen.outcome()
    messages, trailers = read_answer(content_type, response.body)
    assert (response.status, response.get("grpc-status"), messages) == (200, "", b"")
    assert trailers == {"grpc-status": "5", "grpc-message": "none"}
    assert (outcome.status, outcome.grpc_code, outcome.attempts[-1].grpc_code) == (200, 5, 5)


@pytest.mark.parametrize("begun", [False, True], ids=["no-answer", "begun"])
@pytest.mark.parametrize("content_type", TYPES[1:])
async def test_deadline_ends_in_a_trailer_frame(engine: str, content_type: str, begun: bool) -> None:
    async def app(peer: FramePeer) -> None:
        stream = await peer.next_request()
        assert peer.message(stream).get(b"grpc-timeout")
        if begun:
            await peer.respond(stream, headers=HEAD[1:], body=MESSAGE, end=False)
        await peer.to_the_end()

    async with serving(app) as port, way_to(engine, port) as way, connect(way.port) as caller:
        headers = [("Content-Type", content_type), ("grpc-timeout", "200m")]
        response = await caller.request("POST", "/shop.Cart/Get", headers=headers, body=b"")
    messages, trailers = read_answer(content_type, response.body)
    assert (response.status, response.get("content-type")) == (200, content_type)
    assert (messages, trailers["grpc-status"]) == (MESSAGE if begun else b"", "4")


@pytest.mark.parametrize("content_type", TYPES)
async def test_own_errors_end_in_a_trailer_frame(engine: str, content_type: str) -> None:
    async with way_to(engine, free_port()) as way, connect(way.port) as caller:
        headers = [("Content-Type", content_type)]
        response = await caller.request("POST", "/shop.Cart/Get", headers=headers, body=b"")
    messages, trailers = read_answer(content_type, response.body)
    assert (response.status, response.get("postern-error"), messages) == (200, "connect", b"")
    assert (trailers["grpc-status"], trailers["postern-error"]) == ("14", "connect")


async def test_text_that_is_no_base64_is_a_bad_request(engine: str) -> None:
    async with serving(echo) as app, way_to(engine, app) as way, connect(way.port) as caller:
        headers = [("Content-Type", TYPES[2])]
        response = await caller.request("POST", "/shop.Cart/Get", headers=headers, body=b"!!!!")
    assert read_answer(TYPES[2], response.body)[1]["postern-error"] == "bad-request"


@pytest.mark.parametrize("content_type", [*TYPES, "application/grpcish"])
async def test_app_that_speaks_http_gets_it_as_it_is(engine: str, hops: str, content_type: str) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert head is not None
        seen.extend(head.headers)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nContent-Length: 4\r\n\r\nbody")

    seen: list[tuple[str, str]] = []
    async with raw_app(app) as port, leading(engine, hops, port) as way, dial(way.port) as caller:
        headers = ((b"content-type", content_type.encode()), (b"grpc-timeout", b"5S"))
        stream = await caller.request(b"/shop.Cart/Get", method=b"POST", headers=headers, body=MESSAGE)
        message = await caller.whole(stream)
    got = {name.lower(): value for name, value in seen}
    assert (got["content-type"], got["grpc-timeout"], got.get("te")) == (content_type, "5S", None)
    assert (message.get(b"content-type"), bytes(message.body)) == (b"x/y", b"body")
