"""The upstreams: a gRPC and an HTTP/1.1 server that answer every request with the same bytes. Run as a process.

Prints one JSON line `{"grpc": PORT, "http1": PORT}` once both listen; with `--delays-ms 5,200`, `{"delayed": [PORT, PORT]}` of HTTP/1.1
servers that answer so much later. They look at framing alone, never at headers, and so cost a few
microseconds a call even in Python; that is all they can do. HTTP/2 with prior knowledge. On HTTP/1.1 `GET /bytes/N` answers N bytes, and
a request's body is as long as it says, and forgotten.
"""

import argparse
import asyncio
import functools
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

import uvloop

from tests.bench.cases import GRPC_MESSAGE, HTTP_BODY

# RFC 9113 §4.1 and §6: frame types and flags.
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 4, 6, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD: Final = 9
_FIRST_WINDOW: Final = 65_535
_REFILL: Final = 32_768

_HTTP_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(HTTP_BODY),
    HTTP_BODY,
)


def frame(kind: int, flags: int, payload: bytes) -> tuple[bytes, bytes]:
    """A frame as what goes before and after its stream id."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)), payload


# RFC 7541: `:status 200` is static entry 8, content-type is name 31; everything else is literal, without Huffman or table.
_CONTENT_TYPE: Final = b"application/grpc"
_RESPONSE_HEAD: Final = frame(
    _HEADERS, _END_HEADERS, b"\x88\x0f\x10" + bytes((len(_CONTENT_TYPE),)) + _CONTENT_TYPE
)
_RESPONSE_BODY: Final = frame(_DATA, 0, GRPC_MESSAGE)
_RESPONSE_END: Final = frame(_HEADERS, _END_HEADERS | _END_STREAM, b"\x00\x0bgrpc-status\x010")
_PARTS: Final = (_RESPONSE_HEAD, _RESPONSE_BODY, _RESPONSE_END)


def grpc_answer(stream: bytes) -> bytes:
    """The three frames that answer a stream, given its id as four bytes."""
    return b"".join(before + stream + after for before, after in _PARTS)


class CannedGrpc(asyncio.Protocol):
    """One HTTP/2 connection. State: bytes of an unfinished frame, send credit and waiting streams, received bytes not yet given back."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._preface_left = len(_PREFACE)
        self._credit = _FIRST_WINDOW
        self._waiting: list[bytes] = []
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send our (empty) settings."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are no subclass
        self._write(b"\0\0\0\x04\0\0\0\0\0")

    def data_received(self, data: bytes) -> None:
        """Answer every request that ended in these bytes, in one write."""
        skipped = min(self._preface_left, len(data))
        self._preface_left -= skipped
        data = self._rest + data[skipped:]
        out: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= _HEAD:
            after = at + _HEAD + int.from_bytes(data[at : at + 3], "big")
            if after > end:
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind <= _HEADERS:
                if kind == _DATA:
                    self._received += after - at - _HEAD
                if flags & _END_STREAM:
                    self._waiting.append(data[at + 5 : at + 9])
            else:
                self._control(kind, flags, data[at + 5 : after], out)
            at = after
        self._rest = data[at:]
        self._answer(out)

    def _control(self, kind: int, flags: int, content: bytes, out: list[bytes]) -> None:
        """Any other frame; `content` begins with the stream id."""
        stream, payload = content[:4], content[4:]
        if kind == _SETTINGS and not flags & _ACK:
            out.append(b"\0\0\0\x04\x01\0\0\0\0")
        elif kind == _PING and not flags & _ACK:
            out.append(b"\0\0\x08\x06\x01\0\0\0\0" + payload)
        elif kind == _WINDOW_UPDATE and stream == b"\0\0\0\0":
            self._credit += int.from_bytes(payload, "big")

    def _answer(self, out: list[bytes]) -> None:
        affordable = self._credit // len(GRPC_MESSAGE)
        ready, self._waiting = self._waiting[:affordable], self._waiting[affordable:]
        self._credit -= len(ready) * len(GRPC_MESSAGE)
        out.extend(map(grpc_answer, ready))
        if self._received >= _REFILL:
            out.append(b"\0\0\x04\x08\0\0\0\0\0" + self._received.to_bytes(4, "big"))
            self._received = 0
        if out:
            self._write(b"".join(out))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


class CannedHttp(asyncio.Protocol):
    """One HTTP/1.1 connection. State: bytes of an unfinished head, and how much of a request's body is still to come."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        self._transport: asyncio.Transport | None = None
        self._tail = b""
        self._body_left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are no subclass

    def data_received(self, data: bytes) -> None:
        """Answer every request that ended in these bytes."""
        out: list[bytes] = []
        if self._body_left:
            data = self._skip(data, out)
        data = self._tail + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head, data = data[:end], data[end + 4 :]
            if head.startswith(b"GET /bytes/"):
                out += _sized_answer(int(head[11 : head.index(b" ", 11)]))
            elif head.startswith(b"POST"):
                self._body_left = _length(head)
                data = self._skip(data, out)
            else:
                out.append(_HTTP_ANSWER)
        self._tail = data
        if out and self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._write_late, out)
        elif out and self._transport is not None:
            self._transport.writelines(out)

    def _write_late(self, out: list[bytes]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(out)

    def _skip(self, data: bytes, out: list[bytes]) -> bytes:
        """What follows the body; an answer if it ended."""
        taken = min(self._body_left, len(data))
        self._body_left -= taken
        if not self._body_left:
            out.append(_HTTP_ANSWER)
        return data[taken:]


def _length(head: bytes) -> int:
    return int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])


@functools.cache
def _sized_answer(size: int) -> tuple[bytes, bytes]:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size, bytes(size)


async def serve_delayed(delays_ms: Sequence[float]) -> None:
    """Serve HTTP/1.1 on a port for each delay, until ended."""
    loop = asyncio.get_running_loop()
    ports = []
    async with AsyncExitStack() as stack:
        for delay_ms in delays_ms:
            make = functools.partial(CannedHttp, delay_ms / 1e3)
            server = await stack.enter_async_context(await loop.create_server(make, "127.0.0.1", 0))
            ports.append(server.sockets[0].getsockname()[1])
        sys.stdout.write(json.dumps({"delayed": ports}) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


async def main() -> None:
    """Serve until ended."""
    loop = asyncio.get_running_loop()
    grpc = await loop.create_server(CannedGrpc, "127.0.0.1", 0)
    http = await loop.create_server(CannedHttp, "127.0.0.1", 0)
    ports = {"grpc": grpc.sockets[0].getsockname()[1], "http1": http.sockets[0].getsockname()[1]}
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    async with grpc, http:
        await grpc.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--delays-ms", type=lambda text: [float(part) for part in text.split(",")])
    delays = parser.parse_args().delays_ms
    uvloop.run(main() if delays is None else serve_delayed(delays))
