"""Peers that misbehave: certificates that sentry would never sign, and an HTTP/2 client that sends whatever it is told."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import h2.config
import h2.connection
import h2.events
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sentry.authority import generate
from sentry.issuer import Issuer, SigningKey, dump_key, new_key
from sentry.spiffe import SpiffeId
from sentry.template import LeafTemplate
from tests.support.http_client import Connection

Header = tuple[str, str]
HOUR = timedelta(hours=1)
_DEADLINE_S = 30.0


class _Verbatim(str):
    """A URI that is no SpiffeId."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Forge:
    """An authority whose key the tests hold: a mesh's own (`of`), or a stranger's (`stranger`)."""

    issuer: Issuer
    anchors_pem: bytes
    folder: Path
    make_key: Callable[[], SigningKey] = new_key

    @classmethod
    def of(cls, root: Path, folder: Path) -> Self:
        """The authority of the mesh in runtime root `root`; what is forged is kept in `folder`."""
        authority = root / "sentry" / "authority"
        issuer = Issuer.parse(
            (authority / "issuer.crt").read_bytes(), (authority / "issuer.key").read_bytes()
        )
        return cls(issuer=issuer, anchors_pem=(authority / "ca.crt").read_bytes(), folder=folder)

    @classmethod
    def stranger(cls, folder: Path) -> Self:
        """An authority of the same names that nobody believes."""
        made = generate("localhost", "default", datetime.now(UTC))
        return cls(issuer=made.issuer, anchors_pem=made.bundle.pem, folder=folder)

    def context(self, spiffe_id: SpiffeId, *, ended: bool = False) -> ssl.SSLContext:
        """A client's TLS context with a leaf for `spiffe_id`; `ended`: its time is over. Verifies no server."""
        now = datetime.now(UTC).replace(microsecond=0)
        key = self.make_key()
        template = LeafTemplate(
            spiffe_id=spiffe_id,
            public_key=key.public_key(),
            not_before=now - 2 * HOUR,
            not_after=now - HOUR if ended else now + HOUR,
        )
        return self._context(self.issuer.sign(template), dump_key(key))

    def server_context(self, spiffe_id: SpiffeId, *, alpn: tuple[str, ...]) -> ssl.SSLContext:
        """A server's TLS context with a leaf for `spiffe_id`, which asks for a certificate of the same authority."""
        self.context(spiffe_id)
        newest = max(self.folder.glob("*.pem"), key=lambda path: path.stat().st_mtime_ns)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(newest)
        context.load_verify_locations(cadata=self.anchors_pem.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(list(alpn))
        return context

    def raw_context(self, uri: str) -> ssl.SSLContext:
        """As `context`, with any URI in the certificate."""
        forged: SpiffeId = _Verbatim(uri)  # type: ignore[assignment] # the issuer asks for its text only
        now = datetime.now(UTC).replace(microsecond=0)
        key = self.make_key()
        template = LeafTemplate(
            spiffe_id=forged, public_key=key.public_key(), not_before=now - HOUR, not_after=now + HOUR
        )
        return self._context(self.issuer.sign(template), dump_key(key))

    def _context(self, leaf: x509.Certificate, key_pem: bytes) -> ssl.SSLContext:
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{leaf.serial_number:x}.pem"
        path.write_bytes(leaf.public_bytes(Encoding.PEM) + self.issuer.chain_pem + key_pem)
        context = plain_context()
        context.load_cert_chain(path)
        return context


def plain_context() -> ssl.SSLContext:
    """A client's TLS context without a certificate that verifies nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["postern/1", "h2"])
    return context


CLOSED = -1


@dataclass(slots=True, kw_only=True)
class Answer:
    """What an HTTP/2 request came to: `reset` holds the error code where it was reset, CLOSED where none could be read."""

    status: int = 0
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    reset: int | None = None

    def get(self, name: str) -> str:
        """The first header or trailer of that name."""
        return next((value for key, value in self.headers if key == name), "")


@asynccontextmanager
async def peer_connection(port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[Connection]:
    """A connection to a peer port, with TLS where a context is given."""
    async with asyncio.timeout(_DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        yield Connection(reader=reader, writer=writer, host=f"127.0.0.1:{port}")
    finally:
        writer.transport.abort()


async def until_closed(connection: Connection, *, patience_s: float | None = None) -> bytes:
    """What still arrives before the other end closes; a reset or a TLS alert is a close too.

    With `patience_s` a connection may also stay open: who has not said all may say more.
    """
    received = b""
    try:
        async with asyncio.timeout(patience_s or _DEADLINE_S):
            while data := await connection.reader.read(65536):
                received += data
    except (ConnectionError, ssl.SSLError):
        pass
    except TimeoutError:
        if patience_s is None:
            raise
    return received


async def h2_request(
    port: int, headers: Sequence[Header], *, body: bytes | None = None, context: ssl.SSLContext | None = None
) -> Answer:
    """One request on an HTTP/2 connection of its own; `headers` go as they are, pseudo-headers included."""
    client = h2.connection.H2Connection(
        h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    )
    client.initiate_connection()
    client.send_headers(1, list(headers), end_stream=body is None)
    if body is not None:
        client.send_data(1, body, end_stream=True)
    answer = Answer()
    async with peer_connection(port, context) as connection, asyncio.timeout(_DEADLINE_S):
        try:
            await _converse(client, connection, answer)
        except ConnectionError:  # closed on us while we were still sending: what was read counts
            answer.reset = CLOSED if answer.reset is None else answer.reset
    return answer


async def _converse(client: h2.connection.H2Connection, connection: Connection, answer: Answer) -> None:
    await connection.send(client.data_to_send())
    while data := await connection.reader.read(65536):
        for event in client.receive_data(data):
            if _take(event, answer, client):
                return
        await connection.send(client.data_to_send())


def h2_head(method: str, path: str, *, authority: str = "localhost") -> list[Header]:
    """Pseudo-headers."""
    return [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path)]


def _take(event: h2.events.Event, answer: Answer, client: h2.connection.H2Connection) -> bool:
    """Note an event; whether the answer is complete."""
    if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
        decoded = [(bytes(name).decode(), bytes(value).decode("latin-1")) for name, value in event.headers]
        answer.headers += [pair for pair in decoded if pair[0] != ":status"]
        answer.status = int(dict(decoded).get(":status", answer.status))
    elif isinstance(event, h2.events.DataReceived):
        answer.body += event.data
        client.acknowledge_received_data(event.flow_controlled_length, 1)
    elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
        answer.reset = int(event.error_code or 0)
        return isinstance(event, h2.events.StreamReset) or answer.reset != 0
    return isinstance(event, h2.events.StreamEnded)
