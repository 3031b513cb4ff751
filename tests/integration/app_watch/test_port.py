"""Does the app's port accept, and who holds it: real sockets and processes, seen without a connection."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from proxy.control.app_port import Holder, holder, listeners
from proxy.control.app_watch import AppWatch
from proxy.settings.parsing import parse
from tests.support.ports import free_port
from tests.support.processes import REPOSITORY

needs_sock_diag = pytest.mark.skipif(
    listeners("127.0.0.1", 9) is None, reason="sock_diag is not available here: the port is dialled instead"
)


@contextmanager
def child() -> Iterator[int]:
    """A process that listens nowhere; its pid."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, start_new_session=True) as process:
        yield process.pid
        process.communicate()


@needs_sock_diag
@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
def test_listener_is_seen_and_is_ours(bound: str) -> None:
    with socket.create_server((bound, 0)) as server:
        port = server.getsockname()[1]
        found = listeners("127.0.0.1", port)
        assert found is not None
        assert [(listener.address, listener.uid) for listener in found] == [(bound, os.getuid())]
        assert holder(found[0], os.getppid()) == holder(found[0], os.getpid())
        who = holder(found[0], os.getpid())
        assert (who.pid, who.is_foreign) == (os.getpid(), False)
        with child() as pid:
            assert holder(found[0], pid).is_foreign
    assert listeners("127.0.0.1", port) == ()


@needs_sock_diag
def test_listener_on_another_address_does_not_count() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        assert listeners("127.0.0.1", server.getsockname()[1]) == ()


def test_addresses_elsewhere_are_not_looked_at() -> None:
    assert listeners("192.0.2.1", 80) is None
    assert listeners("app.example", 80) is None


def test_holder_that_cannot_be_seen_is_named_by_its_user() -> None:
    told = "a process of user {} (which one only root sees: sudo ss -ltnp 'sport = :8080')"
    assert str(Holder(uid=1234, port=8080)) == told.format(1234)
    assert str(Holder(uid=0, port=8080)) == told.format("root")
    assert str(Holder(uid=0, port=8080, pid=7, name="nginx")) == "nginx (pid 7)"


@needs_sock_diag
@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to look as another user")
@pytest.mark.parametrize(("app_user", "is_foreign"), [(1234, True), (0, False)], ids=["foreign", "sudo"])
def test_holder_of_another_user_is_foreign_unless_the_app_runs_as_that_user(
    app_user: int, is_foreign: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (listener,) = listeners("127.0.0.1", server.getsockname()[1]) or ()
        with subprocess.Popen(
            ["/bin/cat"], stdin=subprocess.PIPE, user=app_user, start_new_session=True
        ) as app:
            found = subprocess.run(
                [sys.executable, "-c", _LOOK, *map(str, (listener.port, listener.inode, app.pid))],
                cwd=REPOSITORY,
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            app.communicate()
    assert found.stdout.split() == ["0", str(is_foreign)]


_LOOK = """
import os
import sys
from proxy.control.app_port import Listener, holder
os.setuid(1234)
port, inode, ours = map(int, sys.argv[1:])
found = holder(Listener(address="127.0.0.1", port=port, uid=0, inode=inode), ours)
print(found.pid, found.is_foreign)
"""


async def _until(watch: AppWatch, turned: asyncio.Event, condition: Callable[[], bool]) -> None:
    while not condition():
        turned.clear()
        await turned.wait()


async def test_port_that_closes_and_opens_again_is_told() -> None:
    port = free_port()
    settings = parse(["--app-id", "web", "--app-port", str(port)], {"POSTERN_HOME": "/nowhere"})
    turned = asyncio.Event()
    watch = AppWatch(settings, turned.set)
    assert (watch.state, watch.takes_calls) == ("starting", False)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watch.run())
        for _ in range(2):
            server = socket.create_server(("127.0.0.1", port), backlog=16)
            await _until(watch, turned, lambda: watch.is_open)
            assert (watch.state, watch.takes_calls) == ("listening", True)
            server.close()
            watch.doubt()  # a call could not be given to it
            await _until(watch, turned, lambda: not watch.is_open)
            assert (watch.state, watch.takes_calls) == ("down", False)
        task.cancel()


@needs_sock_diag
async def test_holder_that_is_not_the_app_is_told() -> None:
    with child() as pid, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        settings = parse(["--app-id", "web", "--app-port", str(port)], {"POSTERN_HOME": "/nowhere"})
        watch = AppWatch(settings, lambda: None, lambda: pid)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(watch.run())
            while watch.held_by is None:  # noqa: ASYNC110 - nobody is told of it
                await asyncio.sleep(0.01)
            task.cancel()
    assert (watch.held_by.pid, watch.held_by.is_foreign) == (os.getpid(), True)
