"""Changes of the store by hand: whole and valid, or not taken."""

from datetime import timedelta

import pytest

from sentry.audit import AuditLog
from sentry.authority import Authority, Holdings, StoredBundle, generate
from sentry.errors import StoreError
from sentry.issuer import dump_key, make_issuer, new_key
from sentry.reload import StoreWatch
from sentry.spiffe import sentry_id
from sentry.template import LeafTerms
from tests.unit.sentry.forge import KEY, NOW

HOLDINGS = generate("localhost", "default", NOW)


class Shelf:
    """A store to rearrange, and the watch on it."""

    def __init__(self) -> None:
        self.content: StoredBundle | None = HOLDINGS.stored()
        self.fault: StoreError | None = None
        own = sentry_id("localhost", "default")
        self.authority = Authority(
            HOLDINGS, spiffe_id=own, terms=LeafTerms(), clock=lambda: NOW, save=lambda _: None
        )
        self.watch = StoreWatch(self.authority, self.load, AuditLog(None, lambda: NOW), lambda: NOW)

    def load(self) -> StoredBundle | None:
        if self.fault is not None:
            raise self.fault
        return self.content

    def put(self, **changes: bytes | None) -> None:
        stored = HOLDINGS.stored()
        names = ("anchors_pem", "issuer_pem", "issuer_key_pem", "root_key_pem")
        self.content = StoredBundle(**({name: getattr(stored, name) for name in names} | changes))


def test_store_unchanged_is_no_news() -> None:
    shelf = Shelf()
    assert not shelf.watch.look()
    assert shelf.authority.holdings is HOLDINGS


def test_root_added_by_hand_is_taken_up() -> None:
    shelf, other = Shelf(), generate("localhost", "default", NOW)
    both = HOLDINGS.bundle.union(other.bundle)
    shelf.put(anchors_pem=both.pem)
    assert shelf.watch.look()
    assert shelf.authority.bundle == both
    assert not shelf.watch.look()


def test_root_key_taken_away_is_given_up_and_taken_up_again() -> None:
    shelf = Shelf()
    assert not shelf.watch.look()
    shelf.put(root_key_pem=None)
    assert shelf.watch.look()
    assert shelf.authority.holdings.root_key is None
    assert shelf.authority.issuer == HOLDINGS.issuer
    shelf.put()
    assert shelf.watch.look()
    assert shelf.authority.holdings.root_key is not None


def test_issuer_replaced_by_hand_is_taken_up() -> None:
    shelf, key = Shelf(), new_key()
    assert HOLDINGS.root_key is not None
    issuer = make_issuer(
        HOLDINGS.root, HOLDINGS.root_key, trust_domain="localhost", namespace="default", now=NOW, key=key
    )
    shelf.put(issuer_pem=issuer.chain_pem, issuer_key_pem=dump_key(key))
    assert shelf.watch.look()
    assert shelf.authority.issuer == issuer


@pytest.mark.parametrize(
    "changes",
    [
        {"anchors_pem": b""},
        {"anchors_pem": HOLDINGS.bundle.pem[:-40]},
        {"anchors_pem": generate("localhost", "default", NOW).bundle.pem},
        {"issuer_key_pem": dump_key(KEY)},
        {"issuer_pem": b"half"},
    ],
    ids=["empty", "cut", "foreign", "another key", "half"],
)
def test_store_that_does_not_hold_changes_nothing_and_is_told_once(
    changes: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf()
    shelf.put(**changes)
    assert not shelf.watch.look()
    assert not shelf.watch.look()
    assert shelf.authority.holdings is HOLDINGS
    assert len(caplog.records) == 1
    shelf.put()
    assert not shelf.watch.look()
    assert shelf.watch.fault is None


def test_store_emptied_or_unreadable_changes_nothing() -> None:
    shelf = Shelf()
    shelf.content = None
    assert not shelf.watch.look()
    shelf.fault = StoreError("issuer.key", "is missing")
    assert not shelf.watch.look()
    assert shelf.watch.fault == "issuer.key: is missing"
    assert shelf.authority.holdings is HOLDINGS


def test_issuer_expired_is_not_taken_up() -> None:
    shelf, old = Shelf(), generate("localhost", "default", NOW - timedelta(days=400))
    shelf.content = Holdings(bundle=old.bundle, issuer=old.issuer, root=old.root).stored()
    assert not shelf.watch.look()
    assert shelf.watch.fault is not None
    assert "ended at" in shelf.watch.fault
