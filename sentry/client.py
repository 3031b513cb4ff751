"""The workload's side: makes a key, asks a sentry for its certificate, and accepts nothing that doesn't verify.

Owns the TLS rules for calling a sentry (its exact SPIFFE id under our anchors; host names mean nothing) and the quick
retries of one fetch. Keys are generated here and stay in memory. When to ask again is for `proxy.control.identity` to decide.
"""

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from sentry import join, wire
from sentry.bundle import TrustBundle
from sentry.errors import BundleError, FetchError, IdentityError, StoreError
from sentry.grpc_call import DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE, CallError, UnaryCall
from sentry.issuer import dump_key, new_key, public_bytes
from sentry.private_files import read_file
from sentry.spiffe import SpiffeId, verify_leaf
from telemetry.client_meters import RpcEnded
from telemetry.hosts import split_address

METHOD: Final = "/dapr.proto.sentry.v1.CA/SignCertificate"
TRY_TIMEOUT_S: Final = 3.0
TRIES: Final = 5
_RETRY_DELAY_S: Final = 0.05
_OK: Final = 0
_TRANSIENT: Final = frozenset({UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED})
_CERTIFICATE, _ROOTS, _VALID_UNTIL = 1, 2, 3  # fields of a SignCertificateResponse (ca.proto)
_READ_BYTES: Final = 64 * 1024


def _code_of(cause: BaseException | None) -> int:
    """The code that gRPC has for why a call failed."""
    if isinstance(cause, CallError):
        return cause.code
    return DEADLINE_EXCEEDED if isinstance(cause, TimeoutError) else UNAVAILABLE


class TokenValidator(IntEnum):
    """Which validator a token is for: the wire's numbers."""

    UNKNOWN = 0
    INSECURE = 1
    KUBERNETES = 2
    JWKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What shows who we are; the token is read or minted anew for each request."""

    token: str = field(default="", repr=False)
    validator: TokenValidator = TokenValidator.UNKNOWN


TokenSource = Callable[[SpiffeId], Proof]


def no_token() -> TokenSource:
    """For a sentry that asks for no proof."""
    return lambda _: Proof()


def file_token(path: Path, validator: TokenValidator = TokenValidator.JWKS) -> TokenSource:
    """A token that something else keeps fresh in a file, as DAPR_SENTRY_TOKEN_FILE names it.

    The source raises FetchError when the file is missing or empty.
    """

    def read(_: SpiffeId) -> Proof:
        try:
            # Projected tokens are symbolic links with wide modes by nature.
            token = read_file(path.resolve(), is_secret=False, allow_loose=True).decode("ascii").strip()
        except (OSError, StoreError, UnicodeDecodeError) as error:
            raise FetchError("sentry_token", f"token file {path} can't be read: {error}") from error
        if not token:
            raise FetchError("sentry_token", f"token file {path} is empty")
        return Proof(token=token, validator=validator)

    return read


def join_token(root: Path, sentry_id: SpiffeId) -> TokenSource:
    """Join tokens of a runtime root, minted for each request. The source raises FetchError."""

    def mint(spiffe_id: SpiffeId) -> Proof:
        try:
            token = join.mint(root, spiffe_id, sentry_id)
        except (OSError, StoreError) as error:
            raise FetchError("sentry_token", f"no join token: {error}") from error
        return Proof(token=token, validator=TokenValidator.JWKS)

    return mint


@dataclass(frozen=True, slots=True, kw_only=True)
class Svid:
    """A workload's identity: certificate chain (leaf first), its key, and the roots to judge others by."""

    spiffe_id: SpiffeId
    chain_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime
    bundle: TrustBundle
    serial: str = ""
    issuer: str = ""  # who signed, as RFC 4514 writes names
    issuer_not_after: datetime | None = None  # None: a root issued the certificate

    @property
    def life_left_s(self) -> float:
        """Seconds until the leaf ends, by the wall clock; negative afterwards."""
        return (self.not_after - datetime.now(UTC)).total_seconds()


