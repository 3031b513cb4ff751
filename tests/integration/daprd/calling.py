"""Daprds of other releases than the real one of these tests, of our own making, as those who call: see `releases`."""

import asyncio
import posixpath
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from proxy.api.dapr.common_pb2 import HTTPExtension
from proxy.api.daprd.fields import canonical
from proxy.api.daprd.framing import HEAD, Messages, framed, message_of
from proxy.api.daprd.internals_pb2 import (
    InternalInvokeRequest,
    InternalInvokeRequestStream,
    InternalInvokeResponse,
    InternalInvokeResponseStream,
)
from proxy.contract.engine import Limits
from proxy.contract.head import Header, Headers
from proxy.contract.plan import Cause
from proxy.wire.answers import grpc_code
from proxy.wire.http2_client import Http2Client
from proxy.wire.streams import RawHead, UpstreamConnection
from sentry.spiffe import SpiffeId, verify_leaf
from tests.integration.daprd.releases import Release
from tests.integration.mesh.peers import Forge

_SERVICE: Final = "/dapr.proto.internals.v1.ServiceInvocation/"
_PIECE_BYTES: Final = 2_048
_MESSAGE_BYTES: Final = 4 << 20


class EndedError(Exception):
    """The call ended without success. `code`: of gRPC."""

    def __init__(self, code: int | None, text: str) -> None:
        super().__init__(f"code {code}: {text}")
        self.code = code


class Outgoing:
    """One call. Mutable state: messages as they come, and how it ended."""

    def __init__(self, client: Http2Client, target: str, metadata: Headers) -> None:
        self._messages = Messages(_MESSAGE_BYTES)
        self._came: asyncio.Queue[bytes | EndedError | None] = asyncio.Queue()
        self.trailers: Headers = ()
        headers = (*HEAD, (b"te", b"trailers"), (b"user-agent", b"grpc-go/1.82.1"), *metadata)
        self._call = client.open(self)
        self._call.start(
            RawHead("grpc", b"POST", b"daprd", target.encode(), headers, "stream", None), end=False
        )

    def send(self, message: bytes) -> None:
        """A message."""
        self._call.send(framed(message))

    def half_close(self) -> None:
        """No more messages."""
        self._call.finish(())

    def cancel(self) -> None:
        """Give the call up."""
        self._call.abort()

    async def message(self) -> bytes | None:
        """The next message; None after success. Raises EndedError."""
        found = await self._came.get()
        if isinstance(found, EndedError):
            raise found
        return found

    # --- ResponseEvents ----------------------------------------------------------------------------------------------------

    def response_inform(self, status: int, headers: Headers) -> None:
        """See ResponseEvents."""

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """See ResponseEvents."""
        if end:
            self.response_end(headers)

    def response_data(self, data: bytes) -> None:
        """See ResponseEvents."""
        self._call.ack(len(data))
        for message in self._messages.feed(data):
            self._came.put_nowait(message)

    def response_end(self, trailers: Headers) -> None:
        """See ResponseEvents."""
        self.trailers = trailers
        code = grpc_code(trailers)
        self._came.put_nowait(EndedError(code, message_of(trailers)) if code else None)

    def response_lost(self, cause: Cause, detail: str) -> None:
        """See ResponseEvents."""
        self._came.put_nowait(EndedError(None, f"{cause}: {detail}"))

    def request_drained(self, count: int) -> None:
        """See ResponseEvents."""


