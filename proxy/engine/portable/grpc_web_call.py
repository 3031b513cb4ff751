"""A call of gRPC-Web to an app that speaks gRPC: to the exchange it is HTTP, to the app's end gRPC.

Bodies are the same frames, base64 in the text form; the trailers follow them in a frame of their own.
"""

import base64
import binascii

from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.wire.answers import grpc_code
from proxy.wire.edits import HOP_BY_HOP
from proxy.wire.grpc_web import decode_base64, form_of, trailer_frame
from proxy.wire.streams import RawHead, ResponseEvents, UpstreamCall, UpstreamConnection

_FRAME_HEAD = 5  # a byte of flags, four of length


class WebCall:
    """One call: the app's end for the exchange, and the exchange for the app's end.

    Mutable state: `_rest` of a base64 group; per direction how much was read and given on, and of that how much the other side took;
    `_message_left` of the message that the answer is within.
    """

    def __init__(self, events: ResponseEvents, sent_as: bytes, connection: UpstreamConnection) -> None:
        self._events = events
        self._sent_as = sent_as
        self._is_text = form_of(sent_as) == "text"
        self._rest = b""
        self._up_read = self._up_given = self._up_taken = self._up_told = 0
        self._down_read = self._down_given = self._down_taken = self._down_told = 0
        self._frame_head = b""
        self._message_left = 0
        self._is_web = False  # the answer is gRPC's
        self.grpc_code: int | None = None  # how it ended
        self._call: UpstreamCall = connection.open(self)

    @property
    def is_between_messages(self) -> bool:
        """Whether the answer has begun and a trailer frame would be understood."""
        return self._is_web and not self._message_left and not self._frame_head

    # --- from the exchange (UpstreamCall)

    def start(self, head: RawHead, *, end: bool) -> None:
        """See UpstreamCall."""
        self._call.start(head, end=end)

    def send(self, data: bytes) -> None:
        """See UpstreamCall."""
        self._up_read += len(data)
        if self._is_text:
            data = self._rest + data
            whole = len(data) // 4 * 4
            data, self._rest = data[:whole], data[whole:]
            try:
                data = decode_base64(data)
            except binascii.Error:
                self._refuse()
                return
        self._up_given += len(data)
        if data:
            self._call.send(data)
        self.request_drained(0)

    def finish(self, trailers: Headers) -> None:
        """See UpstreamCall."""
        if self._rest:
            self._refuse()
        else:
            self._call.finish(trailers)

    def abort(self) -> None:
        """See UpstreamCall."""
        self._call.abort()

    def ack(self, count: int) -> None:
        """See UpstreamCall."""
        self._down_taken += count
        taken = self._down_taken * 3 // 4 if self._is_text else self._down_taken
        due = self._down_read if self._down_taken >= self._down_given else min(taken, self._down_read)
        due, self._down_told = due - self._down_told, max(due, self._down_told)
        if due > 0:
            self._call.ack(due)

    def _refuse(self) -> None:
        self._call.abort()
        self._events.response_lost(Cause.BAD_REQUEST, "the body of the gRPC-Web call is not base64")

    # --- from the app's end (ResponseEvents)

    def request_drained(self, count: int) -> None:
        """See ResponseEvents."""
        self._up_taken += count
        taken = self._up_taken * 4 // 3 if self._is_text else self._up_taken
        due = self._up_read if self._up_taken >= self._up_given else min(taken, self._up_read)
        due, self._up_told = due - self._up_told, max(due, self._up_told)
        if due > 0:
            self._events.request_drained(due)

    def response_inform(self, status: int, headers: Headers) -> None:
        """See ResponseEvents."""
        self._events.response_inform(status, headers)

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """See ResponseEvents. An answer that is not gRPC's is passed on as it is."""
        kind = next((data for name, data in headers if name == b"content-type"), b"")
        self._is_web = status == 200 and kind.startswith(b"application/grpc")
        if not self._is_web:
            self._events.response_head(status, headers, end=end)
            return
        fields = tuple(field for field in headers if field[0] not in {b"content-type", b"content-length"})
        own = ((b"content-type", self._sent_as),)
        self._events.response_head(status, own if end else (*fields, *own), end=False)
        if end:  # all of a Trailers-Only answer is trailers
            self.response_end(fields)

    def response_data(self, data: bytes) -> None:
        """See ResponseEvents."""
        self._down_read += len(data)
        if self._is_web:
            self._note_messages(data)
            data = base64.b64encode(data) if self._is_text else data
        self._down_given += len(data)
        self._events.response_data(data)

    def response_end(self, trailers: Headers) -> None:
        """See ResponseEvents."""
        if not self._is_web:
            self._events.response_end(trailers)
            return
        self.grpc_code = grpc_code(trailers)
        kept = tuple(
            field for field in trailers if field[0] not in HOP_BY_HOP and not field[0].startswith(b"postern-")
        )
        self._events.response_data(trailer_frame(kept, self._sent_as))
        self._events.response_end(())

    def response_lost(self, cause: Cause, detail: str) -> None:
        """See ResponseEvents."""
        self._events.response_lost(cause, detail)

    def _note_messages(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._message_left:
                step = min(self._message_left, len(data) - at)
                self._message_left -= step
            else:
                step = min(_FRAME_HEAD - len(self._frame_head), len(data) - at)
                self._frame_head += data[at : at + step]
                if len(self._frame_head) == _FRAME_HEAD:
                    self._message_left = int.from_bytes(self._frame_head[1:], "big")
                    self._frame_head = b""
            at += step
