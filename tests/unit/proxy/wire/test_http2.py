"""Both ends of HTTP/2 without a socket: frames in, events and frames out."""

import asyncio

import pytest
from msgspec.structs import replace

from proxy.contract.engine import Limits
from proxy.contract.plan import Cause
from proxy.wire import turns
from proxy.wire.http2_client import Http2Client
from proxy.wire.http2_server import Http2Server
from proxy.wire.streams import RawHead
from tests.conformance.frames import (
    ACK,
    END_STREAM,
    PREFACE,
    Code,
    Frame,
    FramePeer,
    Kind,
    Setting,
    frame,
    goaway,
    reset,
    settings,
    window,
)
from tests.fakes.exchange import HeardRequest, HeardResponse, Owner, Requests
from tests.fakes.transport import FakeTransport

LIMITS = Limits(
    window_bytes=65_535, connection_window_bytes=65_535, streams=10, header_count=16, resets_burst=5
)
HEAD = RawHead("http2", b"GET", b"a", b"/", ((b"x", b"y"),), "none", 0)
POST = RawHead("http2", b"POST", b"a", b"/", (), "stream", None)
PSEUDO = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"))


class Transport(FakeTransport):
    """A transport whose buffer has no bound of its own."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing to do."""


def split(data: bytes) -> list[Frame]:
    """Bytes as frames."""
    frames = []
    while data:
        size = int.from_bytes(data[:3], "big")
        frames.append(
            Frame(data[3], data[4], int.from_bytes(data[5:9], "big") & 0x7FFFFFFF, data[9 : 9 + size])
        )
        data = data[9 + size :]
    return frames


def bare_peer() -> FramePeer:
    """Only for its header blocks."""
    return FramePeer(None, None)  # type: ignore[arg-type]


class Server:
    """A server end with a scripted peer."""

    def __init__(self, requests: Requests | None = None, limits: Limits = LIMITS) -> None:
        self.requests = requests or Requests()
        self.counted: list[str] = []
        self.closed = 0
        self.end = Http2Server(self.requests, limits, self.counted.append, self._closed)
        self.transport = Transport(self.end)
        self.peer = bare_peer()
        self.end.connection_made(self.transport)
        self.say(PREFACE + settings({}))

    def _closed(self, _: Http2Server) -> None:
        self.closed += 1

    def say(self, data: bytes) -> list[Frame]:
        """The peer sends; what was answered to it."""
        before = len(self.transport.writes)
        self.transport.feed(data)
        self.end.flush()
        return self.since(before)

    def since(self, mark: int) -> list[Frame]:
        """The frames written since a mark."""
        return split(b"".join(self.transport.writes[mark:]))

    def did(self) -> list[Frame]:
        """Flush, and what came of it."""
        before = len(self.transport.writes)
        self.end.flush()
        return self.since(before)

    def ask(
        self, stream: int = 1, *, end: bool = True, more: tuple[tuple[bytes, bytes], ...] = ()
    ) -> HeardRequest:
        """A request head."""
        self.say(self.peer.head(stream, (*PSEUDO, *more), end=end))
        return self.requests.last


async def test_server_request_head_is_read() -> None:
    server = Server()
    heard = server.ask(more=((b"content-type", b"application/grpc+x"), (b"content-length", b"0")))
    assert (heard.head.protocol, heard.head.method, heard.head.target) == ("grpc", b"GET", b"/")
    assert (heard.head.authority, heard.head.framing, heard.ended) == (b"a", "none", True)


async def test_server_many_heads_are_read_in_turns_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.0)
    server = Server(limits=replace(LIMITS, streams=200))
    large = tuple((b"x-%d" % number, b"y" * 100) for number in range(10))
    heads = b"".join(bare_peer().head(2 * n + 1, (*PSEUDO, *large), end=True) for n in range(50))
    server.transport.feed(heads)
    seen = [len(server.end.streams)]
    while server.transport.paused:
        server.transport.feed(b"")
        await asyncio.sleep(0)
        seen.append(len(server.end.streams))
    assert seen == list(range(1, 51))
    assert server.say(frame(Kind.PING, payload=bytes(8)))[-1].kind == Kind.PING


async def test_server_bytes_that_come_between_turns_are_read_after_the_earlier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.0)
    server = Server(limits=replace(LIMITS, streams=200))
    peer = bare_peer()
    heads = [peer.head(2 * n + 1, (*PSEUDO, (b"x", b"%d" % n * 1_200)), end=True) for n in range(6)]
    server.transport.feed(b"".join(heads[:3]))
    for head in heads[3:]:  # TLS hands on what it has read
        server.transport.feed(head)
    for _ in heads:
        await asyncio.sleep(0)
    assert not server.transport.paused
    assert list(server.end.streams) == [1, 3, 5, 7, 9, 11]


