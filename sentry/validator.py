"""Checks every certificate again before it is released: a bug in signing must not become a forged identity."""

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sentry.bundle import TrustBundle
from sentry.chain import verify_chain
from sentry.errors import BundleError, IdentityError, SigningError
from sentry.issuer import Issuer, public_bytes
from sentry.spiffe import verify_leaf
from sentry.template import LeafTemplate


def check_signed(
    leaf: x509.Certificate, template: LeafTemplate, issuer: Issuer, bundle: TrustBundle, now: datetime
) -> None:
    """Judge a fresh leaf as a peer would, and against what was granted. Raises SigningError."""
    der = leaf.public_bytes(Encoding.DER)
    try:
        named = verify_leaf(der, as_server=True)
        verify_leaf(der, as_server=False)
        verify_chain((leaf, *issuer.chain), bundle.roots, now)
    except (IdentityError, BundleError) as error:
        raise SigningError(f"the signed certificate would be refused by peers: {error}") from error
    if named != template.spiffe_id:
        raise SigningError("the signed certificate names another identity than the one granted")
    if public_bytes(leaf.public_key()) != public_bytes(template.public_key):
        raise SigningError("the signed certificate holds another key than the one asked for")
    if leaf.not_valid_after_utc > issuer.not_after:
        raise SigningError("the signed certificate outlives its issuer")
