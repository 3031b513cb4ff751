"""An app's HTTP call whose callee is a daprd: the engine's request in, CallLocalStream into the engine out, and the answer back.

A daprd that doesn't know the method is asked again by CallLocal, as daprds do, where the body was short enough to keep.
"""

import time
from typing import Final

from google.protobuf.message import DecodeError
from msgspec import Struct

from proxy.api.dapr.codes import INTERNAL, OK, UNIMPLEMENTED
from proxy.api.daprd.flow import Credit, pieces
from proxy.api.daprd.framing import HEAD, Messages, WireError, check_envelope, framed, message_of
from proxy.api.daprd.internals_pb2 import (
    InternalInvokeRequest,
    InternalInvokeRequestStream,
    InternalInvokeResponse,
    InternalInvokeResponseStream,
)
from proxy.api.daprd.request import Parties, TargetError, UnknownVerbError, envelope
from proxy.api.daprd.response import NO_EVENTS, accepts_events, answered, failed, meant
from proxy.api.daprd.way import Way
from proxy.contract.head import HASH_HEADER, OF_ENVELOPES, Headers
from proxy.contract.plan import Cause
from proxy.errors import HEADER
from proxy.wire.answers import grpc_code
from proxy.wire.deadlines import read_left_s
from proxy.wire.grpc_timeout import format_grpc_timeout
from proxy.wire.http_client import LocalResponse
from proxy.wire.streams import Downstream, RawHead, UpstreamCall
from telemetry.context import format_grpc_trace_bin, parse_traceparent

_SERVICE: Final = b"/dapr.proto.internals.v1.ServiceInvocation/"
_BODILESS: Final = frozenset({204, 304})


class Caller(Struct, frozen=True, kw_only=True):
    """Our own side. max_bytes: of a message, either way; head_bytes: of an answer's head.

    replay_bytes: of a body that is kept for CallLocal.
    """

    app_id: str
    namespace: str
    max_bytes: int
    head_bytes: int
    replay_bytes: int


