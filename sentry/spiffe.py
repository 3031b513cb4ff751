"""SPIFFE IDs and what a leaf must look like to carry one.

Owns the one parser that issuance and handshakes share, so that no spelling passes one and fails the other.
Knows nothing of trust: whether a certificate chains to an anchor is for the TLS library (or `chain`) to say.
"""

import re
from typing import Final, Self, TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from sentry.errors import IdentityError

MAX_ID_BYTES: Final = 2048
MAX_TRUST_DOMAIN_BYTES: Final = 255
MAX_APP_ID_BYTES: Final = 64
DEFAULT_TRUST_DOMAIN: Final = "public"
SENTRY_APP_ID: Final = "dapr-sentry"

_SCHEME: Final = "spiffe://"
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]+")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+")
_RESERVED_PREFIX: Final = "dapr-"
_RESERVED: Final = frozenset({"postern-sentry", "postern-admin"})
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


class TrustDomain(str):
    """A trust domain's name, checked; compares and hashes as the text that it is."""

    __slots__ = ()

    def __new__(cls, name: str) -> Self:
        """Take `name` as it is. Raises IdentityError outside `[a-z0-9._-]{1,255}`."""
        if not name:
            raise IdentityError("trust-domain", "trust domain is empty")
        if len(name) > MAX_TRUST_DOMAIN_BYTES:
            raise IdentityError("trust-domain", f"trust domain is longer than {MAX_TRUST_DOMAIN_BYTES} bytes")
        if _TRUST_DOMAIN.fullmatch(name) is None:
            raise IdentityError("trust-domain", f"trust domain {name!r} has characters outside [a-z0-9._-]")
        return super().__new__(cls, name)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Accept a bare name or any `spiffe://name/...`, as Dapr does for configuration. Raises IdentityError."""
        if text[: len(_SCHEME)].lower() == _SCHEME:
            text = text[len(_SCHEME) :].partition("/")[0]
        return cls(text)


class SpiffeId(Struct, frozen=True):
    """`spiffe://<trust_domain>/ns/<namespace>/<app_id>`; equality is exact and case-sensitive."""

    trust_domain: str
    namespace: str
    app_id: str

    def __post_init__(self) -> None:
        TrustDomain(self.trust_domain)
        _check_segment("namespace", self.namespace)
        _check_segment("app-id", self.app_id)
        if "." in self.app_id:
            raise IdentityError("app-id", f"app-id {self.app_id!r} holds a dot")
        if len(self.app_id) > MAX_APP_ID_BYTES:
            raise IdentityError("app-id", f"app-id is longer than {MAX_APP_ID_BYTES} bytes")
        if len(self.trust_domain) + len(self.namespace) + len(self.app_id) + 14 > MAX_ID_BYTES:
            raise IdentityError("length", f"SPIFFE id is longer than {MAX_ID_BYTES} bytes")

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}/ns/{self.namespace}/{self.app_id}"

    @property
    def is_reserved(self) -> bool:
        """Whether the app-id belongs to the control plane; no workload's proof may obtain it."""
        folded = self.app_id.lower()
        return folded.startswith(_RESERVED_PREFIX) or folded in _RESERVED

    @classmethod
    def parse(cls, uri: str, *, accept_extended: bool = False) -> Self:
        """Read an id; with `accept_extended`, segments after the app-id are checked and dropped.

        Raises: IdentityError. Source: SPIFFE-ID §2.
        """
        if len(uri) > MAX_ID_BYTES:
            raise IdentityError("length", f"SPIFFE id is longer than {MAX_ID_BYTES} bytes")
        if uri[: len(_SCHEME)].lower() != _SCHEME:
            raise IdentityError("scheme", "not a SPIFFE id: scheme is not spiffe")
        trust_domain, slash, path = uri[len(_SCHEME) :].partition("/")
        if not slash:
            raise IdentityError("path", "SPIFFE id has no path")
        TrustDomain(trust_domain)
        segments = path.split("/")
        for segment in segments:
            _check_segment("path segment", segment)
        if len(segments) < 3 or segments[0] != "ns" or (len(segments) > 3 and not accept_extended):
            raise IdentityError("path", "SPIFFE id's path is not /ns/<namespace>/<app-id>")
        return cls(trust_domain, segments[1], segments[2])


