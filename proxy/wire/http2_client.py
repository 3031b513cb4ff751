"""The upstream end of HTTP/2: to peers (mutual TLS) and to apps that speak h2c or gRPC."""

import re
import ssl
from typing import ClassVar

import h2.events
from h2.exceptions import ProtocolError

from proxy.contract.engine import Limits
from proxy.contract.head import Header, Headers
from proxy.contract.plan import Cause
from proxy.wire.frame_filter import GoAway
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
from proxy.wire.streams import ConnectionOwner, CountFrame, RawHead, ResponseEvents
from proxy.wire.tls import ALPN_OWN
from proxy.wire.turns import Rota

FIRST_PING_S = 0.5  # of silence of a proxy of ours for which calls wait
DOUBT_S = 0.5  # without an answer to it
_OTHER_LENGTH = "a body of another length than its content-length"
_UNFIT = re.compile(rb'["<>`]')
_UNESCAPED = re.compile(rb'[<>`]|\?.*"')
_STATUS = re.compile(rb"[1-9][0-9]{2}")
_MAX_STREAM_ID = 0x7FFFFFFF - 2_000  # retire a connection before its ids run out (RFC 9113 §5.1.1)
MAX_CALLS = (
    100  # per connection; beyond it the pool dials another, so one connection's window is not everyone's
)
# For a callee that answered in full to stop the request itself, as servers do (RFC 9113 §8.1): some count the resets that they get.
_PARTING_S = 0.5


class ClientStream(Stream):
    """One call to the callee; the exchange's `UpstreamCall`."""

    __slots__ = ("_end", "bodiless", "events", "head_seen", "response_ended")

    def __init__(self, end: "Http2Client", events: ResponseEvents) -> None:
        super().__init__(0)
        self._end = end
        self.events: ResponseEvents | None = events
        self.head_seen = False
        self.bodiless = False  # to HEAD: a length is of what is not sent
        self.response_ended = False

    def start(self, head: RawHead, *, end: bool) -> None:
        """The request head (RFC 9113 §8.3.1, RFC 8441 §4)."""
        self._end.start(self, head, end=end)

    def send(self, data: bytes) -> None:
        """Some of the request body."""
        self._end.send_body(self, data)

    def finish(self, trailers: Headers) -> None:
        """The end of the request."""
        self._end.send_end(self, trailers)

    def abort(self) -> None:
        """RST_STREAM CANCEL; after a full answer only if the callee does not stop the request itself."""
        self.events = None
        if self.response_ended:
            self._end.part(self)
        else:
            self._end.reset(self, Codes.CANCEL)

    def ack(self, count: int) -> None:
        """Give the callee credit again."""
        self._end.repay(self, count)

    def drained(self, count: int) -> None:
        """Tell the exchange what left."""
        if self.events is not None:
            self.events.request_drained(count)


