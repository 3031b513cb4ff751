"""The caller's end of HTTP/1.1, without sockets: bytes in, calls and bytes out."""

import asyncio
import json

import pytest

from proxy.contract.engine import Limits
from proxy.contract.plan import Cause
from proxy.wire.http1_server import Http1Server
from tests.conformance.corpus.http1 import BAD_BODIES, BAD_HEADS, GOOD, Bad, Good
from tests.fakes.exchange import HeardRequest, Requests
from tests.fakes.transport import FakeTransport

GET = b"GET /a?b HTTP/1.1\r\nHost: cart\r\nX-One: 1\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n"
OFFER = (
    b"GET /chat HTTP/1.1\r\nHost: cart\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: chat\r\n\r\n"
)


class Wire:
    """One server on a fake transport."""

    def __init__(
        self, requests: Requests | None = None, limits: Limits | None = None, **kwargs: bool
    ) -> None:
        self.requests = requests or Requests()
        self.counted: list[str] = []
        self.closed = 0
        self.server = Http1Server(self.requests, limits or Limits(), self.counted.append, self._closed)
        self.transport = FakeTransport(self.server, **kwargs)
        self.server.connection_made(self.transport)

    def _closed(self) -> None:
        self.closed += 1

    @property
    def last(self) -> HeardRequest:
        return self.requests.last

    def paused(self) -> bool:
        return self.transport.paused

    def answered(self) -> bytes:
        """The status line."""
        return self.transport.written.partition(b"\r\n")[0]


async def turn() -> None:
    """Let what was scheduled for the next turns of the loop run."""
    for _ in range(3):
        await asyncio.sleep(0)


def ok(request: HeardRequest) -> None:
    request.down.respond(200, ((b"content-length", b"2"),), end=False)
    request.down.send(b"ok")
    request.down.finish(())


# --- reading requests


async def test_get_is_told_with_authority_and_forwarded_headers() -> None:
    wire = Wire()
    wire.transport.feed(GET)
    head = wire.last.head
    assert (head.protocol, head.method, head.authority, head.target) == ("http1", b"GET", b"cart", b"/a?b")
    assert head.headers == ((b"x-one", b"1"),)
    assert (head.framing, head.length) == ("none", 0)
    assert wire.last.ended


async def test_body_of_known_length_is_told_as_it_comes() -> None:
    wire = Wire()
    wire.transport.feed(POST + b"he")
    assert (wire.last.head.framing, wire.last.head.length) == ("length", 5)
    assert (wire.last.body, wire.last.ended) == (b"he", False)
    wire.transport.feed(b"llo")
    assert (wire.last.body, wire.last.trailers) == (b"hello", ())


async def test_chunked_body_and_trailers_are_told() -> None:
    wire = Wire()
    wire.transport.feed(CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 9\r\n\r\n")
    assert (wire.last.head.framing, wire.last.head.length) == ("stream", None)
    assert (wire.last.body, wire.last.trailers) == (b"hello", ((b"x-sum", b"9"),))


async def test_tiny_chunks_are_read_in_turns_and_the_next_request_after_them() -> None:
    wire = Wire()
    wire.transport.feed(CHUNKED + b"1\r\nx\r\n" * 5_000 + b"0\r\n\r\n" + GET)
    first = wire.last
    assert 0 < len(first.body) < 5_000
    assert wire.paused()
    for _ in range(20):
        await asyncio.sleep(0)
    assert first.body == b"x" * 5_000
    ok(first)
    assert wire.last is not first
    assert wire.last.head.method == b"GET"


async def test_answer_before_the_end_of_tiny_chunks_leaves_the_connection_for_the_next_request() -> None:
    wire = Wire()
    wire.transport.feed(CHUNKED + b"1\r\nx\r\n" * 5_000 + b"0\r\n\r\n" + GET)
    first = wire.last
    ok(first)
    for _ in range(20):
        await asyncio.sleep(0)
    assert wire.last is not first
    assert wire.last.head.method == b"GET"


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
async def test_good_message_in_single_bytes_is_told_whole(good: Good) -> None:
    wire = Wire()
    for i in range(len(good.data)):
        wire.transport.feed(good.data[i : i + 1])
    head = wire.last.head
    assert (head.method, head.target, head.authority) == (good.method, good.target, good.authority)
    assert (wire.last.body, wire.last.trailers) == (good.body, good.trailers)
    assert wire.counted == []


# --- refusing


@pytest.mark.parametrize("bad", BAD_HEADS, ids=lambda bad: bad.name)
async def test_bad_head_is_answered_as_json_and_closed(bad: Bad) -> None:
    wire = Wire()
    wire.transport.feed(bad.data)
    wire.transport.feed(b"GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n")
    await turn()
    assert wire.requests.heard == []
    head, _, body = wire.transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % bad.status)
    assert b"postern-error: bad-request" in head
    assert b"connection: close" in head
    assert json.loads(body)["errorCode"] == "ERR_BAD_REQUEST"
    assert wire.transport.eof_written
    assert len(wire.counted) == 1
    wire.transport.feed_eof()
    await turn()
    assert wire.closed == 1


