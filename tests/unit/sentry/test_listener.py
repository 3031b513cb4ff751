"""Sentry's own certificate: young at every handshake."""

from datetime import datetime, timedelta

from sentry.authority import Authority, generate
from sentry.chain import parse_certificates
from sentry.listener import OwnLeaf
from sentry.spiffe import sentry_id
from sentry.template import LeafTerms
from tests.unit.sentry.forge import NOW


class Stage:
    """An authority and its own leaf under a clock to turn."""

    def __init__(self) -> None:
        self.now = NOW
        self.authority = Authority(
            generate("localhost", "default", NOW),
            spiffe_id=sentry_id("localhost", "default"),
            terms=LeafTerms(),
            clock=self.clock,
            save=lambda _: None,
        )
        self.leaf = OwnLeaf(self.authority, self.clock)

    def clock(self) -> datetime:
        return self.now


def test_leaf_is_due_at_first_and_again_at_half_of_its_life() -> None:
    stage = Stage()
    assert stage.leaf.is_due()
    stage.leaf.renew()
    stage.now = NOW + timedelta(minutes=29)
    assert not stage.leaf.is_due()
    stage.now = NOW + timedelta(minutes=30)
    assert stage.leaf.is_due()


def test_leaf_renewed_has_a_new_key_and_chain() -> None:
    stage = Stage()
    (key, chain), (other_key, other_chain) = stage.leaf.renew(), stage.leaf.renew()
    assert key != other_key
    assert parse_certificates(chain)[0] != parse_certificates(other_chain)[0]
    assert len(parse_certificates(chain)) == 2


def test_leaf_is_due_when_its_issuer_was_replaced() -> None:
    stage = Stage()
    stage.now = stage.authority.issuer.not_after - timedelta(days=29)
    stage.leaf.renew()
    assert not stage.leaf.is_due()
    assert stage.authority.renew_issuer()
    assert stage.leaf.is_due()
