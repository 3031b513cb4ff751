"""A daprd's call of our app: CallLocal or CallLocalStream in, an HTTP request into the engine out, and the answer back.

The engine judges that request as the daprd's. A daprd reads the answer once it has sent its request whole, and half-closed.
"""

from abc import ABC, abstractmethod
from typing import Final

from google.protobuf.message import DecodeError
from msgspec import Struct

from proxy.api.dapr.codes import INTERNAL, INVALID_ARGUMENT, OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from proxy.api.daprd.flow import Credit, pieces
from proxy.api.daprd.framing import HEAD, Messages, WireError, check_envelope, ending, framed
from proxy.api.daprd.internals_pb2 import (
    InternalInvokeRequest,
    InternalInvokeRequestStream,
    InternalInvokeResponse,
    InternalInvokeResponseStream,
)
from proxy.api.daprd.request import announced_length, checked, http_head
from proxy.api.daprd.response import cause_of, response_envelope, told
from proxy.api.daprd.way import Way
from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.wire.streams import Downstream, RawHead, UpstreamCall

SERVICE: Final = b"/dapr.proto.internals.v1.ServiceInvocation/"
_ERROR_BYTES: Final = 65_536
_LOST: Final = {Cause.REFUSED: 14, Cause.SHED: RESOURCE_EXHAUSTED}  # UNAVAILABLE: it may come again


class Callee(Struct, frozen=True, kw_only=True):
    """Our app. max_bytes: of a message, either way; head_bytes: of a request's head."""

    app_id: str
    speaks_grpc: bool
    max_bytes: int
    head_bytes: int


def accept(way: Way, own: Callee, down: Downstream, head: RawHead) -> "StreamIn | WholeIn":
    """Take a call of the service."""
    method = head.target.removeprefix(SERVICE)
    call = (WholeIn if method == b"CallLocal" else StreamIn)(way, own, down, head.headers)
    if method not in (b"CallLocal", b"CallLocalStream"):
        call.fail(WireError(UNIMPLEMENTED, f"{method.decode('latin-1')} is not served here"))
    return call


class _CallIn(ABC):
    """What both kinds have in common: RequestEvents of the daprd's call, ResponseEvents of the one to the app.

    Mutable state: the call to the app once there is one, the answer so far, and whether all is over.
    """

    def __init__(self, way: Way, own: Callee, down: Downstream, outer: Headers) -> None:
        self._way = way
        self._own = own
        self._down = down
        self._outer = outer
        self._messages = Messages(own.max_bytes)
        self._app: UpstreamCall | None = None
        self._to_app = Credit(down.ack)
        self._from_app = Credit(self._ack_app)
        self._cause: Cause | None = None
        self._refusal: Headers = ()  # why a proxy ended the call, whose words come
        self._held = bytearray()  # these words, or an answer that goes out whole
        self._has_begun = False
        self._is_over = False

    def _ack_app(self, count: int) -> None:
        if self._app is not None:
            self._app.ack(count)

    # --- the daprd's end -------------------------------------------------------------------------------------------------

    def request_data(self, data: bytes) -> None:
        """See RequestEvents."""
        if not self._is_over:
            try:
                for message in self._messages.feed(data):
                    if not self._is_over:
                        self.take(message)
            except WireError as error:
                self.fail(error)
            except DecodeError:
                self.fail(WireError(INVALID_ARGUMENT, "the request is not a valid message of this method"))
            self.pass_on()
        self._to_app.came(len(data))

    def request_end(self, trailers: Headers) -> None:
        """See RequestEvents."""
        if self._is_over:
            return
        try:
            if not self._messages.is_between:
                raise WireError(INTERNAL, "the request ended within a message")  # noqa: TRY301 - as those of `end`
            self.end()
        except WireError as error:
            self.fail(error)

    def request_gone(self, detail: str) -> None:
        """See RequestEvents: the app's call is cancelled."""
        self._is_over = True
        self._to_app.drop()
        if self._app is not None:
            self._app.abort()

    def response_drained(self, count: int) -> None:
        """See RequestEvents."""
        self._from_app.left(count)

    @abstractmethod
    def take(self, message: bytes) -> None:
        """A message of the request. Raises WireError, DecodeError."""

    def pass_on(self) -> None:  # noqa: B027 - a message that is whole waits for the end
        """Those that came at once have been taken."""

    @abstractmethod
    def end(self) -> None:
        """The request is whole. Raises WireError."""

    # --- the app's end ---------------------------------------------------------------------------------------------------

    def start(self, request: InternalInvokeRequest, length: int | None) -> UpstreamCall:
        """Call the app. Raises WireError."""
        head = http_head(request, self._outer, length, for_grpc=self._own.speaks_grpc)
        self._app = app = self._way.open(self)
        app.start(head, end=length == 0)
        return app

    def response_inform(self, status: int, headers: Headers) -> None:  # noqa: B027 - nothing is to be done
        """See ResponseEvents: envelopes have no 1xx answers."""

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """See ResponseEvents."""
        self._cause, self._refusal = cause_of(headers), headers
        if self._cause is None:
            self.begin_answer(response_envelope(status, headers))
        if end:
            self.response_end(())

    def response_data(self, data: bytes) -> None:
        """See ResponseEvents."""
        if self._is_over:
            return
        if self._cause is None:
            self.answer(data)
        elif len(self._held) <= _ERROR_BYTES:
            self._held += data
        self._from_app.came(len(data))

    def response_end(self, trailers: Headers) -> None:
        """See ResponseEvents."""
        if self._is_over:
            return
        self._app = None
        if self._cause is not None:
            self.fail(told(self._cause, bytes(self._held), self._own.app_id, self._refusal))
            return
        self.end_answer()
        self._finish(OK, "")

    def response_lost(self, cause: Cause, detail: str) -> None:
        """See ResponseEvents."""
        self._app = None
        code = _LOST.get(cause, INTERNAL)
        self.fail(WireError(code, f"the app's answer broke off: {detail}" if self._has_begun else detail))

    def request_drained(self, count: int) -> None:
        """See ResponseEvents."""
        self._to_app.left(count)

    @abstractmethod
    def begin_answer(self, response: InternalInvokeResponse) -> None:
        """The app answers."""

    @abstractmethod
    def answer(self, data: bytes) -> None:
        """Some of its answer's body."""

    @abstractmethod
    def end_answer(self) -> None:
        """The answer is whole."""

    def send(self, message: bytes) -> None:
        """Send the daprd a message."""
        if not self._has_begun:
            self._has_begun = True
            self._down.respond(200, HEAD, end=False)
        data = framed(message)
        self._from_app.sent(len(data))
        self._down.send(data)

    def fail(self, error: WireError) -> None:
        """End both calls, where they are not over."""
        if self._is_over:
            return
        app, self._app = self._app, None
        if app is not None:
            app.abort()
        self._finish(error.code, str(error))

    def _finish(self, code: int, text: str) -> None:
        self._is_over = True
        self._to_app.drop()
        if self._has_begun:
            self._down.finish(ending(code, text))
        else:
            self._down.respond(200, (*HEAD, *ending(code, text)), end=True)


