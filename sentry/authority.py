"""The authority: its roots, its issuer, and the hand-over from one issuer to the next.

State (`_holdings`, replaced whole under `_lock`) has one invariant: the issuer's chain ends at one of the roots.
Storage is the caller's: a new issuer takes effect only after `save` returned, so a crash never leaves leaves whose
issuer was not stored. Signing may be called from several threads.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct

from sentry.bundle import TrustBundle
from sentry.chain import verify_chain
from sentry.errors import BundleError, SigningError
from sentry.issuer import (
    Issuer,
    SigningKey,
    dump_key,
    load_key,
    make_issuer,
    make_root,
    new_key,
    public_bytes,
)
from sentry.renewal_time import should_rotate
from sentry.spiffe import SpiffeId
from sentry.template import LeafTerms, leaf_template
from sentry.validator import check_signed


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBundle:
    """A stored authority, as PEM: what a store keeps and swaps as one."""

    anchors_pem: bytes
    issuer_pem: bytes
    issuer_key_pem: bytes = field(repr=False)
    root_key_pem: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """An authority in memory: its roots, its issuer and, where the root is ours, the root's key."""

    bundle: TrustBundle
    issuer: Issuer
    root: x509.Certificate
    root_key: SigningKey | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, stored: StoredBundle, now: datetime) -> "Holdings":
        """Check a stored authority, wherever it came from. Raises BundleError.

        An expired issuer under a root of ours still loads, because it can be replaced.
        """
        bundle = TrustBundle.parse(stored.anchors_pem)
        issuer = Issuer.parse(stored.issuer_pem, stored.issuer_key_pem)
        moment = min(now, issuer.not_after)
        root = verify_chain(issuer.chain, bundle.roots, moment)
        root_key = None
        if stored.root_key_pem is not None:
            root_key = load_key(stored.root_key_pem)
            owned = [
                r for r in bundle.roots if public_bytes(r.public_key()) == public_bytes(root_key.public_key())
            ]
            if not owned:
                raise BundleError("the root's key does not match any of the trust anchors")
            root = owned[0]
        return cls(bundle=bundle, issuer=issuer, root=root, root_key=root_key)

    def stored(self) -> StoredBundle:
        """The inverse of `parse`."""
        return StoredBundle(
            anchors_pem=self.bundle.pem,
            issuer_pem=self.issuer.chain_pem,
            issuer_key_pem=dump_key(self.issuer.key),
            root_key_pem=None if self.root_key is None else dump_key(self.root_key),
        )


def generate(trust_domain: str, namespace: str, now: datetime) -> Holdings:
    """A new root and an issuer under it, both P-256."""
    root_key = new_key()
    root = make_root(trust_domain, now, root_key)
    issuer = make_issuer(
        root, root_key, trust_domain=trust_domain, namespace=namespace, now=now, key=new_key()
    )
    return Holdings(bundle=TrustBundle.of([root]), issuer=issuer, root=root, root_key=root_key)


class Signed(Struct, frozen=True, kw_only=True):
    """A leaf and what its holder needs beside it."""

    leaf: x509.Certificate
    chain_pem: bytes
    bundle: TrustBundle


class Authority:
    """Signs leaves for one control-plane trust domain, and replaces its own issuer in time.

    `issuer_changes` and `own_failures` count new issuers and leaves of its own that it could not make.
    """

    def __init__(
        self,
        holdings: Holdings,
        *,
        spiffe_id: SpiffeId,
        terms: LeafTerms,
        clock: Callable[[], datetime],
        save: Callable[[StoredBundle], None],
    ) -> None:
        """`spiffe_id` is sentry's own; `save` blocks until the new state is on disk."""
        self._holdings = holdings
        self._lock = threading.Lock()
        self._spiffe_id = spiffe_id
        self._terms = terms
        self._clock = clock
        self._save = save
        self.issuer_changes = 0
        self.own_failures = 0

    @property
    def spiffe_id(self) -> SpiffeId:
        """Sentry's own id."""
        return self._spiffe_id

    @property
    def bundle(self) -> TrustBundle:
        """The roots as they are now."""
        return self._holdings.bundle

    @property
    def issuer(self) -> Issuer:
        """The issuer as it is now."""
        return self._holdings.issuer

    def sign(self, spiffe_id: SpiffeId, public_key: CertificatePublicKeyTypes) -> Signed:
        """Issue a leaf. The caller has proven that the asker may have `spiffe_id`.

        Raises: SigningError, also for sentry's own id: that one is made by `sign_own` alone.
        """
        if spiffe_id == self._spiffe_id:
            raise SigningError("sentry's own identity is never issued to others")
        return self._sign(spiffe_id, public_key)

    def sign_own(self) -> tuple[Signed, SigningKey]:
        """A fresh key and leaf for sentry's own listener."""
        key = new_key()
        try:
            return self._sign(self._spiffe_id, key.public_key()), key
        except SigningError:
            self.own_failures += 1
            raise

    def _sign(self, spiffe_id: SpiffeId, public_key: CertificatePublicKeyTypes) -> Signed:
        now = self._clock()
        holdings = self._holdings
        issuer = holdings.issuer
        template = leaf_template(
            spiffe_id, public_key, terms=self._terms, now=now, issuer_not_after=issuer.not_after
        )
        leaf = issuer.sign(template)
        check_signed(leaf, template, issuer, holdings.bundle, now)
        chain_pem = leaf.public_bytes(Encoding.PEM) + issuer.chain_pem
        return Signed(leaf=leaf, chain_pem=chain_pem, bundle=holdings.bundle)

    @property
    def holdings(self) -> Holdings:
        """The present state."""
        return self._holdings

    def replace(self, holdings: Holdings) -> None:
        """Go on with another authority, which the store holds already."""
        with self._lock:
            self.issuer_changes += holdings.issuer != self._holdings.issuer
            self._holdings = holdings

    def renew_issuer(self) -> bool:
        """Replace an issuer that is due, if the root's key is ours; True if it was. Blocks while saving.

        Raises: StoreError when the new issuer could not be kept; the old one then stays in use.
        """
        with self._lock:
            holdings = self._holdings
            now = self._clock()
            certificate = holdings.issuer.certificate
            begin, end = (
                certificate.not_valid_before_utc.timestamp(),
                certificate.not_valid_after_utc.timestamp(),
            )
            # An issuer that already reaches the root's end can't be made to last longer.
            can_extend = holdings.root.not_valid_after_utc > certificate.not_valid_after_utc
            if holdings.root_key is None or not can_extend or not should_rotate(now.timestamp(), begin, end):
                return False
            issuer = make_issuer(
                holdings.root,
                holdings.root_key,
                trust_domain=self._spiffe_id.trust_domain,
                namespace=self._spiffe_id.namespace,
                now=now,
                key=new_key(),
            )
            successor = Holdings(
                bundle=holdings.bundle, issuer=issuer, root=holdings.root, root_key=holdings.root_key
            )
            self._save(successor.stored())
            self._holdings = successor
            self.issuer_changes += 1
            return True
