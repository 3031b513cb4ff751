"""The sentry of one runtime root: found running, or started detached.

Owns the paths below ROOT/sentry, the race between starters, and the small question whether any sidecar of the root is
alive. Starting is serialised by `start.lock`; the sentry takes the same lock to exit, so it never exits while
somebody has just found it.
"""

import contextlib
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from sentry.bundle import TrustBundle
from sentry.errors import BundleError, LocalSentryError, StoreError
from sentry.private_files import check_folder, make_folder, overwrite, read_file
from sentry.spiffe import SpiffeId, sentry_id

START_DEADLINE_S: Final = 10.0
IDLE_S: Final = 60.0
_MAX_SOCKET_PATH: Final = 107
_POLL_S: Final = 0.01


class LocalPaths(Struct, frozen=True, kw_only=True):
    """Where a runtime root keeps its sentry."""

    root: Path

    @property
    def folder(self) -> Path:
        """Everything of sentry."""
        return self.root / "sentry"

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "sentry.sock"

    @property
    def start_lock(self) -> Path:
        """Held while one is started, found or leaving."""
        return self.folder / "start.lock"

    @property
    def wanted(self) -> Path:
        """Touched by everyone who found it; the idle watch looks at its time."""
        return self.folder / "wanted"

    @property
    def anchors(self) -> Path:
        """The trust anchors."""
        return self.folder / "authority" / "ca.crt"

    @property
    def pid(self) -> Path:
        """Its process id, in digits; of use only while it answers."""
        return self.folder / "sentry.pid"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "sentry.log"


class LocalSentry(Struct, frozen=True, kw_only=True):
    """A sentry that answers: `address` for SvidClient, its trust anchors, its id; whether this call started it."""

    address: str
    anchors: TrustBundle
    sentry_id: SpiffeId
    was_started: bool = False


def ensure_local_sentry(
    root: Path,
    *,
    trust_domain: str = "localhost",
    namespace: str = "default",
    deadline_s: float = START_DEADLINE_S,
    idle_s: float = IDLE_S,
    extra_flags: tuple[str, ...] = (),
) -> LocalSentry:
    """Find the runtime root's sentry or start it, and return when it answers. Blocks; call it from a thread.

    `trust_domain` and `namespace` are the control plane's. Raises: LocalSentryError.
    """
    paths = LocalPaths(root=root.absolute())
    if len(os.fsencode(paths.socket)) > _MAX_SOCKET_PATH:
        raise LocalSentryError(
            f"{paths.socket} is too long for a socket ({_MAX_SOCKET_PATH} bytes): shorten the root"
        )
    end = time.monotonic() + deadline_s
    try:
        make_folder(paths.folder)
        check_folder(paths.folder)
        with _start_lock(paths.start_lock, end):
            was_started = not answers(paths.socket)
            if was_started:
                _start(paths, (trust_domain, namespace), end, idle_s, extra_flags)
            overwrite(paths.wanted, b"")
            os.utime(paths.wanted, follow_symlinks=False)
            anchors = TrustBundle.parse(read_file(paths.anchors, is_secret=False))
    except (OSError, StoreError, BundleError) as error:
        raise LocalSentryError(f"local sentry in {paths.folder}: {error}") from error
    return LocalSentry(
        address=f"unix:{paths.socket}",
        anchors=anchors,
        sentry_id=sentry_id(trust_domain, namespace),
        was_started=was_started,
    )


def answers(path: Path) -> bool:
    """Whether somebody accepts connections at the unix socket `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def is_any_registered(root: Path) -> bool:
    """Whether any file of the root's registry is locked by its owner, which is how a sidecar says that it lives."""
    try:
        entries = list(os.scandir(root / "registry"))
    except FileNotFoundError:
        return False
    return any(entry.name.endswith(".json") and _is_locked(entry.path) for entry in entries)


def take_leave(path: Path) -> int | None:
    """The start lock without waiting: its descriptor, or None while a starter holds it.

    The caller closes it, or keeps it to the end of the process, so that nobody starts a sentry before this one is gone.
    """
    descriptor = _open_lock(path)
    if _try_lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _is_locked(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def _start_lock(path: Path, end: float) -> Iterator[None]:
    # flock has no deadline of its own; the holder needs it for one start at most.
    descriptor = _open_lock(path)
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > end:
                raise LocalSentryError(f"{path} is held by another start that does not end")
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(
    paths: LocalPaths, identity: tuple[str, str], end: float, idle_s: float, extra_flags: tuple[str, ...]
) -> None:
    trust_domain, namespace = identity
    ready, said = os.pipe()
    # The shell ends at once and leaves the sentry to init: nobody here has to wait for it, however long it lives.
    command = ["/bin/sh", "-c", '"$@" &', "sh", sys.executable, "-I", "-m", "sentry"]
    command += ["--runtime-path", str(paths.root), "--unix-socket", str(paths.socket), "--healthz-port", "0"]
    command += ["--trust-domain", trust_domain, "--exit-when-idle", str(idle_s), "--ready-fd", str(said)]
    log = os.open(paths.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GRPC_"))
    }
    try:
        with subprocess.Popen(  # noqa: S603 -- our own interpreter and module
            [*command, *extra_flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(said,),
            cwd="/",
            env=environment | {"NAMESPACE": namespace},
        ) as shell:
            os.close(said)
            said = -1
        _wait_ready(ready, shell.pid, paths, end)
    finally:
        for descriptor in (ready, said, log):
            if descriptor >= 0:
                os.close(descriptor)


def _wait_ready(ready: int, session: int, paths: LocalPaths, end: float) -> None:
    readable, _, _ = select.select([ready], [], [], max(0.0, end - time.monotonic()))
    if not readable:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session, signal.SIGKILL)
    if not readable or os.read(ready, 1) == b"" or not answers(paths.socket):
        raise LocalSentryError(f"the sentry did not start; its log {paths.log} ends:\n{_tail(paths.log)}")


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2000))
        return file.read().decode(errors="replace")
