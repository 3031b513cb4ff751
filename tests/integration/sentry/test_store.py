"""The authority's files on a real disk: all or nothing, no looser than they must be, never made anew by accident."""

import os
import threading
from pathlib import Path

import pytest

from sentry.authority import StoredBundle
from sentry.errors import StoreError
from sentry.store import DiskStore, StoreNames

OLD = StoredBundle(anchors_pem=b"a1", issuer_pem=b"i1", issuer_key_pem=b"k1", root_key_pem=b"r1")
NEW = StoredBundle(anchors_pem=b"a2", issuer_pem=b"i2", issuer_key_pem=b"k2", root_key_pem=b"r2")


@pytest.fixture
def folder(root: Path) -> Path:
    path = root / "authority"
    with DiskStore(path) as store:
        store.save(OLD)
    return path


def load(folder: Path) -> StoredBundle | None:
    with DiskStore(folder) as store:
        return store.load()


def test_store_empty_has_nothing(root: Path) -> None:
    assert load(root / "new") is None


def test_store_keeps_what_was_saved_and_replaces_it_whole(folder: Path) -> None:
    assert load(folder) == OLD
    with DiskStore(folder) as store:
        store.save(NEW)
        assert store.load() == NEW
    assert load(folder) == NEW


def test_store_files_are_private(folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert {path.name for path in folder.iterdir()} == {
        "ca.crt",
        "issuer.crt",
        "issuer.key",
        "root.key",
        ".lock",
    }


def test_store_without_the_roots_key_is_whole(root: Path) -> None:
    brought = StoredBundle(anchors_pem=b"a", issuer_pem=b"i", issuer_key_pem=b"k")
    with DiskStore(root / "brought") as store:
        store.save(brought)
        assert store.load() == brought


@pytest.mark.parametrize("name", ["ca.crt", "issuer.crt", "issuer.key"])
def test_store_missing_one_file_is_an_error_that_names_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(StoreError) as refusal:
        load(folder)
    assert refusal.value.path == str(folder / name)
    assert not (folder / name).exists()


def test_store_left_with_the_roots_key_alone_is_no_empty_one(folder: Path) -> None:
    for name in ("ca.crt", "issuer.crt", "issuer.key"):
        (folder / name).unlink()
    with pytest.raises(StoreError):
        load(folder)


@pytest.mark.parametrize(
    ("name", "mode"), [("issuer.key", 0o640), ("root.key", 0o604), ("ca.crt", 0o620), (".", 0o750)]
)
def test_store_looser_than_private_is_refused_unless_told(folder: Path, name: str, mode: int) -> None:
    (folder / name).chmod(mode)
    with pytest.raises(StoreError, match="has mode"):
        load(folder)
    with DiskStore(folder, allow_loose=True) as store:
        assert store.load() == OLD


def test_store_certificates_may_be_read_by_others(folder: Path) -> None:
    (folder / "ca.crt").chmod(0o644)
    assert load(folder) == OLD


@pytest.mark.parametrize("name", ["issuer.key", "ca.crt", "root.key"])
def test_store_file_that_is_a_link_is_refused(folder: Path, root: Path, name: str) -> None:
    (folder / name).rename(root / "elsewhere")
    (folder / name).symlink_to(root / "elsewhere")
    with pytest.raises(StoreError, match="regular file"):
        load(folder)


def test_store_file_that_is_a_pipe_or_too_large_is_refused(folder: Path) -> None:
    (folder / "ca.crt").unlink()
    os.mkfifo(folder / "ca.crt", 0o600)
    with pytest.raises(StoreError, match="regular file"):
        load(folder)
    (folder / "ca.crt").unlink()
    (folder / "ca.crt").write_bytes(bytes(1024 * 1024 + 1))
    (folder / "ca.crt").chmod(0o600)
    with pytest.raises(StoreError, match="larger"):
        load(folder)


def test_store_folder_that_is_a_link_or_below_a_writable_one_is_refused(folder: Path, root: Path) -> None:
    (root / "link").symlink_to(folder)
    with pytest.raises(StoreError):
        load(root / "link")
    root.chmod(0o777)
    with pytest.raises(StoreError, match="writable by others"):
        load(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_store_of_another_user_is_refused(folder: Path) -> None:
    os.chown(folder / "issuer.key", 12345, 12345)
    with pytest.raises(StoreError, match="belongs to user 12345"):
        load(folder)


def test_store_in_use_is_refused_to_a_second_writer(folder: Path) -> None:
    with DiskStore(folder), pytest.raises(StoreError, match="in use"):
        DiskStore(folder).open()
    assert load(folder) == OLD


def crash_after(folder: Path, moved: int) -> None:
    """Leave the folder as a crash does after the commit, with `moved` of the new files moved."""
    names = ["ca.crt", "issuer.crt", "issuer.key", "root.key"]
    (folder / ".next").mkdir(mode=0o700)
    for name, content in zip(names, (b"a2", b"i2", b"k2", b"r2"), strict=True):
        (folder / ".next" / name).write_bytes(content)
        (folder / ".next" / name).chmod(0o600)
    for name in names[:moved]:
        (folder / ".next" / name).rename(folder / name)


@pytest.mark.parametrize("moved", range(5))
def test_store_replacement_cut_short_after_its_commit_is_finished(folder: Path, moved: int) -> None:
    crash_after(folder, moved)
    assert load(folder) == NEW
    assert not (folder / ".next").exists()


def test_store_replacement_cut_short_before_its_commit_never_was(folder: Path) -> None:
    (folder / ".next.draft").mkdir(mode=0o700)
    (folder / ".next.draft" / "ca.crt").write_bytes(b"a2")
    assert load(folder) == OLD
    assert not (folder / ".next.draft").exists()


def test_store_that_can_not_be_written_keeps_the_old(folder: Path) -> None:
    with DiskStore(folder) as store:
        (folder / ".next").write_bytes(b"in the way")
        with pytest.raises(StoreError):
            store.save(NEW)
        assert store.load() == OLD


def test_store_names_may_be_others_or_absolute_to_read(folder: Path, root: Path) -> None:
    (folder / "ca.crt").rename(root / "roots.pem")
    names = StoreNames(anchors=str(root / "roots.pem"))
    with DiskStore(folder, names=names) as store:
        assert store.load() == OLD
        with pytest.raises(StoreError, match="outside"):
            store.save(NEW)


def test_store_in_use_is_waited_for(folder: Path) -> None:
    holder = DiskStore(folder).open()
    release = threading.Timer(0.1, holder.close)
    release.start()
    with DiskStore(folder, wait_s=10) as store:
        assert store.load() == OLD
    release.join()
