"""The authority's files: `ca.crt`, `issuer.crt`, `issuer.key` and, where the root is ours, `root.key`.

Owns their names, modes, locking and all-or-nothing replacement; knows nothing of what they mean. A replacement is
written whole into the folder `.next`, whose rename into place commits it; the files are then moved one by one. A
crash in between is finished by the next `open`, so that no reader here ever meets two generations mixed.
A file that is missing is an error that names it. Only an empty store may be filled.
"""

import fcntl
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from msgspec import Struct

from sentry.authority import StoredBundle
from sentry.errors import StoreError, StoreInUseError
from sentry.private_files import check_folder, make_folder, read_file, sync_folder, write_new

_NEXT: Final = ".next"
_DRAFT: Final = ".next.draft"
_FLAG: Final = "--allow-loose-store"
_LOCK: Final = ".lock"
_LOCK_POLL_S: Final = 0.02
_LOG: Final = logging.getLogger("sentry")


class StoreNames(Struct, frozen=True, kw_only=True):
    """The files' names in the store's folder, or absolute paths of files kept elsewhere (read only then)."""

    anchors: str = "ca.crt"
    issuer: str = "issuer.crt"
    issuer_key: str = "issuer.key"
    root_key: str = "root.key"

    @property
    def required(self) -> tuple[str, str, str]:
        """The three that every authority has."""
        return self.anchors, self.issuer, self.issuer_key


class DiskStore:
    """An authority's folder, locked against a second writer from `open` to `close`."""

    def __init__(
        self, folder: Path, *, names: StoreNames | None = None, allow_loose: bool = False, wait_s: float = 0.0
    ) -> None:
        """`allow_loose` makes warnings of faults in owners and modes, for volumes that can't hold them.

        `wait_s` is how long `open` waits for another holder of the lock to end.
        """
        self._folder = folder
        self._names = names or StoreNames()
        self._allow_loose = allow_loose
        self._wait_s = wait_s
        self._lock: int | None = None
        # Held while files are read or moved: a reader in another thread never sees half of a replacement.
        self._files = threading.Lock()

    def open(self) -> Self:
        """Make the folder if missing, check it, lock it, and finish a replacement that a crash cut short.

        Raises: StoreError, also when another process holds the lock.
        """
        make_folder(self._folder)
        try:
            check_folder(self._folder, flag=_FLAG)
        except StoreError as error:
            if not self._allow_loose:
                raise
            _LOG.warning("%s; whoever can read or replace these files can be anybody in the mesh", error)
        self._lock = self._take_lock()
        try:
            shutil.rmtree(self._folder / _DRAFT, ignore_errors=True)
            self._finish_replacement()
        except OSError as error:
            self.close()
            raise StoreError(str(self._folder), f"can't be written: {error.strerror}") from error
        return self

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def load(self) -> StoredBundle | None:
        """What is stored, or None when none of the three files exists. Raises StoreError."""
        with self._files:
            contents = {name: self._read(name) for name in self._names.required}
            root_key = self._read(self._names.root_key)
        missing = [name for name, content in contents.items() if content is None]
        if len(missing) == len(contents) and root_key is None:
            return None
        if missing:
            raise StoreError(
                str(self._folder / missing[0]),
                "is missing while the store's other files exist; restore it (a new authority is made only "
                "in an empty folder, because it would end all trust in the old one)",
            )
        anchors, issuer, issuer_key = (contents[name] or b"" for name in self._names.required)
        return StoredBundle(
            anchors_pem=anchors, issuer_pem=issuer, issuer_key_pem=issuer_key, root_key_pem=root_key
        )

    def save(self, bundle: StoredBundle) -> None:
        """Replace everything as one, and return when it is on disk.

        Raises: StoreError, with the old files still in force.
        """
        files = dict(zip(self._names.required, self._contents(bundle), strict=True))
        if bundle.root_key_pem is not None:
            files[self._names.root_key] = bundle.root_key_pem
        outside = [name for name in files if Path(name).name != name]
        if outside:
            raise StoreError(outside[0], "lies outside the store's folder and is never written")
        try:
            with self._files:
                self._replace(files)
        except OSError as error:
            raise StoreError(str(self._folder), f"can't be written: {error.strerror}") from error

    def _replace(self, files: Mapping[str, bytes]) -> None:
        draft = self._folder / _DRAFT
        shutil.rmtree(draft, ignore_errors=True)
        self._finish_replacement()
        draft.mkdir(mode=0o700)
        for name, content in files.items():
            write_new(draft / name, content)
        sync_folder(draft)
        draft.rename(self._folder / _NEXT)
        sync_folder(self._folder)
        self._finish_replacement()

    def _contents(self, bundle: StoredBundle) -> tuple[bytes, bytes, bytes]:
        return bundle.anchors_pem, bundle.issuer_pem, bundle.issuer_key_pem

    def _finish_replacement(self) -> None:
        committed = self._folder / _NEXT
        if not committed.is_dir():
            return
        for path in sorted(committed.iterdir()):
            path.rename(self._folder / path.name)
        sync_folder(self._folder)
        committed.rmdir()
        sync_folder(self._folder)

    def _read(self, name: str) -> bytes | None:
        is_secret = name in {self._names.issuer_key, self._names.root_key}
        try:
            return read_file(
                self._folder / name, is_secret=is_secret, allow_loose=self._allow_loose, flag=_FLAG
            )
        except FileNotFoundError:
            return None

    def _take_lock(self) -> int:
        path = self._folder / _LOCK
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(str(path), f"can't be opened: {error.strerror}") from error
        end = time.monotonic() + self._wait_s
        while not _try_lock(descriptor):
            if time.monotonic() >= end:
                os.close(descriptor)
                raise StoreInUseError(str(self._folder), "is in use by another sentry")
            time.sleep(_LOCK_POLL_S)
        return descriptor


def put(folder: Path, bundle: StoredBundle) -> None:
    """Replace an authority's files, also those of a sentry that runs: it takes them up within seconds.

    A root's key that `bundle` lacks is kept as `root.key.replaced`. Raises: StoreError.
    """
    names = StoreNames()
    store = DiskStore(folder)
    try:
        if bundle.root_key_pem is None and (folder / names.root_key).exists():
            (folder / names.root_key).rename(folder / f"{names.root_key}.replaced")
        with store:
            store.save(bundle)
    except StoreInUseError:
        _put_beside(folder, names, bundle)
    except OSError as error:
        raise StoreError(str(folder), f"can't be written: {error.strerror}") from error


def _put_beside(folder: Path, names: StoreNames, bundle: StoredBundle) -> None:
    """Move new files into place one by one; who reads them in between finds a key of another issuer, and reads again."""
    files = {
        names.anchors: bundle.anchors_pem,
        names.issuer_key: bundle.issuer_key_pem,
        names.issuer: bundle.issuer_pem,
    }
    drafts = {name: folder / f".{name}.{secrets.token_hex(8)}" for name in files}
    try:
        for name, content in files.items():
            write_new(drafts[name], content)
        for name, draft in drafts.items():
            draft.rename(folder / name)
        sync_folder(folder)
    except OSError as error:
        raise StoreError(str(folder), f"can't be written: {error.strerror}") from error
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def _try_lock(descriptor: int) -> bool:
    # flock has no deadline of its own: whoever waits must ask again.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