class SvidClient:
    """Asks one sentry. State: the anchors, replaced whole by those of each answer."""

    def __init__(
        self,
        address: str,
        anchors: TrustBundle,
        sentry_id: SpiffeId,
        token_source: TokenSource,
        *,
        is_strict: bool | None = None,
        prepare: Callable[[], Awaitable[None]] | None = None,
        told: RpcEnded | None = None,
    ) -> None:
        """`address` is `unix:/path` or `host:port`.

        `is_strict` overrides OpenSSL's strict mode, by default on under roots of our own making only; `prepare` runs
        before each fetch (such as starting the local sentry again). `told` is called with how each call ended.
        """
        self._address = address
        self._anchors = anchors
        self._sentry_id = sentry_id
        self._token_source = token_source
        self._is_strict = is_strict
        self._prepare = prepare
        self._told = told
        self._random = random.Random()  # noqa: S311 -- spreads retries, guards nothing

    @property
    def address(self) -> str:
        """Where the sentry is."""
        return self._address

    @property
    def anchors(self) -> TrustBundle:
        """The roots as of the last answer."""
        return self._anchors

    async def fetch(self, app_id: str, namespace: str, trust_domain: str) -> Svid:
        """A fresh key and certificate for `spiffe://<trust_domain>/ns/<namespace>/<app_id>`.

        Tries up to 5 times, 3 s each, while the failure is transient. Raises: FetchError.
        """
        try:
            spiffe_id = SpiffeId(trust_domain, namespace, app_id)
        except IdentityError as error:
            raise FetchError("sign", f"invalid identity: {error}") from error
        if self._prepare is not None:
            await self._prepare()
        key = new_key()
        message = self._request(spiffe_id, make_csr(key))
        try:
            answer = await self._try_once(message)
        except FetchError as error:
            if not error.is_transient:
                raise
            answer = await self._try_again(message)
        svid = read_answer(answer, spiffe_id, key, self._anchors)
        self._anchors = svid.bundle
        return svid

    def _request(self, spiffe_id: SpiffeId, csr: bytes) -> bytes:
        """A SignCertificateRequest (ca.proto)."""
        proof = self._token_source(spiffe_id)
        return wire.encode(
            (
                (1, spiffe_id.app_id.encode()),
                (2, proof.token.encode()),
                (3, spiffe_id.trust_domain.encode()),
                (4, spiffe_id.namespace.encode()),
                (5, csr),
                (6, int(proof.validator)),
            )
        )

    async def _try_again(self, message: bytes) -> bytes:
        import tenacity  # noqa: PLC0415 -- 30 ms at every start, and rarely needed

        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(TRIES - 1),
            wait=lambda _: _RETRY_DELAY_S * self._random.uniform(0.9, 1.1),
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, FetchError) and e.is_transient),
            reraise=True,
        )
        await asyncio.sleep(_RETRY_DELAY_S)
        return await retrying(self._try_once, message)

    async def _try_once(self, message: bytes) -> bytes:
        began = time.monotonic()
        try:
            answer = await self._asked(message)
        except FetchError as error:
            self._tell(_code_of(error.__cause__), began, message)
            raise
        self._tell(_OK, began, message, answer)
        return answer

    def _tell(self, code: int, began: float, message: bytes, answer: bytes = b"") -> None:
        if self._told is not None:
            self._told(METHOD, code, time.monotonic() - began, len(message), len(answer))

    async def _asked(self, message: bytes) -> bytes:
        context = client_context(self._anchors, is_strict=self._is_strict)
        try:
            async with asyncio.timeout(TRY_TIMEOUT_S):
                reader, writer = await self._connect(context)
                try:
                    return await self._exchange(reader, writer, message)
                finally:
                    # Nothing is left to say; waiting for the peer's closing bytes could only block.
                    writer.transport.abort()
        except ssl.SSLCertVerificationError as error:
            problem = f"sentry at {self._address} is not trusted: {error.verify_message}"
            raise FetchError("sentry_identity", problem) from error
        except TimeoutError as error:
            problem = f"sentry at {self._address} did not answer within {TRY_TIMEOUT_S:.0f} s"
            raise FetchError("sentry_conn", problem, is_transient=True) from error
        except (OSError, ValueError) as error:  # ValueError: a host name or path that no socket can take
            problem = f"sentry at {self._address} can't be reached: {error}"
            raise FetchError("sentry_conn", problem, is_transient=True) from error
        except CallError as error:
            problem = f"sentry at {self._address} refused: {error}"
            raise FetchError("sign", problem, is_transient=error.code in _TRANSIENT) from error

    async def _connect(self, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._address.startswith("unix:"):
            path = self._address.removeprefix("unix:")
            return await asyncio.open_unix_connection(path, ssl=context, server_hostname="")
        host, port = parse_address(self._address)
        return await asyncio.open_connection(host, port, ssl=context, server_hostname=host)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes
    ) -> bytes:
        tls = writer.get_extra_info("ssl_object")
        self._check_peer(tls)
        call = UnaryCall(
            authority="sentry", path=METHOD, message=message, timeout_ms=int(TRY_TIMEOUT_S * 1000)
        )
        writer.write(call.start())
        while not call.is_done:
            await writer.drain()
            writer.write(call.receive(await reader.read(_READ_BYTES)))
        return call.result()

    def _check_peer(self, tls: ssl.SSLObject) -> None:
        try:
            named = verify_leaf(tls.getpeercert(True) or b"", as_server=True)
        except IdentityError as error:
            problem = f"sentry at {self._address} presented a certificate that is not a valid SVID: {error}"
            raise FetchError("sentry_identity", problem) from error
        if named != self._sentry_id:
            problem = f"sentry at {self._address} is {named}, expected {self._sentry_id}"
            raise FetchError("sentry_identity", problem)
        if tls.selected_alpn_protocol() != "h2":
            raise FetchError("sentry_identity", f"sentry at {self._address} does not speak HTTP/2 (ALPN)")


