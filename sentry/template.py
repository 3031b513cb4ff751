"""What a leaf contains: whom it names, for how long, and nothing that a request asked for besides its public key."""

from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from msgspec import Struct

from sentry.errors import SigningError
from sentry.spiffe import SpiffeId

DEFAULT_LEAF_TTL: Final = timedelta(hours=1)
DEFAULT_BACKDATE: Final = timedelta(seconds=60)
MAX_BACKDATE: Final = timedelta(minutes=15)


class LeafTemplate(Struct, frozen=True, kw_only=True):
    """A leaf to be signed; times are UTC and whole seconds, as X.509 has them."""

    spiffe_id: SpiffeId
    public_key: CertificatePublicKeyTypes
    not_before: datetime
    not_after: datetime


class LeafTerms(Struct, frozen=True, kw_only=True):
    """How long leaves live and how far back they begin."""

    ttl: timedelta = DEFAULT_LEAF_TTL
    backdate: timedelta = DEFAULT_BACKDATE


def leaf_template(
    spiffe_id: SpiffeId,
    public_key: CertificatePublicKeyTypes,
    *,
    terms: LeafTerms,
    now: datetime,
    issuer_not_after: datetime,
) -> LeafTemplate:
    """The leaf for `spiffe_id`: from `now` less the backdating, to `now` plus the lifetime or the issuer's end.

    Raises: SigningError when the issuer has less than a tenth of a leaf's lifetime left.
    """
    now = now.replace(microsecond=0)
    if issuer_not_after - now < terms.ttl / 10:
        raise SigningError(
            f"the issuer's certificate ends at {issuer_not_after:%Y-%m-%dT%H:%M:%SZ}: renew it"
        )
    return LeafTemplate(
        spiffe_id=spiffe_id,
        public_key=public_key,
        not_before=now - terms.backdate,
        not_after=min(now + terms.ttl, issuer_not_after),
    )
