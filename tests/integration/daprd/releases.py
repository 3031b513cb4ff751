"""Daprds of other releases than the real one of these tests, of our own making, as those who are called.

What each does on the wire is in `Release`; what its app does, the test says.
"""

import posixpath
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from proxy.api.dapr.common_pb2 import HTTPExtension
from proxy.api.daprd.fields import canonical
from proxy.api.daprd.internals_pb2 import InternalInvokeRequest, InternalInvokeResponse
from tests.support.fake_daprd import Call, http
from tests.support.proto.echo_pb2 import EchoReply, EchoRequest, Metadata

UNKNOWN, INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL = 2, 3, 12, 13
_EVENTS: Final = "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What daprds of a release do that others don't. app_id: of the stand-in."""

    app_id: str
    has_streams: bool = True  # CallLocalStream: since 1.10
    has_event_form: bool = True  # answers to who accepts nothing but events have no status: since 1.16
    has_callee_key: bool = (
        True  # gRPC is routed by dapr-callee-app-id alone: since 1.16; before, by dapr-app-id
    )
    keeps_hop_fields: bool = (
        False  # an app's Connection, Upgrade and the like are in the envelope: until 1.17.3
    )
    keeps_methods: bool = False  # a method goes out, and is taken, as a client spelled it: until 1.17.4
    has_ed25519: bool = True  # the key of its certificate; P-256 before 1.18


V1_9: Final = Release(
    app_id="v1-9",
    has_streams=False,
    has_event_form=False,
    has_callee_key=False,
    keeps_hop_fields=True,
    keeps_methods=True,
    has_ed25519=False,
)
V1_15: Final = Release(
    app_id="v1-15",
    has_event_form=False,
    has_callee_key=False,
    keeps_hop_fields=True,
    keeps_methods=True,
    has_ed25519=False,
)
V1_17: Final = Release(app_id="v1-17", keeps_hop_fields=True, keeps_methods=True, has_ed25519=False)  # 1.17.0
V1_18: Final = Release(app_id="v1-18")
RELEASES: Final = (V1_9, V1_15, V1_17, V1_18)


class Asked:
    """A request as the stand-in's app is asked, and the app's answer. Mutable state: how far both are."""

    def __init__(
        self, call: Call, release: Release, request: InternalInvokeRequest, first: bytes | None
    ) -> None:
        self.call = call
        self.method = request.message.method
        self.verb = HTTPExtension.Verb.Name(request.message.http_extension.verb)
        self.query = request.message.http_extension.querystring
        self.content_type = request.message.content_type
        self._fields = {name: list(values.values) for name, values in request.metadata.items()}
        self._release = release
        self._first = first
        self._is_whole = call.method == "CallLocal"
        self._next = 0 if first is None else 1
        self._head: InternalInvokeResponse | None = None
        self._has_begun = False
        self._held = b""
        accepted = "".join(self.field("Accept")).strip().lower()
        self._is_events = release.has_event_form and accepted == _EVENTS

    def field(self, name: str) -> list[str]:
        """A field by its exact spelling, as daprds look them up."""
        return self._fields.get(name, [])

    async def piece(self) -> bytes | None:
        """The next piece of the body; None at its end. Ends the call where a daprd would."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self._is_whole:
            return None
        part = await self.call.part()
        if part is None:
            return None
        if part.request.metadata or part.request.HasField("message") or part.payload.seq != self._next:
            self.call.end(INTERNAL, "request metadata in a later chunk, or an invalid sequence number")
            return None
        self._next += 1
        return part.payload.data

    def begin(self, status: int, content_type: str = "text/plain", **fields: str) -> None:
        """The app's head; it goes out with the first of the body, as daprds read that before they send."""
        self._head = http(status, content_type)
        for name, value in fields.items():
            self._head.headers[canonical(name.replace("_", "-"))].values.append(value)
        if self._release.keeps_hop_fields:
            self._head.headers["Connection"].values.append("keep-alive, X-Hop")
            self._head.headers["X-Hop"].values.append("1")
        if self._is_events:
            self._head.headers["Content-Type"].values.append(_EVENTS)
            self._head.headers["Cache-Control"].values[:] = ["no-cache"]
            self._head.headers["Connection"].values[:] = ["keep-alive"]

    def write(self, data: bytes) -> None:
        """Some of the app's body, flushed."""
        if self._is_whole:
            self._held += data
        elif self._is_events:
            self._write_event(data)
        else:
            self.call.send(data, response=self._taken_head())

    def _taken_head(self) -> InternalInvokeResponse | None:
        head, self._head = self._head, None
        return head

    def _write_event(self, data: bytes) -> None:
        head, response = self._taken_head(), InternalInvokeResponse()
        if head is not None:
            response.status.SetInParent()
            response.headers.MergeFrom(head.headers)
        self.call.send(data, response=response)

    def end(self) -> None:
        """The answer is whole. An answer to events that has no body leaves no trace but OK; one without success is not told of."""
        head = self._taken_head()
        if self._is_whole and head is not None:
            head.message.data.value = self._held
            self.call.send_whole(head)
        elif head is not None and not self._is_events:
            self.call.send(response=head)
        elif head is not None and not 200 <= head.status.code < 300:
            self.call.end(INTERNAL, "error invoking app channel: no response received from stream")
            return
        self.call.end()


App = Callable[[Asked], Awaitable[None]]


def answering(release: Release, app: Callable[[], App]) -> Callable[[Call], Awaitable[None]]:
    """How a stand-in takes calls. app: what its app is now."""

    async def answer(call: Call) -> None:
        if call.method == "CallLocalStream" and release.has_streams:
            part = await call.part()
            first = part.payload.data if part is not None and part.HasField("payload") else None
            request = None if part is None else part.request
        elif call.method == "CallLocal":
            request = await call.whole()
            first = request.message.data.value or None
        elif call.method.startswith("CallLocal"):
            call.end(UNIMPLEMENTED, f"unknown method {call.method}")
            return
        else:
            await _answer_grpc(call, release)
            return
        if request is None or not request.metadata or not request.HasField("message"):
            call.end(INVALID_ARGUMENT, "request does not contain the required fields in the leading chunk")
        elif not release.keeps_methods and not _is_normal(request.message.method):
            call.end(INVALID_ARGUMENT, f"invalid method {request.message.method!r}")
        else:
            await app()(Asked(call, release, request, first))

    return answer


def _is_normal(method: str) -> bool:
    has_reserved = any(c in "#?\x7f" or c < " " for c in method)
    return not has_reserved and method == posixpath.normpath(f"/{method}").lstrip("/")


async def _answer_grpc(call: Call, release: Release) -> None:
    """The app's EchoService: a reply to each message as it comes. `Fail` ends with the code asked for, `ServerStream` after its caller."""
    named = dict(call.head.headers)
    key = b"dapr-callee-app-id" if release.has_callee_key else b"dapr-app-id"
    if named.get(key) != release.app_id.encode() or named.get(b"te") != b"trailers":
        call.end(UNKNOWN, "failed to proxy request: required metadata not found")
        return
    metadata = [
        Metadata(name=name.decode(), value=value)
        for name, value in call.head.headers
        if name != b"dapr-app-id"
    ]
    while (message := await call.message()) is not None:
        request = EchoRequest.FromString(message)
        if call.method == "Fail":
            call.end(request.code, request.message)
            return
        reply = EchoReply(message=request.message, app=release.app_id, metadata=metadata)
        call.send_message(reply.SerializeToString())
        if call.method == "ServerStream":
            await call.gone.wait()
            return
    call.end()