@pytest.mark.parametrize("bad", BAD_BODIES, ids=lambda bad: bad.name)
async def test_bad_body_ends_the_call_and_is_answered(bad: Bad) -> None:
    wire = Wire()
    wire.transport.feed(bad.data)
    await turn()
    assert wire.last.gone is not None
    assert not wire.last.ended
    assert wire.answered().startswith(b"HTTP/1.1 %d " % bad.status)
    assert len(wire.requests.heard) == 1


async def test_bad_body_after_the_response_began_cuts_the_connection() -> None:
    wire = Wire()
    wire.transport.feed(CHUNKED)
    wire.last.down.respond(200, (), end=False)
    await turn()
    wire.transport.feed(b"zz\r\n")
    assert wire.last.gone is not None
    assert wire.transport.closing
    assert b"400" not in wire.transport.written


async def test_slow_head_is_answered_408() -> None:
    wire = Wire(limits=Limits(head_s=0.01))
    wire.transport.feed(b"GET / HT")
    async with asyncio.timeout(30):
        await wire.transport.ended.wait()
    assert wire.answered() == b"HTTP/1.1 408 Request Timeout"


async def test_idle_connection_is_closed() -> None:
    wire = Wire(limits=Limits(idle_s=0.01))
    async with asyncio.timeout(30):
        await wire.transport.ended.wait()
    assert wire.transport.written == b""


# --- answering


async def test_response_leaves_in_one_write() -> None:
    wire = Wire()
    wire.transport.feed(GET)
    ok(wire.last)
    assert wire.transport.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]
    assert not wire.server.busy


async def test_streamed_response_is_chunked_and_carries_trailers() -> None:
    wire = Wire()
    wire.transport.feed(GET)
    wire.last.down.respond(200, ((b"x", b"y"),), end=False)
    wire.last.down.send(b"one")
    await turn()
    wire.last.down.send(b"two")
    wire.last.down.finish(((b"x-sum", b"6"),))
    assert wire.transport.writes == [
        b"HTTP/1.1 200 OK\r\nx: y\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
        b"3\r\ntwo\r\n0\r\nx-sum: 6\r\n\r\n",
    ]


async def test_trailers_after_a_known_length_are_dropped() -> None:
    wire = Wire()
    wire.transport.feed(GET)
    wire.last.down.respond(200, ((b"content-length", b"1"),), end=False)
    wire.last.down.send(b"!")
    wire.last.down.finish(((b"x-sum", b"6"),))
    assert wire.transport.written.endswith(b"\r\n\r\n!")


async def test_response_without_body_says_length_zero() -> None:
    wire = Wire()
    wire.transport.feed(GET)
    wire.last.down.respond(200, (), end=True)
    assert wire.transport.written == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("status", [204, 304])
async def test_status_without_body_is_sent_without_framing(status: int) -> None:
    wire = Wire()
    wire.transport.feed(GET)
    wire.last.down.respond(status, ((b"x", b"y"),), end=True)
    head = wire.transport.written
    assert b"ength" not in head
    assert b"chunked" not in head
    wire.transport.feed(GET)
    assert len(wire.requests.heard) == 2


