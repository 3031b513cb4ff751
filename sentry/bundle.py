"""The trust bundle: the roots that this mesh trusts, several while one replaces another.

Pure and frozen; a bundle is replaced whole, never edited.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sentry.chain import authority_problem, is_issued_by, parse_certificates, verify_chain
from sentry.errors import BundleError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustBundle:
    """Roots without duplicates, in the order given; make one with `parse` or `of`."""

    pem: bytes = field(repr=False)
    roots: tuple[x509.Certificate, ...] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, pem: bytes) -> Self:
        """Read PEM roots; all must be self-signed authorities.

        Raises: BundleError, also for a block that is not a certificate: a bundle read by half would lose roots.
        """
        return cls.of(parse_certificates(pem))

    @classmethod
    def of(cls, roots: Iterable[x509.Certificate]) -> Self:
        """Make a bundle of parsed roots. Raises BundleError."""
        unique = tuple(dict.fromkeys(roots))
        if not unique:
            raise BundleError("a trust bundle needs at least one root")
        for number, root in enumerate(unique, 1):
            if not is_issued_by(root, root):
                raise BundleError(f"trust anchor {number} is not self-signed")
            if (problem := authority_problem(root)) is not None:
                raise BundleError(f"trust anchor {number} is not a certificate authority: {problem}")
        return cls(pem=b"".join(root.public_bytes(Encoding.PEM) for root in unique), roots=unique)

    @property
    def roots_der(self) -> tuple[bytes, ...]:
        """The roots in DER, in the bundle's order."""
        return tuple(root.public_bytes(Encoding.DER) for root in self.roots)

    def mesh_hash(self) -> str:
        """16 hex digits that tell meshes apart: a hash over the set of roots, whatever their order."""
        digests = sorted(hashlib.sha256(der).digest() for der in self.roots_der)
        return hashlib.sha256(b"".join(digests)).hexdigest()[:16]

    @property
    def is_strict(self) -> bool:
        """Whether chains under these roots hold OpenSSL's strict mode (`VERIFY_X509_STRICT`).

        True for roots that our authority made: they carry `spiffe://<trust domain>`, and every certificate below has
        key identifiers. Dapr's issuers lack the authority key identifier, and strict mode refuses them.
        """
        return all(_names_trust_domain(root) for root in self.roots)

    def union(self, other: "TrustBundle") -> "TrustBundle":
        """Both bundles' roots, ours first: the overlap while a root is replaced."""
        return TrustBundle.of((*self.roots, *other.roots))

    def verify(self, chain_pem: bytes, now: datetime) -> tuple[x509.Certificate, ...]:
        """Check that `chain_pem` (leaf first) ends at a root at `now`; return it parsed. Raises BundleError."""
        chain = parse_certificates(chain_pem)
        verify_chain(chain, self.roots, now)
        return chain

    @property
    def not_after(self) -> datetime:
        """When the first root of the bundle to expire does so (UTC)."""
        return min(root.not_valid_after_utc for root in self.roots)


def _names_trust_domain(root: x509.Certificate) -> bool:
    try:
        names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return len(uris) == 1 and uris[0].startswith("spiffe://") and "/" not in uris[0][len("spiffe://") :]