class Invocation:
    """One call of an HTTP client behind the stand-in, by the method that its release has. Mutable state: how far both bodies are."""

    def __init__(
        self,
        client: Http2Client,
        release: Release,
        callee: str,
        verb: str,
        target: str,
        *fields: tuple[str, str],
        metadata: Headers = (),
    ) -> None:
        path, _, query = target.partition("?")
        request = InternalInvokeRequest(ver="V1")
        method = path.lstrip("/")
        request.message.method = method if release.keeps_methods else posixpath.normpath(path).lstrip("/")
        request.message.http_extension.CopyFrom(HTTPExtension(verb=verb, querystring=query))
        for name, value in (
            *fields,
            ("X-Forwarded-For", "192.0.2.1"),
            ("destination-app-id", callee),
            ("dapr-caller-namespace", "default"),
            ("dapr-caller-app-id", release.app_id),
            ("dapr-callee-app-id", callee),
        ):
            key = name if name.startswith(("dapr-", "destination-")) else canonical(name)
            request.metadata[key].values.append(value)
            if key == "Content-Type":
                request.message.content_type = value
        self._request: InternalInvokeRequest | None = request
        self._is_whole = not release.has_streams
        self._sent = self._next = 0
        self._first = b""
        method = "CallLocal" if self._is_whole else "CallLocalStream"
        self.call = Outgoing(client, _SERVICE + method, metadata)

    def say(self, data: bytes) -> None:
        """Some of the request's body."""
        if self._is_whole:
            assert self._request is not None
            self._request.message.data.value += data
            return
        for start in range(0, len(data), _PIECE_BYTES):
            part = InternalInvokeRequestStream(request=self._request)
            part.payload.data, part.payload.seq = data[start : start + _PIECE_BYTES], self._sent
            self._sent, self._request = self._sent + 1, None
            self.call.send(part.SerializeToString())

    def finish(self) -> None:
        """The request is whole."""
        request, self._request = self._request, None
        if request is not None and self._is_whole:
            self.call.send(request.SerializeToString())
        elif request is not None:
            self.call.send(InternalInvokeRequestStream(request=request).SerializeToString())
        self.call.half_close()

    async def head(self) -> InternalInvokeResponse:
        """The app's answer without its body. Raises EndedError."""
        message = await self.call.message()
        assert message is not None, "an answer without a message"
        if self._is_whole:
            whole = InternalInvokeResponse.FromString(message)
            self._first = whole.message.data.value
            assert await self.call.message() is None
            return whole
        part = InternalInvokeResponseStream.FromString(message)
        assert part.response.HasField("status"), "response does not contain the required fields"
        self._take(part)
        return part.response

    def _take(self, part: InternalInvokeResponseStream) -> None:
        if part.HasField("payload"):
            assert part.payload.seq == self._next, "invalid sequence number"
            self._next += 1
        self._first += part.payload.data

    async def piece(self) -> bytes | None:
        """The next piece of its body; None at its end. Raises EndedError."""
        while not (self._first or self._is_whole):
            message = await self.call.message()
            if message is None:
                return None
            part = InternalInvokeResponseStream.FromString(message)
            assert not part.response.HasField("status")
            assert not part.response.headers
            assert not part.response.HasField("message")
            self._take(part)
        first, self._first = self._first, b""
        return first or None

    async def whole(self) -> bytes:
        """The body of an answer that nobody has looked at yet. Raises EndedError."""
        await self.head()
        return await self.body()

    async def body(self) -> bytes:
        """All of it. Raises EndedError."""
        found = b""
        while (piece := await self.piece()) is not None:
            found += piece
        return found


def proxied(client: Http2Client, release: Release, callee: str, method: str, *metadata: Header) -> Outgoing:
    """A gRPC call of an app behind the stand-in."""
    key = b"dapr-callee-app-id" if release.has_callee_key else b"dapr-app-id"
    named = ((key, callee.encode()), (b"dapr-caller-app-id", release.app_id.encode()), *metadata)
    return Outgoing(client, f"/testing.EchoService/{method}", named)


class _Owner:
    def capacity_changed(self, connection: UpstreamConnection) -> None:
        """See ConnectionOwner."""

    def connection_closed(self, connection: UpstreamConnection, detail: str) -> None:
        """See ConnectionOwner."""


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext, callee: str) -> AsyncIterator[Http2Client]:
    """A connection to a peer port as daprds make them: ALPN h2, and the callee's certificate under the same roots."""
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(
        lambda: Http2Client(_Owner(), Limits(), lambda _: None, "h2"), "127.0.0.1", port, ssl=context
    )
    try:
        tls = transport.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "h2"
        named = verify_leaf(tls.getpeercert(True) or b"", as_server=True)
        assert named == SpiffeId("public", "default", callee)
        await client.ready
        yield client
    finally:
        client.close()


def client_context(forge: Forge, release: Release) -> ssl.SSLContext:
    """Its TLS towards peers."""
    context = forge.context(SpiffeId("public", "default", release.app_id))
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=forge.anchors_pem.decode())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_mode = ssl.CERT_REQUIRED
    return context
