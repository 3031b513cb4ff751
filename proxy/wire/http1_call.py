"""The caller's end of one HTTP/1.1 call: the exchange's commands become bytes of `h11`'s making, or a tunnel's."""

import asyncio
import re
from http import HTTPStatus
from typing import Protocol

import h11

from proxy.contract.head import Header, Headers
from proxy.contract.plan import Cause
from proxy.wire.head_scan import DECLINED, UPGRADE, RequestStart
from proxy.wire.http1_wire import Outbox
from proxy.wire.streams import RequestEvents
from proxy.wire.websocket import accept_of, without_handshake

_ACCEPTING = re.compile(rb"2[0-9]{2}")
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class CallHost(Protocol):
    """What a call needs of its connection."""

    out: Outbox

    def steer(self) -> None:
        """Credit changed: read or don't."""

    def must_close(self, call: "ServerCall") -> bool:
        """Whether the response of `call` is the last, as far as is known when its head leaves."""

    def finished(self) -> None:
        """The response of the call is complete."""

    def enter_tunnel(self, call: "ServerCall") -> None:
        """101 was sent: from now on bytes are bytes."""

    def end_tunnel(self, *, caller_ended: bool) -> None:
        """Our direction of the tunnel has ended, or both have."""

    def answer(self, status: int, text: str) -> None:
        """Answer in `h11`'s stead, and close."""

    def cut(self, *, hard: bool) -> None:
        """Close in the midst of a response; `hard`: by a reset."""


class _Nobody:
    """Hears events before the exchange has returned from accepting the call."""

    def request_data(self, data: bytes) -> None:
        """See RequestEvents."""

    def request_end(self, trailers: Headers) -> None:
        """See RequestEvents."""

    def request_gone(self, detail: str) -> None:
        """See RequestEvents."""

    def response_drained(self, count: int) -> None:
        """See RequestEvents."""


_NOBODY = _Nobody()