class Http2Client(Http2End):
    """One connection to an upstream; up once the peer's SETTINGS came (`ready`). who: that is, in errors."""

    def __init__(
        self,
        owner: ConnectionOwner,
        limits: Limits,
        count: CountFrame,
        alpn: str,
        *,
        own: bool = False,
        rota: Rota | None = None,
        who: str = "the peer",
    ) -> None:
        super().__init__(limits, count, server=False, own=own, rota=rota)
        self._who = who
        self._owner: ConnectionOwner | None = owner
        self.alpn = alpn
        self.in_flight = 0
        self._up = False
        self._retired = False
        self.ready = self._loop.create_future()

    @property
    def capacity(self) -> int:
        """Calls it takes now."""
        if (
            not self._up
            or self._retired
            or self.closing
            or self._h2.highest_outbound_stream_id > _MAX_STREAM_ID
        ):
            return 0
        return min(int(self._h2.remote_settings.max_concurrent_streams), MAX_CALLS) - self.in_flight

    @property
    def is_watched(self) -> bool:
        """The other end is a proxy of ours, which may be asked soon and often whether it is alive; others count PINGs."""
        return self.alpn == ALPN_OWN

    def is_doubtful(self, now: float) -> bool:
        """Calls wait for a proxy of ours that has not answered a PING: others should take the next."""
        return self.is_watched and self._ping_sent_at is not None and now - self._ping_sent_at > DOUBT_S

    @property
    def has_extended_connect(self) -> bool:
        """See UpstreamConnection."""
        return bool(self._h2.remote_settings.enable_connect_protocol)

    def open(self, events: ResponseEvents) -> ClientStream:
        """A new call; its stream begins with `start`."""
        self.in_flight += 1
        return ClientStream(self, events)

    def start(self, stream: ClientStream, head: RawHead, *, end: bool) -> None:
        """Send a request head on a new stream."""
        tunnel = head.protocol == "websocket"
        if tunnel and not self.has_extended_connect:
            self._refuse(
                stream, Cause.UNSUPPORTED, f"{self._who} does not support WebSockets over HTTP/2 (RFC 8441)"
            )
            return
        if (
            head.method == b"CONNECT" and not tunnel
        ):  # its head has no path: a peer would end the connection for it
            self._refuse(stream, Cause.UNSUPPORTED, "CONNECT can't be sent to an app")
            return
        if self.closing or self._retired:
            self._refuse(stream, Cause.REFUSED, "the connection was closing")
            return
        fields: list[Header] = [
            (b":method", b"CONNECT" if tunnel else head.method),
            (b":scheme", head.scheme),
            (b":path", _target(head.target)),
        ]
        if head.authority:
            fields.append((b":authority", head.authority))
        if tunnel:
            fields.insert(1, (b":protocol", b"websocket"))
        fields.extend(allowed(head.headers))
        stream.id = self._h2.get_next_available_stream_id()
        self._filter.began_call()
        self.active_at = self._loop.time()
        if not self.streams:
            self.waits_since = self.active_at
        if self.is_watched:
            self._silence_s = min(FIRST_PING_S, self._limits.ping_s)
        self.streams[stream.id] = stream
        stream.ended = end
        stream.bodiless = head.method == b"HEAD"
        self.send_head(stream.id, fields, end=end)

    def _refuse(self, stream: ClientStream, cause: Cause, detail: str) -> None:
        events, stream.events = stream.events, None
        stream.closed = True
        self.in_flight -= 1
        if events is not None:
            events.response_lost(cause, detail)

    def leave(self) -> None:
        """See Http2End."""
        self.retire()

    def retire(self) -> None:
        """No new calls; close with the last."""
        self._retired = True
        if not self.streams:
            self.shut()

    def close(self) -> None:
        """Close now."""
        self._retired = True
        self.shut()

    # --- connection events ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """An HTTP/1.1 answer where HTTP/2 was expected gets a telling error."""
        if not self._up and data[:7] == b"HTTP/1.":
            self.fail(Codes.HTTP_1_1_REQUIRED, "it speaks HTTP/1.1, not HTTP/2 (is its protocol set right?)")
            return
        super().data_received(data)

    def on_settings(self, event: h2.events.RemoteSettingsChanged) -> None:
        """The first SETTINGS: the connection is up."""
        super().on_settings(event)
        if not self._up:
            self._up = True
            if not self.ready.done():
                self.ready.set_result(None)
        if self._owner is not None:
            self._owner.capacity_changed(self)

    def goaway_received(self, goaway: GoAway) -> None:
        """Streams above the last one were surely not processed: they may go elsewhere."""
        self._retired = True
        for stream in list(self.streams.values()):
            if stream.id > goaway.last_stream:
                self._lose(stream, Cause.REFUSED, f"{self._who} is going away")
        if self._owner is not None:
            self._owner.capacity_changed(self)
        if not self.streams:
            self.shut()

    def connection_lost(self, exc: Exception | None) -> None:
        """Who dialled wants to know the alert by which a peer ended TLS."""
        if isinstance(exc, ssl.SSLError) and not self.ready.done():
            self.ready.set_exception(exc)
            self.ready.exception()  # seen, as below
        super().connection_lost(exc)

    def lost(self, detail: str) -> None:
        """Every call in flight is lost."""
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(detail))
            self.ready.exception()  # seen: nobody waits where the peer's identity was refused before
        for stream in list(self.streams.values()):
            assert isinstance(stream, ClientStream)
            self._lose(stream, Cause.RESET_LATE if stream.head_seen else Cause.RESET_EARLY, detail)
        if self._owner is not None:
            owner, self._owner = self._owner, None
            owner.connection_closed(self, detail)

    def _lose(self, stream: Stream, cause: Cause, detail: str) -> None:
        assert isinstance(stream, ClientStream)
        events, stream.events = stream.events, None
        self.forget(stream)
        if events is not None:
            events.response_lost(cause, detail)

    def stream_closed(self, stream: Stream) -> None:
        """Room for another call."""
        self.in_flight -= 1
        if self._retired:
            if not self.streams:
                self._loop.call_soon(self.shut)
        elif self._owner is not None:
            self._owner.capacity_changed(self)

    def sent_end(self, stream: Stream) -> None:
        """The request is complete; the stream is over if the response was too."""
        assert isinstance(stream, ClientStream)
        if stream.response_ended:
            self.forget(stream)

    # --- stream events -------------------------------------------------------------------------------------------------

    def _stream(self, stream_id: int) -> ClientStream | None:
        stream = self.streams.get(stream_id)
        return stream if isinstance(stream, ClientStream) else None

    def _on_inform(self, event: h2.events.InformationalResponseReceived) -> None:
        stream = self._stream(event.stream_id)
        if stream is not None and stream.events is not None:
            try:
                status, headers = _read_response(event.headers)
                if status == 101 or len(event.headers) > self._limits.header_count:
                    raise ProtocolError("an informational answer with status 101, or with too many fields")  # noqa: TRY301 - RFC 9113 §8.6
            except ProtocolError as error:
                self.break_off(stream, str(error))
                return
            stream.events.response_inform(status, headers)

    def _on_response(self, event: h2.events.ResponseReceived) -> None:
        stream = self._stream(event.stream_id)
        if stream is None or stream.events is None:
            return
        if len(event.headers) > self._limits.header_count:
            self._count("header-count")
            self._lose_reset(stream, Codes.CANCEL, "the response has too many headers")
            return
        ended = event.stream_ended is not None
        try:
            status, headers = _read_response(event.headers)
            if status < 200:
                raise ProtocolError("an informational answer with END_STREAM")  # noqa: TRY301 - RFC 9113 §8.1
            length = read_length(headers)
            if ended and length and not stream.bodiless and status != 304:
                raise ProtocolError("a content-length without a body")  # noqa: TRY301 - RFC 9113 §8.1.1
        except ProtocolError as error:
            self.break_off(stream, str(error))
            return
        stream.due = 0 if stream.bodiless else length
        stream.head_seen = True
        events = stream.events
        if ended:
            self._ended(stream)
        events.response_head(status, headers, end=ended)

    def break_off(self, stream: Stream, detail: str) -> None:
        """See Http2End."""
        assert isinstance(stream, ClientStream)
        self._count("protocol")
        self._lose_reset(stream, Codes.PROTOCOL_ERROR, f"malformed response: {detail}")

    def _lose_reset(self, stream: ClientStream, code: int, detail: str) -> None:
        events, stream.events = stream.events, None
        self.reset(stream, code)
        if events is not None:
            events.response_lost(Cause.INVALID_ANSWER, detail)

    def _on_data(self, event: h2.events.DataReceived) -> None:
        stream = self._stream(event.stream_id)
        if stream is None:
            self._acknowledge(event.stream_id, event.flow_controlled_length or 0)
            return
        self.owe(stream, event)
        if not stream.head_seen:
            self.break_off(stream, "a body without a head")
        elif not self.take(stream, len(event.data), ended=event.stream_ended is not None):
            self.break_off(stream, _OTHER_LENGTH)
        elif stream.events is not None and event.data:
            stream.events.response_data(event.data)

    def _on_trailers(self, event: h2.events.TrailersReceived) -> None:
        stream = self._stream(event.stream_id)
        if stream is None:
            return
        try:
            trailers = read_trailers(event, self._limits.header_count)
        except ProtocolError as error:
            self.break_off(stream, str(error))
            return
        if self.take(stream, 0, ended=True):
            self._response_end(stream, trailers)
        else:
            self.break_off(stream, _OTHER_LENGTH)

    def _on_end(self, event: h2.events.StreamEnded) -> None:
        stream = self._stream(event.stream_id)
        if stream is not None and not stream.response_ended:
            self._response_end(stream, ())

    def _response_end(self, stream: ClientStream, trailers: Headers) -> None:
        events = stream.events
        self._ended(stream)
        if events is not None:
            events.response_end(trailers)

    def _ended(self, stream: ClientStream) -> None:
        # The exchange may still owe acks for bytes under way to the caller; the connection's credit comes back now,
        # as the callee sends no more on this stream.
        stream.response_ended = True
        stream.events = None
        if stream.ended:
            self.forget(stream)

    def part(self, stream: ClientStream) -> None:
        """No more of a request comes, as it is answered."""
        self.drop_unsent(stream)
        self._loop.call_later(_PARTING_S, self.reset, stream, Codes.CANCEL)

    def _on_reset(self, event: h2.events.StreamReset) -> None:
        stream = self._stream(event.stream_id)
        if stream is None:
            return
        if stream.response_ended:
            self.forget(stream)  # a complete answer, then "stop sending" (RFC 9113 §8.1)
            return
        code = int(event.error_code or 0)
        cause = Cause.RESET_LATE if stream.head_seen else Cause.RESET_EARLY
        if code == Codes.REFUSED_STREAM:
            cause = Cause.REFUSED
        self._lose(stream, cause, f"{self._who} reset the call ({_code_name(code)})")

    _HANDLERS: ClassVar[Handlers] = {
        **Http2End._HANDLERS,
        h2.events.InformationalResponseReceived: _on_inform,
        h2.events.ResponseReceived: _on_response,
        h2.events.DataReceived: _on_data,
        h2.events.TrailersReceived: _on_trailers,
        h2.events.StreamEnded: _on_end,
        h2.events.StreamReset: _on_reset,
    }


def _code_name(code: int) -> str:
    try:
        return Codes(code).name
    except ValueError:
        return f"code {code}"


def _read_response(fields: list[tuple[bytes, bytes]]) -> tuple[int, Headers]:
    """The status and the headers. Raises: ProtocolError, where no response may hold them."""
    check_sound(fields)
    status = 0
    headers: list[Header] = []
    for field in fields:
        if field[0][:1] != b":":
            headers.append(field)
        elif field[0] != b":status" or _STATUS.fullmatch(field[1]) is None:
            raise ProtocolError(
                "the status is malformed, or a pseudo-header field does not belong in a response"
            )
        else:
            status = int(field[1])
    if not status:
        raise ProtocolError("a response without :status")
    return status, tuple(headers)


def _target(target: bytes) -> bytes:
    """With what RFC 3986 §2 has escaped in escapes: some clients send a few such characters as they are, and HTTP/2 servers refuse them."""
    if _UNESCAPED.search(target) is None:
        return target
    return _UNFIT.sub(lambda found: b"%%%02X" % found[0][0], target)
