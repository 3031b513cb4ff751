"""HTTP/2 connections as something shared: fair between streams, bounded towards who does not read, and left without losing a call."""

import asyncio
from collections import Counter

from proxy.contract.engine import Limits
from tests.conformance.frames import ACK, Code, Kind, Setting, frame, settings, window
from tests.unit.proxy.wire.test_http2 import PSEUDO, Server, Transport

LIMITS = Limits(window_bytes=16_384, connection_window_bytes=65_535, streams=100)


class Unread(Transport):
    """A transport whose other side reads nothing: all that is written stays."""

    def get_write_buffer_size(self) -> int:
        """Everything."""
        return len(self.written)


def unread(limits: Limits = LIMITS) -> Server:
    """A server whose peer has stopped reading."""
    server = Server(limits=limits)
    server.transport.__class__ = Unread
    server.end.pause_writing()
    return server


async def test_streams_share_the_connection_window_in_turn() -> None:
    server = Server()
    server.say(settings({Setting.INITIAL_WINDOW_SIZE: 1 << 24}))
    for stream in (1, 3, 5):
        down = server.ask(stream).down
        down.respond(200, (), end=False)
        down.send(bytes(1 << 20))
    server.did()
    shares: Counter[int] = Counter()
    for _ in range(30):
        for got in server.say(window(0, 10_000)):
            if got.kind == Kind.DATA:
                shares[got.stream] += len(got.payload)
    assert sum(shares.values()) == 300_000
    assert min(shares[stream] for stream in (1, 3, 5)) >= 90_000


async def test_answers_to_a_peer_that_reads_nothing_are_bounded() -> None:
    """Answers without a body pass no window: without a bound of their own they would pile up for as long as requests come."""
    server = unread()
    for stream in range(1, 2_001, 2):
        if server.transport.closing:
            break
        server.ask(stream).down.respond(404, ((b"x", b"%0200d" % stream),), end=True)
    assert server.transport.closing
    assert len(server.transport.written) < 200_000
    assert server.counted == ["unread-answers"]


async def test_answers_to_a_peer_that_pauses_for_a_moment_wait() -> None:
    server = unread()
    for stream in range(1, 101, 2):
        server.ask(stream).down.respond(404, ((b"x", b"%0200d" % stream),), end=True)
    assert not server.transport.closing


async def test_request_under_way_when_the_last_call_ends_is_still_taken_after_a_goaway() -> None:
    server = Server()
    heard = server.ask(1)
    server.end.start_drain()
    server.did()
    heard.down.respond(200, (), end=True)
    server.did()
    await turn()
    assert not server.transport.closing  # the peer may have sent more before it read our GOAWAY
    late = server.ask(3)
    late.down.respond(200, (), end=True)
    assert [f.kind for f in server.did()] == [Kind.HEADERS]
    server.say(frame(Kind.PING, ACK, 0, b"goodbye!"))
    await turn()
    assert server.transport.closing


async def test_answer_to_an_earlier_ping_is_none_to_the_goaway() -> None:
    server = Server()
    heard = server.ask(1)
    server.end.check_alive(server.end.active_at + 11.0)
    server.end.start_drain()
    heard.down.respond(200, (), end=True)
    server.did()
    server.say(frame(Kind.PING, ACK, 0, b"postern!"))
    await turn()
    assert not server.transport.closing
    server.say(frame(Kind.PING, ACK, 0, b"goodbye!"))
    await turn()
    assert server.transport.closing


async def test_peer_that_sent_goaway_itself_is_left_with_its_last_call() -> None:
    server = Server()
    heard = server.ask(1)
    server.say(frame(Kind.GOAWAY, 0, 0, bytes(8)))
    heard.down.respond(200, (), end=True)
    server.did()
    await turn()
    assert server.transport.closing


async def turn() -> None:
    """Let what was scheduled for the next turns of the loop run."""

    for _ in range(3):
        await asyncio.sleep(0)


async def test_call_begun_after_the_goaway_was_understood_is_refused() -> None:
    """Else who ignores it could stay for ever, on a certificate that has ended since."""
    server = Server()
    server.ask(1, end=False)
    server.end.start_drain()
    server.say(frame(Kind.PING, ACK, 0, b"goodbye!"))
    answers = server.say(server.peer.head(3, PSEUDO, end=True))
    assert [(f.kind, f.stream, f.code) for f in answers] == [(Kind.RST_STREAM, 3, Code.REFUSED_STREAM)]
    assert len(server.requests.heard) == 1
    assert not server.transport.closing


async def test_call_begun_long_after_a_goaway_that_was_never_answered_is_refused() -> None:
    server = Server()
    server.ask(1, end=False)
    server.end.start_drain()
    server.end.check_alive(asyncio.get_running_loop().time() + Limits().head_s + 1.0)
    answers = server.say(server.peer.head(3, PSEUDO, end=True))
    assert [(f.kind, f.code) for f in answers if f.stream == 3] == [(Kind.RST_STREAM, Code.REFUSED_STREAM)]
    assert len(server.requests.heard) == 1


async def test_connection_that_is_closing_is_left_alone() -> None:
    """uvloop raises where a closed transport is written to, and the sweep that did so would end the engine."""
    server = Server()
    server.say(frame(Kind.HEADERS, 0, 1, b"\x82"))  # a head that never ends
    server.end.shut()
    server.end.start_drain()
    server.end.shut()
    server.end.check_alive(asyncio.get_running_loop().time() + Limits().head_s + 1.0)
    assert server.transport.closing
