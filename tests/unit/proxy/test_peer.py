"""A peer's leaf -> its id -> the caller that access rules judge."""

import pytest

from policies.access import Caller
from proxy.peer import caller_of, peer_id
from tests.unit.sentry.forge import Forgery


@pytest.mark.parametrize("as_server", [False, True])
def test_peer_with_a_sound_leaf_is_known(as_server: bool) -> None:
    assert peer_id(Forgery().der(), as_server) == "spiffe://public/ns/default/cart"


@pytest.mark.parametrize("der", [Forgery(is_ca=True).der(), b"", b"\x30\x03junk"])
def test_leaf_that_is_no_workloads_is_refused_as_engines_expect(der: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        peer_id(der, False)


def test_caller_is_what_the_id_says() -> None:
    assert caller_of("spiffe://public/ns/shop/cart") == Caller(
        trust_domain="public", namespace="shop", app_id="cart"
    )
    assert caller_of(None) is None
