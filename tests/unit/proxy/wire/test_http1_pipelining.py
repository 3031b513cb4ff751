"""Pipelined requests of a caller that does not read its answers: they wait, instead of filling our memory with answers."""

from proxy.contract.engine import Limits
from tests.fakes.exchange import HeardRequest, Requests
from tests.unit.proxy.wire.test_http1_server import GET, Wire, turn

LIMITS = Limits(head_bytes=16_384)


def refuse(request: HeardRequest) -> None:
    request.down.respond(404, ((b"content-length", b"400"),), end=False)
    request.down.send(b"x" * 400)
    request.down.finish(())


async def test_requests_wait_while_their_answers_are_not_read() -> None:
    wire = Wire(Requests(refuse), LIMITS)
    wire.transport.feed(GET)
    wire.server.pause_writing()
    await turn()
    for _ in range(1_000):
        if wire.paused():
            break
        wire.transport.feed(GET * 10)
        await turn()
    assert wire.paused()
    assert len(wire.requests.heard) == 1
    assert len(wire.transport.written) < 2_000


async def test_requests_go_on_once_their_answers_are_read() -> None:
    wire = Wire(Requests(refuse), LIMITS)
    wire.transport.feed(GET)
    wire.server.pause_writing()
    await turn()
    wire.transport.feed(GET * 3)
    await turn()
    assert len(wire.requests.heard) == 1
    wire.server.resume_writing()
    await turn()
    assert len(wire.requests.heard) == 4
    assert wire.transport.written.count(b"HTTP/1.1 404") == 4
    assert not wire.paused()


async def test_answer_that_fills_the_buffer_holds_back_the_next_request_only() -> None:
    wire = Wire(Requests(refuse), LIMITS)
    wire.server.pause_writing()
    wire.transport.feed(GET)
    await turn()
    assert len(wire.requests.heard) == 0
    wire.server.resume_writing()
    await turn()
    assert wire.answered() == b"HTTP/1.1 404 Not Found"
