"""The host registry over real files and real processes."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from nameresolution.directory import Directory
from nameresolution.errors import RegistrationError
from nameresolution.host_registry import Entry, HostRegistry
from nameresolution.registry_resolver import RegistryResolver
from nameresolution.resolver import AppName, EndpointSet

ENTRY = Entry(app_id="cart", instance="a1", peer_port=50002, pid=os.getpid())
CART = AppName("cart", "default")
HOLDER = """
import sys
from pathlib import Path
from nameresolution.host_registry import Entry, HostRegistry
held = HostRegistry(Path(sys.argv[1])).register(Entry(app_id="cart", instance="child", peer_port=50007))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds an entry until it is ended."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.wait(10)
        child.stdout.close()
        child.stdin.close()


def test_entry_is_seen_updated_and_gone_after_close(tmp_path: Path) -> None:
    registry, reader = HostRegistry(tmp_path), HostRegistry(tmp_path)
    held = registry.register(ENTRY)
    assert reader.entries() == (ENTRY,)
    held.update(replace(ENTRY, grpc_services=("shop.Cart",)))
    assert reader.entries()[0].grpc_services == ("shop.Cart",)
    held.close()
    held.close()
    assert reader.entries() == ()
    assert list((tmp_path / "registry").iterdir()) == []


def test_entry_file_is_private(tmp_path: Path) -> None:
    held = HostRegistry(tmp_path).register(ENTRY)
    (path,) = (tmp_path / "registry").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    held.close()


def test_app_id_with_a_slash_stays_in_the_folder(tmp_path: Path) -> None:
    held = HostRegistry(tmp_path).register(replace(ENTRY, app_id="../cart"))
    assert [entry.app_id for entry in HostRegistry(tmp_path).entries()] == ["../cart"]
    held.close()


def test_entries_of_one_app_id_leave_out_those_whose_name_begins_like_it(tmp_path: Path) -> None:
    registry = HostRegistry(tmp_path)
    held = [registry.register(replace(ENTRY, app_id=app_id)) for app_id in ("cart", "cart-a1", "pay")]
    assert [entry.app_id for entry in registry.entries({"cart"})] == ["cart"]
    assert [entry.app_id for entry in registry.entries({"cart-a1", "pay"})] == ["cart-a1", "pay"]
    assert registry.entries(set()) == ()
    assert len(registry.entries()) == 3
    for registration in held:
        registration.close()


def test_same_instance_twice_is_refused(tmp_path: Path) -> None:
    held = HostRegistry(tmp_path).register(ENTRY)
    with pytest.raises(RegistrationError, match="already registered"):
        HostRegistry(tmp_path).register(ENTRY)
    held.close()
    HostRegistry(tmp_path).register(ENTRY).close()


def test_unreadable_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    registry = HostRegistry(tmp_path)
    held = registry.register(ENTRY)
    (folder / "notes.txt").write_text("x")
    (folder / "dead-1.json").write_text("{")
    (folder / "link.json").symlink_to("/etc/passwd")
    assert registry.entries() == (ENTRY,)
    assert not (folder / "dead-1.json").exists()
    held.close()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_file_is_skipped_and_told_once(
    tmp_path: Path, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    registry = HostRegistry(tmp_path)
    held = registry.register(ENTRY)
    make(tmp_path / "registry" / "cart-odd.json")
    for _ in range(2):
        assert registry.entries({"cart"}) == (ENTRY,)
    assert [record.getMessage().partition(" in ")[0] for record in caplog.records] == [
        "host registry: 'cart-odd.json'"
    ]
    assert os.path.lexists(tmp_path / "registry" / "cart-odd.json"), "what is not ours is left alone"
    held.close()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_entry_whose_place_is_taken_by_no_file_is_refused(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / "registry").mkdir()
    make(tmp_path / "registry" / ".cart-a1.json.tmp")
    with pytest.raises(RegistrationError):
        HostRegistry(tmp_path).register(ENTRY)


async def test_registry_that_is_no_folder_is_a_source_that_failed(tmp_path: Path) -> None:
    (tmp_path / "registry").write_text("")
    directory = Directory([RegistryResolver(HostRegistry(tmp_path))])
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(directory.run())
        directory.want(CART)
        while directory.get(CART) is None:  # noqa: ASYNC110 - its outcome is what is asked for
            await asyncio.sleep(0.01)
        task.cancel()
    assert directory.explain(CART) == "host registry: can't be read: Not a directory"


async def test_watch_outlives_a_folder_that_cannot_be_read_for_a_while(tmp_path: Path) -> None:
    registry = HostRegistry(tmp_path)
    seen: list[tuple[Entry, ...]] = []
    told = asyncio.Event()

    def heard(entries: tuple[Entry, ...]) -> None:
        seen.append(entries)
        told.set()

    async with asyncio.TaskGroup() as tasks, asyncio.timeout(10.0):
        watching = tasks.create_task(registry.watch(heard))
        registration = registry.register(ENTRY)
        await told.wait()
        folder, away = tmp_path / "registry", tmp_path / "away"
        folder.rename(away)
        folder.write_text("no folder")
        polled = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, polled.set)
        await polled.wait()
        assert len(seen) == 1
        folder.unlink()
        away.rename(folder)
        told.clear()
        registration.close()
        await told.wait()
        watching.cancel()
    assert seen == [(ENTRY,), ()]


