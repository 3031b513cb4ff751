"""Reads and writes files that hold keys: no symbolic links, the right owner, no looser modes, all-or-nothing writes.

Blocking, small files only.
"""

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from sentry.errors import StoreError

MAX_FILE_BYTES: Final = 1024 * 1024


def read_file(path: Path, *, is_secret: bool, allow_loose: bool = False, flag: str = "") -> bytes:
    """Read a small regular file without following a link at `path`.

    A secret must be ours and closed to group and others; anything else must be closed to their writing. `flag`: the one that
    would allow a looser mode, for the error.
    Raises: StoreError; FileNotFoundError when there is no such file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(str(path), f"can't be opened as a regular file: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise StoreError(str(path), "is not a regular file")
        if not allow_loose:
            _check_facts(path, facts, forbidden=0o077 if is_secret else 0o022, flag=flag)
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise StoreError(str(path), f"is larger than {MAX_FILE_BYTES} bytes")
    return content


def make_folder(path: Path) -> None:
    """Make `path` (0700) and its parents if missing. Raises StoreError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(str(path), f"the folder can't be created: {error.strerror}") from error


def check_folder(path: Path, *, flag: str = "") -> None:
    """Refuse a folder that others may enter, or below one where others may swap it. `flag`: as in `read_file`.

    Raises: StoreError.
    """
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        raise StoreError(str(path), "is not a folder")
    _check_facts(path, facts, forbidden=0o077, flag=flag)
    for parent in path.resolve().parents:
        above = parent.stat()
        if above.st_uid not in {0, os.geteuid()}:
            raise StoreError(str(parent), "belongs to another user")
        if above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX:
            raise StoreError(str(parent), "is writable by others, who could swap the folder below it")


def write_new(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write and sync a file that does not exist yet. Raises FileExistsError, OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def overwrite(path: Path, content: bytes) -> None:
    """Write a small file of ours (0600 if it is new), never through a link or into anything but a regular file. Raises: StoreError."""
    try:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600
        )
    except OSError as error:
        why = "is a symbolic link, which is not followed: remove it" if path.is_symlink() else error.strerror
        raise StoreError(str(path), f"can't be written: {why}") from error
    with os.fdopen(descriptor, "wb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
            raise StoreError(
                str(path), "can't be written: not a regular file, or one with hard links: remove it"
            )
        file.truncate()
        file.write(content)


def publish_once(path: Path, content: bytes) -> bool:
    """Make `path` with `content` (0600) unless it exists; True if it was made. Readers never see it half-written."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_new(draft, content)
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    sync_folder(path.parent)
    return True


def sync_folder(path: Path) -> None:
    """Make renames and new names in `path` last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_facts(path: Path, facts: os.stat_result, *, forbidden: int, flag: str) -> None:
    if facts.st_uid != os.geteuid():
        raise StoreError(str(path), f"belongs to user {facts.st_uid}, expected {os.geteuid()}")
    mode = stat.S_IMODE(facts.st_mode)
    if mode & forbidden:
        wanted = f"{mode & ~forbidden:04o}"
        remedy = f"chmod {wanted} {path}{f', or {flag}' if flag else ''}"
        raise StoreError(str(path), f"has mode {mode:04o}, expected {wanted}: {remedy}")
