"""A complete answer reaches the caller whole, however the callee ends stream and connection after it (RFC 9113 §8.1, §6.8)."""

import socket
import struct

import pytest

from tests.conformance.frames import END_STREAM, Code, FramePeer, Kind, dial, frame, goaway, reset, serving
from tests.conformance.harness import leading
from tests.support.http_client import connect
from tests.support.http_wire import format_chunk

OK = ((b":status", b"200"),)
BODY = b"x" * 20_000
KINDS = ("head", "body", "trailers")
FRAMINGS = {
    "whole": ("Content-Length", "0"),
    "length": ("Content-Length", "100000"),
    "chunked": ("Transfer-Encoding", "chunked"),
}
PART = {"length": BODY, "chunked": format_chunk(BODY)}


def answer(peer: FramePeer, stream: int, kind: str) -> list[bytes]:
    """The frames of a whole answer."""
    if kind == "head":
        return [peer.head(stream, OK, end=True)]
    first, second = (frame(Kind.DATA, flags, stream, BODY[:10_000]) for flags in (0, END_STREAM))
    if kind == "body":
        return [peer.head(stream, OK), first, second]
    return [peer.head(stream, OK), first, first, peer.head(stream, ((b"x-sum", b"9"),), end=True)]


@pytest.mark.parametrize("then", ["stays", "reset", "reset-cancel", "goaway", "closes", "aborts"])
@pytest.mark.parametrize("request_is", FRAMINGS)
async def test_whole_answer_arrives_however_the_app_ends(
    engine: str, hops: str, then: str, request_is: str
) -> None:
    kind = ""

    async def app(peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            endings = {
                "reset": [reset(stream, Code.NO_ERROR)],
                "reset-cancel": [reset(stream, Code.CANCEL)],
                "goaway": [reset(stream, Code.NO_ERROR), goaway(stream)],
            }
            await peer.send(*answer(peer, stream, kind), *endings.get(then, []))
            if then == "aborts":
                linger = struct.pack("ii", 1, 0)  # TCP RST
                peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                peer.writer.transport.abort()
            if then in {"goaway", "closes", "aborts"}:
                return

    async with serving(app) as port, leading(engine, hops, port, wire="h2c") as way:
        for kind in KINDS:
            body = b"" if kind == "head" else BODY
            async with connect(way.port) as caller:
                await caller.send_head("POST", "/", [FRAMINGS[request_is]])
                if request_is != "whole":
                    await caller.send(PART[request_is])
                response = await caller.read_response("POST")
            assert (response.status, response.body) == (200, body)
            assert response.trailers == ([("x-sum", "9")] if kind == "trailers" else [])
            async with dial(way.port) as peer:
                stream = await peer.request(method=b"POST", end=request_is == "whole")
                message = await peer.whole(stream)
            assert (message.status, bytes(message.body), message.ended) == (200, body, True)
