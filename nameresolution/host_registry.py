"""What runs on this host for this user: one file per sidecar, locked by its owner for the owner's whole life.

The kernel releases the lock when the owner dies, however it dies, so a file without a lock is a dead entry. An update
writes a new file, locks it and renames it over the old one: readers see the old or the new entry, never half of one,
and the path names a locked file at every moment of the owner's life.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import quote

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from nameresolution.errors import RegistrationError

_LOG = logging.getLogger("postern.nameresolution.registry")

# What stands under an entry's name may be anything: a FIFO must not make us wait, a link not lead us elsewhere.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
POLL_S = 0.15  # watchers learn of a crash, which touches no file, within 200 ms
_ORPHAN_S = 60.0  # a temporary file this old was left by a crash between writing and renaming
_MAX_BYTES = 1 << 20  # an entry is 1 kB; anything larger is not an entry


class Entry(Struct, frozen=True, kw_only=True):
    """One sidecar as others on its host see it. `host` is the address it advertises, `started_at` epoch seconds.

    `serving` is False while it takes no calls: its app does not accept or is not healthy (`app_state`), its certificate has
    `expired`, or it has said goodbye and finishes what it has. `services_learnt`: the app named its services itself, by reflection.
    `app_log`, `sidecar_log`: paths of files that their lines go to, as far as the sidecar was told of them; empty for none.
    """

    app_id: str
    instance: str
    peer_port: int
    namespace: str = "default"
    pid: int = 0
    host: str = "127.0.0.1"
    http_port: int = 0
    grpc_port: int = 0
    metrics_port: int = 0
    app_port: int = 0
    app_state: str = ""
    expired: bool = False
    admin_socket: str = ""
    mesh: str = ""
    grpc_services: tuple[str, ...] = ()
    services_learnt: bool = False
    command: str = ""
    started_at: float = 0.0
    run_template: str = ""
    cli_pid: int = 0
    app_pid: int = 0
    profile: str = ""
    app_log: str = ""
    sidecar_log: str = ""
    serving: bool = True
    extra: dict[str, str] = field(default_factory=dict)


def format_entry(entry: Entry) -> bytes:
    """An entry as JSON."""
    return msgspec.json.encode(entry, order="sorted")


def parse_entry(data: bytes) -> Entry | None:
    """The entry in a file, None if it holds none. Unknown fields are left out: a newer postern may write them."""
    try:
        return msgspec.json.decode(data, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class Registration:
    """Our own entry. Owns the descriptor that holds the lock; `close` removes the entry."""

    def __init__(self, path: Path, entry: Entry) -> None:
        """Write and lock the file.

        Raises: RegistrationError.
        """
        self._path = path
        self._lock: int | None = None
        self._entry = entry
        if _is_held(path):
            raise RegistrationError(
                path, f"instance {entry.instance} is already registered by a live process"
            )
        self.update(entry)

    @property
    def entry(self) -> Entry:
        """The entry as written last."""
        return self._entry

    def update(self, entry: Entry) -> None:
        """Replace the entry; instance and app-id stay.

        Raises: RegistrationError.
        """
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        descriptor = -1
        try:
            descriptor = os.open(temporary, _WRITE, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, format_entry(entry))
            temporary.rename(self._path)
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            raise RegistrationError(self._path, error.strerror or str(error)) from error
        previous, self._lock = self._lock, descriptor
        self._entry = entry
        if previous is not None:
            os.close(previous)

    def withdraw(self) -> None:
        """Tell the others to send no new calls; the entry stays listed until `close`."""
        if self._lock is not None and self._entry.serving:
            self.update(replace(self._entry, serving=False))

    def close(self) -> None:
        """Remove the entry and free the lock; again is harmless."""
        if self._lock is None:
            return
        self._path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None


class HostRegistry:
    """The registry directory in a runtime root. Owns a cache of parsed files."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "registry"
        self._parsed: dict[str, tuple[int, int, Entry | None]] = {}  # file name -> inode, mtime, entry
        self._told: set[str] = set()  # names that are not regular files, told once

    def register(self, entry: Entry) -> Registration:
        """Write our entry and hold it until the registration is closed or this process ends.

        Raises: RegistrationError.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RegistrationError(self._folder, error.strerror or str(error)) from error
        name = f"{_prefix(entry.app_id)}{quote(entry.instance, safe='')}.json"
        return Registration(self._folder / name, entry)

    def entries(self, app_ids: Collection[str] | None = None) -> tuple[Entry, ...]:
        """The live entries, of these app-ids or of all, ordered by app-id and start.

        Files of dead owners are removed on the way. Naming the app-ids saves looking at every other file.

        Raises: OSError where the folder can't be read just now.
        """
        prefixes = None if app_ids is None else tuple(_prefix(app_id) for app_id in app_ids)
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            names = []
        live: list[Entry] = []
        for name in names:
            if name.endswith(".tmp"):
                self._sweep(name)
            elif name.endswith(".json") and (prefixes is None or name.startswith(prefixes)):
                entry = self._read(name)
                if entry is not None and (app_ids is None or entry.app_id in app_ids):
                    live.append(entry)
        for name in self._parsed.keys() - set(names):
            del self._parsed[name]
        self._told &= set(names)
        return tuple(sorted(live, key=lambda entry: (entry.app_id, entry.started_at, entry.instance)))

    async def watch(self, callback: Callable[[tuple[Entry, ...]], None]) -> None:
        """Call back with the live entries now and within 200 ms of every change, until cancelled.

        While the folder can't be read, what was known stays.
        """
        known: tuple[Entry, ...] | None = None
        while True:
            entries = known
            with contextlib.suppress(OSError):  # out of descriptors, mostly: that passes
                entries = self.entries()
            if entries is not None and entries != known:
                known = entries
                callback(entries)
            await asyncio.sleep(POLL_S)

    def _read(self, name: str) -> Entry | None:
        """The entry in a live file; a dead one is removed."""
        path = f"{self._folder}/{name}"  # a Path would cost as much as the system calls; this runs 7 times a second
        try:
            descriptor = os.open(path, _READ)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # says nothing of the entry
            if error.errno != errno.ENOENT:
                self._skip(name, error.strerror or str(error))
            return None
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                self._skip(name, "it is not a regular file")
                return None
            if _is_unlocked(descriptor) and _is_current(path, facts):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                return None
            known = self._parsed.get(name)
            if known is None or known[:2] != (facts.st_ino, facts.st_mtime_ns):
                entry = parse_entry(os.read(descriptor, _MAX_BYTES))
                known = self._parsed[name] = (facts.st_ino, facts.st_mtime_ns, entry)
            return known[2]
        finally:
            os.close(descriptor)

    def _skip(self, name: str, reason: str) -> None:
        if name not in self._told:
            self._told.add(name)
            _LOG.warning("host registry: %r in %s is skipped: %s", name, self._folder, reason)

    def _sweep(self, name: str) -> None:
        path = self._folder / name
        try:
            if time.time() - path.stat().st_mtime > _ORPHAN_S:
                path.unlink(missing_ok=True)
        except OSError:
            return


def _prefix(app_id: str) -> str:
    """How the file names of an app-id begin; those of another may begin so too."""
    return f"{quote(app_id, safe='')}-"


def _is_held(path: Path) -> bool:
    """Whether a live owner holds the file of this name."""
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return False
    try:
        return not _is_unlocked(descriptor)
    finally:
        os.close(descriptor)


def _is_unlocked(descriptor: int) -> bool:
    """Whether the owner is gone. The shared lock taken to find out goes with the descriptor."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_current(path: str, facts: os.stat_result) -> bool:
    """Whether the path still names the file that was opened; if not, its owner has just replaced it."""
    try:
        return os.path.samestat(os.stat(path), facts)
    except OSError:
        return False
