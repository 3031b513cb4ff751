"""The callee's end of HTTP/1.1 connections to apps: calls in, bytes out. `h11` behind a strict scan of heads and bodies.

One call at a time, kept alive between calls. Mutable state of `Http1Client`: `_phase` says what the next bytes are; `_call` is the
call in flight; `_usable` turns False for good when the connection must not take another call.
"""

import asyncio
import ssl
from enum import Enum, auto
from typing import cast

import h11

from proxy.contract.engine import Limits, Via
from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.errors import os_reason
from proxy.wire.body_scan import BodyScan, ChunkScan, CloseScan, LengthScan
from proxy.wire.head_scan import DECLINED, HeadCollector, Refusal, ResponseStart, scan_response
from proxy.wire.http1_request import ClientCall
from proxy.wire.http1_wire import Alarm, Outbox, Pieces, read_body, reset
from proxy.wire.http_tunnel import refused_by_proxy
from proxy.wire.streams import ConnectionOwner, CountFrame, ResponseEvents
from proxy.wire.tls_alerts import alert_of, ends_handshake, in_words, told
from proxy.wire.turns import Rota
from proxy.wire.websocket import is_accepted, without_handshake

# App servers close idle connections after 2 s (gunicorn), 5 s (Node, uvicorn) or more, and a request that meets the close is lost.
# A connection that was not wanted for this long is cheaper to make anew than to guess about.
_IDLE_S = 1.5
_INFORMS = 32  # 1xx answers to one request; more is a flood


class _Phase(Enum):
    IDLE = auto()  # no call; any byte is one too many
    HEAD = auto()  # a response head, perhaps a 1xx
    BODY = auto()
    TUNNEL = auto()
    CLOSED = auto()


