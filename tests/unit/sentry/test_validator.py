"""The last look at a leaf: whatever differs from the grant does not leave."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from sentry.authority import Holdings, generate
from sentry.errors import SigningError
from sentry.spiffe import SpiffeId
from sentry.template import LeafTemplate, LeafTerms, leaf_template
from sentry.validator import check_signed
from tests.unit.sentry.forge import KEY, NOW, Forgery

HOLDINGS = generate("localhost", "default", NOW)
CART = SpiffeId("public", "default", "cart")


def granted(app_id: str = "cart") -> LeafTemplate:
    spiffe_id = SpiffeId("public", "default", app_id)
    end = HOLDINGS.issuer.not_after
    return leaf_template(spiffe_id, KEY.public_key(), terms=LeafTerms(), now=NOW, issuer_not_after=end)


def forged(forgery: Forgery) -> x509.Certificate:
    key = HOLDINGS.issuer.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return forgery.sign(key, issuer=HOLDINGS.issuer.certificate.subject)


def check(leaf: x509.Certificate, template: LeafTemplate, holdings: Holdings = HOLDINGS) -> None:
    check_signed(leaf, template, holdings.issuer, holdings.bundle, NOW)


def test_leaf_as_granted_passes() -> None:
    check(HOLDINGS.issuer.sign(granted()), granted())


@pytest.mark.parametrize(
    ("forgery", "problem"),
    [
        (Forgery(uris=("spiffe://public/ns/default/admin",)), "another identity"),
        (Forgery(uris=(str(CART), str(CART))), "refused by peers"),
        (Forgery(is_ca=True), "refused by peers"),
        (Forgery(end=HOLDINGS.issuer.not_after + timedelta(days=1)), "outlives"),
        (Forgery(end=NOW - timedelta(seconds=1)), "refused by peers"),
    ],
)
def test_leaf_unlike_its_grant_is_held_back(forgery: Forgery, problem: str) -> None:
    with pytest.raises(SigningError, match=problem):
        check(forged(forgery), granted())


def test_leaf_for_another_key_is_held_back() -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    template = leaf_template(
        CART, other, terms=LeafTerms(), now=NOW, issuer_not_after=HOLDINGS.issuer.not_after
    )
    with pytest.raises(SigningError, match="another key"):
        check(HOLDINGS.issuer.sign(granted()), template)


def test_leaf_of_another_issuer_is_held_back() -> None:
    with pytest.raises(SigningError, match="refused by peers"):
        check(generate("localhost", "default", NOW).issuer.sign(granted()), granted())