def workload_id(uri: str) -> SpiffeId:
    """`SpiffeId.parse`, refusing the control plane's reserved ids. Raises IdentityError."""
    spiffe_id = SpiffeId.parse(uri)
    if spiffe_id.is_reserved:
        raise IdentityError("reserved", f"app-id {spiffe_id.app_id!r} is reserved for the control plane")
    return spiffe_id


def sentry_id(trust_domain: str, namespace: str) -> SpiffeId:
    """The id that a sentry of this control plane must show."""
    return SpiffeId(trust_domain, namespace, SENTRY_APP_ID)


class Leaf(Struct, frozen=True):
    """A leaf that passed: whose it is, and its notAfter in epoch seconds."""

    spiffe_id: SpiffeId
    ends_at: float


def verify_leaf(der: bytes, *, as_server: bool) -> SpiffeId:
    """As `judge_leaf`, for those who ask for the id alone."""
    return judge_leaf(der, as_server=as_server).spiffe_id


def judge_leaf(der: bytes, *, as_server: bool) -> Leaf:
    """Judge a peer's leaf by the rules of X509-SVID.

    The chain, its times and its anchors must have been verified by the TLS library already.
    `as_server` says which role the peer plays. Raises: IdentityError, for any input whatsoever.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = certificate.extensions
        _check_not_authority(extensions)
        _check_purpose(extensions, as_server=as_server)
        uri = _single_uri(extensions, has_subject=bool(list(certificate.subject)))
        ends_at = certificate.not_valid_after_utc.timestamp()
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise IdentityError("encoding", f"certificate can't be read: {error}") from error
    except x509.InvalidVersion as error:
        raise IdentityError("encoding", f"certificate version {error.parsed_version} is unknown") from error
    return Leaf(SpiffeId.parse(uri), ends_at)


def _check_segment(what: str, value: str) -> None:
    if not value or value in {".", ".."}:
        raise IdentityError("segment", f"{what} {value!r} is empty or a dot segment")
    if _SEGMENT.fullmatch(value) is None:
        raise IdentityError("segment", f"{what} {value!r} has characters outside [A-Za-z0-9._-]")


def _extension(extensions: x509.Extensions, kind: type[_Kind]) -> x509.Extension[_Kind] | None:
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _check_not_authority(extensions: x509.Extensions) -> None:
    basic = _extension(extensions, x509.BasicConstraints)
    if basic is not None and basic.value.ca:
        raise IdentityError("signing-certificate", "certificate is an authority's, not a workload's")
    usage = _extension(extensions, x509.KeyUsage)
    if usage is None or not usage.critical or not usage.value.digital_signature:
        raise IdentityError("key-usage", "certificate lacks a critical keyUsage with digitalSignature")
    if usage.value.key_cert_sign or usage.value.crl_sign:
        raise IdentityError("signing-certificate", "certificate's keyUsage lets it sign certificates or CRLs")


def _check_purpose(extensions: x509.Extensions, *, as_server: bool) -> None:
    purposes = _extension(extensions, x509.ExtendedKeyUsage)
    needed = ExtendedKeyUsageOID.SERVER_AUTH if as_server else ExtendedKeyUsageOID.CLIENT_AUTH
    if purposes is not None and needed not in list(purposes.value):
        raise IdentityError(
            "extended-key-usage", f"certificate may not act as {'server' if as_server else 'client'}"
        )


def _single_uri(extensions: x509.Extensions, *, has_subject: bool) -> str:
    names = _extension(extensions, x509.SubjectAlternativeName)
    if names is None:
        raise IdentityError("san", "certificate has no subject alternative name")
    if not has_subject and not names.critical:
        raise IdentityError("san", "certificate has an empty subject and a SAN that is not critical")
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise IdentityError("san", f"certificate has {len(uris)} URI names, expected exactly one")
    return uris[0]