class StreamIn(_CallIn):
    """CallLocalStream.

    Mutable state: the envelope, what is left of a body of announced length, pieces that came at once, and the numbers of pieces both ways.
    """

    def __init__(self, way: Way, own: Callee, down: Downstream, outer: Headers) -> None:
        super().__init__(way, own, down, outer)
        self._request: InternalInvokeRequest | None = None
        self._left: int | None = None
        self._pieces: list[bytes] = []
        self._next = 0  # the piece that comes next
        self._sent = 0

    def take(self, message: bytes) -> None:
        """See _CallIn. The envelope waits for the first piece where it doesn't say how long the body is."""
        part = InternalInvokeRequestStream.FromString(message)
        check_envelope(len(message) - len(part.payload.data), self._own.head_bytes)
        if self._request is None:
            self._request = checked(part.request)
            self._left = announced_length(self._request)
            if self._left is not None:
                self.start(self._request, self._left)
        elif part.HasField("request") and (part.request.metadata or part.request.HasField("message")):
            raise WireError(INTERNAL, "an envelope in a part that is not the first")
        if not part.HasField("payload"):
            return
        if part.payload.seq != self._next:
            raise WireError(INTERNAL, f"piece {part.payload.seq} of the body came, {self._next} was next")
        self._next += 1
        if self._app is None:
            self.start(self._request, None)
        data = part.payload.data
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise WireError(INVALID_ARGUMENT, "the body is longer than its Content-Length")
        self._pieces.append(data)

    def pass_on(self) -> None:
        """See _CallIn."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        if data and self._app is not None:
            self._to_app.sent(len(data))
            self._app.send(data)

    def end(self) -> None:
        """See _CallIn."""
        if self._request is None:
            raise WireError(INVALID_ARGUMENT, "a stream without a message")
        if self._left:
            raise WireError(INVALID_ARGUMENT, "the body is shorter than its Content-Length")
        if self._app is None:
            self.start(self._request, 0)
        elif announced_length(self._request) != 0:
            self._app.finish(())

    def begin_answer(self, response: InternalInvokeResponse) -> None:
        """See _CallIn."""
        self.send(InternalInvokeResponseStream(response=response).SerializeToString())

    def answer(self, data: bytes) -> None:
        """See _CallIn."""
        for piece in pieces(data):
            part = InternalInvokeResponseStream()
            part.payload.data, part.payload.seq = piece, self._sent
            self._sent += 1
            self.send(part.SerializeToString())

    def end_answer(self) -> None:
        """See _CallIn."""


class WholeIn(_CallIn):
    """CallLocal: both bodies in one message. Mutable state: the request's, and the answer's envelope."""

    def __init__(self, way: Way, own: Callee, down: Downstream, outer: Headers) -> None:
        super().__init__(way, own, down, outer)
        self._request: InternalInvokeRequest | None = None
        self._response = InternalInvokeResponse()
        self._to_app.drop()  # a message is bounded

    def take(self, message: bytes) -> None:
        """See _CallIn."""
        if self._request is not None:
            raise WireError(INVALID_ARGUMENT, "a second message")
        request = InternalInvokeRequest.FromString(message)
        check_envelope(len(message) - len(request.message.data.value), self._own.head_bytes)
        self._request = checked(request)

    def end(self) -> None:
        """See _CallIn."""
        if self._request is None:
            raise WireError(INVALID_ARGUMENT, "a call without a message")
        body = self._request.message.data.value
        app = self.start(self._request, len(body))
        if body:
            app.send(body)
            app.finish(())

    def begin_answer(self, response: InternalInvokeResponse) -> None:
        """See _CallIn."""
        self._response = response

    def answer(self, data: bytes) -> None:
        """See _CallIn."""
        self._held += data
        if len(self._held) > self._own.max_bytes:
            text = f"the answer is larger than {self._own.max_bytes} bytes; --max-body-size sets the limit"
            self.fail(WireError(RESOURCE_EXHAUSTED, text))

    def end_answer(self) -> None:
        """See _CallIn."""
        self._response.message.data.value = bytes(self._held)
        self.send(self._response.SerializeToString())