async def test_server_that_ends_reads_no_more_of_many_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.0)
    server = Server()
    peer = bare_peer()
    heads = [peer.head(2 * n + 1, (*PSEUDO, (b"x", b"%d" % n * 1_200)), end=True) for n in range(6)]
    server.transport.feed(b"".join(heads))
    server.end.end()
    await asyncio.sleep(0)
    assert (len(server.requests.heard), server.closed) == (1, 1)


async def test_server_response_with_trailers_goes_out_in_order() -> None:
    server = Server()
    down = server.ask().down
    down.inform(103, ((b"link", b"x"),))
    down.respond(200, ((b"a", b"b"), (b"connection", b"close")), end=False)
    down.send(b"body")
    down.finish(((b"sum", b"1"), (b"te", b"gzip")))
    kinds = [(f.kind, f.flags & END_STREAM) for f in server.did()]
    assert kinds == [(Kind.HEADERS, 0), (Kind.HEADERS, 0), (Kind.DATA, 0), (Kind.HEADERS, 1)]
    assert not server.end.streams


async def test_server_body_beyond_the_window_waits_for_it() -> None:
    server = Server()
    heard = server.ask()
    heard.down.respond(200, (), end=False)
    heard.down.send(bytes(100_000))
    heard.down.finish(())
    assert sum(len(f.payload) for f in server.did() if f.kind == Kind.DATA) == 65_535
    assert heard.drained == 65_535
    more = server.say(window(0, 50_000) + window(1, 50_000))
    assert sum(len(f.payload) for f in more if f.kind == Kind.DATA) == 100_000 - 65_535
    assert heard.drained == 65_535  # nobody is told after the end


async def test_server_transport_that_is_full_holds_bodies_back() -> None:
    server = Server()
    heard = server.ask()
    heard.down.respond(200, (), end=False)
    server.end.pause_writing()
    heard.down.send(b"held")
    assert [f.kind for f in server.did()] == [Kind.HEADERS]
    assert heard.drained == 0
    server.end.resume_writing()
    assert [f.payload for f in server.did()] == [b"held"]
    assert heard.drained == 4


async def test_server_credit_is_given_back_only_when_acked() -> None:
    server = Server(Requests(acking=False))
    heard = server.ask(end=False)
    answers = server.say(frame(Kind.DATA, 0, 1, bytes(16_384)) * 3)
    assert not [f for f in answers if f.kind == Kind.WINDOW_UPDATE]
    heard.down.ack(3 * 16_384)
    assert {f.stream for f in server.did() if f.kind == Kind.WINDOW_UPDATE} == {0, 1}


async def test_server_connection_credit_of_a_reset_stream_comes_back() -> None:
    server = Server(Requests(acking=False))
    for stream in (1, 3, 5, 7):
        server.ask(stream, end=False)
        server.say(frame(Kind.DATA, 0, stream, bytes(16_000)))
        server.say(reset(stream))
    server.ask(9, end=False)
    server.say(frame(Kind.DATA, 0, 9, bytes(16_000)))
    assert not server.transport.closing
    assert server.requests.last.body == bytes(16_000)


async def test_server_reset_of_the_caller_is_told_once() -> None:
    server = Server()
    heard = server.ask(end=False)
    server.say(reset(1))
    server.end.connection_lost(None)
    assert heard.gone == "the caller cancelled the call"
    assert server.closed == 1


async def test_server_commands_after_a_reset_do_nothing() -> None:
    server = Server()
    down = server.ask(end=False).down
    server.say(reset(1))
    down.inform(103, ())
    down.respond(200, (), end=False)
    down.send(b"x")
    down.finish(())
    down.abort(Cause.TIMEOUT)
    down.ack(5)
    assert server.did() == []


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (Cause.RESET_LATE, Code.INTERNAL_ERROR),
        (Cause.TIMEOUT, Code.CANCEL),
        (Cause.REFUSED, Code.REFUSED_STREAM),
        (Cause.DRAINING, Code.INTERNAL_ERROR),
    ],
)
async def test_server_abort_resets_by_its_cause(cause: Cause, code: int) -> None:
    server = Server()
    server.ask(end=False).down.abort(cause)
    assert [(f.kind, f.code) for f in server.did()] == [(Kind.RST_STREAM, code)]


async def test_server_answer_before_the_end_of_the_request_stops_it() -> None:
    server = Server()
    server.ask(end=False).down.respond(413, (), end=True)
    frames = server.did()
    assert [f.kind for f in frames] == [Kind.HEADERS, Kind.RST_STREAM]
    assert frames[1].code == Code.NO_ERROR
    server.say(frame(Kind.DATA, 0, 1, b"late"))
    assert not server.transport.closing


