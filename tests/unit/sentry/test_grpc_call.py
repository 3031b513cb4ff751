"""The unary call over HTTP/2, against a scripted peer in memory."""

import struct

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.grpc_call import MAX_ANSWER_BYTES, CallError, UnaryCall

OK = [("grpc-status", "0")]


class Peer:
    """An HTTP/2 server of few words."""

    def __init__(self) -> None:
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.connection.initiate_connection()
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_asked = False

    def take(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.headers = {name.decode(): value.decode() for name, value in event.headers or ()}
            elif isinstance(event, h2.events.DataReceived):
                self.body += event.data or b""
                self.connection.acknowledge_received_data(event.flow_controlled_length or 0, 1)
            elif isinstance(event, h2.events.StreamEnded):
                self.is_asked = True

    def reply(self, body: bytes, trailers: list[tuple[str, str]] | None = None) -> None:
        self.connection.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
        for at in range(0, len(body), 16384):
            self.connection.send_data(1, body[at : at + 16384])
        self.connection.send_headers(1, OK if trailers is None else trailers, end_stream=True)

    def refuse(self, *fields: tuple[str, str]) -> None:
        self.connection.send_headers(1, [(":status", "200"), *fields], end_stream=True)


def framed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def new_call(message: bytes = b"ask") -> UnaryCall:
    return UnaryCall(authority="sentry", path="/a.B/C", message=message, timeout_ms=3000)


def exchange(call: UnaryCall, peer: Peer) -> None:
    """Carry bytes both ways until the request is whole."""
    peer.take(call.start())
    for _ in range(100):
        if peer.is_asked:
            return
        peer.take(call.receive(peer.connection.data_to_send()))


def test_call_sends_grpcs_headers_and_its_message() -> None:
    call, peer = new_call(), Peer()
    exchange(call, peer)
    assert peer.headers[":path"] == "/a.B/C"
    assert (peer.headers["te"], peer.headers["content-type"]) == ("trailers", "application/grpc")
    assert peer.headers["grpc-timeout"] == "3000m"
    assert peer.body == framed(b"ask")


def test_call_answered_yields_the_message() -> None:
    call, peer = new_call(), Peer()
    exchange(call, peer)
    peer.reply(framed(b"answer"))
    call.receive(peer.connection.data_to_send())
    assert call.is_done
    assert call.result() == b"answer"


def test_call_answered_byte_by_byte_yields_the_message() -> None:
    call, peer = new_call(), Peer()
    exchange(call, peer)
    peer.reply(framed(b"answer"))
    for byte in peer.connection.data_to_send():
        assert not call.is_done
        call.receive(bytes([byte]))
    assert call.result() == b"answer"


def test_call_larger_than_the_window_waits_for_room() -> None:
    message = bytes(200_000)
    call, peer = new_call(message), Peer()
    exchange(call, peer)
    assert peer.body == framed(message)


@pytest.mark.parametrize("code", [3, 7, 14])
def test_call_refused_raises_its_status(code: int) -> None:
    call, peer = new_call(), Peer()
    exchange(call, peer)
    peer.refuse(
        ("content-type", "application/grpc"), ("grpc-status", str(code)), ("grpc-message", "no%2C%20you")
    )
    call.receive(peer.connection.data_to_send())
    with pytest.raises(CallError, match="no, you") as refusal:
        call.result()
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("body", "trailers"),
    [
        (b"", OK),
        (b"\x00\x00", OK),
        (framed(b"answer")[:-1], OK),
        (framed(b"answer") + b"x", OK),
        (b"\x01" + framed(b"answer")[1:], OK),
        (framed(b"answer"), [("x", "y")]),
        (framed(b"answer"), [("grpc-status", "-1")]),
        (framed(b"answer"), [("grpc-status", "5")]),
    ],
)
def test_call_answered_badly_raises(body: bytes, trailers: list[tuple[str, str]]) -> None:
    call, peer = new_call(), Peer()
    exchange(call, peer)
    peer.reply(body, trailers)
    call.receive(peer.connection.data_to_send())
    with pytest.raises(CallError):
        call.result()


def test_call_whose_connection_closes_is_unavailable() -> None:
    call, peer = new_call(), Peer()
    exchange(call, peer)
    call.receive(b"")
    with pytest.raises(CallError) as refusal:
        call.result()
    assert refusal.value.code == 14


@pytest.mark.parametrize("is_reset", [True, False])
def test_call_whose_stream_is_reset_or_turned_away_is_unavailable(is_reset: bool) -> None:
    call, peer = new_call(), Peer()
    exchange(call, peer)
    if is_reset:
        peer.connection.reset_stream(1)
    else:
        peer.connection.close_connection(last_stream_id=0)
    call.receive(peer.connection.data_to_send())
    with pytest.raises(CallError) as refusal:
        call.result()
    assert refusal.value.code == 14


def test_call_answered_too_largely_ends_early() -> None:
    call, peer = new_call(), Peer()
    exchange(call, peer)
    peer.connection.send_headers(1, [(":status", "200")])
    sent = 0
    while not call.is_done:
        room = min(16384, peer.connection.local_flow_control_window(1))
        if room:
            peer.connection.send_data(1, bytes(room))
            sent += room
        peer.take(call.receive(peer.connection.data_to_send()))
    assert MAX_ANSWER_BYTES < sent <= MAX_ANSWER_BYTES + 65536
    with pytest.raises(CallError):
        call.result()


@given(st.binary(min_size=1, max_size=200))
def test_call_given_noise_ends_or_waits_but_never_crashes(noise: bytes) -> None:
    call = new_call()
    call.start()
    call.receive(noise)
    call.receive(b"")
    with pytest.raises(CallError):
        call.result()
