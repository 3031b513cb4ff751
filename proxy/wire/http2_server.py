"""The downstream end of HTTP/2: from the app (prior knowledge) and from peers (mutual TLS)."""

import asyncio
import base64
import re
import sys
from collections.abc import Callable
from typing import ClassVar

import h2.events
from h2.exceptions import ProtocolError

from proxy.contract.engine import Limits
from proxy.contract.head import Framing, Header, Headers
from proxy.contract.plan import Cause
from proxy.wire import answers
from proxy.wire.field_decoder import OVERSIZED
from proxy.wire.frame_filter import GoAway, goaway_frame
from proxy.wire.h2c import AHEAD, Offer
from proxy.wire.head_scan import AUTHORITY, TOKEN
from proxy.wire.http2 import (
    Codes,
    Handlers,
    Http2End,
    Stream,
    allowed,
    check_sound,
    read_length,
    read_trailers,
)
from proxy.wire.streams import AcceptCall, CountFrame, RawHead, Refuse, RequestEvents, Wire, untraced
from proxy.wire.turns import Rota

_TOO_LARGE = "the head is too large, or has too many fields"
_OTHER_LENGTH = "the body has another length than its content-length"
_LAST_STREAM_ID = 0x7FFFFFFF
_DRAIN_PING = b"goodbye!"
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*")  # RFC 3986 §3.1
_RESET_CODES = {
    Cause.RESET_EARLY: Codes.INTERNAL_ERROR,
    Cause.RESET_LATE: Codes.INTERNAL_ERROR,
    Cause.REFUSED: Codes.REFUSED_STREAM,
    Cause.TIMEOUT: Codes.CANCEL,
    Cause.CALLER_LEFT: Codes.CANCEL,
}


class ServerStream(Stream):
    """One call of a peer or app; the exchange's `Downstream`."""

    __slots__ = ("_end", "events", "request_ended", "tunnel")

    def __init__(self, stream_id: int, end: "Http2Server") -> None:
        super().__init__(stream_id)
        self._end = end
        self.events: RequestEvents | None = None
        self.request_ended = False
        self.tunnel = False

    def inform(self, status: int, headers: Headers) -> None:
        """A 1xx answer (RFC 9113 §8.1)."""
        if not self.closed:
            self._end.send_head(self.id, ((b":status", b"%d" % status), *allowed(headers)), end=False)

    def respond(self, status: int, headers: Headers, *, end: bool) -> None:
        """The response head."""
        if self.closed:
            return
        self._end.send_head(self.id, ((b":status", b"%d" % status), *allowed(headers)), end=end)
        if end:
            self.ended = True
            self._end.sent_end(self)

    def send(self, data: bytes) -> None:
        """Some of the response body."""
        self._end.send_body(self, data)

    def finish(self, trailers: Headers) -> None:
        """The end of the response."""
        self._end.send_end(self, trailers)

    def abort(self, cause: Cause) -> None:
        """RST_STREAM."""
        self.events = None
        self._end.reset(self, _RESET_CODES.get(cause, Codes.INTERNAL_ERROR))

    def ack(self, count: int) -> None:
        """Give the peer credit again."""
        self._end.repay(self, count)

    def drained(self, count: int) -> None:
        """Tell the exchange what left."""
        if self.events is not None:
            self.events.response_drained(count)