async def test_server_too_many_fields_are_answered_without_a_call() -> None:
    server = Server()
    server.say(server.peer.head(1, (*PSEUDO, *((b"x", b"y"),) * 20), end=True))
    assert (server.requests.heard, server.counted) == ([], ["header-count"])


async def test_server_goaway_waits_for_the_ping_and_the_last_call() -> None:
    server = Server()
    heard = server.ask()
    before = len(server.transport.writes)
    server.end.start_drain()
    server.end.start_drain()
    server.end.flush()
    frames = server.since(before)
    assert [f.kind for f in frames] == [Kind.GOAWAY, Kind.PING]
    assert frames[0].last_stream == 0x7FFFFFFF
    server.say(frame(Kind.PING, ACK, 0, frames[1].payload))
    assert not server.transport.closing
    heard.down.respond(204, (), end=True)
    await server.transport.ended.wait()
    assert split(server.transport.written)[-1].kind == Kind.GOAWAY


async def test_server_goaway_that_is_never_answered_ends_in_time() -> None:
    server = Server()
    server.end.start_drain()
    now = asyncio.get_running_loop().time()
    server.end.check_alive(now + LIMITS.head_s - 1)
    assert not server.transport.closing
    server.end.check_alive(now + LIMITS.head_s + 1)
    assert server.transport.closing


async def test_server_header_block_that_never_ends_is_cut_in_time() -> None:
    server = Server()
    server.say(frame(Kind.HEADERS, 0, 1, b"\x82"))
    server.end.check_alive(asyncio.get_running_loop().time() + LIMITS.head_s + 1)
    assert server.end.closing
    assert server.transport.eof_written
    assert server.counted == ["head-timeout"]


async def test_server_silent_connection_with_a_call_is_pinged_then_dropped() -> None:
    server = Server()
    heard = server.ask(end=False)
    now = asyncio.get_running_loop().time()
    server.end.check_alive(now + 11)
    assert [f.kind for f in server.did()] == [Kind.PING]
    server.end.check_alive(now + 17)
    await server.transport.ended.wait()
    server.end.connection_lost(None)
    assert server.counted == ["ping-unanswered"]
    assert heard.gone is not None


async def test_server_protocol_error_ends_every_call() -> None:
    server = Server()
    heard = server.ask(end=False)
    frames = server.say(frame(Kind.DATA, 0, 0, b"x"))
    assert (frames[-1].kind, frames[-1].code) == (Kind.GOAWAY, Code.PROTOCOL_ERROR)
    assert (server.counted, server.closed) == (["protocol"], 1)
    assert heard.gone is not None


async def test_server_call_may_always_be_cancelled_by_its_caller() -> None:
    server = Server()
    for stream in range(1, 201, 2):
        frames = server.say(server.peer.head(stream, PSEUDO) + reset(stream))
        assert all(sent.kind != Kind.GOAWAY for sent in frames)
    assert server.counted == []
    assert not server.end.streams


async def test_server_resets_of_nothing_are_a_flood() -> None:
    server = Server()
    server.say(server.peer.head(1, PSEUDO) + reset(1))
    frames = server.say(reset(1) * 3 * LIMITS.control_burst)
    assert (frames[-1].kind, frames[-1].code) == (Kind.GOAWAY, Code.ENHANCE_YOUR_CALM)
    assert server.counted == ["reset"]


async def test_server_call_answered_at_once_leaves_nothing_behind() -> None:
    server = Server(Requests(lambda heard: heard.down.respond(404, (), end=True)))
    server.say(server.peer.head(1, PSEUDO, end=True))
    assert not server.end.streams


class Client:
    """A client end with a scripted peer."""

    def __init__(self, limits: Limits = LIMITS, *, greeted: bool = True) -> None:
        self.owner = Owner()
        self.counted: list[str] = []
        self.end = Http2Client(self.owner, limits, self.counted.append, "h2")
        self.transport = Transport(self.end)
        self.peer = bare_peer()
        self.end.connection_made(self.transport)
        if greeted:
            self.say(settings({Setting.ENABLE_CONNECT_PROTOCOL: 1}))

    def say(self, data: bytes) -> list[Frame]:
        """The peer sends; what was answered to it."""
        before = len(self.transport.writes)
        self.transport.feed(data)
        self.end.flush()
        return split(b"".join(self.transport.writes[before:]))

    def did(self) -> list[Frame]:
        """Flush, and what came of it."""
        before = len(self.transport.writes)
        self.end.flush()
        return split(b"".join(self.transport.writes[before:]))


async def test_client_is_up_once_settings_came() -> None:
    client = Client(greeted=False)
    assert client.end.capacity == 0
    client.say(settings({Setting.MAX_CONCURRENT_STREAMS: 3}))
    assert client.end.capacity == 3
    assert client.end.ready.done()


