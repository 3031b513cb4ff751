"""An HTTP/2 peer at the level of frames: shares no state machine with the engines, and can say what no library lets it say.

Owns framing, HPACK and flow control of what it sends; opens its own receiving windows wide unless told otherwise.
Source: RFC 9113 §4, §6.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import hpack

from tests.conformance.accepting import accepting

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WIDE: Final = 2**31 - 1
DEADLINE_S: Final = 30.0  # much more than an engine ever takes: the portable one works for seconds where a test has thousands of calls
Fields = Sequence[tuple[bytes, bytes]]


class Kind(IntEnum):
    """Frame types (RFC 9113 §6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Code(IntEnum):
    """Error codes that tests look for (RFC 9113 §7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    """Settings (RFC 9113 §6.5.2, RFC 8441 §3)."""

    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8


END_STREAM: Final = 1
ACK: Final = 1
END_HEADERS: Final = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of a RST_STREAM or GOAWAY."""
        start = 4 if self.kind == Kind.GOAWAY else 0
        return int.from_bytes(self.payload[start : start + 4], "big")

    @property
    def last_stream(self) -> int:
        """The last stream of a GOAWAY."""
        return int.from_bytes(self.payload[:4], "big") & WIDE


@dataclass(slots=True)
class Message:
    """What came on one stream so far. `reset`: the code of RST_STREAM; `lost`: the connection ended first."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    informs: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    lost: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more can come."""
        return self.ended or self.reset is not None or self.lost

    def get(self, name: bytes, default: bytes = b"") -> bytes:
        """The first value of a header."""
        return dict(reversed(self.headers)).get(name, default)

    @property
    def status(self) -> int:
        """The :status, 0 if no head came."""
        return int(self.get(b":status", b"0"))


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """The bytes of a frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(key.to_bytes(2, "big") + data.to_bytes(4, "big") for key, data in values.items())
    return frame(Kind.SETTINGS, payload=payload)


def goaway(last_stream: int, code: int = Code.NO_ERROR) -> bytes:
    """A GOAWAY frame."""
    return frame(Kind.GOAWAY, payload=last_stream.to_bytes(4, "big") + code.to_bytes(4, "big"))


def reset(stream: int, code: int = Code.CANCEL) -> bytes:
    """A RST_STREAM frame."""
    return frame(Kind.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def window(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


class FramePeer:
    """One end of a connection. Mutable state: `messages` by stream, the sending windows, `goaway` (the last one seen)."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, window_bytes: int = WIDE
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.messages: dict[int, Message] = {}
        self.goaway: Frame | None = None
        self.peer_settings: dict[int, int] = {}
        self.ended = False
        self.acking = True  # answer SETTINGS and PING
        self.unanswered: list[bytes] = []
        self.window_bytes = window_bytes
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._decoder.max_header_list_size = 1 << 24
        self._block = b""
        self._block_flags = 0
        self._next = 1
        self._requests: deque[int] = deque()  # streams whose first head came
        self._room = 65_535
        self._rooms: dict[int, int] = {}
        self._initial_room = 65_535

    # --- sending

    async def send(self, *frames: bytes) -> None:
        """Write bytes; a connection that is gone already is seen when reading."""
        with suppress(ConnectionError):
            self.writer.write(b"".join(frames))
            await self.writer.drain()

    def hello(self, *, client: bool, extra: dict[Setting, int] | None = None) -> bytes:
        """The preface (of a client) and SETTINGS, with the connection's window opened."""
        values = {Setting.INITIAL_WINDOW_SIZE: self.window_bytes}
        if client:
            values[Setting.ENABLE_PUSH] = 0
        else:
            values[Setting.ENABLE_CONNECT_PROTOCOL] = 1
        values.update(extra or {})
        opened = window(0, WIDE - 65_535) if self.window_bytes == WIDE else b""
        return (PREFACE if client else b"") + settings(values) + opened

    def block(self, fields: Fields) -> bytes:
        """A header block. Long values go as they are: hpack's Huffman coding takes time by the square of their length."""
        is_short = all(len(value) < 8_192 for _, value in fields)
        return self._encoder.encode(list(fields), huffman=is_short)

    def head(self, stream: int, fields: Fields, *, end: bool = False) -> bytes:
        """A HEADERS frame; blocks longer than a frame go on in CONTINUATION."""
        data = self.block(fields)
        first, rest = data[:16_384], data[16_384:]
        flags = END_STREAM if end else 0
        out = frame(Kind.HEADERS, flags | (0 if rest else END_HEADERS), stream, first)
        while rest:
            part, rest = rest[:16_384], rest[16_384:]
            out += frame(Kind.CONTINUATION, 0 if rest else END_HEADERS, stream, part)
        return out

    def new_stream(self) -> int:
        """The next stream id of a client."""
        stream, self._next = self._next, self._next + 2
        return stream

    async def request(
        self,
        path: bytes = b"/",
        *,
        method: bytes = b"GET",
        headers: Fields = (),
        body: bytes | None = None,
        end: bool = True,
        authority: bytes | None = b"app",
    ) -> int:
        """Send a request; `body` goes within the windows. Returns its stream."""
        stream = self.new_stream()
        named = () if authority is None else ((b":authority", authority),)
        pseudo = ((b":method", method), (b":scheme", b"http"), *named, (b":path", path))
        await self.send(self.head(stream, (*pseudo, *headers), end=end and body is None))
        if body is not None:
            await self.send_body(stream, body, end=end)
        return stream

    async def respond(
        self,
        stream: int,
        status: int = 200,
        *,
        headers: Fields = (),
        body: bytes | None = None,
        trailers: Fields = (),
        end: bool = True,
    ) -> None:
        """Send a response."""
        bare = end and body is None and not trailers
        await self.send(self.head(stream, ((b":status", b"%d" % status), *headers), end=bare))
        if body is not None:
            await self.send_body(stream, body, end=end and not trailers)
        if trailers:
            await self.send(self.head(stream, trailers, end=True))

    async def send_body(self, stream: int, body: bytes, *, end: bool = False) -> None:
        """Send DATA within the windows, reading meanwhile; returns early if the stream is over."""
        view = memoryview(body)
        while True:
            if end and not view:
                await self.send(frame(Kind.DATA, END_STREAM, stream))
                return
            room = min(self._room, self._rooms.setdefault(stream, self._initial_room), 16_384)
            part = view[: max(room, 0)]
            if not part and view:
                if await self.read() is None or self.message(stream).reset is not None:
                    return
                continue
            view = view[len(part) :]
            self._room -= len(part)
            self._rooms[stream] -= len(part)
            last = end and not view
            await self.send(frame(Kind.DATA, END_STREAM if last else 0, stream, bytes(part)))
            if not view:
                return

    # --- receiving

    def message(self, stream: int) -> Message:
        """What came on a stream so far."""
        return self.messages.setdefault(stream, Message())

    async def read(self, *, timeout_s: float = DEADLINE_S) -> Frame | None:
        """The next frame, already taken into account; None at the connection's end."""
        try:
            async with asyncio.timeout(timeout_s):
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            self.ended = True
            for message in self.messages.values():
                message.lost = not message.over or message.lost
            return None
        got = Frame(head[3], head[4], int.from_bytes(head[5:9], "big") & WIDE, payload)
        await self._note(got)
        return got

    async def _note(self, got: Frame) -> None:
        if got.kind in (Kind.HEADERS, Kind.CONTINUATION):
            self._note_headers(got)
        elif got.kind == Kind.DATA:
            message = self.message(got.stream)
            message.body += got.payload
            message.ended = message.ended or bool(got.flags & END_STREAM)
        elif got.kind == Kind.RST_STREAM:
            self.message(got.stream).reset = got.code
        elif got.kind == Kind.GOAWAY:
            self.goaway = got
        elif got.kind == Kind.WINDOW_UPDATE:
            increment = int.from_bytes(got.payload, "big")
            if got.stream:
                self._rooms[got.stream] = self._rooms.get(got.stream, self._initial_room) + increment
            else:
                self._room += increment
        elif got.kind in (Kind.SETTINGS, Kind.PING) and not got.flags & ACK:
            await self._acknowledge(got)

    async def _acknowledge(self, got: Frame) -> None:
        if got.kind == Kind.PING:
            self.unanswered.append(frame(Kind.PING, ACK, 0, got.payload))
            if self.acking:
                await self.answer_pings()
            return
        self._note_settings(got.payload)
        if self.acking:
            await self.send(frame(Kind.SETTINGS, ACK))

    def _note_settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            key, data = (
                int.from_bytes(payload[at : at + 2], "big"),
                int.from_bytes(payload[at + 2 : at + 6], "big"),
            )
            self.peer_settings[key] = data
            if key == Setting.INITIAL_WINDOW_SIZE:
                grown = data - self._initial_room
                self._initial_room = data
                self._rooms = {stream: room + grown for stream, room in self._rooms.items()}

    def _note_headers(self, got: Frame) -> None:
        payload = got.payload
        if got.kind == Kind.HEADERS:
            self._block_flags = got.flags
            assert not got.flags & 0x08, "padded headers are not read here"
            payload = payload[5:] if got.flags & 0x20 else payload
        self._block += payload
        if not got.flags & END_HEADERS:
            return
        block, self._block = self._block, b""
        fields = [(bytes(name), bytes(data)) for name, data in self._decoder.decode(block, raw=True)]
        message = self.message(got.stream)
        ended = bool(self._block_flags & END_STREAM)
        if message.headers:
            message.trailers = fields
        elif dict(fields).get(b":status", b"2")[:1] == b"1":
            message.informs.append(fields)
        else:
            message.headers = fields
            self._requests.append(got.stream)
        message.ended = message.ended or ended

    async def until(self, predicate: Callable[[Frame], bool]) -> Frame:
        """Read on to a frame of that kind. Raises ConnectionError when the connection ends before."""
        async with asyncio.timeout(DEADLINE_S):
            while (got := await self.read()) is not None:
                if predicate(got):
                    return got
        raise ConnectionError("the connection ended")

    async def whole(self, stream: int) -> Message:
        """The message on a stream, once it is over."""
        message = self.message(stream)
        async with asyncio.timeout(DEADLINE_S):
            while not message.over:
                await self.read()
        return message

    async def headed(self, stream: int) -> Message:
        """The message on a stream, once its head came or it is over."""
        message = self.message(stream)
        async with asyncio.timeout(DEADLINE_S):
            while not message.over and not message.headers:
                await self.read()
        return message

    async def next_request(self) -> int:
        """A server's next request head: its stream. Raises ConnectionError at the end."""
        while not self._requests:
            await self.until(lambda f: f.kind in (Kind.HEADERS, Kind.CONTINUATION))
        return self._requests.popleft()

    async def to_the_end(self) -> None:
        """Read until the connection ends."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.read() is not None:
                pass

    async def answer_pings(self) -> None:
        """Answer the PINGs that came."""
        answers, self.unanswered = self.unanswered, []
        await self.send(*answers)

    async def settled(self) -> None:
        """PING and wait for its answer: all that was sent before has been looked at."""
        await self.send(frame(Kind.PING, 0, 0, b"settled!"))
        await self.until(lambda f: f.kind == Kind.PING and bool(f.flags & ACK) and f.payload == b"settled!")


@asynccontextmanager
async def dial(
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    window_bytes: int = WIDE,
    extra: dict[Setting, int] | None = None,
    hello: bool = True,
) -> AsyncIterator[FramePeer]:
    """A client connection, greeted; closed at the end."""
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname="" if tls else None, limit=1 << 20
        )
    peer = FramePeer(reader, writer, window_bytes=window_bytes)
    try:
        if hello:
            await peer.send(peer.hello(client=True, extra=extra))
        yield peer
    finally:
        writer.transport.abort()


@asynccontextmanager
async def serving(
    handler: Callable[[FramePeer], Awaitable[None]],
    *,
    tls: ssl.SSLContext | None = None,
    window_bytes: int = WIDE,
    extra: dict[Setting, int] | None = None,
) -> AsyncIterator[int]:
    """A server whose every connection goes to `handler`, greeted; yields its port. ConnectionError ends a handler quietly."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = FramePeer(reader, writer, window_bytes=window_bytes)
        await peer.send(peer.hello(client=False, extra=extra))
        async with asyncio.timeout(DEADLINE_S):
            await reader.readexactly(len(PREFACE))
        await handler(peer)

    quiet = (ConnectionError, asyncio.IncompleteReadError)
    async with accepting(connected, quiet=quiet, limit=1 << 20, tls=tls) as port:
        yield port