class Http2Server(Http2End):
    """One accepted HTTP/2 connection. `offer`: that of an upgrade, whose request is stream 1 (RFC 7540 §3.2)."""

    def __init__(
        self,
        accept: AcceptCall,
        limits: Limits,
        count: CountFrame,
        closed: Callable[["Http2Server"], None],
        *,
        own: bool = False,
        rota: Rota | None = None,
        offer: Offer | None = None,
        refuse: Refuse = untraced,
    ) -> None:
        super().__init__(limits, count, server=True, own=own, rota=rota)
        self._offer = offer
        self._accept = accept
        self._refused = refuse
        self._closed: Callable[[Http2Server], None] | None = closed
        self._leaving = False
        self._told = False  # we sent GOAWAY
        self._parted = False  # the peer knows that we leave, and sends nothing new
        self._left_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See Http2End; the request of an upgrade is a call already."""
        super().connection_made(transport)
        offer, self._offer = self._offer, None
        if offer is not None:
            self._filter.began_call()
            self._begin(1, offer.fields(), ended=True)
            self.schedule_flush()

    def initiate(self) -> None:
        """See Http2End. The client's SETTINGS in an offer are acknowledged by the 101 (RFC 7540 §3.2.1)."""
        if self._offer is None:
            super().initiate()
        else:
            self._h2.initiate_upgrade_connection(base64.urlsafe_b64encode(self._offer.settings))
            self._ahead = AHEAD

    def on_settings(self, event: h2.events.RemoteSettingsChanged) -> None:
        """See Http2End; the first belong to the preface, which an answer to an upgrade does not get far ahead of."""
        self._ahead = sys.maxsize
        super().on_settings(event)

    @property
    def busy(self) -> bool:
        """Whether calls are in flight."""
        return bool(self.streams)

    def leave(self) -> None:
        """See Http2End."""
        self.start_drain()

    def start_drain(self) -> None:
        """Take no new calls: GOAWAY for the future, then a PING; once it is back and calls have ended, close (RFC 9113 §6.8)."""
        if self._leaving or self._transport is None or self.closing:
            return
        self._leaving = self._told = True
        self._left_at = self._loop.time()
        self.flush()
        self._transport.write(goaway_frame(_LAST_STREAM_ID, Codes.NO_ERROR))
        self._h2.ping(_DRAIN_PING)
        self.schedule_flush()

    def end(self) -> None:
        """The engine stops."""
        self.shut()
        self.lost("the proxy is shutting down")

    def check_alive(self, now: float) -> None:
        """See Http2End; and leave a peer that does not answer the PING after our GOAWAY."""
        super().check_alive(now)
        if self._leaving and now - self._left_at > self._limits.head_s:
            self._parted = True
            if not self.streams:
                self.shut()

    def answered_ping(self, data: bytes) -> None:
        """After the PING that followed our GOAWAY nothing new is under way."""
        if data == _DRAIN_PING:
            self._parted = True
            if not self.streams:
                self.shut()

    def stream_closed(self, stream: Stream) -> None:
        """Leave with the last call."""
        if self._parted and not self.streams:
            self._loop.call_soon(self.shut)

    def goaway_received(self, goaway: GoAway) -> None:
        """The caller wants no more of us; its calls in flight go on."""
        if not self.streams:
            self.shut()
        self._leaving = self._parted = True
        self._left_at = self._loop.time()

    def lost(self, detail: str) -> None:
        """End every call."""
        for stream in list(self.streams.values()):
            self._gone(stream, detail)
        if self._closed is not None:
            closed, self._closed = self._closed, None
            closed(self)

    def _gone(self, stream: Stream, detail: str) -> None:
        assert isinstance(stream, ServerStream)
        events, stream.events = stream.events, None
        self.forget(stream)
        if events is not None:
            events.request_gone(detail)

    def sent_end(self, stream: Stream) -> None:
        """The response is complete; a request still coming is told to stop (RFC 9113 §8.1)."""
        assert isinstance(stream, ServerStream)
        stream.events = None
        if stream.request_ended:
            self.forget(stream)
        else:
            self.reset(stream, Codes.NO_ERROR)

    # --- events --------------------------------------------------------------------------------------------------------

    def _on_request(self, event: h2.events.RequestReceived) -> None:
        self._begin(event.stream_id, event.headers, ended=event.stream_ended is not None)

    def _begin(self, stream_id: int, fields: list[Header], *, ended: bool) -> None:
        stream = ServerStream(stream_id, self)
        self.streams[stream.id] = stream
        if self._told and self._parted:  # who ignores a GOAWAY does not stay
            self.reset(stream, Codes.REFUSED_STREAM)
            return
        is_large = fields[:1] == [OVERSIZED]
        if is_large or len(fields) > self._limits.header_count:
            self._count("head-size" if is_large else "header-count")
            self._filter.count_reset()
            headers, body = answers.unreadable(_TOO_LARGE, self._refused(431))
            stream.respond(431, headers, end=False)
            stream.send(body)
            stream.finish(())
            return
        try:
            raw = read_head(fields, ended=ended)
        except ProtocolError as error:
            self.break_off(stream, str(error))
            return
        stream.request_ended = ended
        stream.due = None if ended else raw.length
        stream.tunnel = raw.protocol == "websocket"
        events = self._accept(stream, raw)
        if stream.closed:
            return  # answered at once
        stream.events = events
        if ended:
            events.request_end(())

    def break_off(self, stream: Stream, detail: str) -> None:
        """See Http2End."""
        assert isinstance(stream, ServerStream)
        self._count("protocol")
        self._filter.count_reset()
        events, stream.events = stream.events, None
        self.reset(stream, Codes.PROTOCOL_ERROR)
        if events is not None:
            events.request_gone(detail)

    def _on_data(self, event: h2.events.DataReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            self._acknowledge(event.stream_id, event.flow_controlled_length or 0)
            return
        assert isinstance(stream, ServerStream)
        self.owe(stream, event)
        if not self.take(stream, len(event.data), ended=event.stream_ended is not None):
            self.break_off(stream, _OTHER_LENGTH)
        elif stream.events is not None and event.data:
            stream.events.request_data(event.data)

    def _on_trailers(self, event: h2.events.TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if not isinstance(stream, ServerStream):
            return
        try:
            trailers = read_trailers(event, self._limits.header_count)
        except ProtocolError as error:
            self.break_off(stream, str(error))
            return
        if self.take(stream, 0, ended=True):
            self._request_end(stream, trailers)
        else:
            self.break_off(stream, _OTHER_LENGTH)

    def _on_end(self, event: h2.events.StreamEnded) -> None:
        stream = self.streams.get(event.stream_id)
        if isinstance(stream, ServerStream) and not stream.request_ended:
            self._request_end(stream, ())

    def _request_end(self, stream: ServerStream, trailers: Headers) -> None:
        stream.request_ended = True
        if stream.events is not None:
            stream.events.request_end(trailers)

    def _on_reset(self, event: h2.events.StreamReset) -> None:
        if not event.remote_reset:
            self._filter.count_reset()
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            self._gone(stream, "the caller cancelled the call")

    _HANDLERS: ClassVar[Handlers] = {
        **Http2End._HANDLERS,
        h2.events.RequestReceived: _on_request,
        h2.events.DataReceived: _on_data,
        h2.events.TrailersReceived: _on_trailers,
        h2.events.StreamEnded: _on_end,
        h2.events.StreamReset: _on_reset,
    }


def read_head(fields: list[Header], *, ended: bool) -> RawHead:
    """A request's header block as a RawHead; the decoder has checked each field, and the order.

    Raises: ProtocolError, where a request lacks what it needs or holds what it must not (RFC 9113 §8.3.1, §8.5; RFC 8441 §4).
    """
    check_sound(fields)
    pseudo: dict[bytes, bytes] = {}
    headers: list[Header] = []
    protocol: Wire = "http2"
    hosts: list[bytes] = []
    crumbs: list[bytes] = []
    for field in fields:
        name, data = field
        if name[:1] == b":":
            pseudo[name] = data
        elif name == b"host":
            hosts.append(data)
        elif name == b"cookie":
            crumbs.append(data)
        else:
            headers.append(field)
            if name == b"content-type" and is_grpc(data):
                protocol = "grpc"
    if len(hosts) > 1:
        raise ProtocolError("two host fields")
    host = hosts[0] if hosts else None
    length = read_length(tuple(headers))
    headers += _one_cookie(crumbs)
    if ended and length:
        raise ProtocolError("a content-length without a body")  # RFC 9113 §8.1.1
    authority = _checked_authority(pseudo, host)
    method = _checked_method(pseudo)
    if method == b"CONNECT" and pseudo.get(b":protocol") == b"websocket":
        protocol, method = "websocket", b"GET"
    framing: Framing = "none" if ended else "stream" if length is None else "length"
    return RawHead(
        protocol=protocol,
        method=method,
        authority=authority,
        target=pseudo.get(b":path", b""),
        headers=tuple(headers),
        framing=framing,
        length=0 if ended and length is None else length,
        scheme=pseudo.get(b":scheme", b"http"),
    )


def is_grpc(content_type: bytes) -> bool:
    """Whether it is gRPC's: gRPC-Web's, which begins alike, is HTTP's."""
    return content_type.startswith(b"application/grpc") and content_type[16:17] in (
        b"",
        b"+",
        b";",
        b" ",
        b"\t",
    )


def _one_cookie(crumbs: list[bytes]) -> list[Header]:
    """HTTP/2 may split a cookie (RFC 9113 §8.2.3); empty crumbs say nothing, and would leave a blank at an end."""
    whole = b"; ".join(filter(None, crumbs))
    return [(b"cookie", whole)] if whole else []


def _checked_authority(pseudo: dict[bytes, bytes], host: bytes | None) -> bytes:
    """Empty where there is neither: what came as HTTP/1.0 needs no Host."""
    authority = pseudo.get(b":authority", host) or b""
    if host is not None and host.lower() != authority.lower():
        raise ProtocolError(":authority and host differ")
    if AUTHORITY.fullmatch(authority) is None:
        raise ProtocolError("the authority is not a host and port")
    return authority


def _checked_method(pseudo: dict[bytes, bytes]) -> bytes:
    method = pseudo.get(b":method")
    if method is None:
        raise ProtocolError("a request without :method")
    if TOKEN.fullmatch(method) is None:
        raise ProtocolError("the method is not a token")
    if b":status" in pseudo:
        raise ProtocolError("a request with :status")
    if b":protocol" in pseudo and method != b"CONNECT":
        raise ProtocolError(":protocol with another method than CONNECT")
    if method == b"CONNECT" and b":protocol" not in pseudo:
        if b":authority" not in pseudo:
            raise ProtocolError("CONNECT without :authority")  # RFC 9113 §8.5
        if b":path" in pseudo or b":scheme" in pseudo:
            raise ProtocolError("CONNECT with :path or :scheme")
    elif b":scheme" not in pseudo or not pseudo.get(b":path"):
        raise ProtocolError("a request without :scheme or :path")
    elif _SCHEME.fullmatch(pseudo[b":scheme"]) is None:
        raise ProtocolError("invalid :scheme")
    return method
