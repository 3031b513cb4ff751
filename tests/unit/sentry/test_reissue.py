"""What an operator renews by hand."""

from datetime import timedelta
from pathlib import Path

import pytest

from sentry.authority import Holdings, StoredBundle, generate
from sentry.errors import BundleError
from sentry.issuer import dump_key, new_key
from sentry.reissue import brought, renewed
from sentry.store import DiskStore, put
from tests.unit.sentry.forge import NOW

CURRENT = generate("localhost", "default", NOW)
OTHER = generate("localhost", "default", NOW)
DAY = timedelta(days=1)


def without_root_key(holdings: Holdings) -> Holdings:
    stored = holdings.stored()
    return Holdings.parse(
        StoredBundle(
            anchors_pem=stored.anchors_pem,
            issuer_pem=stored.issuer_pem,
            issuer_key_pem=stored.issuer_key_pem,
        ),
        NOW,
    )


def test_issuer_is_renewed_under_its_root_for_so_many_days() -> None:
    after = renewed(CURRENT, root_key=None, life=30 * DAY, now=NOW)
    assert after.bundle == CURRENT.bundle
    assert after.issuer.chain_pem != CURRENT.issuer.chain_pem
    assert after.issuer.not_after == NOW + 30 * DAY
    assert after.issuer.certificate.subject == CURRENT.issuer.certificate.subject
    assert Holdings.parse(after.stored(), NOW) == after
    late = renewed(CURRENT, root_key=None, life=10_000 * DAY, now=NOW)
    assert late.issuer.not_after == CURRENT.root.not_valid_after_utc


def test_root_key_may_be_kept_elsewhere_and_stays_there() -> None:
    bare = without_root_key(CURRENT)
    with pytest.raises(BundleError, match="--private-key"):
        renewed(bare, root_key=None, life=DAY, now=NOW)
    after = renewed(bare, root_key=CURRENT.root_key, life=DAY, now=NOW)
    assert after.root_key is None
    assert after.stored().root_key_pem is None
    with pytest.raises(BundleError, match="no root"):
        renewed(bare, root_key=new_key(), life=DAY, now=NOW)


def test_ended_root_renews_nothing() -> None:
    with pytest.raises(BundleError, match="the root ended"):
        renewed(CURRENT, root_key=None, life=DAY, now=CURRENT.root.not_valid_after_utc + DAY)


def test_new_root_is_added_first_and_its_issuer_taken_when_it_is_known() -> None:
    given = without_root_key(OTHER).stored()
    first, is_taken = brought(CURRENT, given, NOW)
    assert not is_taken
    assert (first.issuer, first.root_key) == (CURRENT.issuer, CURRENT.root_key)
    assert set(first.bundle.roots) == {CURRENT.root, OTHER.root}
    assert Holdings.parse(first.stored(), NOW).issuer == CURRENT.issuer
    second, is_taken = brought(first, given, NOW)
    assert is_taken
    assert (second.issuer, second.root, second.root_key) == (OTHER.issuer, OTHER.root, None)
    assert set(second.bundle.roots) == {CURRENT.root, OTHER.root}
    with pytest.raises(BundleError, match="do not include the root"):
        renewed(second, root_key=None, life=DAY, now=NOW)


def test_issuer_made_under_the_present_root_is_taken_at_once_with_its_key_kept() -> None:
    elsewhere = renewed(CURRENT, root_key=None, life=DAY, now=NOW)
    after, is_taken = brought(CURRENT, without_root_key(elsewhere).stored(), NOW)
    assert is_taken
    assert after.root_key is CURRENT.root_key
    with pytest.raises(BundleError):
        brought(CURRENT, without_root_key(elsewhere).stored(), NOW + 2 * DAY)


@pytest.mark.parametrize("is_running", [False, True])
def test_put_replaces_the_files_beside_a_running_sentry_too(tmp_path: Path, is_running: bool) -> None:
    folder = tmp_path / "authority"
    with DiskStore(folder) as store:
        store.save(CURRENT.stored())
    after = renewed(CURRENT, root_key=None, life=DAY, now=NOW)
    bare = without_root_key(OTHER).stored()
    if is_running:
        with DiskStore(folder):
            put(folder, after.stored())
    else:
        put(folder, after.stored())
    assert DiskStore(folder).load() == after.stored()
    assert after.stored().root_key_pem == dump_key(CURRENT.root_key or new_key())
    put(folder, bare)
    assert DiskStore(folder).load() == bare
    kept = folder / "root.key.replaced"
    assert kept.read_bytes() == CURRENT.stored().root_key_pem
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".issuer")]
