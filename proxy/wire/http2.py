"""What both ends of HTTP/2 share: bytes through the frame filter and h2, body credit, queues bounded by flow control.

One object per connection, driven by the transport. Everything is a plain call; writes are gathered and sent once per loop turn.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import ClassVar, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hpack.exceptions import HPACKError

from proxy.contract.engine import Limits
from proxy.contract.head import Header, Headers
from proxy.wire.field_decoder import MALFORMED, FieldDecoder
from proxy.wire.field_encoder import FieldEncoder
from proxy.wire.frame_filter import FloodError, FrameFilter, GoAway, goaway_frame
from proxy.wire.http2_frames import Frames
from proxy.wire.streams import CountFrame
from proxy.wire.term import Term
from proxy.wire.turns import Rota, Turns

Codes = h2.errors.ErrorCodes
Setting = h2.settings.SettingCodes
Handlers = dict[type[h2.events.Event], Callable[..., None]]
# Never on HTTP/2 (RFC 9113 §8.2.2); `te` may say `trailers` only.
CONNECTION_HEADERS = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"host",
    }
)


def allowed(headers: Headers) -> Headers:
    """The fields that may go out: one that may not would cost the connection, and every other call on it."""
    return tuple(
        [
            field
            for field in headers
            if field[0] not in CONNECTION_HEADERS and (field[0] != b"te" or field[1] == b"trailers")
        ]
    )


def check_sound(fields: list[Header]) -> None:
    """Raises: ProtocolError, for a block that the decoder has found malformed."""
    if fields and fields[0][0] == MALFORMED:
        raise h2.exceptions.ProtocolError(fields[0][1].decode())


def read_length(headers: Headers) -> int | None:
    """The content-length; None where there is none. Raises: ProtocolError, where it is not a number or given twice."""
    lengths = [value for name, value in headers if name == b"content-length"]
    if not lengths:
        return None
    if len(lengths) > 1:  # equal or not, the next parser may take the other one
        raise h2.exceptions.ProtocolError("two content-length fields")
    if not lengths[0].isdigit() or len(lengths[0]) > _MAX_LENGTH_DIGITS:
        raise h2.exceptions.ProtocolError("the content-length is not a number")
    return int(lengths[0])


def read_trailers(event: h2.events.TrailersReceived, most: int) -> Headers:
    """Raises: ProtocolError, where they do not end the message, for a pseudo-header field (RFC 9113 §8.1) or more than `most` fields."""
    fields = event.headers
    check_sound(fields)
    if event.stream_ended is None:
        raise h2.exceptions.ProtocolError("a second head, or trailers without END_STREAM")
    if len(fields) > most:
        raise h2.exceptions.ProtocolError(f"more than {most} fields in trailers")
    if fields and fields[0][0][:1] == b":":  # they come first, or the decoder would have refused them
        raise h2.exceptions.ProtocolError(f"a pseudo-header field in trailers: {fields[0][0]!r}")
    return tuple(fields)


def _uncancelled(events: list[h2.events.Event]) -> list[h2.events.Event]:
    """Without requests that were cancelled before anybody looked at them: they never become calls."""
    over = {
        event.stream_id for event in events if isinstance(event, h2.events.StreamReset) and event.remote_reset
    }
    if not over:
        return events
    return [
        event
        for event in events
        if not isinstance(event, h2.events.RequestReceived) or event.stream_id not in over
    ]


_MAX_LENGTH_DIGITS = 19  # what fits 64 bits
OWN_PATIENCE = 12  # times as long an app and those who call us as one may take for a PING: one that is debugged stands still
_LINGER_S = 1.0  # for which a peer that broke a rule may take to read why
_UNREAD = 8  # windows of answers that a peer may leave unread: bodies wait for room, but heads and answers without a body do not


class Stream:
    """One stream's sending side and the credit owed for what it received."""

    __slots__ = ("closed", "due", "ended", "id", "owed", "queue", "queued", "trailers")

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.queue: deque[bytes] = deque()
        self.queued = 0
        self.trailers: Headers | None = None  # set: finish with these once the queue is empty
        self.owed = 0
        self.due: int | None = None  # bytes of the body to come, where its length was announced
        self.ended = False  # we have sent END_STREAM
        self.closed = False

    def drained(self, count: int) -> None:
        """So many bytes left for the wire."""


