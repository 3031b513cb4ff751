"""Short HTTP/1.1 calls, one per connection: to private sockets, other sidecars and our own app. Bodies are whole and bounded.

Many calls to one server share connections in `kept_connections`.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable

from msgspec import Struct

from proxy.contract.addresses import split_address
from proxy.contract.engine import Limits, Via
from proxy.contract.head import Header, Headers
from proxy.contract.plan import Cause
from proxy.errors import ProxyError, os_reason
from proxy.wire.http1_client import Http1Client
from proxy.wire.http_tunnel import open_tunnel, over_tls
from proxy.wire.streams import ConnectionOwner, RawHead, UpstreamConnection

_LOG = logging.getLogger("postern.local-http")
_ANSWER_BYTES = 67_108_864  # `postern invoke` prints bodies; nobody reads 64 MiB of them
_EMPTY_BODY_VERBS = frozenset({b"POST", b"PUT", b"PATCH"})  # RFC 9110 §8.6: an empty body of these says so


class LocalHttpError(ProxyError, OSError):
    """A short call failed: no connection, a broken or an oversized answer. `reason`: without the address. `cause`: of a call that broke."""

    def __init__(self, address: str, reason: str, cause: Cause | None = None) -> None:
        super().__init__(f"{address}: {reason}")
        self.reason = reason
        self.cause = cause


class TooLargeError(LocalHttpError):
    """The answer is larger than the caller takes."""


class LocalResponse(Struct, frozen=True):
    """A whole response. Content-Length is written from the body."""

    status: int
    headers: Headers = ()
    body: bytes = b""


class LocalStream(Struct, frozen=True):
    """A response whose body comes in pieces, for as long as somebody reads it; whoever gets it closes `pieces`."""

    pieces: AsyncGenerator[bytes]
    headers: Headers = ()
    status: int = 200


class _Alone:
    """ConnectionOwner of a connection that is used once."""

    def capacity_changed(self, connection: UpstreamConnection) -> None:
        """See ConnectionOwner."""

    def connection_closed(self, connection: UpstreamConnection, detail: str) -> None:
        """See ConnectionOwner."""


class _Answer:
    """ResponseEvents of one call, gathered."""

    def __init__(self, limit_bytes: int) -> None:
        self.done = asyncio.Event()
        self.response: LocalResponse | None = None
        self.problem = ""
        self.cause: Cause | None = None
        self.is_too_large = False
        self.ack: Callable[[int], None] = _count_nothing
        self._limit = limit_bytes
        self._status = 0
        self._headers: Headers = ()
        self._body = bytearray()

    def response_inform(self, status: int, headers: Headers) -> None:
        """See ResponseEvents. Only the final answer counts."""

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """See ResponseEvents."""
        self._status = status
        self._headers = headers
        if end:
            self.response_end(())

    def response_data(self, data: bytes) -> None:
        """See ResponseEvents."""
        self._body += data
        if len(self._body) > self._limit:
            self.is_too_large = True
            self.problem = f"the answer is larger than {self._limit} bytes"
            self.done.set()
        else:
            self.ack(len(data))

    def response_end(self, trailers: Headers) -> None:
        """See ResponseEvents."""
        self.response = LocalResponse(self._status, self._headers, bytes(self._body))
        self.done.set()

    def response_lost(self, cause: Cause, detail: str) -> None:
        """See ResponseEvents."""
        self.problem, self.cause = detail, cause
        self.done.set()

    def request_drained(self, count: int) -> None:
        """See ResponseEvents."""


def _count_nothing(count: int) -> None:
    """Before the call is open there is nothing to acknowledge."""


async def request(
    address: str,
    method: str,
    target: str,
    *,
    headers: Iterable[tuple[str | bytes, str | bytes]] = (),
    body: bytes = b"",
    timeout_s: float,
    tls: ssl.SSLContext | None = None,
    server_name: str = "",
    limit_bytes: int = _ANSWER_BYTES,
    tunnel: Via | None = None,
) -> LocalResponse:
    """One call on a connection of its own to `unix:/path` or `host:port`. Redirects are answers; a whole http URL as target is for a proxy.

    server_name: whom the server's certificate must be for, where `tls` checks that. tunnel: the proxy that opens the way to such a server.

    Raises: LocalHttpError (an OSError), a TooLargeError beyond `limit_bytes`; TimeoutError after `timeout_s` seconds; ValueError for an
    invalid address.
    """
    head = make_head(
        address, method, target, [(_bytes(name).lower(), _bytes(data)) for name, data in headers], body
    )
    async with asyncio.timeout(timeout_s):
        transport, client = await dial(address, tls, server_name, tunnel)
        try:
            return await exchange(client, address, head, body, limit_bytes)
        finally:
            transport.abort()


async def exchange(
    client: Http1Client, address: str, head: RawHead, body: bytes, limit_bytes: int
) -> LocalResponse:
    """One call on a connection that takes one; who cancels it closes the connection. Raises: see `request`."""
    answer = _Answer(limit_bytes)
    call = client.open(answer)
    answer.ack = call.ack
    call.start(head, end=not body)
    if body:
        call.send(body)
        call.finish(())
    await answer.done.wait()
    if answer.response is None or answer.problem:
        kind = TooLargeError if answer.is_too_large else LocalHttpError
        raise kind(address, answer.problem, answer.cause)
    return answer.response


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def make_head(
    address: str, method: str, target: str, fields: Iterable[Header] = (), body: bytes = b""
) -> RawHead:
    """The head of one call."""
    verb, fields = method.encode("latin-1"), list(fields)
    host = next((data for name, data in fields if name == b"host"), None)
    if host is None:
        host = b"localhost" if address.startswith("unix:") else address.encode("latin-1")
    fields = [field for field in fields if field[0] not in (b"host", b"content-length")]
    if body or verb in _EMPTY_BODY_VERBS:
        fields.append((b"content-length", b"%d" % len(body)))
    return RawHead(
        *("http1", verb, host, target.encode("latin-1"), tuple(fields)),
        framing="length" if body else "none",
        length=len(body),
        for_proxy=target.startswith("http://"),
    )


async def dial(
    address: str,
    tls: ssl.SSLContext | None = None,
    server_name: str = "",
    tunnel: Via | None = None,
    *,
    owner: ConnectionOwner | None = None,
) -> tuple[asyncio.Transport, Http1Client]:
    """A connection, for one call where nobody owns it. Raises: LocalHttpError."""
    loop = asyncio.get_running_loop()
    client = Http1Client(owner or _Alone(), Limits(), _count_refused, "the other end")
    try:
        if tunnel is not None and tls is not None:
            transport = await over_tls(await open_tunnel(tunnel, address), client, tls, server_name)
        elif address.startswith("unix:"):
            transport, _ = await loop.create_unix_connection(
                lambda: client, address[5:], ssl=tls, server_hostname=server_name if tls else None
            )
        else:
            host, port = split_address(address)
            transport, _ = await loop.create_connection(
                lambda: client,
                host or "localhost",
                port,
                ssl=tls,
                server_hostname=server_name if tls else None,
            )
    except OSError as error:
        raise LocalHttpError(address, os_reason(error)) from error
    except UnicodeError as error:  # a host's label that is empty or too long
        raise LocalHttpError(address, str(error)) from error
    return transport, client


def _count_refused(kind: str) -> None:
    _LOG.debug("refused a message: %s", kind)
