"""A peer's leaf -> its id -> the caller that access rules judge."""

import math

import pytest
from cryptography import x509

from policies.rules.caller import Caller
from proxy.deciding.peer import admitted_leaf, caller_of, peer_leaf
from tests.unit.proxy.heads import rules
from tests.unit.sentry.forge import Forgery


@pytest.mark.parametrize("as_server", [False, True])
def test_peer_with_a_sound_leaf_is_known(as_server: bool) -> None:
    leaf = peer_leaf(Forgery().der(), as_server)
    assert leaf.spiffe_id == "spiffe://public/ns/default/cart"
    certificate = x509.load_der_x509_certificate(Forgery().der())
    assert math.isclose(leaf.ends_at, certificate.not_valid_after_utc.timestamp())


@pytest.mark.parametrize("der", [Forgery(is_ca=True).der(), b"", b"\x30\x03junk"])
def test_leaf_that_is_no_workloads_is_refused_as_engines_expect(der: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        peer_leaf(der, False)


def test_caller_of_a_trust_domain_that_nothing_names_is_not_let_in() -> None:
    der, foreign = Forgery().der(), rules(own_trust_domain="elsewhere")
    assert admitted_leaf(der, False, rules()).spiffe_id == "spiffe://public/ns/default/cart"
    with pytest.raises(ValueError, match="trust domain public, which is neither our own nor named"):
        admitted_leaf(der, False, foreign)
    assert admitted_leaf(der, True, foreign)  # of a server, the whole id is compared


def test_caller_is_what_the_id_says() -> None:
    assert caller_of("spiffe://public/ns/shop/cart") == Caller(
        trust_domain="public", namespace="shop", app_id="cart"
    )
    assert caller_of(None) is None
