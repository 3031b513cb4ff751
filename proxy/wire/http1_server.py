"""The caller's end of HTTP/1.1 connections: bytes in, calls out. `h11` behind a strict scan of heads and bodies.

One call at a time; pipelined requests wait in `_rest`, also for the answers before them to be read, bounded by no longer reading.
Mutable state of `Http1Server`: `_phase` says what the next bytes are; `_call` is the call whose response is unfinished; `_rest` holds
bytes not yet looked at.
"""

import asyncio
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import cast

import h11

from proxy.contract.engine import Limits
from proxy.wire import answers, h2c
from proxy.wire.body_scan import BodyScan, ChunkScan, LengthScan
from proxy.wire.head_scan import HeadCollector, Refusal, RequestStart, scan_request
from proxy.wire.http1_call import REASONS, ServerCall
from proxy.wire.http1_wire import Alarm, Outbox, Pieces, read_body, reset
from proxy.wire.streams import AcceptCall, CountFrame, RawHead, Refuse, untraced
from proxy.wire.turns import Rota
from proxy.wire.websocket import offered_key, without_handshake

_EMPTY_LINES = re.compile(rb"\A(?:\r\n)+")  # before a request (RFC 9112 §2.2)
_LINGER_S = 2.0  # how long an answer given early may stand before unread bytes turn our close into a reset


class _Phase(Enum):
    HEAD = auto()  # between requests, or inside a head
    BODY = auto()  # a request body, for the call
    ENDED = auto()  # the request is complete, its response is not
    TUNNEL = auto()  # after 101
    # The rest of a request whose response is complete. Bounded in time alone: a caller that has handed all of it to its system takes the
    # connection for free, and would lose its next request with it.
    DISCARD = auto()
    LINGER = auto()  # we said all; what comes is dropped until the caller closes
    CLOSED = auto()  # or given away