class Http2End(asyncio.Protocol):
    """The shared half of a server or client connection.

    Mutable state: `streams` (open ones by id), `_dirty` (a flush is scheduled), `_paused` (the transport's buffer is full),
    `_is_lingering` (we said GOAWAY, and what still comes is dropped), `_starved` (streams with queued bytes that a window or the
    transport holds back, in the order of their turns), `_ahead` (how many bytes of bodies may still go out, for an upgrade).
    """

    def __init__(
        self, limits: Limits, count: CountFrame, *, server: bool, own: bool, rota: Rota | None
    ) -> None:
        """`own`: our own app is at the other end. `rota`: see Turns."""
        self._limits = limits
        self._count = count
        self._server = server
        self._loop = asyncio.get_running_loop()
        config = h2.config.H2Configuration(
            client_side=not server,
            header_encoding=None,
            validate_inbound_headers=False,  # FieldDecoder does, and the readers of heads
            normalize_inbound_headers=False,  # as they do
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = Frames(config)
        self._h2.encoder = FieldEncoder()  # type: ignore[assignment]
        self._h2.decoder = FieldDecoder()  # type: ignore[assignment]
        self._filter = FrameFilter(limits, self._loop.time, server=server, own=own)
        self._transport: asyncio.Transport | None = None
        self._dirty = False
        self._paused = False
        self._ahead = sys.maxsize
        self._is_lingering = False
        self._turns = Turns(self._feed, self._loop, rota)
        self._starved: dict[int, Stream] = {}
        self.streams: dict[int, Stream] = {}
        self.active_at = self.waits_since = self._loop.time()
        self._heard_at = self.active_at
        self._silence_s = limits.ping_s  # with calls, then a PING
        self._answer_s = limits.pong_s * (OWN_PATIENCE if own else 1)
        self._ping_sent_at: float | None = None
        self.is_unanswered = False  # a PING, for so long that the connection was given up
        self.term: Term | None = None  # between proxies: until when the certificates of both hold

    # --- transport -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send our settings."""
        transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._transport = transport
        self._turns.begin(transport)
        transport.set_write_buffer_limits(high=self._limits.window_bytes)
        local = h2.settings.Settings(
            client=not self._server,
            initial_values={
                Setting.ENABLE_PUSH: 0,
                Setting.INITIAL_WINDOW_SIZE: self._limits.window_bytes,
                Setting.MAX_CONCURRENT_STREAMS: self._limits.streams,
                Setting.MAX_HEADER_LIST_SIZE: self._limits.head_bytes,
                Setting.ENABLE_CONNECT_PROTOCOL: 1,
            },
        )
        if self._server:
            del local[Setting.ENABLE_PUSH]
        self._h2.local_settings = local
        self._h2.decoder.max_header_list_size = self._limits.head_bytes
        self._h2.decoder.max_fields = self._limits.header_count  # type: ignore[attr-defined]
        self.initiate()
        extra = self._limits.connection_window_bytes - 65_535
        if extra > 0:
            self._h2.increment_flow_control_window(extra)
        self.flush()

    def initiate(self) -> None:
        """Have h2 begin."""
        self._h2.initiate_connection()

    def data_received(self, data: bytes) -> None:
        """Feed the filter, then h2, then dispatch; any broken rule ends the connection with GOAWAY."""
        self._turns.received(data)

    def _feed(self, data: bytes) -> bytes | None:
        """Read a piece; what is left for later ones, None where the connection is over."""
        self._heard_at = self._loop.time()
        try:
            passed = self._filter.feed(data)
            events = self._h2.receive_data(passed) if passed else []
            for event in _uncancelled(events):
                handler = self._HANDLERS.get(type(event))
                if handler is not None:
                    handler(self, event)
            if self._filter.stalled:
                self._break_off_stalled()
        except FloodError as error:
            self._count(error.kind)
            self.fail(error.code, str(error))
            return None
        except h2.exceptions.ProtocolError as error:
            is_bomb = isinstance(error, h2.exceptions.DenialOfServiceError)
            self._count("head-size" if is_bomb else "protocol")
            is_coding = (
                isinstance(error.__cause__, HPACKError) and not is_bomb
            )  # h2 says PROTOCOL_ERROR (RFC 9113 §4.3)
            code = Codes.COMPRESSION_ERROR if is_coding else Codes(error.error_code)
            self.fail(code, str(error) or type(error).__name__)
            return None
        if self._filter.goaway is not None:
            goaway, self._filter.goaway = self._filter.goaway, None
            self.goaway_received(goaway)
        if not self._filter.pending:
            self._slow_down()
        self.schedule_flush()
        return self._filter.pending

    def _break_off_stalled(self) -> None:
        stalled, self._filter.stalled = self._filter.stalled, []
        begun = max(self._h2.highest_inbound_stream_id, self._h2.highest_outbound_stream_id)
        for stream_id in stalled:
            if stream_id > begun:
                raise h2.exceptions.ProtocolError("a WINDOW_UPDATE of a stream that has not begun")
            if stream_id in self.streams:
                self.break_off(self.streams[stream_id], "a WINDOW_UPDATE of 0")

    def _slow_down(self) -> None:
        """Read on later where the peer is beyond its budget, and send it away before that gets worse."""
        strain = self._filter.take_strain()
        if strain:
            self._count(strain)
            self.leave()
        pause_s = self._filter.take_pause()
        if pause_s:
            self._turns.slow_down(pause_s)

    def eof_received(self) -> bool:
        """A half-closed HTTP/2 connection is of no use."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End every call."""
        if not self._server:
            self._turns.read_all()  # answers that came before the end
        self._transport = None
        self.lost(str(exc) if exc else "the connection was closed")

    def pause_writing(self) -> None:
        """The transport's buffer is full: keep bytes in the streams' queues."""
        self._paused = True

    def resume_writing(self) -> None:
        """There is room again."""
        self._paused = False
        self._pump_starved()

    @property
    def closing(self) -> bool:
        """Whether the transport is gone or going."""
        return self._transport is None or self._is_lingering or self._transport.is_closing()

    def schedule_flush(self) -> None:
        """Write what h2 has ready once this loop turn is over."""
        if not self._dirty:
            self._dirty = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what h2 has ready."""
        self._dirty = False
        if self._transport is not None and not self.closing:
            data = self._h2.data_to_send()
            if data:
                self._transport.write(data)
                if self._paused:
                    self._bound_unread(self._transport)

    def _bound_unread(self, transport: asyncio.Transport) -> None:
        if transport.get_write_buffer_size() > _UNREAD * self._limits.window_bytes:
            self._count("unread-answers")
            transport.abort()

    def fail(self, code: int, detail: str) -> None:
        """GOAWAY and close: the peer broke a rule."""
        if self._transport is not None and not self.closing:
            self._h2.clear_outbound_data_buffer()
            self._transport.write(goaway_frame(self._h2.highest_inbound_stream_id, code))
            self._linger(self._transport)
        self.lost(detail)

    def shut(self) -> None:
        """Close now, politely."""
        if self._transport is not None and not self.closing:
            self.flush()
            self._transport.write(goaway_frame(self._h2.highest_inbound_stream_id, Codes.NO_ERROR))
            self._close(self._transport)

    def _linger(self, transport: asyncio.Transport) -> None:
        """Close once the peer has, or after a moment: unread bytes would turn the close into a reset, which may overtake the GOAWAY."""
        if not transport.can_write_eof():  # TLS reads on until the peer's close_notify
            self._close(transport)
            return
        self._is_lingering = True
        self._turns.stop()
        transport.write_eof()
        self._loop.call_later(min(_LINGER_S, self._limits.head_s), transport.abort)

    def _close(self, transport: asyncio.Transport) -> None:
        """Close once all is written; a peer that does not read can't keep us."""
        transport.close()
        self._loop.call_later(self._limits.head_s, transport.abort)

    def check_term(self, wall: float) -> None:
        """Called every second or so: leave before a certificate of this connection ends, and close once it has. `wall`: epoch seconds."""
        if self.term is None or self.closing:
            return
        if wall >= self.term.end_at:
            self._count("certificate-expired")
            self.fail(Codes.NO_ERROR, "a certificate of this connection has expired")
        elif wall >= self.term.drain_at:
            self.leave()

    def check_alive(self, now: float) -> None:
        """Called every second or so: ping a silent connection that has calls, drop one that does not answer or ends no head."""
        if self._filter.block_at is not None and now - self._filter.block_at > self._limits.head_s:
            self._count("head-timeout")
            self.fail(Codes.ENHANCE_YOUR_CALM, "a header block took too long")
        elif self._ping_sent_at is not None and now - self._ping_sent_at > self._answer_s:
            self.is_unanswered = True
            self._count("ping-unanswered")
            if self._transport is not None:
                self._transport.abort()
        elif self._ping_sent_at is None and self.streams and self._is_silent(now):
            self._ping_sent_at = now
            self._h2.ping(b"postern!")
            self.schedule_flush()

    def _is_silent(self, now: float) -> bool:
        return now - max(self._heard_at, self.waits_since) > self._silence_s

    # --- for the ends to fill in -----------------------------------------------------------------------------------------

    def goaway_received(self, goaway: GoAway) -> None:
        """The peer sent GOAWAY."""

    def leave(self) -> None:
        """Take no new calls, and close with the last; again is harmless."""

    def break_off(self, stream: Stream, detail: str) -> None:
        """The peer broke a rule of this stream: reset it, and end its call, but no other (RFC 9113 §5.4.2, §8.1.1)."""

    def lost(self, detail: str) -> None:
        """The connection is gone; called at least once, calls end now."""

    def stream_closed(self, stream: Stream) -> None:
        """A stream is over and out of `streams`."""

    # --- sending -------------------------------------------------------------------------------------------------------

    def send_head(self, stream_id: int, headers: Iterable[Header], *, end: bool) -> None:
        """A header block. A stream that the peer has just reset takes none: its reset event is on its way."""
        try:
            self._h2.send_headers(stream_id, headers, end_stream=end)
        except h2.exceptions.StreamClosedError:
            return
        self.schedule_flush()

    def send_body(self, stream: Stream, data: bytes) -> None:
        """Queue body bytes and send what the windows allow."""
        if stream.closed or not data:
            return
        stream.queue.append(data)
        stream.queued += len(data)
        self.pump(stream)

    def send_end(self, stream: Stream, trailers: Headers) -> None:
        """Finish the sending side once its queue is empty."""
        if stream.closed or stream.ended:
            return
        stream.trailers = allowed(trailers)
        self.pump(stream)

    def pump(self, stream: Stream) -> None:
        """Move queued bytes into h2 as far as the windows and the transport allow."""
        if self.closing:
            return
        try:
            sent = self._move(stream)
            if not stream.queue:
                self._end_if_due(stream)
        except h2.exceptions.StreamClosedError:
            return  # reset by the peer in the same read: its event follows and ends the stream
        self.schedule_flush()
        if sent:
            stream.drained(sent)

    def _move(self, stream: Stream) -> int:
        sent = 0
        if not self._paused and stream.queue:
            window = self._h2.local_flow_control_window(stream.id)
            room = min(window, self._limits.window_bytes, self._ahead)
            frame = self._h2.max_outbound_frame_size
            while stream.queue and room > 0:
                chunk = stream.queue[0]
                size = min(len(chunk), room, frame)
                last = stream.trailers == () and len(stream.queue) == 1 and size == len(chunk)
                self._h2.send_data(stream.id, chunk if size == len(chunk) else chunk[:size], end_stream=last)
                stream.ended = stream.ended or last
                if size == len(chunk):
                    stream.queue.popleft()
                else:
                    stream.queue[0] = chunk[size:]
                room -= size
                sent += size
        stream.queued -= sent
        if sent:
            self._ahead -= sent
            self._filter.sent_data(sent)
        if sent or not stream.queue:
            self._starved.pop(stream.id, None)
        if stream.queue:  # behind all others, if it had its turn: they share what little room there is
            self._starved.setdefault(stream.id, stream)
        return sent

    def _end_if_due(self, stream: Stream) -> None:
        if stream.trailers is None:
            return
        if not stream.ended:
            stream.ended = True
            if stream.trailers:
                self._h2.send_headers(stream.id, stream.trailers, end_stream=True)
            else:
                self._h2.end_stream(stream.id)
        self.sent_end(stream)

    def sent_end(self, stream: Stream) -> None:
        """Our END_STREAM is on its way."""

    def _pump_starved(self) -> None:
        for stream in list(self._starved.values()):
            if self._paused:
                return
            if not stream.closed:
                self.pump(stream)

    def reset(self, stream: Stream, code: int) -> None:
        """RST_STREAM, unless the stream is over or has not begun."""
        if not stream.closed and stream.id and not self.closing:
            with suppress(h2.exceptions.StreamClosedError):  # both sides may have ended it already
                self._h2.reset_stream(stream.id, code)
            self.schedule_flush()
        self.forget(stream)

    def drop_unsent(self, stream: Stream) -> None:
        """What of a body waits for a window will not be sent; the windows are for other streams."""
        stream.queue.clear()
        stream.queued = 0
        self._starved.pop(stream.id, None)

    def forget(self, stream: Stream) -> None:
        """A stream is over: give back the connection credit that its unread bytes hold."""
        if stream.closed:
            return
        stream.closed = True
        self.drop_unsent(stream)
        self.streams.pop(stream.id, None)
        self.active_at = self._loop.time()
        if stream.owed:
            self._acknowledge(stream.id, stream.owed)
            stream.owed = 0
        self.stream_closed(stream)

    # --- receiving -----------------------------------------------------------------------------------------------------

    def take(self, stream: Stream, count: int, *, ended: bool) -> bool:
        """Count bytes of a body that came; whether they keep to the length that was announced (RFC 9113 §8.1.1)."""
        if stream.due is None:
            return True
        stream.due -= count
        return stream.due == 0 if ended else stream.due >= 0

    def owe(self, stream: Stream, data: h2.events.DataReceived) -> None:
        """Note the credit for received body bytes; padding is given back at once."""
        body = len(data.data or b"")
        stream.owed += body
        padding = (data.flow_controlled_length or body) - body
        if padding:
            if not body:
                self._filter.count_empty()
            self._acknowledge(stream.id, padding)

    def repay(self, stream: Stream, count: int) -> None:
        """The bytes were carried on."""
        count = min(count, stream.owed)
        if count and not self.closing:
            stream.owed -= count
            self._acknowledge(stream.id, count)
            self.schedule_flush()

    def _acknowledge(self, stream_id: int, count: int) -> None:
        if not self.closing:
            self._h2.acknowledge_received_data(count, stream_id)

    def _on_window(self, event: h2.events.WindowUpdated) -> None:
        if event.stream_id:
            stream = self._starved.get(event.stream_id)
            if stream is not None:
                self.pump(stream)
        else:
            self._pump_starved()

    def on_settings(self, event: h2.events.RemoteSettingsChanged) -> None:
        """The peer changed its settings: windows may have grown."""
        self._pump_starved()

    def _on_ping_ack(self, event: h2.events.PingAckReceived) -> None:
        self._ping_sent_at = None
        self._silence_s = min(2 * self._silence_s, self._limits.ping_s)  # alive: asked ever more seldom
        self.answered_ping(event.ping_data or b"")

    def answered_ping(self, data: bytes) -> None:
        """Our PING came back."""

    _HANDLERS: ClassVar[Handlers] = {
        h2.events.WindowUpdated: _on_window,
        h2.events.RemoteSettingsChanged: lambda self, event: self.on_settings(event),
        h2.events.PingAckReceived: _on_ping_ack,
    }