def client_context(anchors: TrustBundle, *, is_strict: bool | None = None) -> ssl.SSLContext:
    """TLS towards a sentry: 1.2 or newer, chain to `anchors`, ALPN h2, no host name; the caller checks the id."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=anchors.pem.decode("ascii"))
    if anchors.is_strict if is_strict is None else is_strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    else:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def make_csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A PEM request that holds the public key and nothing else."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def read_answer(
    answer: bytes, asked: SpiffeId, key: ec.EllipticCurvePrivateKey, anchors: TrustBundle
) -> Svid:
    """Check a sentry's answer as a peer would: our id, our key, a chain that ends at a root of the bundle.

    A bundle in the answer that can't be read, or under which our own chain does not hold, is an error only if the
    chain doesn't hold under the present anchors either; these then stay. Raises: FetchError.
    """
    try:
        fields = list(wire.sized_fields(answer))
    except ValueError as error:
        raise FetchError("sign", f"sentry's answer can't be read: {error}") from error
    found = dict(fields)
    if _VALID_UNTIL not in found:
        raise FetchError("invalid_ts", "sentry's answer lacks valid_until")
    chain_pem = found.get(_CERTIFICATE, b"")
    roots = [value for number, value in fields if number == _ROOTS]
    now = datetime.now(UTC)
    try:
        bundle = _verifying_bundle(b"\n".join(roots), chain_pem, anchors, now)
        leaf, *issuers = bundle.verify(chain_pem, now)
        der = leaf.public_bytes(Encoding.DER)
        named = verify_leaf(der, as_server=True)
        verify_leaf(der, as_server=False)
    except (BundleError, IdentityError) as error:
        raise FetchError("leaf", f"sentry issued us an invalid certificate: {error}") from error
    if named != asked:
        raise FetchError("leaf", f"sentry's certificate names {named}, asked for {asked}")
    if public_bytes(leaf.public_key()) != public_bytes(key.public_key()):
        raise FetchError("leaf", "sentry's certificate is for another key than ours")
    return Svid(
        spiffe_id=named,
        chain_pem=chain_pem,
        key_pem=dump_key(key),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        bundle=bundle,
        serial=f"{leaf.serial_number:x}",
        issuer=leaf.issuer.rfc4514_string(),
        issuer_not_after=issuers[0].not_valid_after_utc if issuers else None,
    )


def _verifying_bundle(offered: bytes, chain_pem: bytes, anchors: TrustBundle, now: datetime) -> TrustBundle:
    try:
        bundle = TrustBundle.parse(offered)
        bundle.verify(chain_pem, now)
    except BundleError:
        return anchors
    return bundle


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`; as Dapr's flag takes it, maybe with a scheme. Raises FetchError."""
    host, port = split_address(address.rpartition("//")[2])
    if not host or port > 65535:
        raise FetchError("sentry_conn", f"sentry address {address!r}: expected host:port or unix:/path")
    return host, port