class Http1Server(asyncio.Protocol):
    """One downstream connection. `initial`: bytes that were read before it was handed over. `closed` is called once, at its end.
    `rota`: whom it shares the turns with in which it reads bodies of many small chunks.

    `upgrade`, where HTTP/2 is spoken, too: is given the connection of an offer that was taken, with the bytes after the request; it is
    not closed here then.
    """

    def __init__(
        self,
        accept: AcceptCall,
        limits: Limits,
        count: CountFrame,
        closed: Callable[[], None],
        *,
        initial: bytes = b"",
        rota: Rota | None = None,
        upgrade: Callable[[asyncio.Transport, h2c.Offer, bytes], None] | None = None,
        refuse: Refuse = untraced,
    ) -> None:
        self._reported = refuse
        self._pieces = Pieces(self._read_on, rota)
        self._accept = accept
        self.limits = limits
        self._count = count
        self._closed = closed
        self._upgrade = upgrade
        self._rest = initial
        self._phase = _Phase.HEAD
        self._conn = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * limits.head_bytes)
        self._collector = HeadCollector(limits)
        self._body: BodyScan | None = None
        self._call: ServerCall | None = None
        self._pumping = False
        self._paused = False
        self._leaving = False

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return self._call is not None

    def take_over(self, transport: asyncio.Transport, initial: bytes) -> None:
        """Become the protocol of a transport from which `initial` was read already."""
        self._rest += initial
        transport.set_protocol(self)
        self.connection_made(transport)
        if not transport.is_reading():
            transport.resume_reading()

    def start_drain(self) -> None:
        """Take no further request: an idle connection closes now, another when its call has ended."""
        self._leaving = True
        if self._phase is _Phase.HEAD and not self._collector.started and not self._rest:
            self._shut()

    def end(self) -> None:
        """The engine stops; what was said still leaves."""
        if self._phase is not _Phase.LINGER:
            self._shut()

    def close(self) -> None:
        """Cut the connection; a call under way is gone."""
        self._transport.abort()

    # --- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start reading requests."""
        transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._transport = transport
        self.out = Outbox(transport, self._drained)
        self._alarm = Alarm(self._ring)
        self._alarm.set(self.limits.idle_s)
        if self._rest:
            self._pump()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._phase is _Phase.TUNNEL:
            if self._call is not None:
                self._call.data(data)
        elif self._phase is not _Phase.LINGER and self._phase is not _Phase.CLOSED:
            self._rest = self._rest + data if self._rest else data
            self._pump()
        self.steer()

    def eof_received(self) -> bool:
        """A caller that closes has hung up, except in a tunnel, which has two directions."""
        if self._phase is _Phase.TUNNEL and self._call is not None and self._transport.can_write_eof():
            self._call.end(())
            return not self._transport.is_closing()
        self._gone("the caller closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._phase = _Phase.CLOSED
        self._alarm.stop()
        self._gone("the connection to the caller was lost" + (f": {exc}" if exc else ""))
        self._closed()

    def pause_writing(self) -> None:
        """See Outbox."""
        self.out.pause()

    def resume_writing(self) -> None:
        """See Outbox; and take up the requests that waited for their answers to be read."""
        self.out.resume()
        if self._phase is _Phase.HEAD:
            self._pump()
            self.steer()

    def _drained(self, count: int) -> None:
        if self._call is not None:
            self._call.events.response_drained(count)

    def _gone(self, detail: str) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.gone(detail)

    def _ring(self) -> None:
        match self._phase:
            case _Phase.HEAD if self._collector.started:
                self._refuse(Refusal(408, "head-timeout", "the request head took too long"))
            case _Phase.HEAD:
                self._shut()
            case _Phase.DISCARD:
                self.linger()
            case _:
                self._transport.abort()

    def steer(self) -> None:
        """Read while the call takes more, and not far into the next request."""
        owed = self._call is not None and self._call.unacked >= self.limits.window_bytes
        pause = owed or self._pieces.is_left or len(self._rest) > self.limits.head_bytes
        if pause is not self._paused and not self._transport.is_closing():
            self._paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # --- reading

    def _pump(self) -> None:
        if self._pieces.is_left:
            return
        if self._pumping:  # a call ended inside one of its own events: the loop below goes on
            return
        self._pumping = True
        try:
            while self._rest and self._step():
                pass
        finally:
            self._pumping = False

    def _read_on(self) -> None:
        self._pump()
        self.steer()

    def _step(self) -> bool:
        if self._phase is _Phase.HEAD:
            return not self.out.is_paused and self._step_head()
        if self._phase is _Phase.BODY or self._phase is _Phase.DISCARD:
            return self._step_body()
        return False

    def _step_head(self) -> bool:
        was_started = self._collector.started
        data, self._rest = self._rest, b""
        if not was_started and data[:1] == b"\r":
            data = _EMPTY_LINES.sub(b"", data, count=1)
            if data in (b"", b"\r"):
                self._rest = data
                return False
        head = self._collector.feed(data)
        if head is None:
            if not was_started:
                self._alarm.set(self.limits.head_s)
            return False
        start = scan_request(head, self.limits) if isinstance(head, bytes) else head
        if isinstance(start, Refusal):
            self._refuse(start)
            return False
        assert isinstance(head, bytes)
        self._rest, self._collector.rest = self._collector.rest, b""
        self._alarm.clear()
        offer = h2c.offered(start) if start.options and not self._leaving else None
        if offer is not None and self._upgrade is not None:
            self._switch(offer, self._upgrade)
            return False
        self._conn.receive_data(head)
        try:
            self._conn.next_event()
        except h11.RemoteProtocolError as error:
            self._refuse(Refusal(400, "start-line", str(error)))
            return False
        self._begin(start)
        return True

    def _switch(
        self, offer: h2c.Offer, upgrade: Callable[[asyncio.Transport, h2c.Offer, bytes], None]
    ) -> None:
        """Give the connection away, to be spoken to in HTTP/2."""
        self._alarm.stop()
        self.out.put([h2c.SWITCHING])
        self.out.flush()
        self._phase = _Phase.CLOSED
        rest, self._rest = self._rest, b""
        self.steer()
        upgrade(self._transport, offer, rest)

    def _begin(self, start: RequestStart) -> None:
        key = offered_key(start) if start.options else None
        headers = start.forwarded()
        if start.chunked:
            self._body = ChunkScan(self.limits)
        else:
            self._body = LengthScan(start.length) if start.length else None
        self._phase = _Phase.ENDED if self._body is None else _Phase.BODY
        if self._body is None:
            self._conn.next_event()  # its EndOfMessage
        call = self._call = ServerCall(self, self._conn, start, key)
        call.begin(
            self._accept(
                call,
                RawHead(
                    protocol="http1" if key is None else "websocket",
                    method=start.method,
                    authority=start.host,
                    target=start.target,
                    headers=headers if key is None else without_handshake(headers),
                    framing="stream"
                    if start.chunked or key
                    else "none"
                    if start.length is None
                    else "length",
                    length=None if start.chunked or key else start.length or 0,
                ),
            ),
            complete=self._body is None and key is None,
        )

    def _step_body(self) -> bool:
        assert self._body is not None
        data, self._rest = self._rest, b""
        framed = self._body.feed(data)
        if isinstance(framed, Refusal):
            self._break_off(framed)
            return False
        body, ended, trailers = read_body(self._conn, framed)
        self._rest, self._body.rest = self._body.rest, b""
        if self._rest and not ended:
            self._pieces.leave()
        if self._phase is _Phase.DISCARD:
            if ended:
                self._phase = _Phase.ENDED
                self._next()
            return not self._pieces.is_left
        if ended:
            self._phase = _Phase.ENDED
        call = self._call
        if call is not None:
            if body:
                call.data(body)
            if ended:
                call.end(trailers)
        return not self._pieces.is_left

    # --- between calls

    def must_close(self, call: ServerCall) -> bool:
        """Whether the response of `call` is the last on this connection, as far as is known when its head leaves."""
        if self._leaving or call.method == b"CONNECT":
            return True
        # A caller that waits for a 100 may send the body or leave it out: the next bytes have no sure meaning.
        return self._phase is _Phase.BODY and self._conn.they_are_waiting_for_100_continue

    def finished(self) -> None:
        """The response of the call is complete."""
        self._call = None
        self.out.flush()
        if self._phase is _Phase.BODY and self._conn.our_state is h11.DONE:
            self._phase = _Phase.DISCARD
            self._alarm.set(self.limits.head_s)
            self._pump()
        elif self._phase is _Phase.BODY:
            self.linger()
        elif self._phase is _Phase.ENDED:
            self._next()
        self.steer()

    def _next(self) -> None:
        if self._leaving or self._conn.our_state is not h11.DONE or self._conn.their_state is not h11.DONE:
            self._shut()
            return
        self._conn.start_next_cycle()
        self._phase = _Phase.HEAD
        self._alarm.set(self.limits.idle_s)
        self._pump()

    def enter_tunnel(self, call: ServerCall) -> None:
        """101 was sent: from now on bytes are bytes."""
        self._phase = _Phase.TUNNEL
        data, self._rest = self._rest, b""
        if data:
            call.data(data)
        self.steer()

    def end_tunnel(self, *, caller_ended: bool) -> None:
        """Our direction of the tunnel has ended."""
        self.out.flush()
        if caller_ended or not self._transport.can_write_eof():
            self._call = None
            self._shut()
        elif not self._transport.is_closing():
            self._transport.write_eof()
            self._alarm.set(self.limits.head_s)

    # --- endings

    def _refuse(self, refusal: Refusal) -> None:
        self._count(refusal.kind)
        self.answer(refusal.status, refusal.text)

    def answer(self, status: int, text: str) -> None:
        """Answer in `h11`'s stead, which can't speak before a valid head or after an error; then close.

        Without fields for pages: a head that can't be read names no origin, and no browser frames a body as those do that end here.
        """
        headers, body = answers.unreadable(text, self._reported(status))
        fields = b"".join(b"%b: %b\r\n" % field for field in headers)
        head = b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b""))
        self.out.put([head, fields, b"connection: close\r\n\r\n", body])
        self.linger()

    def _break_off(self, refusal: Refusal) -> None:
        """The request body is not what HTTP allows: the call ends, answered if nothing was said yet."""
        self._count(refusal.kind)
        call = self._call
        self._gone(refusal.text)
        if call is None or call.answered:
            self.cut(hard=call is not None and call.delimited)
        else:
            self.answer(refusal.status, refusal.text)

    def cut(self, *, hard: bool) -> None:
        """Close in the midst of a response. `hard`: only a reset tells the caller that it is incomplete."""
        self._call = None
        if hard:
            self._phase = _Phase.LINGER
            reset(self._transport)
        else:
            self._shut()

    def linger(self) -> None:
        """Say no more, but let the caller read what was said before the connection closes."""
        self._call = None
        self.out.flush()
        if self._transport.is_closing() or not self._transport.can_write_eof():
            self._shut()
            return
        self._phase = _Phase.LINGER
        self._rest = b""
        self._transport.write_eof()
        self._alarm.set(_LINGER_S)
        self.steer()

    def _shut(self) -> None:
        """Close once what was written has left, or the caller does not take it."""
        self.out.flush()
        self._phase = _Phase.LINGER
        self._rest = b""
        self._transport.close()
        self._alarm.set(self.limits.head_s)
