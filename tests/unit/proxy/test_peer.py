"""A peer's leaf -> who it is."""

import pytest

from policies.access import Caller
from proxy.peer import callee_id, caller_id, caller_of
from sentry.errors import IdentityError
from sentry.spiffe import SpiffeId
from tests.unit.sentry.forge import Forgery

CART = SpiffeId("public", "default", "cart")


def test_caller_with_a_sound_leaf_is_known() -> None:
    assert caller_id(Forgery().der()) == CART
    assert caller_of(CART) == Caller(trust_domain="public", namespace="default", app_id="cart")


def test_caller_of_a_trust_domain_not_listed_is_refused() -> None:
    assert caller_id(Forgery().der(), frozenset({"public"})) == CART
    for listed in (frozenset({"prod"}), frozenset[str]()):
        with pytest.raises(IdentityError) as refusal:
            caller_id(Forgery().der(), listed)
        assert refusal.value.rule == "trust-domain"


def test_callee_as_dialled_is_accepted() -> None:
    assert callee_id(Forgery().der(), app_id="cart", namespace="default") == CART


@pytest.mark.parametrize(
    ("app_id", "namespace"), [("Cart", "default"), ("car", "default"), ("cart", "other")]
)
def test_callee_that_is_another_is_refused(app_id: str, namespace: str) -> None:
    with pytest.raises(IdentityError) as refusal:
        callee_id(Forgery().der(), app_id=app_id, namespace=namespace)
    assert refusal.value.rule == "callee"


def test_callee_of_another_trust_domain_is_refused() -> None:
    with pytest.raises(IdentityError):
        callee_id(Forgery().der(), app_id="cart", namespace="default", trust_domains=frozenset({"prod"}))


def test_peer_with_an_authoritys_certificate_is_refused() -> None:
    with pytest.raises(IdentityError):
        caller_id(Forgery(is_ca=True).der())
