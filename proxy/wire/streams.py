"""The seam between wire protocols and the exchange: one call's two ends, as commands and events.

Everything is a plain call on the event loop's thread; nothing here awaits. Back-pressure is credit: an end that was given body bytes
says `drained(n)` when they have left for the wire, and the other end is then told `ack(n)`; an end that is owed acks stops reading.
Header names are lower-case bytes; pseudo-headers, Host, Connection and Transfer-Encoding never appear in `headers`
(content-length does, where it is known).

A WebSocket is a tunnel (RFC 8441): protocol `websocket`, body both ways, status 200 accepts it. HTTP/1.1 ends translate to and from
Upgrade/101 with keys of their own; Sec-WebSocket-Key, -Accept, Upgrade and Connection stay within the end.
"""

from collections.abc import Callable
from typing import Literal, Protocol

from msgspec import Struct

from proxy.contract.head import Framing, Headers
from proxy.contract.plan import Cause

Wire = Literal["http1", "http2", "grpc", "websocket"]


class RawHead(Struct, frozen=True):
    """A request head as a wire end read it. authority: Host or :authority, b"" if none. target: as it came (origin- or absolute-form).

    for_proxy: it is sent to an HTTP proxy, which needs an absolute-form target as it is; a server gets the origin-form of one.
    protocol: "grpc" when the content type is application/grpc, with a suffix or without. length: of the body, where known.
    """

    protocol: Wire
    method: bytes
    authority: bytes
    target: bytes
    headers: Headers
    framing: Framing
    length: int | None
    scheme: bytes = b"http"
    for_proxy: bool = False


class RequestEvents(Protocol):
    """What a downstream end tells the exchange."""

    def request_data(self, data: bytes) -> None:
        """Some of the request body; owe `ack`."""

    def request_end(self, trailers: Headers) -> None:
        """The request is complete."""

    def request_gone(self, detail: str) -> None:
        """The caller reset the call or hung up; nothing more will come or can be sent."""

    def response_drained(self, count: int) -> None:
        """So many bytes of the response body have left."""


class Downstream(Protocol):
    """The caller's end of one call. After `finish`, `abort` or `respond(end=True)` no command follows."""

    def inform(self, status: int, headers: Headers) -> None:
        """A 1xx answer before the real one."""

    def respond(self, status: int, headers: Headers, *, end: bool) -> None:
        """The response head; `end`: no body and no trailers follow."""

    def send(self, data: bytes) -> None:
        """Some of the response body."""

    def finish(self, trailers: Headers) -> None:
        """The end of the response."""

    def abort(self, cause: Cause) -> None:
        """End the call visibly incomplete: HTTP/1.1 closes without a last chunk, HTTP/2 resets."""

    def ack(self, count: int) -> None:
        """So many bytes of the request body were carried on; more may be read."""


class ResponseEvents(Protocol):
    """What an upstream end tells the exchange."""

    def response_inform(self, status: int, headers: Headers) -> None:
        """A 1xx answer (never 101)."""

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """The response head; `end`: nothing follows."""

    def response_data(self, data: bytes) -> None:
        """Some of the response body; owe `ack`."""

    def response_end(self, trailers: Headers) -> None:
        """The response is complete."""

    def response_lost(self, cause: Cause, detail: str) -> None:
        """The call broke: REFUSED (surely not processed), RESET_EARLY/RESET_LATE (maybe processed), or another cause. Nothing follows."""

    def request_drained(self, count: int) -> None:
        """So many bytes of the request body have left."""


class UpstreamCall(Protocol):
    """The callee's end of one call. After `abort` no command follows and no event comes."""

    def start(self, head: RawHead, *, end: bool) -> None:
        """Send the request head; `end`: no body follows."""

    def send(self, data: bytes) -> None:
        """Some of the request body."""

    def finish(self, trailers: Headers) -> None:
        """The end of the request."""

    def abort(self) -> None:
        """Cancel the call; the callee hears of it at once."""

    def ack(self, count: int) -> None:
        """So many bytes of the response body were carried on; more may be read."""


class UpstreamConnection(Protocol):
    """One connection to an upstream. `capacity`: further calls that it takes now; 0 once it is closing."""

    alpn: str
    in_flight: int

    @property
    def has_extended_connect(self) -> bool:
        """Whether the upstream takes tunnels over HTTP/2 (RFC 8441 §3)."""

    @property
    def capacity(self) -> int:
        """How many calls may be opened now."""

    def open(self, events: ResponseEvents) -> UpstreamCall:
        """A new call; only while `capacity` > 0."""

    def retire(self) -> None:
        """Take no new calls; close once the last has ended."""

    def close(self) -> None:
        """Close now; calls in flight are lost."""


class ConnectionOwner(Protocol):
    """Who hears of an upstream connection's state (the pool)."""

    def capacity_changed(self, connection: UpstreamConnection) -> None:
        """Room was made, or lost."""

    def connection_closed(self, connection: UpstreamConnection, detail: str) -> None:
        """It is gone; no event of it follows."""


AcceptCall = Callable[[Downstream, RawHead], RequestEvents]  # a server end hands each request head here, once
CountFrame = Callable[[str], None]  # a flood limit or a rule was broken: kind
Refuse = Callable[
    [int], bytes
]  # a head that can't be read is answered with a status: report that; the traceparent for the answer


def untraced(_: int) -> bytes:
    """Reports nothing."""
    return b""
