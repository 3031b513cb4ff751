"""The callee's end of HTTP/1.1, without sockets: calls in, bytes out, and what an app's bytes become."""

import asyncio

import pytest

from proxy.contract.engine import Limits
from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.wire.http1_client import Http1Client
from proxy.wire.http1_request import ClientCall
from proxy.wire.streams import RawHead, Wire
from proxy.wire.websocket import accept_of
from tests.conformance.corpus.http1 import BAD_ANSWERS, BadAnswer
from tests.fakes.exchange import HeardResponse, Owner
from tests.fakes.transport import FakeTransport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def head(
    method: bytes = b"GET",
    target: bytes = b"/a?b",
    headers: Headers = (),
    *,
    authority: bytes = b"cart",
    protocol: Wire = "http1",
) -> RawHead:
    return RawHead(
        protocol=protocol,
        method=method,
        authority=authority,
        target=target,
        headers=headers,
        framing="none",
        length=None,
    )


class Dialled:
    """One client on a fake transport."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.owner = Owner()
        self.counted: list[str] = []
        self.client = Http1Client(self.owner, limits or Limits(), self.counted.append)
        self.transport = FakeTransport(self.client)
        self.client.connection_made(self.transport)
        self.calls: list[ClientCall] = []

    def call(self, request: RawHead | None = None, *, end: bool = True) -> HeardResponse:
        heard = HeardResponse()
        call = self.client.open(heard)
        self.calls.append(call)
        call.start(request or head(), end=end)
        return heard

    @property
    def last(self) -> ClientCall:
        return self.calls[-1]

    def capacity(self) -> int:
        return self.client.capacity

    def paused(self) -> bool:
        return self.transport.paused


async def turn() -> None:
    """Let what was scheduled for the next turns of the loop run."""
    for _ in range(3):
        await asyncio.sleep(0)


# --- requests


async def test_get_is_written_at_once_in_origin_form_with_host_first() -> None:
    dialled = Dialled()
    dialled.call(
        head(headers=((b"x-one", b"1"), (b"host", b"evil"), (b"connection", b"close"), (b"x-two", b" 2\t")))
    )
    assert dialled.transport.writes == [b"GET /a?b HTTP/1.1\r\nHost: cart\r\nx-one: 1\r\nx-two: 2\r\n\r\n"]
    assert dialled.capacity() == 0
    assert dialled.client.in_flight == 1


@pytest.mark.parametrize(
    ("method", "target", "written"),
    [
        (b"GET", b"http://cart/x?y", b"/x?y"),
        (b"GET", b"http://cart?y=/z", b"/?y=/z"),
        (b"GET", b"http://cart", b"/"),
        (b"OPTIONS", b"http://cart", b"*"),
        (b"OPTIONS", b"*", b"*"),
    ],
)
async def test_target_is_written_as_an_origin_server_expects_it(
    method: bytes, target: bytes, written: bytes
) -> None:
    dialled = Dialled()
    dialled.call(head(method, target))
    assert dialled.transport.written.startswith(method + b" " + written + b" HTTP/1.1\r\n")


async def test_known_length_is_kept_and_head_and_body_leave_in_one_write() -> None:
    dialled = Dialled()
    heard = dialled.call(head(b"POST", headers=((b"content-length", b"5"),)), end=False)
    dialled.last.send(b"he")
    dialled.last.send(b"llo")
    dialled.last.finish(((b"x", b"dropped"),))
    await turn()
    assert dialled.transport.writes == [b"POST /a?b HTTP/1.1\r\nHost: cart\r\ncontent-length: 5\r\n\r\nhello"]
    assert heard.drained == 5


async def test_unknown_length_is_chunked_with_trailers() -> None:
    dialled = Dialled()
    dialled.call(head(b"POST"), end=False)
    dialled.last.send(b"hello")
    dialled.last.send(b"")
    dialled.last.finish(((b"x-sum", b"9"),))
    await turn()
    assert dialled.transport.written == (
        b"POST /a?b HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 9\r\n\r\n"
    )


@pytest.mark.parametrize(
    "request_head",
    [
        head(headers=((b"x", b"a\r\nb: c"),)),
        head(headers=((b"x", b"a\nb"),)),
        head(headers=((b"x", b"a\x00b"),)),
        head(headers=((b"x y", b"a"),)),
        head(headers=((b":path", b"/"),)),
        head(headers=((b"x\r\ny", b"a"),)),
        head(target=b"/ HTTP/1.1\r\nX: y"),
        head(target=b"/\x00"),
        head(target=b""),
        head(method=b"GET /smuggled HTTP/1.1\r\n"),
        head(authority=b"a\r\nX: y"),
        head(b"POST", headers=((b"content-length", b"1"), (b"content-length", b"2"))),
        head(b"CONNECT", b"cart:80"),
    ],
)
async def test_head_that_would_say_something_else_is_never_written(request_head: RawHead) -> None:
    dialled = Dialled()
    heard = dialled.call(request_head)
    await turn()
    assert heard.lost is Cause.UNSUPPORTED
    assert dialled.transport.written == b""
    assert dialled.owner.closed is not None


@pytest.mark.parametrize("data", [b"x", b"xyz"], ids=["short", "long"])
async def test_body_of_another_length_than_said_breaks_the_call(data: bytes) -> None:
    dialled = Dialled()
    heard = dialled.call(head(b"POST", headers=((b"content-length", b"2"),)), end=False)
    dialled.last.send(data)
    dialled.last.finish(())
    await turn()
    assert heard.lost is Cause.UNSUPPORTED
    assert dialled.transport.aborted


# --- responses


async def test_response_is_told_and_the_connection_offered_again() -> None:
    dialled = Dialled()
    heard = dialled.call()
    dialled.transport.feed(OK)
    assert (heard.status, heard.body, heard.trailers) == (200, b"ok", ())
    assert heard.headers == ((b"content-length", b"2"),)
    assert dialled.capacity() == 1
    assert dialled.client.in_flight == 0
    assert dialled.owner.offers == 1
    again = dialled.call()
    dialled.transport.feed(OK)
    assert again.ended


async def test_chunked_response_in_single_bytes_is_told_with_trailers() -> None:
    dialled = Dialled()
    heard = dialled.call()
    data = (
        b"HTTP/1.1 200 OK\r\nConnection: x-gone\r\nX-Gone: 1\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
        b"2;ext\r\nok\r\n1\r\n!\r\n0\r\nX-Sum: 9\r\n\r\n"
    )
    for i in range(len(data)):
        dialled.transport.feed(data[i : i + 1])
    assert (heard.headers, heard.body, heard.trailers) == (((b"x", b"y"),), b"ok!", ((b"x-sum", b"9"),))
    assert dialled.capacity() == 1


MANY = b"1\r\nx\r\n" * 5_000


async def test_tiny_chunks_are_read_in_turns_and_the_connection_is_kept() -> None:
    dialled = Dialled()
    heard = dialled.call()
    dialled.transport.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + MANY + b"0\r\n\r\n")
    assert 0 < len(heard.body) < 5_000
    assert dialled.transport.is_reading() is False
    for _ in range(20):
        await asyncio.sleep(0)
    assert (heard.body, heard.ended) == (b"x" * 5_000, True)
    assert dialled.transport.is_reading()
    assert dialled.capacity() == 1
    again = dialled.call()
    dialled.transport.feed(OK)
    assert again.ended


@pytest.mark.parametrize("ending", ["feed_eof", "lose"])
async def test_tiny_chunks_that_came_before_the_end_are_read(ending: str) -> None:
    dialled = Dialled()
    heard = dialled.call()
    dialled.transport.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + MANY + b"0\r\n\r\n")
    getattr(dialled.transport, ending)()
    assert (heard.body, heard.ended) == (b"x" * 5_000, True)


async def test_close_delimited_response_ends_with_the_connection() -> None:
    dialled = Dialled()
    heard = dialled.call()
    dialled.transport.feed(b"HTTP/1.0 200 OK\r\n\r\nsome")
    dialled.transport.feed(b" data")
    assert not heard.ended
    dialled.transport.feed_eof()
    assert (heard.body, heard.ended) == (b"some data", True)
    await turn()
    assert dialled.owner.closed is not None
    assert dialled.owner.offers == 0


async def test_close_delimited_response_that_is_reset_is_lost() -> None:
    dialled = Dialled()
    heard = dialled.call()
    dialled.transport.feed(b"HTTP/1.1 200 OK\r\n\r\nsome")
    dialled.transport.lose(ConnectionResetError("reset"))
    assert heard.lost is Cause.RESET_LATE


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n"),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_response_without_body_ends_with_its_head(method: bytes, answer: bytes) -> None:
    dialled = Dialled()
    heard = dialled.call(head(method))
    dialled.transport.feed(answer)
    assert heard.ended
    assert dialled.capacity() == 1


async def test_informational_answers_are_told_before_the_response() -> None:
    dialled = Dialled()
    heard = dialled.call(
        head(b"POST", headers=((b"expect", b"100-continue"), (b"content-length", b"2"))), end=False
    )
    dialled.transport.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert heard.informs == [(100, ())]
    dialled.last.send(b"hi")
    dialled.last.finish(())
    await turn()
    dialled.transport.feed(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK)
    assert heard.informs[1] == (103, ((b"link", b"</x>"),))
    assert heard.ended
    assert dialled.capacity() == 1


async def test_connection_close_of_the_app_is_honoured() -> None:
    dialled = Dialled()
    heard = dialled.call()
    dialled.transport.feed(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert heard.ended
    assert dialled.capacity() == 0
    await turn()
    assert dialled.owner.closed is not None
    assert dialled.owner.offers == 0


# --- what goes wrong


@pytest.mark.parametrize("bad", BAD_ANSWERS, ids=lambda bad: bad.name)
async def test_bad_answer_is_lost_never_ended(bad: BadAnswer) -> None:
    dialled = Dialled()
    heard = dialled.call()
    if bad.data:
        dialled.transport.feed(bad.data)
    if not dialled.transport.closing:
        dialled.transport.feed_eof()
    await turn()
    assert not heard.ended
    assert heard.lost is not None
    assert (heard.lost is Cause.RESET_LATE) is bad.late
    assert heard.detail
    assert dialled.owner.closed is not None
    assert dialled.client.in_flight == 0


async def test_answer_with_a_large_head_says_so() -> None:
    dialled = Dialled(Limits(head_bytes=100))
    heard = dialled.call()
    dialled.transport.feed(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100)
    assert heard.lost is Cause.INVALID_ANSWER
    assert "larger than 100 bytes" in heard.detail


async def test_connection_closed_before_the_request_left_was_surely_not_processed() -> None:
    dialled = Dialled()
    heard = dialled.call(head(b"POST"), end=False)
    dialled.transport.lose()
    assert heard.lost is Cause.REFUSED


async def test_reused_connection_closed_without_an_answer_says_that_it_was_idle() -> None:
    dialled = Dialled()
    dialled.call()
    dialled.transport.feed(OK)
    heard = dialled.call()
    dialled.transport.feed_eof()
    assert heard.lost is Cause.RESET_EARLY
    assert heard.detail == "the app closed the connection: it was idle"


async def test_early_answer_ends_the_call_and_the_connection() -> None:
    dialled = Dialled()
    heard = dialled.call(head(b"POST"), end=False)
    dialled.last.send(b"some")
    await turn()
    dialled.transport.feed(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    assert (heard.status, heard.body, heard.ended) == (413, b"no", True)
    assert dialled.capacity() == 0
    dialled.last.send(b"more")
    dialled.last.finish(())
    dialled.last.abort()
    await turn()
    assert dialled.owner.closed is not None
    assert b"more" not in dialled.transport.written


async def test_early_answer_in_parts_keeps_the_request_going() -> None:
    dialled = Dialled()
    heard = dialled.call(head(b"POST"), end=False)
    dialled.transport.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    dialled.last.send(b"some")
    dialled.last.finish(())
    await turn()
    dialled.transport.feed(b"0\r\n\r\n")
    assert heard.ended
    assert dialled.capacity() == 1


@pytest.mark.parametrize("late", [False, True], ids=["idle", "behind-the-answer"])
async def test_bytes_that_nobody_asked_for_close_the_connection(late: bool) -> None:
    dialled = Dialled()
    heard = dialled.call()
    if late:
        dialled.transport.feed(OK + OK)
    else:
        dialled.transport.feed(OK)
        dialled.transport.feed(OK)
    assert heard.body == b"ok"
    assert dialled.capacity() == 0
    await turn()
    assert dialled.owner.closed is not None
    assert dialled.counted == ["unasked-bytes"]


async def test_idle_connection_closed_by_the_app_is_forgotten() -> None:
    dialled = Dialled()
    dialled.transport.feed_eof()
    await turn()
    assert dialled.capacity() == 0
    assert dialled.owner.closed == "the app closed the connection"


async def test_connection_idle_for_long_is_closed() -> None:
    dialled = Dialled(Limits(idle_s=0.01))
    async with asyncio.timeout(30):
        await dialled.transport.ended.wait()
    assert dialled.capacity() == 0


async def test_head_that_never_ends_is_given_up() -> None:
    dialled = Dialled(Limits(head_s=0.01))
    heard = dialled.call()
    dialled.transport.feed(b"HTTP/1.1 200 OK\r\n")
    async with asyncio.timeout(30):
        await dialled.transport.ended.wait()
    assert heard.lost is Cause.RESET_EARLY


async def test_aborted_call_closes_the_connection_and_hears_nothing_more() -> None:
    dialled = Dialled()
    heard = dialled.call()
    dialled.last.abort()
    assert dialled.transport.aborted
    assert dialled.client.in_flight == 0
    await turn()
    assert heard.lost is None
    assert not heard.status
    assert dialled.owner.closed is not None


async def test_call_aborted_by_its_own_event_hears_nothing_more() -> None:
    dialled = Dialled()

    class Leaver(HeardResponse):
        def response_data(self, data: bytes) -> None:
            super().response_data(data)
            call.abort()

    heard = Leaver()
    call = dialled.client.open(heard)
    call.start(head(), end=True)
    dialled.transport.feed(OK)
    await turn()
    assert heard.body == b"ok"
    assert not heard.ended


async def test_retired_connection_finishes_its_call_then_closes() -> None:
    dialled = Dialled()
    heard = dialled.call()
    dialled.client.retire()
    assert not dialled.transport.closing
    dialled.transport.feed(OK)
    assert heard.ended
    await turn()
    assert dialled.owner.closed == "the last call has ended"


async def test_retired_idle_connection_closes_at_once() -> None:
    dialled = Dialled()
    dialled.client.retire()
    await turn()
    assert dialled.owner.closed == "retired"


async def test_closed_connection_loses_its_call() -> None:
    dialled = Dialled()
    heard = dialled.call()
    dialled.client.close()
    await turn()
    assert heard.lost is Cause.RESET_EARLY
    assert dialled.owner.closed == "closed"


# --- credit


async def test_reading_pauses_while_the_body_is_not_acked() -> None:
    dialled = Dialled(Limits(window_bytes=1000))
    dialled.call()
    dialled.transport.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 1000)
    assert dialled.paused()
    dialled.last.ack(1)
    assert not dialled.paused()


async def test_reading_goes_on_for_the_next_call_though_nothing_was_acked() -> None:
    dialled = Dialled(Limits(window_bytes=1000))
    dialled.call()
    dialled.transport.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 1000)
    assert dialled.paused()
    dialled.client.data_received(b"x" * 1000)
    assert not dialled.paused()
    assert dialled.capacity() == 1


async def test_credit_is_given_once_the_transport_takes_more() -> None:
    dialled = Dialled()
    heard = dialled.call(head(b"POST"), end=False)
    dialled.client.pause_writing()
    dialled.last.send(b"12345")
    await turn()
    assert heard.drained == 0
    dialled.client.resume_writing()
    assert heard.drained == 5


# --- WebSocket


def offered_key(written: bytes) -> bytes:
    return written.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]


def accepting(written: bytes) -> bytes:
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: chat\r\n\r\n" % accept_of(offered_key(written))
    )


def websocket_head() -> RawHead:
    headers = (
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-protocol", b"chat"),
        (b"sec-websocket-key", b"of the caller"),
    )
    return head(b"CONNECT", b"/chat", headers, protocol="websocket")


async def test_websocket_is_offered_accepted_and_carried_both_ways() -> None:
    dialled = Dialled()
    heard = dialled.call(websocket_head(), end=False)
    assert dialled.transport.written.startswith(
        b"GET /chat HTTP/1.1\r\nHost: cart\r\nsec-websocket-protocol: chat\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    )
    assert b"of the caller" not in dialled.transport.written
    dialled.last.send(b"early")
    await turn()
    assert not dialled.transport.written.endswith(b"early")
    dialled.transport.feed(accepting(dialled.transport.written) + b"hello")
    assert (heard.status, heard.headers) == (200, ((b"sec-websocket-protocol", b"chat"),))
    dialled.last.send(b" frame")
    await turn()
    assert heard.body == b"hello"
    assert dialled.transport.written.endswith(b"\r\n\r\nearly frame")
    assert heard.drained == 11


@pytest.mark.parametrize("app_first", [False, True])
async def test_tunnel_closes_when_both_directions_have_ended(app_first: bool) -> None:
    dialled = Dialled()
    heard = dialled.call(websocket_head(), end=False)
    dialled.transport.feed(accepting(dialled.transport.written))
    if app_first:
        dialled.transport.feed_eof()
        assert heard.ended
        assert not dialled.transport.closing
        dialled.last.finish(())
    else:
        dialled.last.finish(())
        assert dialled.transport.eof_written
        assert not dialled.transport.closing
        dialled.transport.feed_eof()
    await turn()
    assert heard.ended
    assert dialled.owner.closed == "the tunnel has ended"


async def test_tunnel_that_breaks_is_lost() -> None:
    dialled = Dialled()
    heard = dialled.call(websocket_head(), end=False)
    dialled.transport.feed(accepting(dialled.transport.written))
    dialled.transport.lose(ConnectionResetError("reset"))
    assert heard.lost is Cause.RESET_LATE


async def test_websocket_refused_by_the_app_is_an_ordinary_response() -> None:
    dialled = Dialled()
    heard = dialled.call(websocket_head(), end=False)
    dialled.transport.feed(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    assert (heard.status, heard.body, heard.ended) == (403, b"no", True)
    assert dialled.capacity() == 1


@pytest.mark.parametrize("status", [200, 204])
async def test_websocket_answered_in_http_is_told_as_501(status: int) -> None:
    dialled = Dialled()
    heard = dialled.call(websocket_head(), end=False)
    dialled.transport.feed(b"HTTP/1.1 %d OK\r\nContent-Length: 0\r\n\r\n" % status)
    assert (heard.status, heard.ended) == (501, True)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ((b"Accept: ", b"Accept: x"), Cause.INVALID_ANSWER),
        ((b"Upgrade: websocket", b"Upgrade: h2c"), Cause.INVALID_ANSWER),
        ((b": Upgrade", b": x"), Cause.INVALID_ANSWER),
    ],
)
async def test_websocket_accepted_wrongly_is_lost(change: tuple[bytes, bytes], cause: Cause) -> None:
    dialled = Dialled()
    heard = dialled.call(websocket_head(), end=False)
    dialled.transport.feed(accepting(dialled.transport.written).replace(*change))
    assert heard.lost is cause
    assert not heard.status
