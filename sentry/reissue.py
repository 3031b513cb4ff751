"""What an operator renews by hand: the issuer under the present root, or an authority that was made elsewhere. Pure."""

from datetime import datetime, timedelta

from cryptography.x509.oid import NameOID

from sentry.authority import Holdings, StoredBundle
from sentry.errors import BundleError, IdentityError
from sentry.issuer import SigningKey, make_issuer, new_key, public_bytes
from sentry.spiffe import SpiffeId


def renewed(current: Holdings, *, root_key: SigningKey | None, life: timedelta, now: datetime) -> Holdings:
    """The same authority with a new issuer, which ends with its root at the latest.

    root_key: one that is kept elsewhere, and stays there. Raises: BundleError.
    """
    key = root_key or current.root_key
    if key is None:
        raise BundleError("the authority's files do not include the root's key: pass it with --private-key")
    owned = public_bytes(key.public_key())
    root = next((root for root in current.bundle.roots if public_bytes(root.public_key()) == owned), None)
    if root is None:
        raise BundleError("the private key is that of no root in ca.crt")
    if root.not_valid_after_utc <= now:
        raise BundleError(
            f"the root ended at {root.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: bring a new authority with the three certificate flags"
        )
    own = _own_id(current)
    names = {"trust_domain": own.trust_domain, "namespace": own.namespace}
    issuer = make_issuer(root, key, **names, now=now, key=new_key(), life=life)
    return Holdings(bundle=current.bundle, issuer=issuer, root=root, root_key=current.root_key)


def brought(current: Holdings, given: StoredBundle, now: datetime) -> tuple[Holdings, bool]:
    """The authority with one that was made elsewhere, and whether its issuer is in force.

    It is not while the root above it is new: until every workload has that root with its next certificate, it would prove nothing to
    some. Then only the root is added; the same again takes the issuer. Earlier roots stay. Raises: BundleError.
    """
    other = Holdings.parse(given, now)
    if other.issuer.not_after <= now:
        raise BundleError(f"the issuer's certificate ended at {other.issuer.not_after:%Y-%m-%d %H:%M} UTC")
    bundle = current.bundle.union(other.bundle)
    if other.root not in current.bundle.roots:
        added = Holdings(bundle=bundle, issuer=current.issuer, root=current.root, root_key=current.root_key)
        return added, False
    has_key = current.root_key is not None and other.root == current.root
    key = current.root_key if has_key else None
    return Holdings(bundle=bundle, issuer=other.issuer, root=other.root, root_key=key), True


def _own_id(holdings: Holdings) -> SpiffeId:
    """Sentry's own id, which is the name of the issuers that it makes."""
    names = holdings.issuer.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    text = str(names[0].value) if names else ""
    try:
        return SpiffeId.parse(text)
    except IdentityError as error:
        raise BundleError(
            "the issuer was made elsewhere: renew it there, and bring it with the three certificate flags"
        ) from error