class CallOut:
    """RequestEvents of the app's call, ResponseEvents of the one to the daprd.

    Mutable state: that call, the body kept for another, the numbers of pieces both ways, the answer so far, its pieces
    that came at once, and whether all is over.
    """

    def __init__(self, way: Way, own: Caller, down: Downstream, head: RawHead) -> None:
        self._way = way
        self._own = own
        self._down = down
        self._head = head
        name = dict(head.headers).get(b"postern-callee", b"").decode("latin-1")
        app_id, _, namespace = name.partition(".")
        self._callee = app_id if namespace == own.namespace else name
        self._parties = Parties(app_id=own.app_id, namespace=own.namespace, callee=app_id)
        self._request = InternalInvokeRequest()
        self._daprd: UpstreamCall | None = None
        self._is_whole = False  # by CallLocal
        self._messages = Messages(own.max_bytes)
        self._to_daprd = Credit(down.ack)
        self._from_daprd = Credit(self._ack_daprd)
        self._kept: bytearray | None = bytearray()
        self._has_all = False  # the request has ended
        self._sent = self._next = 0
        self._pieces: list[bytes] = []
        self._has_begun = self._is_bodiless = self._is_over = False
        self._begin()

    def _begin(self) -> None:
        try:
            self._request = envelope(self._head, self._parties)
        except TargetError as error:
            self._fail(Cause.BAD_REQUEST, f"the call can't be carried to a daprd: {error}")
        except UnknownVerbError as error:
            self._fail(Cause.UNSUPPORTED, str(error))
        else:
            self._open(b"CallLocalStream")
            self._send(InternalInvokeRequestStream(request=self._request).SerializeToString())

    def _open(self, method: bytes) -> None:
        named = dict(self._head.headers)
        headers = [*HEAD, (b"te", b"trailers"), (b"postern-callee", named[b"postern-callee"])]
        context = parse_traceparent(named.get(b"traceparent", b""))
        if context is not None:
            headers += [
                (b"traceparent", named[b"traceparent"]),
                (b"grpc-trace-bin", format_grpc_trace_bin(context)),
            ]
        by = named.get(HASH_HEADER, b"")
        value = next((data for name, data in self._head.headers if name == by), None)  # as engines read it
        if value is not None and by not in OF_ENVELOPES:
            headers.append((by, value))
        left_s = read_left_s(self._head.headers, time.time())
        if left_s is not None:
            headers.append((b"grpc-timeout", format_grpc_timeout(left_s)))
        self._daprd = self._way.open(self)
        self._daprd.start(
            RawHead("grpc", b"POST", b"localhost", _SERVICE + method, tuple(headers), "stream", None),
            end=False,
        )

    def _ack_daprd(self, count: int) -> None:
        if self._daprd is not None:
            self._daprd.ack(count)

    def _send(self, message: bytes) -> None:
        if self._daprd is not None:
            data = framed(message)
            self._to_daprd.sent(len(data))
            self._daprd.send(data)

    # --- the app's end ---------------------------------------------------------------------------------------------------

    def request_data(self, data: bytes) -> None:
        """See RequestEvents."""
        if not self._is_over:
            self._keep(data)
            if not self._is_whole:
                self._send_pieces(data)
        self._to_daprd.came(len(data))

    def _keep(self, data: bytes) -> None:
        if self._kept is None:
            return
        self._kept += data
        if len(self._kept) <= self._own.replay_bytes:
            return
        self._kept = None
        if self._is_whole:
            self._too_old()

    def _send_pieces(self, data: bytes) -> None:
        for piece in pieces(data):
            part = InternalInvokeRequestStream()
            part.payload.data, part.payload.seq = piece, self._sent
            self._sent += 1
            self._send(part.SerializeToString())

    def request_end(self, trailers: Headers) -> None:
        """See RequestEvents."""
        self._has_all = True
        if self._is_over:
            return
        if self._is_whole:
            self._send_whole()
        elif self._daprd is not None:
            self._daprd.finish(())

    def request_gone(self, detail: str) -> None:
        """See RequestEvents: the daprd's call is cancelled."""
        self._is_over = True
        self._to_daprd.drop()
        if self._daprd is not None:
            self._daprd.abort()

    def response_drained(self, count: int) -> None:
        """See RequestEvents."""
        self._from_daprd.left(count)

    # --- the daprd's end -------------------------------------------------------------------------------------------------

    def response_inform(self, status: int, headers: Headers) -> None:
        """See ResponseEvents: gRPC has no 1xx answers."""

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """See ResponseEvents."""
        if status != 200:
            self._fail(Cause.INVALID_ANSWER, f"a daprd answered with HTTP status {status}")
        elif end:
            self.response_end(headers)

    def response_data(self, data: bytes) -> None:
        """See ResponseEvents."""
        if self._is_over:
            return
        try:
            for message in self._messages.feed(data):
                if not self._is_over:
                    (self._take_whole if self._is_whole else self._take)(message)
        except WireError as error:
            self._fail(Cause.INVALID_ANSWER, str(error))
        except DecodeError:
            self._fail(Cause.INVALID_ANSWER, "a daprd's answer is not a valid message")
        self._pass_on()
        self._from_daprd.came(len(data))

    def response_end(self, trailers: Headers) -> None:
        """See ResponseEvents."""
        if self._is_over:
            return
        self._daprd = None
        code = grpc_code(trailers)
        if code == OK and self._has_begun and self._messages.is_between:
            self._is_over = True
            self._to_daprd.drop()
            self._down.finish(())
        elif code == OK and not self._has_answer and accepts_events(self._head.headers):
            self._is_over = True
            self._to_daprd.drop()
            self._reply(NO_EVENTS)
        elif code == OK:
            self._fail(Cause.INVALID_ANSWER, "a daprd's answer has no envelope, or ended within a message")
        elif code == UNIMPLEMENTED and not (self._has_begun or self._is_whole) and not _is_ours(trailers):
            self._again()
        else:
            said = dict(trailers).get(HEADER, b"")
            self._fail(*meant(INTERNAL if code is None else code, message_of(trailers), said))

    @property
    def _has_answer(self) -> bool:
        """Whether any of an answer has come, or must come."""
        return self._has_begun or self._is_whole or not self._messages.is_between

    def response_lost(self, cause: Cause, detail: str) -> None:
        """See ResponseEvents."""
        self._daprd = None
        self._fail(cause, f"the call to {self._callee} broke: {detail}")

    def request_drained(self, count: int) -> None:
        """See ResponseEvents."""
        self._to_daprd.left(count)

    def _take(self, message: bytes) -> None:
        part = InternalInvokeResponseStream.FromString(message)
        body = len(part.payload.data) + len(part.response.message.data.value)
        check_envelope(len(message) - body, self._own.head_bytes)
        if part.HasField("payload"):
            if part.payload.seq != self._next:
                raise WireError(
                    INTERNAL, f"piece {part.payload.seq} of the answer came, {self._next} was next"
                )
            self._next += 1
        if not self._has_begun:
            if not part.HasField("response"):
                raise WireError(INTERNAL, "the answer's first part has no envelope")
            if part.response.HasField("message"):
                part.response.message.data.ClearField("value")  # the body comes in pieces
            self._answer(part.response)
        elif part.HasField("response") and _says_anything(part.response):
            raise WireError(INTERNAL, "an envelope in a part of the answer that is not the first")
        self._pass(part.payload.data)

    def _take_whole(self, message: bytes) -> None:
        if self._has_begun:
            raise WireError(INTERNAL, "a second answer")
        response = InternalInvokeResponse.FromString(message)
        check_envelope(len(message) - len(response.message.data.value), self._own.head_bytes)
        is_in_answer = self._answer(response)
        if not is_in_answer:
            self._pass(response.message.data.value)

    def _answer(self, response: InternalInvokeResponse) -> bool:
        """Begin the answer; whether its body is complete with that."""
        made = answered(response, self._callee)
        self._has_begun = True
        self._kept = None
        self._down.respond(made.status, made.headers, end=False)
        self._is_bodiless = made.status in _BODILESS or self._head.method == b"HEAD"
        self._pass(made.body)
        self._is_bodiless = self._is_bodiless or bool(made.body)
        return self._is_bodiless

    def _pass(self, data: bytes) -> None:
        if data and not self._is_bodiless:
            self._pieces.append(data)

    def _pass_on(self) -> None:
        data = b"".join(self._pieces)
        self._pieces.clear()
        if data and not self._is_over:
            self._from_daprd.sent(len(data))
            self._down.send(data)

    # --- a daprd that is too old for streams ------------------------------------------------------------------------------

    def _again(self) -> None:
        if self._kept is None:
            self._too_old()
            return
        self._is_whole = True
        self._messages = Messages(self._own.max_bytes)
        self._to_daprd.drop()  # what comes is kept
        if self._has_all:
            self._send_whole()

    def _send_whole(self) -> None:
        self._open(b"CallLocal")
        self._request.message.data.value = bytes(self._kept or b"")
        self._send(self._request.SerializeToString())
        if self._daprd is not None:
            self._daprd.finish(())

    def _too_old(self) -> None:
        text = (
            f"the daprd of {self._callee} is too old to be sent a body in pieces, and this one is larger than "
            f"{self._own.replay_bytes} bytes: "
            "upgrade that daprd, or raise --replay-buffer-size"
        )
        self._fail(Cause.UNSUPPORTED, text)

    # --- its end -----------------------------------------------------------------------------------------------------------

    def _fail(self, cause: Cause, text: str) -> None:
        """Answer for what became of the call, or break the answer off where it has begun."""
        if self._is_over:
            return
        self._is_over = True
        self._to_daprd.drop()
        daprd, self._daprd = self._daprd, None
        if daprd is not None:
            daprd.abort()
        if self._has_begun:
            self._down.abort(Cause.RESET_LATE)
        else:
            self._reply(failed(self._head.headers, cause, text, self._callee))

    def _reply(self, made: LocalResponse) -> None:
        is_bodiless = self._head.method == b"HEAD"
        self._down.respond(made.status, made.headers, end=is_bodiless)
        if not is_bodiless:
            self._down.send(made.body)
            self._down.finish(())


def _says_anything(response: InternalInvokeResponse) -> bool:
    return bool(response.HasField("status") or response.headers or response.HasField("message"))


def _is_ours(trailers: Headers) -> bool:
    """Whether a proxy of ours says it, of a call that no daprd has seen."""
    return HEADER in dict(trailers)