def test_entry_that_cannot_be_opened_for_want_of_descriptors_is_not_gone(tmp_path: Path) -> None:
    registry = HostRegistry(tmp_path)
    registration = registry.register(ENTRY)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open(tmp_path, os.O_RDONLY)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            registry.entries()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert registry.entries() == (ENTRY,)
    registration.close()


def test_sigkill_frees_the_entry_and_its_file_is_removed(tmp_path: Path) -> None:
    registry = HostRegistry(tmp_path)
    with holder(tmp_path) as child:
        assert [entry.instance for entry in registry.entries()] == ["child"]
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        assert registry.entries() == ()
        assert list((tmp_path / "registry").iterdir()) == []


def test_reader_never_sees_half_an_entry_or_none_while_the_owner_rewrites(tmp_path: Path) -> None:
    registry = HostRegistry(tmp_path)
    code = (
        "import itertools, sys\nfrom pathlib import Path\nfrom msgspec.structs import replace\n"
        "from nameresolution.host_registry import Entry, HostRegistry\n"
        "entry = Entry(app_id='cart', instance='child', peer_port=1)\n"
        "held = HostRegistry(Path(sys.argv[1])).register(entry)\n"
        "print('held', flush=True)\n"
        "for number in itertools.count():\n"
        "    held.update(replace(entry, peer_port=number % 60_000, command='x' * (number % 2) * 20000))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "held\n"
            seen = set()
            for _ in range(2_000):
                entries = registry.entries()
                assert len(entries) == 1
                assert entries[0].command in {"", "x" * 20000}
                seen.add(entries[0].peer_port)
        finally:
            child.kill()
    assert len(seen) > 1


async def test_directory_follows_the_registry_in_time(tmp_path: Path) -> None:
    directory = Directory([RegistryResolver(HostRegistry(tmp_path))])
    arrived: asyncio.Queue[EndpointSet] = asyncio.Queue()
    directory.subscribe(arrived.put_nowait)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(directory.run())
        await directory.wait_running()
        directory.want(CART)
        assert (await arrived.get()).tried == ("host registry: no entry",)
        with holder(tmp_path) as child:
            found = await arrived.get()
            assert [endpoint.address for endpoint in found.endpoints] == ["127.0.0.1:50007"]
            assert directory.get(CART) == found
            killed_at = time.monotonic()
            child.send_signal(signal.SIGKILL)
            assert (await arrived.get()).endpoints == ()
            assert time.monotonic() - killed_at < 15.0
        running.cancel()


async def test_withdrawn_entry_stays_listed_but_is_no_endpoint(tmp_path: Path) -> None:
    held = HostRegistry(tmp_path).register(ENTRY)
    directory = Directory([RegistryResolver(HostRegistry(tmp_path))])
    arrived: asyncio.Queue[EndpointSet] = asyncio.Queue()
    directory.subscribe(arrived.put_nowait)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(directory.run())
        directory.want(CART)
        assert len((await arrived.get()).endpoints) == 1
        held.withdraw()
        assert (await arrived.get()).endpoints == ()
        running.cancel()
    assert [entry.serving for entry in HostRegistry(tmp_path).entries()] == [False]
    held.close()