async def test_client_reads_all_answers_that_came_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.0)
    client = Client()
    calls = [HeardResponse() for _ in range(6)]
    for heard in calls:
        client.end.open(heard).start(HEAD, end=True)
    fields = ((b":status", b"200"), (b"x", b"y" * 600))
    client.transport.feed(b"".join(client.peer.head(2 * n + 1, fields, end=True) for n in range(len(calls))))
    client.transport.lose()
    assert [heard.status for heard in calls] == [200] * len(calls)


async def test_client_call_is_carried_and_frees_its_place() -> None:
    client = Client()
    heard = HeardResponse()
    call = client.end.open(heard)
    call.start(HEAD, end=True)
    assert [(f.kind, f.flags & 1) for f in client.did()] == [(Kind.HEADERS, 1)]
    client.say(client.peer.head(1, ((b":status", b"200"),)) + frame(Kind.DATA, END_STREAM, 1, b"x"))
    assert (heard.status, heard.body, heard.ended, client.end.in_flight) == (200, b"x", True, 0)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (Code.REFUSED_STREAM, Cause.REFUSED),
        (Code.CANCEL, Cause.RESET_EARLY),
        (Code.INTERNAL_ERROR, Cause.RESET_EARLY),
    ],
)
async def test_client_reset_before_a_head_is_early_or_refused(code: int, cause: Cause) -> None:
    client = Client()
    heard = HeardResponse()
    client.end.open(heard).start(HEAD, end=True)
    client.say(reset(1, code))
    assert heard.lost is cause


async def test_client_reset_after_a_head_is_late() -> None:
    client = Client()
    heard = HeardResponse()
    client.end.open(heard).start(HEAD, end=True)
    client.say(client.peer.head(1, ((b":status", b"200"),)) + reset(1, Code.CANCEL))
    assert heard.lost is Cause.RESET_LATE


async def test_client_goaway_refuses_the_calls_above_and_keeps_those_below() -> None:
    client = Client()
    below, above = HeardResponse(), HeardResponse()
    client.end.open(below).start(HEAD, end=True)
    client.end.open(above).start(HEAD, end=True)
    client.say(goaway(1))
    assert (below.lost, above.lost, client.end.capacity) == (None, Cause.REFUSED, 0)
    client.say(client.peer.head(1, ((b":status", b"204"),), end=True))
    await client.transport.ended.wait()
    assert below.ended


async def test_client_lost_connection_loses_each_call_by_how_far_it_was() -> None:
    client = Client()
    early, late = HeardResponse(), HeardResponse()
    client.end.open(early).start(HEAD, end=True)
    client.end.open(late).start(HEAD, end=True)
    client.say(client.peer.head(3, ((b":status", b"200"),)))
    client.end.connection_lost(ConnectionResetError("gone"))
    assert (early.lost, late.lost) == (Cause.RESET_EARLY, Cause.RESET_LATE)
    assert client.owner.closed is not None


async def test_client_abort_resets_and_hears_no_more() -> None:
    client = Client()
    heard = HeardResponse()
    call = client.end.open(heard)
    call.start(POST, end=False)
    call.abort()
    assert [(f.kind) for f in client.did()] == [Kind.HEADERS, Kind.RST_STREAM]
    client.say(client.peer.head(1, ((b":status", b"200"),), end=True))
    assert (heard.status, client.end.in_flight) == (0, 0)


async def test_client_abort_before_start_frees_its_place() -> None:
    client = Client()
    call = client.end.open(HeardResponse())
    call.abort()
    assert client.end.in_flight == 0


async def test_client_early_answer_then_no_error_is_complete() -> None:
    client = Client()
    heard = HeardResponse()
    client.end.open(heard).start(POST, end=False)
    client.say(client.peer.head(1, ((b":status", b"413"),), end=True) + reset(1, Code.NO_ERROR))
    assert (heard.status, heard.ended, heard.lost, client.end.in_flight) == (413, True, None, 0)


async def test_client_retired_takes_no_calls_and_closes_with_the_last() -> None:
    client = Client()
    client.end.open(HeardResponse()).start(HEAD, end=True)
    client.end.retire()
    assert client.end.capacity == 0
    assert not client.transport.closing
    client.say(client.peer.head(1, ((b":status", b"204"),), end=True))
    await client.transport.ended.wait()


async def test_client_http1_answer_says_what_is_wrong() -> None:
    client = Client(greeted=False)
    client.transport.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ConnectionError, match=r"HTTP/1\.1"):
        await client.end.ready


async def test_client_connect_without_a_tunnel_is_refused_alone() -> None:
    client = Client()
    heard = HeardResponse()
    client.end.open(heard).start(RawHead("http2", b"CONNECT", b"a:1", b"a:1", (), "stream", None), end=False)
    assert (heard.lost, client.end.in_flight, client.did()) == (Cause.UNSUPPORTED, 0, [])
