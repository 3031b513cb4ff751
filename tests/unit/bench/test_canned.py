"""The canned servers answer each request once, however its bytes are cut, and never beyond the peer's window."""

import asyncio

import pytest

from tests.bench.canned import CannedGrpc, CannedHttp, grpc_answer
from tests.bench.cases import GRPC_MESSAGE, HTTP_BODY

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CALL = b"\0\0\x01\x01\x04\0\0\0%c\x88" + b"\0\0\x0c\0\x01\0\0\0%c" + GRPC_MESSAGE


class Written(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += bytes(data)


def call(stream: int) -> bytes:
    return CALL % (stream, stream)


def answer(stream: int) -> bytes:
    return grpc_answer(stream.to_bytes(4, "big"))


@pytest.mark.parametrize("size", [1, 7, 23, 24, 25, 1000])
def test_grpc_answers_each_call_once_however_it_is_cut(size: int) -> None:
    server, transport = CannedGrpc(), Written()
    server.connection_made(transport)
    sent = PREFACE + call(1) + call(3)
    for start in range(0, len(sent), size):
        server.data_received(sent[start : start + size])
    assert transport.data.endswith(answer(1) + answer(3))
    assert transport.data.count(answer(1)) == 1


def test_grpc_waits_for_window_and_goes_on_after_it() -> None:
    server, transport = CannedGrpc(), Written()
    server.connection_made(transport)
    calls = 65_535 // len(GRPC_MESSAGE)
    server.data_received(PREFACE + call(1) * (calls + 1))
    assert transport.data.count(answer(1)) == calls
    server.data_received(b"\0\0\x04\x08\0\0\0\0\0" + (100).to_bytes(4, "big"))
    assert transport.data.count(answer(1)) == calls + 1


def test_http_answers_heads_and_keeps_an_unfinished_one() -> None:
    server, transport = CannedHttp(), Written()
    server.connection_made(transport)
    server.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HT")
    assert transport.data.count(b"HTTP/1.1 200 OK") == 1
    server.data_received(b"TP/1.1\r\n\r\n")
    assert transport.data.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("size", [1, 5, 40, 1000])
def test_http_takes_bodies_and_gives_bodies_however_they_are_cut(size: int) -> None:
    server, transport = CannedHttp(), Written()
    server.connection_made(transport)
    upload = b"POST /bytes/in HTTP/1.1\r\nContent-Length: 9\r\n\r\n\r\n\r\n\r\n\r\nx"
    sent = upload + b"GET /bytes/77 HTTP/1.1\r\nhost: a\r\n\r\n" + upload
    for start in range(0, len(sent), size):
        server.data_received(sent[start : start + size])
    assert transport.data.count(HTTP_BODY) == 2
    assert transport.data.count(b"content-length: 77\r\n\r\n" + bytes(77)) == 1