async def test_head_keeps_the_length_and_drops_the_body() -> None:
    wire = Wire()
    wire.transport.feed(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    wire.last.down.respond(200, ((b"content-length", b"1234"),), end=False)
    wire.last.down.send(b"body")
    wire.last.down.finish(())
    assert wire.transport.written == b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n"
    await turn()
    wire.transport.feed(GET)
    assert len(wire.requests.heard) == 2


async def test_http_1_0_response_of_unknown_length_ends_with_the_connection() -> None:
    wire = Wire()
    wire.transport.feed(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    wire.last.down.inform(103, ())
    wire.last.down.respond(200, (), end=False)
    wire.last.down.send(b"data")
    wire.last.down.finish(((b"x", b"dropped"),))
    await turn()
    assert wire.transport.written == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ndata"
    assert wire.transport.closing
    assert not wire.transport.aborted


async def test_http_1_0_response_that_breaks_is_reset() -> None:
    wire = Wire()
    wire.transport.feed(b"GET / HTTP/1.0\r\n\r\n")
    wire.last.down.respond(200, (), end=False)
    wire.last.down.send(b"data")
    wire.last.down.abort(Cause.RESET_LATE)
    assert wire.transport.aborted


async def test_aborted_response_ends_without_the_last_chunk() -> None:
    wire = Wire()
    wire.transport.feed(GET)
    wire.last.down.respond(200, (), end=False)
    wire.last.down.send(b"data")
    wire.last.down.abort(Cause.RESET_LATE)
    await turn()
    assert wire.transport.written.endswith(b"4\r\ndata\r\n")
    assert wire.closed == 1
    assert wire.last.gone is None


@pytest.mark.parametrize("data", [b"x", b"xyz"], ids=["short", "long"])
async def test_response_of_another_length_than_said_is_cut(data: bytes) -> None:
    wire = Wire()
    wire.transport.feed(GET)
    wire.last.down.respond(200, ((b"content-length", b"2"),), end=False)
    wire.last.down.send(data)
    wire.last.down.finish(())
    await turn()
    assert wire.closed == 1
    assert wire.last.gone is not None


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\nb", b"a\x00b"])
async def test_header_that_would_split_the_response_becomes_502(value: bytes) -> None:
    wire = Wire()
    wire.transport.feed(GET)
    wire.last.down.respond(200, ((b"x", value),), end=True)
    await turn()
    assert wire.answered() == b"HTTP/1.1 502 Bad Gateway"
    assert wire.transport.eof_written


async def test_informational_answers_precede_the_response() -> None:
    wire = Wire()
    wire.transport.feed(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert dict(wire.last.head.headers)[b"expect"] == b"100-continue"
    wire.last.down.inform(100, ())
    await turn()
    assert wire.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.transport.feed(b"hi")
    ok(wire.last)
    wire.transport.feed(GET)
    assert len(wire.requests.heard) == 2


async def test_refusal_instead_of_100_closes_since_a_body_may_or_may_not_come() -> None:
    wire = Wire()
    wire.transport.feed(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    wire.last.down.respond(417, (), end=True)
    assert b"connection: close" in wire.transport.written.lower()
    wire.transport.feed(GET)
    assert len(wire.requests.heard) == 1


# --- one after another


async def test_pipelined_requests_are_told_one_by_one() -> None:
    wire = Wire()
    wire.transport.feed(GET + POST + b"hello" + GET)
    assert len(wire.requests.heard) == 1
    ok(wire.last)
    assert (len(wire.requests.heard), wire.last.body) == (2, b"hello")
    ok(wire.last)
    ok(wire.last)
    assert len(wire.requests.heard) == 3
    assert wire.transport.written.count(b"HTTP/1.1 200 OK") == 3
    assert not wire.transport.closing


async def test_pipelined_requests_answered_at_once_do_not_recurse() -> None:
    wire = Wire(Requests(ok), limits=Limits(head_bytes=1_000_000))
    wire.transport.feed(GET * 2000)
    assert len(wire.requests.heard) == 2000
    assert all(not request.ended for request in wire.requests.heard)  # answered before they could hear of it


async def test_pipelined_flood_pauses_reading_until_it_is_needed() -> None:
    wire = Wire(limits=Limits(head_bytes=100))
    wire.transport.feed(GET * 4)
    assert wire.paused()
    for _ in range(4):
        ok(wire.last)
    assert not wire.paused()
    assert len(wire.requests.heard) == 4


async def test_connection_close_is_honoured() -> None:
    wire = Wire()
    wire.transport.feed(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET)
    ok(wire.last)
    assert len(wire.requests.heard) == 1
    assert wire.transport.closing


async def test_unread_body_is_discarded_and_the_connection_kept() -> None:
    wire = Wire()
    wire.transport.feed(POST + b"he")
    ok(wire.last)
    wire.transport.feed(b"llo" + GET)
    assert len(wire.requests.heard) == 2
    assert wire.requests.heard[0].body == b"he"


async def test_unread_body_that_takes_long_costs_the_connection_after_the_answer() -> None:
    wire = Wire(limits=Limits(head_s=0.01))
    wire.transport.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    wire.last.down.respond(413, (), end=True)
    assert not wire.transport.ended.is_set()
    async with asyncio.timeout(30):
        await wire.transport.ended.wait()
    assert wire.transport.eof_written
    wire.transport.feed(b"x" * 1000)
    assert wire.last.body == b""
    assert not wire.transport.closing  # what was said must be readable first
    wire.transport.feed_eof()
    await turn()
    assert wire.closed == 1


# --- leaving


@pytest.mark.parametrize("lost", [False, True], ids=["eof", "lost"])
async def test_caller_that_hangs_up_is_told_once(lost: bool) -> None:
    wire = Wire()
    wire.transport.feed(GET)
    if lost:
        wire.transport.lose(ConnectionResetError("reset"))
    else:
        wire.transport.feed_eof()
    assert wire.last.gone is not None
    await turn()
    assert wire.closed == 1
    wire.last.down.respond(200, (), end=True)
    wire.last.down.abort(Cause.TIMEOUT)
    assert wire.transport.written == b""


async def test_drain_closes_idle_connections_at_once() -> None:
    wire = Wire()
    wire.server.start_drain()
    await turn()
    assert wire.closed == 1


async def test_drain_lets_the_call_finish_and_says_close() -> None:
    wire = Wire()
    wire.transport.feed(GET + GET)
    wire.server.start_drain()
    assert wire.server.busy
    ok(wire.last)
    assert b"connection: close" in wire.transport.written.lower()
    await turn()
    assert wire.closed == 1
    assert len(wire.requests.heard) == 1


async def test_close_cuts_the_call() -> None:
    wire = Wire()
    wire.transport.feed(GET)
    wire.server.close()
    await turn()
    assert wire.last.gone is not None
    assert wire.closed == 1


# --- credit


async def test_reading_pauses_while_the_body_is_not_acked() -> None:
    wire = Wire(Requests(acking=False), limits=Limits(window_bytes=1000))
    wire.transport.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + b"x" * 900)
    assert not wire.paused()
    wire.transport.feed(b"x" * 200)
    assert wire.paused()
    wire.last.down.ack(200)
    assert not wire.paused()


async def test_credit_is_given_once_the_transport_takes_more() -> None:
    wire = Wire()
    wire.transport.feed(GET)
    wire.last.down.respond(200, (), end=False)
    wire.last.down.send(b"x" * 10)
    assert wire.last.drained == 0
    await turn()
    assert wire.last.drained == 10
    wire.server.pause_writing()
    wire.last.down.send(b"x" * 7)
    await turn()
    assert wire.last.drained == 10
    wire.server.resume_writing()
    assert wire.last.drained == 17


# --- WebSocket


async def test_websocket_offer_is_told_as_a_tunnel_and_accepted_with_101() -> None:
    wire = Wire()
    wire.transport.feed(OFFER)
    head = wire.last.head
    assert (head.protocol, head.method, head.framing, head.length) == ("websocket", b"GET", "stream", None)
    assert head.headers == ((b"sec-websocket-version", b"13"), (b"sec-websocket-protocol", b"chat"))
    assert not wire.last.ended
    wire.transport.feed(b"early")
    wire.last.down.respond(200, ((b"sec-websocket-protocol", b"chat"),), end=False)
    await turn()
    assert wire.transport.written == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: chat\r\n\r\n"
    )
    assert wire.last.body == b"early"
    wire.transport.feed(b"\x81\x02hi")
    wire.last.down.send(b"\x81\x02ho")
    await turn()
    assert wire.last.body == b"early\x81\x02hi"
    assert wire.transport.writes[-1] == b"\x81\x02ho"
    assert wire.last.drained == 4


@pytest.mark.parametrize("caller_first", [False, True])
async def test_tunnel_closes_when_both_directions_have_ended(caller_first: bool) -> None:
    wire = Wire()
    wire.transport.feed(OFFER)
    wire.last.down.respond(200, (), end=False)
    if caller_first:
        wire.transport.feed_eof()
        assert wire.last.ended
        assert not wire.transport.closing
        wire.last.down.send(b"bye")
        wire.last.down.finish(())
    else:
        wire.last.down.send(b"bye")
        wire.last.down.finish(())
        assert wire.transport.eof_written
        assert not wire.transport.closing
        wire.transport.feed_eof()
        assert wire.last.ended
    await turn()
    assert wire.closed == 1
    assert wire.last.gone is None
    assert wire.transport.written.endswith(b"\r\n\r\nbye")


async def test_tunnel_accepted_before_accept_returns_works() -> None:
    wire = Wire(Requests(lambda request: request.down.respond(200, (), end=False)))
    wire.transport.feed(OFFER + b"frame")
    assert wire.last.body == b"frame"
    wire.last.down.abort(Cause.TIMEOUT)
    assert wire.transport.aborted


async def test_refused_websocket_is_an_ordinary_response() -> None:
    wire = Wire()
    wire.transport.feed(OFFER)
    wire.last.down.respond(403, (), end=True)
    assert wire.answered() == b"HTTP/1.1 403 Forbidden"
    wire.transport.feed(GET)
    assert wire.last.head.protocol == "http1"


@pytest.mark.parametrize(
    "change",
    [
        (b"Upgrade: WebSocket", b"Upgrade: h2c"),
        (b"Upgrade: WebSocket", b"Upgrade: websocket, h2c"),
        (b"keep-alive, Upgrade", b"keep-alive"),
        (b"Version: 13", b"Version: 8"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
        (b"GET /chat", b"PUT /chat"),
    ],
    ids=["h2c", "two-offers", "no-option", "version", "key", "method"],
)
async def test_other_upgrade_offers_are_ignored(change: tuple[bytes, bytes]) -> None:
    wire = Wire()
    wire.transport.feed(OFFER.replace(*change))
    assert wire.last.head.protocol == "http1"
    assert wire.last.ended
    assert b"upgrade" not in dict(wire.last.head.headers)
    ok(wire.last)
    wire.transport.feed(GET)
    assert len(wire.requests.heard) == 2


# --- handed over


async def test_take_over_reads_what_was_read_already() -> None:
    requests = Requests(ok)
    server = Http1Server(requests, Limits(), lambda _: None, lambda: None)
    transport = FakeTransport(asyncio.Protocol())
    transport.pause_reading()
    server.take_over(transport, GET[:20])
    assert transport.get_protocol() is server
    assert transport.is_reading()
    transport.feed(GET[20:])
    assert len(requests.heard) == 1


async def test_initial_bytes_are_read_first() -> None:
    requests = Requests(ok)
    server = Http1Server(requests, Limits(), lambda _: None, lambda: None, initial=GET)
    server.connection_made(FakeTransport(server))
    assert len(requests.heard) == 1
