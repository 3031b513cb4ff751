"""A load generator for what h2load can't do: another path or app-id for each call, or connections held idle. Run as a process.

Each connection keeps `--streams` calls in flight (HTTP/1.1: one). Prints one JSON line when all calls came back whole, a `Load`; ends
with code 1 and a reason when one did not. `--hold` keeps the connections open afterwards, until the process is ended.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count, islice
from typing import Final, cast

import uvloop

from tests.bench.cases import GRPC_MESSAGE, GRPC_PATH, HTTP_BODY, HTTP_PATH, RULES
from tests.bench.load import summarise_latencies

# RFC 9113 §4.1 and §6: frame types and flags.
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_HEAD: Final = 9
_PREFACE: Final = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    b"\0\0\0\x04\0\0\0\0\0"  # empty SETTINGS
    b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\x00\x00"  # all the window there is, so that none need be given again
)
_FIRST: Final = ((b"\x41", b"localhost"), (b"\x5f", b"application/grpc"), (b"\x40\x02te", b"trailers"))
_DEADLINE_S: Final = 120.0


class Calls:
    """What is to be called, and how it went. State: the numbers left, calls begun, their latencies in ns, why it failed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.each: int | None = options.each
        self._numbers: Iterator[int] = count(options.first)
        if options.calls is not None:
            self._numbers = islice(self._numbers, options.calls)
        self.expected: int = (
            options.calls if options.calls is not None else options.each * options.connections
        )
        self._paths: int = options.paths
        self._fixed = (GRPC_PATH if options.protocol == "grpc" else HTTP_PATH).encode()
        self._app_ids = [name.encode() for name in options.app_id]
        self.varies_app = len(self._app_ids) > 1
        self.latencies_ns: list[int] = []
        self.done = asyncio.Event()
        self.failure = ""

    def next(self) -> tuple[bytes, bytes] | None:
        """Path and app-id of the next call; None when there is no more."""
        number = next(self._numbers, None)
        if number is None:
            return None
        app_id = self._app_ids[number % len(self._app_ids)] if self.varies_app else self._app_ids[0]
        if not self._paths:
            return self._fixed, app_id
        number %= self._paths
        return b"/bench.S%d/M%d" % (number % RULES, number), app_id

    def ended(self, began_ns: int) -> None:
        """A call came back whole."""
        self.latencies_ns.append(time.perf_counter_ns() - began_ns)
        if len(self.latencies_ns) == self.expected:
            self.done.set()

    def fail(self, reason: str) -> None:
        """A call did not."""
        self.failure = self.failure or reason
        self.done.set()


class _Base(asyncio.Protocol):
    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._left = calls.each if calls.each is not None else sys.maxsize
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """None may be lost while calls are made."""
        self._calls.fail(f"a connection was lost: {exc}")

    def _next(self) -> tuple[bytes, bytes] | None:
        if not self._left:
            return None
        self._left -= 1
        return self._calls.next()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)


