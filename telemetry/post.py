"""A small HTTP/1.1 client that can do one thing: POST a body to one address, over one kept connection.

On asyncio and h11, without threads; every step under one deadline. Foreign errors become ExportError here.
"""

import asyncio
import contextlib
import ipaddress
import ssl
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import h11
from msgspec import Struct, field

from telemetry.errors import ExporterConfigError, ExportError

# A collector's answer is empty or a line of complaint; more than this is not read, and ends the connection.
_ANSWER_LIMIT = 64 * 1024
_READ = 16 * 1024
_CLOSE_S = 1.0
_RETRYABLE = frozenset({429, 502, 503, 504})

Headers = tuple[tuple[str, str], ...]


class PostTarget(Struct, frozen=True, kw_only=True):
    """Where to POST: parsed once, so that a bad address is a start-up error."""

    host: str
    port: int
    path: str
    tls: bool
    host_header: str

    @classmethod
    def parse(cls, exporter: str, url: str) -> "PostTarget":
        """Raises: ExporterConfigError unless `url` is http or https with a host."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ExporterConfigError(exporter, f"address {url!r}: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ExporterConfigError(exporter, f"address: expected http(s)://host[:port]/path, got {url!r}")
        path = parts.path or "/"
        return cls(
            host=parts.hostname,
            port=port or (443 if parts.scheme == "https" else 80),
            path=f"{path}?{parts.query}" if parts.query else path,
            tls=parts.scheme == "https",
            host_header=parts.netloc.rpartition("@")[2],
        )

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this host, by its address or name alone."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class _Answer(Struct, frozen=True):
    status: int
    retry_after_s: float | None
    body: bytes


class _Connection(Struct):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))


class HttpPoster:
    """POSTs to one target. Owns the connection; used by one task at a time."""

    def __init__(
        self,
        target: PostTarget,
        *,
        headers: Headers = (),
        timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._target = target
        self._headers = headers
        self._timeout_s = timeout_s
        self._tls = tls
        self._connection: _Connection | None = None

    async def post(self, body: bytes, headers: Headers) -> bytes:
        """The body of the answer, at most 64 KiB of it, once the target answered 2xx. Raises: ExportError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._post(body, headers)
        except TimeoutError as error:
            raise ExportError(f"no answer within {self._timeout_s:g} s", retryable=True) from error
        except (OSError, h11.ProtocolError, EOFError) as error:
            raise ExportError(str(error) or type(error).__name__, retryable=True) from error
        if not 200 <= answer.status < 300:
            raise ExportError(
                f"answered {answer.status}",
                retryable=answer.status in _RETRYABLE,
                retry_after_s=answer.retry_after_s,
            )
        return answer.body

    async def close(self) -> None:
        """Ends the kept connection."""
        connection = self._connection
        self._abandon()
        if connection is not None:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await connection.writer.wait_closed()

    def _abandon(self) -> None:
        """Closes the kept connection at once: nothing more is sent on it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.writer.transport.abort()

    async def _post(self, body: bytes, headers: Headers) -> _Answer:
        kept = self._connection
        if kept is not None and not kept.reader.at_eof():
            try:
                return await self._exchange(kept, body, headers)
            except (ConnectionError, EOFError, h11.RemoteProtocolError):
                pass  # the collector closed an idle connection: once more on a new one
        self._abandon()
        return await self._exchange(await self._open(), body, headers)

    async def _open(self) -> _Connection:
        target = self._target
        tls = self._tls or ssl.create_default_context() if target.tls else None
        reader, writer = await asyncio.open_connection(target.host, target.port, ssl=tls, limit=_READ)
        self._connection = _Connection(reader, writer)
        return self._connection

    async def _exchange(self, connection: _Connection, body: bytes, headers: Headers) -> _Answer:
        whole = False
        try:
            request = h11.Request(
                method="POST",
                target=self._target.path,
                headers=[
                    ("Host", self._target.host_header),
                    ("Content-Length", str(len(body))),
                    *self._headers,
                    *headers,
                ],
            )
            http, writer = connection.http, connection.writer
            for event in (request, h11.Data(data=body), h11.EndOfMessage()):
                writer.write(http.send(event) or b"")
            await writer.drain()
            answer = await _read_answer(connection)
            whole = True
        finally:
            # Half an exchange, also by cancellation, leaves a connection that nobody can use.
            if not whole:
                self._abandon()
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
        else:
            self._abandon()
        return answer


async def _read_answer(connection: _Connection) -> _Answer:
    """The final answer; of a body that is too large, what came before the limit."""
    http, reader = connection.http, connection.reader
    status, retry_after_s, body = 0, None, bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(_READ)
            if not data and http.their_state is h11.SEND_RESPONSE:
                raise EOFError("connection closed before an answer")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            status, retry_after_s = event.status_code, _retry_after_s(event)
        elif isinstance(event, h11.Data) and len(body) <= _ANSWER_LIMIT:
            body += event.data
        elif not isinstance(event, h11.InformationalResponse):
            return _Answer(status, retry_after_s, bytes(body))


def _retry_after_s(response: h11.Response) -> float | None:
    """Seconds, or a date (RFC 9110 §10.2.3)."""
    for name, value in response.headers:
        if name != b"retry-after":
            continue
        if value.isdigit() and len(value) < 8:
            return float(value)
        with contextlib.suppress(ValueError):
            at = parsedate_to_datetime(value.decode("latin-1"))
            return max(0.0, at.timestamp() - time.time())
    return None
