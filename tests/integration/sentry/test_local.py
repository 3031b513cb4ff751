"""The local sentry of a runtime root: found or started, once, and gone when nobody needs it."""

import asyncio
import fcntl
import os
import select
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sentry.client import SvidClient, join_token
from sentry.errors import LocalSentryError
from sentry.local import LocalPaths, LocalSentry, answers, ensure_local_sentry, is_any_registered
from tests.integration.sentry.process import SENTRY_ID, end_local, is_alive


def pid_of(root: Path) -> int:
    return int(LocalPaths(root=root).pid.read_text())


def wait_gone(pid: int, deadline_s: float = 10) -> None:
    """Wait for the end of a process that is not our child: the kernel's own event for it."""
    descriptor = os.pidfd_open(pid)
    try:
        assert select.select([descriptor], [], [], deadline_s)[0], "the sentry still runs"
    finally:
        os.close(descriptor)


async def fetch(root: Path, local: LocalSentry) -> str:
    client = SvidClient(local.address, local.anchors, local.sentry_id, join_token(root, local.sentry_id))
    return str((await client.fetch("cart", "default", "public")).spiffe_id)


async def test_local_sentry_is_started_once_then_found(root: Path) -> None:
    first = await asyncio.to_thread(ensure_local_sentry, root)
    pid = pid_of(root)
    second = await asyncio.to_thread(ensure_local_sentry, root)
    assert (first.was_started, second.was_started) == (True, False)
    assert (second.address, second.anchors, second.sentry_id) == (first.address, first.anchors, SENTRY_ID)
    assert pid_of(root) == pid
    assert await fetch(root, second) == "spiffe://public/ns/default/cart"


def test_local_sentry_is_no_child_of_its_starter(root: Path) -> None:
    ensure_local_sentry(root)
    status = Path(f"/proc/{pid_of(root)}/status").read_text()
    assert f"PPid:\t{os.getpid()}\n" not in status


async def test_local_sentries_of_two_roots_are_two_authorities(root: Path, tmp_path: Path) -> None:
    other = root / "other"
    other.mkdir(mode=0o700)
    one, two = await asyncio.gather(
        asyncio.to_thread(ensure_local_sentry, root), asyncio.to_thread(ensure_local_sentry, other)
    )
    try:
        assert one.anchors.mesh_hash() != two.anchors.mesh_hash()
        assert await fetch(root, one) == await fetch(other, two)
    finally:
        end_local(other)


def test_local_sentry_wanted_by_many_at_once_is_started_once(root: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: ensure_local_sentry(root), range(6)))
    assert sum(local.was_started for local in found) == 1
    assert len({local.anchors.mesh_hash() for local in found}) == 1


def test_local_sentry_killed_comes_back_with_the_same_roots(root: Path) -> None:
    first = ensure_local_sentry(root)
    pid = pid_of(root)
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    second = ensure_local_sentry(root)
    assert second.was_started
    assert second.anchors == first.anchors


def test_local_sentry_unneeded_ends_and_takes_its_socket_along(root: Path) -> None:
    ensure_local_sentry(root, idle_s=0.5)
    wait_gone(pid_of(root))
    assert not LocalPaths(root=root).socket.exists()
    assert ensure_local_sentry(root, idle_s=0.5).was_started


def test_local_sentry_stays_while_a_sidecar_is_registered(root: Path) -> None:
    (root / "registry").mkdir(mode=0o700)
    path = root / "registry" / "cart.json"
    path.write_text("{}")
    with path.open() as entry:
        fcntl.flock(entry, fcntl.LOCK_EX)
        started = time.monotonic()
        ensure_local_sentry(root, idle_s=0.4)
        pid = pid_of(root)
        with pytest.raises(AssertionError):
            wait_gone(pid, 1.5)
        assert answers(LocalPaths(root=root).socket)
    wait_gone(pid)
    assert time.monotonic() - started > 1.5


def test_registry_counts_locked_files_only(root: Path) -> None:
    assert not is_any_registered(root)
    (root / "registry").mkdir()
    (root / "registry" / "dead.json").write_text("{}")
    (root / "registry" / "note.txt").write_text("{}")
    assert not is_any_registered(root)
    with (root / "registry" / "note.txt").open() as note, (root / "registry" / "dead.json").open() as entry:
        fcntl.flock(note, fcntl.LOCK_EX)
        assert not is_any_registered(root)
        fcntl.flock(entry, fcntl.LOCK_EX)
        assert is_any_registered(root)


def test_local_sentry_that_can_not_start_says_why(root: Path) -> None:
    store = root / "sentry" / "authority"
    store.mkdir(mode=0o700, parents=True)
    (root / "sentry").chmod(0o700)
    (store / "ca.crt").write_text("x")
    (store / "ca.crt").chmod(0o600)
    with pytest.raises(LocalSentryError, match=r"issuer\.crt: is missing"):
        ensure_local_sentry(root)


def test_local_sentry_in_an_open_folder_is_refused(root: Path) -> None:
    (root / "sentry").mkdir(mode=0o755)
    with pytest.raises(LocalSentryError, match="has mode"):
        ensure_local_sentry(root)


def test_local_sentry_touches_nothing_through_a_link(root: Path) -> None:
    ensure_local_sentry(root)
    paths = LocalPaths(root=root)
    paths.wanted.unlink()
    paths.wanted.symlink_to(root / "victim")
    with pytest.raises(LocalSentryError, match=r"wanted: can't be written: is a symbolic link"):
        ensure_local_sentry(root)
    assert not (root / "victim").exists()


def test_local_sentry_with_a_path_too_long_for_sockets_says_so(root: Path) -> None:
    with pytest.raises(LocalSentryError, match="too long"):
        ensure_local_sentry(root / ("x" * 100))


def test_local_sentry_started_by_another_that_hangs_is_given_up(root: Path) -> None:
    paths = LocalPaths(root=root)
    paths.folder.mkdir(mode=0o700)
    with paths.start_lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LocalSentryError, match="held by another start"):
            ensure_local_sentry(root, deadline_s=0.1)


def test_local_sentry_ignores_the_users_python_path(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "sentry_shadow").mkdir()
    (root / "sentry_shadow" / "grpc.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.setenv("PYTHONPATH", str(root / "sentry_shadow"))
    local = ensure_local_sentry(root)
    assert local.was_started
    assert is_alive(pid_of(root))


def test_local_sentry_wanted_while_its_predecessor_ends_is_started(root: Path) -> None:
    first = ensure_local_sentry(root)
    os.kill(pid_of(root), signal.SIGTERM)
    second = ensure_local_sentry(root)
    assert second.anchors == first.anchors
    third = ensure_local_sentry(root)
    assert third.anchors == first.anchors