class GrpcConnection(_Base):
    """HTTP/2 with prior knowledge. State: bytes of an unfinished frame, the next stream, when each in flight began, bytes of messages."""

    def __init__(self, calls: Calls, streams: int) -> None:
        super().__init__(calls)
        self._streams = streams
        self._rest = b""
        self._stream = 1
        self._began: dict[int, int] = {}
        self._received: dict[int, int] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say that this is HTTP/2."""
        super().connection_made(transport)
        self._write(_PREFACE)

    def begin(self) -> None:
        """Make the first calls."""
        self._write(b"".join(self._request() for _ in range(self._streams)))

    def _request(self) -> bytes:
        """The frames of one more call, or nothing. Constant fields enter the dynamic table with the first one (RFC 7541 §6)."""
        wanted = self._next()
        if wanted is None:
            return b""
        path, app_id = wanted
        fields = [b"\x83\x86", _literal(b"\x04", path)]
        is_first = self._stream == 1
        constant = _FIRST if self._calls.varies_app else (*_FIRST, (b"\x40\x0bdapr-app-id", app_id))
        if is_first:
            fields += [_literal(name, value) for name, value in constant]
        else:
            fields += [bytes((0x80 | 61 + len(constant) - place,)) for place in range(len(constant))]
        if self._calls.varies_app:
            fields.append(_literal(b"\x00\x0bdapr-app-id", app_id))
        block = b"".join(fields)
        stream = self._stream.to_bytes(4, "big")
        self._began[self._stream] = time.perf_counter_ns()
        self._stream += 2
        return b"".join(
            (
                *(len(block).to_bytes(3, "big"), bytes((_HEADERS, _END_HEADERS)), stream, block),
                *(len(GRPC_MESSAGE).to_bytes(3, "big"), bytes((_DATA, _END_STREAM)), stream, GRPC_MESSAGE),
            )
        )

    def data_received(self, data: bytes) -> None:
        """Take what ended, begin as many again."""
        data = self._rest + data
        out: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= _HEAD:
            after = at + _HEAD + int.from_bytes(data[at : at + 3], "big")
            if after > end:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            if kind == _DATA:
                self._received[stream] = self._received.get(stream, 0) + after - at - _HEAD
            elif kind == _HEADERS:
                if flags & _END_STREAM:
                    self._ended(stream, out)
            else:
                self._control(kind, flags, data[at + _HEAD : after], out)
            at = after
        self._rest = data[at:]
        self._write(b"".join(out))

    def _ended(self, stream: int, out: list[bytes]) -> None:
        if self._received.pop(stream, 0) != len(GRPC_MESSAGE):
            self._calls.fail(f"stream {stream} ended without its message")
            return
        self._calls.ended(self._began.pop(stream))
        out.append(self._request())

    def _control(self, kind: int, flags: int, payload: bytes, out: list[bytes]) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            out.append(b"\0\0\0\x04\x01\0\0\0\0")
        elif kind == _PING and not flags & _ACK:
            out.append(b"\0\0\x08\x06\x01\0\0\0\0" + payload)
        elif kind in {_RST_STREAM, _GOAWAY}:
            self._calls.fail(f"the other side sent frame {kind}: {payload!r}")


class HttpConnection(_Base):
    """HTTP/1.1, one call at a time. State: the bytes of an unfinished answer, when its call began."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._answer = b""
        self._began = 0

    def begin(self) -> None:
        """Make the next call, if there is one."""
        wanted = self._next()
        if wanted is None:
            return
        self._began = time.perf_counter_ns()
        self._write(b"GET %s HTTP/1.1\r\nhost: localhost\r\ndapr-app-id: %s\r\n\r\n" % wanted)

    def data_received(self, data: bytes) -> None:
        """An answer is whole when it ends as the upstream's do."""
        self._answer += data
        if not self._answer.startswith(b"HTTP/1.1 200 "[: len(self._answer)]):
            self._calls.fail(repr(self._answer[:200]))
        elif self._answer.endswith(HTTP_BODY):
            self._answer = b""
            self._calls.ended(self._began)
            self.begin()


def _literal(name: bytes, value: bytes) -> bytes:
    return name + bytes((len(value),)) + value


async def run(options: argparse.Namespace) -> int:
    """Connect, call, report; the exit code."""
    loop = asyncio.get_running_loop()
    calls = Calls(options)

    def make() -> GrpcConnection | HttpConnection:
        return GrpcConnection(calls, options.streams) if options.protocol == "grpc" else HttpConnection(calls)

    made = [
        (await loop.create_connection(make, "127.0.0.1", options.port))[1] for _ in range(options.connections)
    ]
    began = time.perf_counter()
    for connection in made:
        connection.begin()
    async with asyncio.timeout(_DEADLINE_S):
        await calls.done.wait()
    seconds = time.perf_counter() - began
    if calls.failure:
        sys.stdout.write(f"failed: {calls.failure}\n")
        return 1
    load = summarise_latencies([ns // 1000 for ns in calls.latencies_ns], seconds)
    sys.stdout.write(json.dumps(asdict(load)) + "\n")
    sys.stdout.flush()
    if options.hold:
        await asyncio.Event().wait()
    return 0


def main() -> int:
    """Read the flags and call."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--protocol", choices=("grpc", "http1"), default="grpc")
    parser.add_argument("--connections", type=int, default=12)
    parser.add_argument("--streams", type=int, default=8)
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--calls", type=int, help="in all")
    amount.add_argument("--each", type=int, help="per connection")
    parser.add_argument("--app-id", action="append", required=True, help="several are called in turn")
    parser.add_argument("--paths", type=int, default=0, help="so many different ones, in turn")
    parser.add_argument("--first", type=int, default=0, help="the first call's number")
    parser.add_argument("--hold", action="store_true")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return uvloop.run(run(options))


if __name__ == "__main__":
    sys.exit(main())
