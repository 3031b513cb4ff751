"""One unary gRPC call on an HTTP/2 connection of its own: bytes in, bytes out.

Sans-io. The connection carries nothing else, so that every anomaly ends the call; sizes are bounded.
Source: gRPC over HTTP2 (PROTOCOL-HTTP2.md).
"""

import struct
from typing import Final
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from sentry.errors import SentryError

MAX_ANSWER_BYTES: Final = 1024 * 1024
UNAVAILABLE: Final = 14
RESOURCE_EXHAUSTED: Final = 8
DEADLINE_EXCEEDED: Final = 4
_INTERNAL: Final = 13
_UNKNOWN: Final = 2
_PREFIX: Final = struct.Struct(">BI")


class CallError(SentryError):
    """The call ended without an answer; `code` is the gRPC status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"gRPC status {code}: {message}")
        self.code = code


class UnaryCall:
    """State of the one call: `is_done` once `result` may be asked."""

    def __init__(self, *, authority: str, path: str, message: bytes, timeout_ms: int) -> None:
        """`message` is the serialised request; nothing is sent before `start`."""
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8", logger=None)
        self._connection = h2.connection.H2Connection(config)
        self._headers = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "postern"),
            ("grpc-timeout", f"{max(1, timeout_ms)}m"),
        ]
        self._unsent = memoryview(_PREFIX.pack(0, len(message)) + message)
        self._body = bytearray()
        self._fields: dict[str, str] = {}
        self._failure: CallError | None = None
        self.is_done = False

    def start(self) -> bytes:
        """The first bytes to send."""
        self._connection.initiate_connection()
        self._connection.send_headers(1, self._headers)
        self._send_body()
        return self._connection.data_to_send()

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the peer (none: it closed) and return the bytes to send."""
        if not data:
            self._fail(UNAVAILABLE, "the connection closed before the answer ended")
            return b""
        try:
            for event in self._connection.receive_data(data):
                self._handle(event)
            if not self.is_done:
                self._send_body()
        except h2.exceptions.H2Error as error:
            self._fail(_INTERNAL, f"not HTTP/2: {error}")
        return self._connection.data_to_send()

    def result(self) -> bytes:
        """The answer's message. Raises CallError."""
        if self._failure is not None:
            raise self._failure
        status = self._fields.get("grpc-status", "")
        if not status.isdecimal():
            raise CallError(_UNKNOWN, f"no gRPC status (HTTP {self._fields.get(':status', '?')})")
        if int(status):
            raise CallError(int(status), unquote(self._fields.get("grpc-message", ""))[:1024])
        if len(self._body) < _PREFIX.size:
            raise CallError(_INTERNAL, "the answer has no message")
        compressed, length = _PREFIX.unpack_from(self._body)
        if compressed or length != len(self._body) - _PREFIX.size:
            raise CallError(_INTERNAL, "the answer's message is cut, compressed or not alone")
        return bytes(self._body[_PREFIX.size :])

    def _send_body(self) -> None:
        while self._unsent:
            room = min(
                self._connection.local_flow_control_window(1), self._connection.max_outbound_frame_size
            )
            if room <= 0:
                return
            chunk, self._unsent = self._unsent[:room], self._unsent[room:]
            self._connection.send_data(1, bytes(chunk), end_stream=not self._unsent)

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            self._fields |= {str(name): str(value) for name, value in event.headers or ()}
        elif isinstance(event, h2.events.DataReceived):
            self._body += event.data or b""
            if len(self._body) > MAX_ANSWER_BYTES:
                self._fail(RESOURCE_EXHAUSTED, f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
            elif event.flow_controlled_length:
                self._connection.acknowledge_received_data(event.flow_controlled_length, 1)
        elif isinstance(event, h2.events.StreamEnded):
            self.is_done = True
        elif isinstance(event, h2.events.StreamReset):
            self._fail(UNAVAILABLE, f"the peer reset the stream (code {event.error_code})")
        elif isinstance(event, h2.events.ConnectionTerminated) and (event.last_stream_id or 0) < 1:
            self._fail(UNAVAILABLE, "the peer is going away")

    def _fail(self, code: int, message: str) -> None:
        if not self.is_done:
            self._failure = CallError(code, message)
            self.is_done = True
