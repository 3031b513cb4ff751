"""One call to the sidecar's own app for the control plane (reflection, health): a gRPC message out and in, or a GET over HTTP/2.

On the engine's own HTTP/2 client, because grpcio would add 20 MB to every sidecar for one call at start-up.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.contract.engine import Limits
from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.errors import os_reason
from proxy.wire.http2_client import Http2Client
from proxy.wire.streams import RawHead, UpstreamCall, UpstreamConnection
from proxy.wire.tls import TlsContexts

_HEADERS: Headers = (
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
    (b"user-agent", b"postern"),
)
_MAX_ANSWER_BYTES = 1_048_576


class UnaryError(Exception):
    """The app did not answer well: `code` is the gRPC status, None where the transport failed."""

    def __init__(self, code: int | None, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class _Answer:
    """Collects one answer."""

    def __init__(self) -> None:
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.call: UpstreamCall | None = None
        self._body = b""

    def request_drained(self, count: int) -> None:
        """Nothing waits for it."""

    def response_inform(self, status: int, headers: Headers) -> None:
        """Nothing to do."""

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """A trailers-only answer ends here."""
        if end or status != 200:
            self._end(headers, status)

    def response_data(self, data: bytes) -> None:
        """Some of the message; the first whole one is enough."""
        self._body += data
        if self.call is not None:
            self.call.ack(len(data))
        size = int.from_bytes(self._body[1:5], "big")
        if size > _MAX_ANSWER_BYTES:
            self._fail(UnaryError(8, f"an answer of {size} bytes"))
        elif len(self._body) >= 5 + size and not self.done.done():
            self.done.set_result(self._body[5 : 5 + size])

    def response_end(self, trailers: Headers) -> None:
        """The status."""
        self._end(trailers, 200)

    def response_lost(self, cause: Cause, detail: str) -> None:
        """The call broke."""
        self._fail(UnaryError(None, detail))

    def _end(self, headers: Headers, status: int) -> None:
        found = dict(headers).get(b"grpc-status", b"2")
        code = int(found) if found.isdigit() else 2
        if code == 0 and status == 200 and not self.done.done():
            self.done.set_result(self._body[5:])
        else:
            self._fail(UnaryError(code, dict(headers).get(b"grpc-message", b"").decode("utf-8", "replace")))

    def _fail(self, error: UnaryError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Owner:
    """A connection of its own, looked after by the one call."""

    def capacity_changed(self, connection: UpstreamConnection) -> None:
        """Nobody waits."""

    def connection_closed(self, connection: UpstreamConnection, detail: str) -> None:
        """Its call has heard of it."""


class _Status:
    """Waits for the head of one answer."""

    def __init__(self) -> None:
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def request_drained(self, count: int) -> None:
        """There was no body."""

    def response_inform(self, status: int, headers: Headers) -> None:
        """Not yet the answer."""

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """All that is asked for."""
        if not self.done.done():
            self.done.set_result(status)

    def response_data(self, data: bytes) -> None:
        """Nobody reads it: the connection is closed."""

    def response_end(self, trailers: Headers) -> None:
        """The head has been here."""

    def response_lost(self, cause: Cause, detail: str) -> None:
        """The call broke."""
        if not self.done.done():
            self.done.set_exception(UnaryError(None, detail))


async def unary(host: str, port: int, path: str, message: bytes, *, tls: bool, timeout_s: float) -> bytes:
    """Call `path` with one message and return the first answer. Raises UnaryError, TimeoutError."""
    async with asyncio.timeout(timeout_s), _connected(host, port, tls=tls) as client:
        answer = _Answer()
        call = answer.call = client.open(answer)
        authority = f"{host}:{port}".encode()
        head = RawHead("grpc", b"POST", authority, path.encode(), _HEADERS, "stream", None)
        call.start(head, end=False)
        call.send(b"\x00" + len(message).to_bytes(4, "big") + message)
        call.finish(())
        return await answer.done


async def status_of(host: str, port: int, path: str, *, headers: Headers = (), timeout_s: float) -> int:
    """The status of a GET by HTTP/2 with prior knowledge. Raises UnaryError, TimeoutError."""
    async with asyncio.timeout(timeout_s), _connected(host, port, tls=False) as client:
        answer = _Status()
        authority = f"{host}:{port}".encode()
        call = client.open(answer)
        call.start(RawHead("http2", b"GET", authority, path.encode(), headers, "none", 0), end=True)
        return await answer.done


@asynccontextmanager
async def _connected(host: str, port: int, *, tls: bool) -> AsyncIterator[Http2Client]:
    loop = asyncio.get_running_loop()
    client: Http2Client | None = None
    try:
        _, client = await loop.create_connection(
            lambda: Http2Client(_Owner(), Limits(), lambda _: None, "h2"),
            host,
            port,
            ssl=TlsContexts().app("h2c") if tls else None,
            server_hostname="" if tls else None,
        )
        await client.ready
        yield client
    except TimeoutError:
        raise
    except OSError as error:
        raise UnaryError(None, os_reason(error)) from error
    finally:
        if client is not None:
            client.close()