class Http1Client(asyncio.Protocol):
    """One upstream connection (UpstreamConnection). who: is at the other end, in errors. via: that is this HTTP proxy."""

    alpn = "http/1.1"
    has_extended_connect = False

    def __init__(
        self,
        owner: ConnectionOwner,
        limits: Limits,
        count: CountFrame,
        who: str = "the app",
        via: Via | None = None,
        *,
        rota: Rota | None = None,
    ) -> None:
        """rota: whom it shares the turns with in which it reads bodies of many small chunks."""
        self._pieces = Pieces(self._read_on, rota)
        self._owner = owner
        self._via = via
        self._who = who
        self._limits = limits
        self._count = count
        self._conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=2 * limits.head_bytes)
        self._collector = HeadCollector(limits)
        self._body: BodyScan | None = None
        self._call: ClientCall | None = None
        self._phase = _Phase.IDLE
        self._usable = False
        self._reused = False
        self._paused = False
        self._pumping = False
        self._informs = 0
        self._rest = b""
        self._detail = ""
        self.in_flight = 0

    # --- UpstreamConnection

    @property
    def capacity(self) -> int:
        """See UpstreamConnection."""
        return 1 if self._usable and self._call is None else 0

    def open(self, events: ResponseEvents) -> ClientCall:
        """See UpstreamConnection."""
        self._alarm.clear()
        self._phase = _Phase.HEAD
        self._informs = 0
        self.in_flight = 1
        call = self._call = ClientCall(self, self._conn, events, self.out.handed, self._via)
        return call

    def retire(self) -> None:
        """See UpstreamConnection."""
        self._usable = False
        if self._call is None:
            self._shut("retired")

    def close(self) -> None:
        """See UpstreamConnection."""
        self._shut("closed")
        self._lose("the connection was closed")

    # --- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for calls."""
        transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._transport = transport
        self.out = Outbox(transport, self._drained)
        self._alarm = Alarm(self._ring)
        self._alarm.set(self._idle_s)
        self._usable = True

    @property
    def _idle_s(self) -> float:
        return min(_IDLE_S, self._limits.idle_s)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._phase is _Phase.TUNNEL:
            if self._call is not None:
                self._call.data(data)
        elif self._phase is _Phase.IDLE:
            self._count("unasked-bytes")
            self._shut(f"{self._who} sent bytes that nobody asked for")
        elif self._phase is not _Phase.CLOSED:
            self._rest = self._rest + data if self._rest else data
            self._pump()
        self.steer()

    def eof_received(self) -> bool:
        """The end of a close-delimited body, of one direction of a tunnel, or of the connection."""
        self._read_all()
        call = self._call
        if call is not None and self._phase is _Phase.TUNNEL:
            call.end_tunnel()
            return self._transport.can_write_eof() and not self._transport.is_closing()
        if call is not None and isinstance(self._body, CloseScan):
            self._conn.receive_data(b"")
            _, ended, trailers = read_body(self._conn, b"")
            if ended:
                self._usable = False
                self._complete(call, trailers)
        detail = f"{self._who} closed the connection"
        self._detail = self._detail or detail
        self._lose(detail)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._read_all()
        alert = alert_of(exc)
        if alert is not None:
            detail = f"{self._who} ended the connection: {in_words(alert)}"
        elif exc is None or isinstance(exc, ssl.SSLEOFError):
            detail = f"{self._who} closed the connection"
        else:
            detail = (
                f"the connection to {self._who} broke: {os_reason(exc) if isinstance(exc, OSError) else exc}"
            )
        self._usable = False
        self._alarm.stop()
        if alert is not None and ends_handshake(alert) and not (self._reused or self._collector.started):
            detail = told(self._who, alert)
            self.fail(Cause.TLS_IDENTITY, detail)
        self._lose(detail)
        self._phase = _Phase.CLOSED
        self._owner.connection_closed(self, self._detail or detail)

    def pause_writing(self) -> None:
        """See Outbox."""
        self.out.pause()

    def resume_writing(self) -> None:
        """See Outbox."""
        self.out.resume()

    def _drained(self, count: int) -> None:
        if self._call is not None:
            self._call.events.request_drained(count)

    def _ring(self) -> None:
        if self._phase is _Phase.IDLE:
            self._shut("idle")
        elif self._phase is _Phase.HEAD:
            self.fail(Cause.RESET_EARLY, f"{self._who} took too long over its response head")
        else:
            self._transport.abort()

    def steer(self) -> None:
        """Read while the call takes more."""
        is_full = self._call is not None and self._call.unacked >= self._limits.window_bytes
        pause = is_full or self._pieces.is_left
        if pause is not self._paused and not self._transport.is_closing():
            self._paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # --- reading

    def _pump(self) -> None:
        if self._pumping or self._pieces.is_left:
            return
        self._pumping = True
        try:
            while self._rest and self._call is not None and self._step(self._call):
                pass
        finally:
            self._pumping = False

    def _read_on(self) -> None:
        self._pump()
        self.steer()

    def _read_all(self) -> None:
        """Read what waits for its turn: nothing more comes."""
        while self._pieces.is_left and self._rest and self._call is not None:
            self._step(self._call)

    def _step(self, call: ClientCall) -> bool:
        data, self._rest = self._rest, b""
        if self._phase is _Phase.BODY:
            return self._step_body(call, data)
        head = self._collector.feed(data)
        if head is None:
            self._alarm.set(self._limits.head_s)
            return False
        start = scan_response(head, self._limits) if isinstance(head, bytes) else head
        if isinstance(start, Refusal):
            return self._refuse(start)
        assert isinstance(head, bytes)
        self._rest, self._collector.rest = self._collector.rest, b""
        self._alarm.clear()
        return self._head(call, head, start)

    def _head(self, call: ClientCall, head: bytes, start: ResponseStart) -> bool:
        status = start.status
        if status < 200 and not self._inform_is_fine(call, start):
            return False
        self._conn.receive_data(head)
        try:
            self._conn.next_event()
        except h11.RemoteProtocolError as error:
            return self._refuse(Refusal(400, "start-line", str(error)))
        if status == 407 and self._via is not None:  # who is asked here is not the app
            self.fail(Cause.CONNECT, refused_by_proxy(self._via.address, "the request", status))
            return False
        if status >= 200:
            self._respond(call, start)
        elif status == 101:
            self._switch(call, start)
        else:
            call.events.response_inform(status, start.forwarded())
        return True

    def _inform_is_fine(self, call: ClientCall, start: ResponseStart) -> bool:
        self._informs += 1
        if start.status == 101 and (call.key is None or not is_accepted(start, call.key)):
            self.fail(
                Cause.INVALID_ANSWER,
                f"{self._who} switched protocols without being asked, or to another one",
            )
            return False
        if self._informs > _INFORMS:
            self._count("informational")
            self.fail(Cause.RESET_EARLY, f"{self._who} sent more than {_INFORMS} informational answers")
            return False
        return True

    def _respond(self, call: ClientCall, start: ResponseStart) -> None:
        self._body = self._framing(call, start)
        status, headers = start.status, start.forwarded()
        if call.key is not None and status < 300:
            status, headers = 501, (*headers, (DECLINED, b"%d" % status))
        if self._body is None:
            self._conn.next_event()  # its EndOfMessage
            self._recycle(call)
            call.events.response_head(status, headers, end=True)
            self._offer()
            return
        self._phase = _Phase.BODY
        call.answered = True
        call.events.response_head(status, headers, end=False)

    def _framing(self, call: ClientCall, start: ResponseStart) -> BodyScan | None:
        """RFC 9112 §6.3, for what the strict scan lets pass."""
        if call.method == b"HEAD" or start.status in (204, 304):
            return None
        if start.chunked:
            return ChunkScan(self._limits)
        if start.length is None:
            return CloseScan()
        return LengthScan(start.length) if start.length else None

    def _switch(self, call: ClientCall, start: ResponseStart) -> None:
        self._phase = _Phase.TUNNEL
        data, self._rest = self._rest, b""
        call.answered = True
        call.events.response_head(200, without_handshake(start.forwarded()), end=False)
        call.enter_tunnel()
        if data:
            call.data(data)

    def _step_body(self, call: ClientCall, data: bytes) -> bool:
        assert self._body is not None
        framed = self._body.feed(data)
        if isinstance(framed, Refusal):
            self._count(framed.kind)
            self.fail(Cause.RESET_LATE, f"the response body of {self._who} is malformed: {framed.text}")
            return False
        body, ended, trailers = read_body(self._conn, framed)
        self._rest, self._body.rest = self._body.rest, b""
        if self._rest and not ended:
            self._pieces.leave()
        if body:
            call.data(body)
        if ended and call.live:
            self._complete(call, trailers)
        return not self._pieces.is_left

    # --- endings

    def _complete(self, call: ClientCall, trailers: Headers) -> None:
        self._recycle(call)
        call.events.response_end(trailers)
        self._offer()

    def _recycle(self, call: ClientCall) -> None:
        """The response is complete: ready for the next call, or closed. All of it before anybody is told."""
        self._drop_call(call)
        self._body = None
        if self._rest:
            self._count("unasked-bytes")
            self._rest = b""
            self._usable = False
        if self._usable and self._conn.our_state is h11.DONE and self._conn.their_state is h11.DONE:
            self._conn.start_next_cycle()
            self._phase = _Phase.IDLE
            self._reused = True
            self._alarm.set(self._idle_s)
        elif self._conn.our_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
            self._shut("the last call has ended")
        else:  # the app answered before it had the whole request, and the rest can't be taken back
            self._abort(f"{self._who} answered before the request was complete")

    def _offer(self) -> None:
        self.steer()
        if self.capacity:
            self._owner.capacity_changed(self)

    def _drop_call(self, call: ClientCall) -> None:
        call.live = False
        self._call = None
        self.in_flight = 0

    def _refuse(self, refusal: Refusal) -> bool:
        self._count(refusal.kind)
        self.fail(Cause.INVALID_ANSWER, f"the answer of {self._who} is not valid HTTP/1.1: {refusal.text}")
        return False

    def fail(self, cause: Cause, detail: str) -> None:
        """The call breaks, and the connection with it."""
        call = self._call
        if call is None:
            return
        self._drop_call(call)
        self._abort(detail)
        call.events.response_lost(cause, detail)

    def _lose(self, detail: str) -> None:
        """The connection went away under the call, if there is one."""
        call = self._call
        if call is None:
            return
        if call.callee_ended:  # the response was complete; only the caller's direction of a tunnel was left
            self._drop_call(call)
        elif call.answered:
            self.fail(Cause.RESET_LATE, f"{detail} before the response was complete")
        elif self.out.handed == call.handed:
            self.fail(Cause.REFUSED, f"{detail} before the request was sent")
        elif self._collector.started:
            self.fail(Cause.RESET_EARLY, f"{detail} in the middle of a response head")
        elif self._reused:
            self.fail(Cause.RESET_EARLY, f"{detail}: it was idle")
        else:
            self.fail(Cause.RESET_EARLY, f"{detail} without an answer")

    def cancel(self, call: ClientCall) -> None:
        """The exchange gave up the call; the app hears of it by the close."""
        self._drop_call(call)
        if self._phase is _Phase.TUNNEL:
            reset(self._transport)
        self._abort("the call was cancelled")

    def end_tunnel(self, call: ClientCall, *, both: bool) -> None:
        """The caller's direction of the tunnel has ended, or both have."""
        self.out.flush()
        if both or not self._transport.can_write_eof():
            self._drop_call(call)
            self._shut("the tunnel has ended")
        elif not self._transport.is_closing():
            self._transport.write_eof()
            self._alarm.set(self._limits.head_s)

    def _shut(self, detail: str) -> None:
        self._usable = False
        self._detail = self._detail or detail
        if self._call is None:
            self._phase = _Phase.CLOSED
        self.out.flush()
        self._transport.close()
        self._alarm.set(self._limits.head_s)

    def _abort(self, detail: str) -> None:
        self._usable = False
        self._detail = self._detail or detail
        self._phase = _Phase.CLOSED
        self._rest = b""
        self._transport.abort()
