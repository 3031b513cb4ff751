"""Walks a certificate chain to a trust anchor by RFC 5280's rules, for chains that no TLS handshake has verified.

Pure. `cryptography`'s own path verifier refuses Ed25519 keys, which Dapr's authorities use; hence this small one.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from sentry.errors import BundleError

LEEWAY: Final = timedelta(seconds=60)
_BLOCK: Final = re.compile(rb"-----BEGIN ([^\r\n-]+)-----\s.*?-----END \1-----", re.DOTALL)
_MAX_CERTIFICATES: Final = 64
_MAX_PEM_BYTES: Final = 512 * 1024


def parse_certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Every certificate of `pem` in order; any other kind of block is an error, text between blocks is not.

    Raises: BundleError, also for input without any certificate.
    """
    if len(pem) > _MAX_PEM_BYTES:
        raise BundleError(f"more than {_MAX_PEM_BYTES} bytes of certificates")
    opened, closed = pem.count(b"-----BEGIN "), pem.count(b"-----END ")
    blocks = list(_BLOCK.finditer(pem)) if 0 < opened == closed <= _MAX_CERTIFICATES else []
    if not blocks or len(blocks) != opened:
        raise BundleError("expected 1 to 64 PEM certificates, got none, more, or an unfinished block")
    certificates = []
    for block in blocks:
        if block[1] != b"CERTIFICATE":
            raise BundleError(
                f"expected PEM certificates, got a block of type {block[1].decode('ascii', 'replace')!r}"
            )
        try:
            certificates.append(x509.load_pem_x509_certificate(block[0] + b"\n"))
        except (ValueError, x509.InvalidVersion) as error:
            raise BundleError(f"certificate {len(certificates) + 1} can't be read: {error}") from error
    return tuple(certificates)


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer`'s name and key signed `certificate`."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def authority_problem(certificate: x509.Certificate, *, below: int = 0) -> str | None:
    """Why `certificate` may not sign (with `below` further authorities under it), or None."""
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return "it lacks basicConstraints"
    if not basic.ca:
        return "its basicConstraints say CA:FALSE"
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        # RFC 5280 §4.2.1.3: without the extension nothing is restricted; plain `openssl req -x509` roots lack it.
        usage = None
    if usage is not None and not usage.key_cert_sign:
        return "its keyUsage lacks keyCertSign"
    if basic.path_length is not None and basic.path_length < below:
        return "its path length is exceeded"
    return None


def time_problem(certificate: x509.Certificate, now: datetime) -> str | None:
    """Why `certificate` is not valid at `now` (60 s of leeway for clock skew at its start), or None."""
    if now + LEEWAY < certificate.not_valid_before_utc:
        return f"not valid before {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
    if now > certificate.not_valid_after_utc:
        return f"expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    return None


def verify_chain(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime
) -> x509.Certificate:
    """Check that `chain` (leaf first) ends at one of `roots` at `now`, and return that root.

    Raises: BundleError.
    """
    if not chain:
        raise BundleError("the chain is empty")
    for depth, certificate in enumerate(chain):
        if (problem := time_problem(certificate, now)) is not None:
            raise BundleError(f"certificate {depth + 1} of the chain is {problem}")
        if depth and (problem := authority_problem(certificate, below=depth - 1)) is not None:
            raise BundleError(f"certificate {depth + 1} of the chain may not sign: {problem}")
        if depth and not is_issued_by(chain[depth - 1], certificate):
            raise BundleError(f"certificate {depth} of the chain is not signed by the next one")
    for root in roots:
        if is_issued_by(chain[-1], root) and authority_problem(root, below=len(chain) - 1) is None:
            if (problem := time_problem(root, now)) is not None:
                raise BundleError(f"the root is {problem}")
            return root
    raise BundleError("the chain does not end at any of the trust anchors")
