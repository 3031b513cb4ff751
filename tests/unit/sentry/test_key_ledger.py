"""One key, one identity."""

import pytest

from sentry.errors import AttestationError
from sentry.key_ledger import KeyLedger
from sentry.spiffe import SpiffeId

CART, SHOP = SpiffeId("public", "default", "cart"), SpiffeId("public", "default", "shop")


def test_key_serves_its_identity_again_and_no_other() -> None:
    ledger = KeyLedger(lambda: 0.0)
    ledger.claim("k", CART)
    ledger.claim("k", CART)
    for _ in range(2):
        with pytest.raises(AttestationError) as refusal:
            ledger.claim("k", SHOP)
        assert refusal.value.reason == "key-reuse"
    ledger.claim("k", CART)
    ledger.claim("other", SHOP)


def test_key_is_free_again_a_day_after_its_last_use() -> None:
    now = 0.0
    ledger = KeyLedger(lambda: now)
    ledger.claim("k", CART)
    now = 86399.0
    with pytest.raises(AttestationError):
        ledger.claim("k", SHOP)
    now = 86400.0
    ledger.claim("k", SHOP)


def test_ledger_full_forgets_the_key_used_longest_ago() -> None:
    ledger = KeyLedger(lambda: 0.0, limit=2)
    for key in ("a", "b", "a", "c"):
        ledger.claim(key, CART)
    ledger.claim("b", SHOP)
    with pytest.raises(AttestationError):
        ledger.claim("c", SHOP)