class ServerCall:
    """Downstream of one call. `live` until its response ended, was cut, or the caller left. `unacked`: body bytes owed."""

    __slots__ = (
        "_caller_ended",
        "_chunked",
        "_conn",
        "_key",
        "_minor",
        "_mute",
        "_said_all",
        "_server",
        "_tunnel",
        "answered",
        "delimited",
        "events",
        "live",
        "method",
        "unacked",
    )

    def __init__(
        self, server: CallHost, conn: h11.Connection, start: RequestStart, key: bytes | None
    ) -> None:
        self._server = server
        self._conn = conn
        self._key = key
        self._minor = start.minor
        self._mute = start.method == b"HEAD"
        self._chunked = False
        self.delimited = False
        self._tunnel = False
        self._caller_ended = False
        self._said_all = False
        self.events: RequestEvents = _NOBODY
        self.method = start.method
        self.answered = False
        self.live = True
        self.unacked = 0

    # --- from the connection

    def begin(self, events: RequestEvents, *, complete: bool) -> None:
        """The exchange took the call, and may have answered it already."""
        self.events = events
        if self._tunnel:
            self._server.enter_tunnel(self)
        elif complete and self.live:
            events.request_end(())

    def data(self, data: bytes) -> None:
        """Some of the request body."""
        if self.live:
            self.unacked += len(data)
            self.events.request_data(data)

    def end(self, trailers: Headers) -> None:
        """The request is complete."""
        if self.live:
            self._caller_ended = True
            self.events.request_end(trailers)
            if self._said_all:
                self.live = False
                self._server.end_tunnel(caller_ended=True)

    def gone(self, detail: str) -> None:
        """The caller left."""
        if self.live:
            self.live = False
            self.events.request_gone(detail)

    # --- from the exchange (Downstream)

    def inform(self, status: int, headers: Headers) -> None:
        """See Downstream. An HTTP/1.0 caller does not know of 1xx."""
        if self.live and self._minor and not self.answered:
            reason = REASONS.get(status, b"")
            self._write(h11.InformationalResponse(status_code=status, headers=list(headers), reason=reason))

    def respond(self, status: int, headers: Headers, *, end: bool) -> None:
        """See Downstream."""
        if not self.live:
            return
        if self._key is not None and status == 200 and not end:
            self._switch(self._key, headers)
            return
        status, headers = self._declined(status, headers)
        bodiless = status in (204, 304)
        fields = (
            [field for field in headers if field[0] != b"content-length"] if status == 204 else [*headers]
        )
        if status == 426:
            fields = _with_upgrade(fields)
        sized = any(name == b"content-length" for name, _ in fields)
        if end and not sized and not bodiless and not self._mute:
            fields.append((b"content-length", b"0"))
        elif not sized and not bodiless:
            self._chunked = bool(self._minor) and not self._mute
            self.delimited = not self._minor
        self._mute = self._mute or bodiless
        if self._server.must_close(self):
            fields.append((b"connection", b"close"))
        if not self._respond(status, fields):
            return
        self.answered = True
        if end:
            self._finish(())

    def send(self, data: bytes) -> None:
        """See Downstream."""
        if not self.live:
            return
        if self._mute or not data:
            self._server.out.put([], len(data))
        elif self._tunnel:
            self._server.out.put([data], len(data))
        else:
            self._write(h11.Data(data=data), len(data))

    def finish(self, trailers: Headers) -> None:
        """See Downstream. Only a chunked response can carry trailers."""
        if not self.live:
            return
        if self._tunnel:
            self._said_all = True
            self.live = not self._caller_ended
            self._server.end_tunnel(caller_ended=self._caller_ended)
        else:
            self._finish(trailers if self._chunked else ())

    def abort(self, cause: Cause) -> None:
        """See Downstream. HTTP/1.1 has no code to tell the cause."""
        if self.live:
            self.live = False
            self._server.cut(hard=self.delimited or self._tunnel)

    def ack(self, count: int) -> None:
        """See Downstream."""
        self.unacked -= count
        if self.live:
            self._server.steer()

    def _declined(self, status: int, headers: Headers) -> tuple[int, Headers]:
        """The app's own answer where it goes on in HTTP after a WebSocket was offered."""
        told = [data for name, data in headers if name == DECLINED] if status == 501 else []
        if self._key is None or not told or _ACCEPTING.fullmatch(told[0]) is None:
            return status, headers
        return int(told[0]), tuple([field for field in headers if field[0] != DECLINED])

    # --- writing

    def _switch(self, key: bytes, headers: Headers) -> None:
        fields = [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", accept_of(key)),
            *[field for field in without_handshake(headers) if field[0] != b"content-length"],
        ]
        event = h11.InformationalResponse(status_code=101, headers=fields, reason=REASONS[101])
        if self._write(event):
            self.answered = self._tunnel = True
            if self.events is not _NOBODY:  # else `begin` does it
                self._server.enter_tunnel(self)

    def _respond(self, status: int, fields: list[tuple[bytes, bytes]]) -> bool:
        try:
            event = h11.Response(status_code=status, headers=fields, reason=REASONS.get(status, b""))
        except h11.LocalProtocolError as error:
            return self._broken(error)
        return self._write(event)

    def _finish(self, trailers: Headers) -> None:
        if self._write(h11.EndOfMessage(headers=list(trailers))):
            self.live = False
            self._server.finished()

    def _write(self, event: h11.Event, body: int = 0) -> bool:
        try:
            parts = self._conn.send_with_data_passthrough(event)
        except h11.LocalProtocolError as error:
            return self._broken(error)
        self._server.out.put(parts or [], body)
        return True

    def _broken(self, error: h11.LocalProtocolError) -> bool:
        """What the exchange said can't be written as HTTP/1.1: a 502 if it was the head, else a visible cut."""
        self.live = False
        if self.answered:
            self._server.cut(hard=self.delimited)
        else:
            self._server.answer(502, f"the answer can't be written as HTTP/1.1: {error}")
        if self.events is not _NOBODY:
            asyncio.get_running_loop().call_soon(self.events.request_gone, str(error))
        return False


def _with_upgrade(fields: list[Header]) -> list[Header]:
    """The fields of a 426, which says what to upgrade to (RFC 9110 §15.5.22)."""
    told = [(b"upgrade", data) for name, data in fields if name == UPGRADE]
    kept = [field for field in fields if field[0] != UPGRADE]
    return [*kept, *told, (b"connection", b"upgrade")] if told else kept
