"""Reads certificate signing requests. Only the public key is ever taken from one; what else it asks for is noted.

Pure. Limits are checked before any cryptography runs on the input.
"""

import base64
import binascii
import re
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from msgspec import Struct

from sentry.errors import RequestError

MAX_CSR_BYTES: Final = 16 * 1024
_BLOCK: Final = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]{1,64})-----([A-Za-z0-9+/=\s]*)-----END ([A-Z0-9 ]{1,64})-----"
)
# Old clients of Dapr label their requests CERTIFICATE.
_TYPES: Final = frozenset({b"CERTIFICATE REQUEST", b"CERTIFICATE"})
_MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 4096


class SigningRequest(Struct, frozen=True, kw_only=True):
    """A request's public key, the kind of that key, and the names of what it asked for in vain."""

    public_key: CertificatePublicKeyTypes
    key_type: str
    extras: tuple[str, ...]


def parse_csr(pem: bytes) -> SigningRequest:
    """Read the first PEM block of `pem` and check key policy and self-signature.

    Raises: RequestError.
    """
    if not pem:
        raise RequestError("csr-missing", "the certificate signing request is missing")
    if len(pem) > MAX_CSR_BYTES:
        raise RequestError(
            "csr-size", f"the certificate signing request is larger than {MAX_CSR_BYTES} bytes"
        )
    der = _first_block(pem)
    try:
        request = x509.load_der_x509_csr(der)
        public_key = request.public_key()
        key_type = _judge_key(public_key)
        if isinstance(request.signature_hash_algorithm, hashes.SHA1 | hashes.MD5):
            raise RequestError("csr-digest", "the certificate signing request is signed with SHA-1 or MD5")
        if not request.is_signature_valid:
            raise RequestError("csr-signature", "the certificate signing request's own signature is invalid")
        extras = _extras(request)
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
    ) as error:
        raise RequestError("csr-encoding", "invalid certificate signing request: it can't be read") from error
    return SigningRequest(public_key=public_key, key_type=key_type, extras=extras)


def _first_block(pem: bytes) -> bytes:
    block = _BLOCK.search(pem)
    if block is None or block[1] != block[3]:
        raise RequestError("csr-encoding", "invalid certificate signing request: it is not PEM")
    if block[1] not in _TYPES:
        raise RequestError(
            "csr-type",
            f"invalid certificate signing request: expected a CERTIFICATE REQUEST block, got {block[1].decode()}",
        )
    try:
        return base64.b64decode(b"".join(block[2].split()), validate=True)
    except binascii.Error as error:
        raise RequestError(
            "csr-encoding", "invalid certificate signing request: its base64 is broken"
        ) from error


def _judge_key(key: CertificatePublicKeyTypes) -> str:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return f"P-{key.curve.key_size}"
    if isinstance(key, rsa.RSAPublicKey):
        if _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS and key.public_numbers().e == 65537:
            return f"RSA-{key.key_size}"
        raise RequestError("key-policy", "RSA keys need 2048 to 4096 bits and the exponent 65537")
    raise RequestError("key-policy", "unsupported key type: use P-256, P-384, Ed25519 or RSA")


def _extras(request: x509.CertificateSigningRequest) -> tuple[str, ...]:
    extras = ["subject"] if list(request.subject) else []
    try:
        extras += [extension.oid.dotted_string for extension in request.extensions]
    except (ValueError, x509.UnsupportedGeneralNameType):
        extras.append("unreadable extensions")
    return tuple(extras)
