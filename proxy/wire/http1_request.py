"""The callee's end of one HTTP/1.1 call: the exchange's commands become bytes of `h11`'s making, or a tunnel's."""

import os
from typing import Protocol

import h11
from msgspec.structs import replace

from proxy.contract.engine import Via
from proxy.contract.head import Header, Headers
from proxy.contract.plan import Cause
from proxy.wire.http1_wire import Outbox
from proxy.wire.streams import RawHead, ResponseEvents
from proxy.wire.websocket import make_key, without_handshake

# What this end writes itself, or what would let a caller speak to the app's connection rather than to the app.
_NOT_COPIED = frozenset(
    {
        b"host",
        b"connection",
        b"transfer-encoding",
        b"upgrade",
        b"keep-alive",
        b"proxy-connection",
        b"http2-settings",
    }
)
_NOT_IN_OFFERS = frozenset({b"content-length", b"sec-websocket-version"})


class RequestHost(Protocol):
    """What a call needs of its connection."""

    out: Outbox

    def steer(self) -> None:
        """Credit changed: read or don't."""

    def fail(self, cause: Cause, detail: str) -> None:
        """The call breaks, and the connection with it."""

    def cancel(self, call: "ClientCall") -> None:
        """The exchange gave up the call."""

    def end_tunnel(self, call: "ClientCall", *, both: bool) -> None:
        """The caller's direction of the tunnel has ended, or both have."""


class ClientCall:
    """UpstreamCall. `live` until the response ended, was lost, or the call was aborted. `unacked`: body bytes owed.

    `key`: of a WebSocket offer. `via`: the HTTP proxy that is asked. `_early`: bytes for a tunnel that the app has not accepted yet, kept
    without credit.
    """

    __slots__ = (
        "_caller_ended",
        "_chunked",
        "_conn",
        "_early",
        "_host",
        "_tunnel",
        "_via",
        "answered",
        "callee_ended",
        "events",
        "handed",
        "key",
        "live",
        "method",
        "unacked",
    )

    def __init__(
        self,
        host: RequestHost,
        conn: h11.Connection,
        events: ResponseEvents,
        handed: int,
        via: Via | None = None,
    ) -> None:
        self._host = host
        self._via = via
        self._conn = conn
        self.events = events
        self.handed = handed
        self.method = b""
        self.key: bytes | None = None
        self.live = True
        self.answered = False
        self.unacked = 0
        self._chunked = False
        self._tunnel = False
        self._caller_ended = False
        self.callee_ended = False
        self._early: list[bytes] = []

    # --- from the exchange (UpstreamCall)

    def start(self, head: RawHead, *, end: bool) -> None:
        """See UpstreamCall."""
        self.method = head.method
        if self._via is not None:
            head = _whole(head, self._via)
        if head.method == b"CONNECT" and head.protocol != "websocket":
            self._host.fail(Cause.UNSUPPORTED, "CONNECT can't be sent to an app")
            return
        if head.protocol == "websocket":
            self.key = make_key(os.urandom(16))
            fields = _offer(head, self.key)
            self.method = b"GET"
            end = True
        else:
            fields = _fields(head)
            self._chunked = not end and not any(name == b"content-length" for name, _ in head.headers)
            if self._chunked:
                fields.append((b"Transfer-Encoding", b"chunked"))
        try:
            target = head.target if head.for_proxy else _origin_form(head)
            event = h11.Request(method=self.method, target=target, headers=fields)
        except h11.LocalProtocolError as error:
            self._unsupported(error)
            return
        if self._write(event) and end:
            self._write(h11.EndOfMessage())
            self._host.out.flush()

    def send(self, data: bytes) -> None:
        """See UpstreamCall."""
        if not self.live:
            return
        if self._tunnel:
            self._host.out.put([data], len(data))
        elif self.key is not None:
            self._early.append(data)
        elif data:
            self._write(h11.Data(data=data), len(data))

    def finish(self, trailers: Headers) -> None:
        """See UpstreamCall. Only a chunked request can carry trailers."""
        if not self.live:
            return
        if self.key is not None:
            self._caller_ended = True
            if self._tunnel:
                self._host.end_tunnel(self, both=self.callee_ended)
        else:
            self._write(h11.EndOfMessage(headers=list(trailers) if self._chunked else []))

    def abort(self) -> None:
        """See UpstreamCall."""
        if self.live:
            self._host.cancel(self)

    def ack(self, count: int) -> None:
        """See UpstreamCall."""
        self.unacked -= count
        if self.live:
            self._host.steer()

    # --- from the connection

    def data(self, data: bytes) -> None:
        """Some of the response body."""
        if self.live:
            self.unacked += len(data)
            self.events.response_data(data)

    def enter_tunnel(self) -> None:
        """The app accepted the WebSocket."""
        self._tunnel = True
        early, self._early = self._early, []
        if early and self.live:
            self._host.out.put(early, sum(map(len, early)))
        if self._caller_ended and self.live:
            self._host.end_tunnel(self, both=False)

    def end_tunnel(self) -> None:
        """The app closed its direction of the tunnel."""
        self.callee_ended = True
        if self.live:
            self.events.response_end(())
        if self._caller_ended and self.live:
            self._host.end_tunnel(self, both=True)

    def _write(self, event: h11.Event, body: int = 0) -> bool:
        try:
            parts = self._conn.send_with_data_passthrough(event)
        except h11.LocalProtocolError as error:
            self._unsupported(error)
            return False
        self._host.out.put(parts or [], body)
        return True

    def _unsupported(self, error: h11.LocalProtocolError) -> None:
        self._host.fail(Cause.UNSUPPORTED, f"the request can't be written as HTTP/1.1: {error}")


def _fields(head: RawHead) -> list[Header]:
    fields = [(b"Host", head.authority)]
    fields += [(name, data.strip(b" \t")) for name, data in head.headers if name not in _NOT_COPIED]
    return fields


def _offer(head: RawHead, key: bytes) -> list[Header]:
    fields = [field for field in without_handshake(_fields(head)) if field[0] not in _NOT_IN_OFFERS]
    fields += [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]
    fields += [(b"Sec-WebSocket-Version", b"13"), (b"Sec-WebSocket-Key", key)]
    return fields


def _whole(head: RawHead, via: Via) -> RawHead:
    """For a proxy: with the whole URL as its target (RFC 9112 §3.2.2), `*` being a URL without a path (§3.2.4)."""
    path = _origin_form(head)
    target = b"http://" + head.authority + (b"" if path == b"*" else path)
    headers = tuple(field for field in head.headers if field[0] != b"proxy-authorization")
    if via.authorization:
        headers = (*headers, (b"proxy-authorization", via.authorization))
    return replace(head, target=target, headers=headers, for_proxy=True)


def _origin_form(head: RawHead) -> bytes:
    """The target as an origin server expects it; an absolute-form one loses its scheme and authority."""
    target = head.target
    if target[:1] == b"/" or target == b"*":
        return target
    start = target.find(b"://") + 3
    if start < 3:
        return target
    path = target.find(b"/", start)
    query = target.find(b"?", start)
    if path >= 0 and (query < 0 or path < query):
        return target[path:]
    if query >= 0:
        return b"/" + target[query:]
    return b"*" if head.method == b"OPTIONS" else b"/"
