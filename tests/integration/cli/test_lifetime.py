"""A sidecar's life: signals, the supervisor's end of the socket, and what is said on it."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from proxy.control.lifetime import Lifetime


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, int]]:
    """The supervisor's end of a socket, and the descriptor of ours."""
    supervisor, ours = socket.socketpair()
    supervisor.settimeout(5.0)
    yield supervisor, ours.detach()
    supervisor.close()


async def test_first_signal_stops_and_second_exits_at_once() -> None:
    codes: list[int] = []
    exited = asyncio.Event()

    def note(code: int) -> None:
        codes.append(code)
        exited.set()

    with Lifetime(None, supervised=False, exit_at_once=note) as lifetime:
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(lifetime.stop_asked(), 5.0) == "SIGTERM"
        assert codes == []
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(exited.wait(), 5.0)
    assert codes == [130]


async def test_first_reason_stays() -> None:
    with Lifetime(None, supervised=False) as lifetime:
        lifetime.stop("api")
        lifetime.stop("other")
        assert await lifetime.stop_asked() == "api"


async def test_signal_after_the_api_is_a_first_signal() -> None:
    with Lifetime(
        None, supervised=False, exit_at_once=lambda code: pytest.fail(f"exited with {code}")
    ) as lifetime:
        lifetime.stop("api")
        os.kill(os.getpid(), signal.SIGTERM)
        assert not await lifetime.app_ended(0.05)


async def test_supervisor_hears_ready_and_drained_and_says_that_the_app_has_ended(
    ends: tuple[socket.socket, int],
) -> None:
    supervisor, descriptor = ends
    with Lifetime(descriptor, supervised=True) as lifetime:
        lifetime.ready({"ports": {"http": 1}})
        lifetime.drained()
        lines = (await asyncio.to_thread(supervisor.recv, 4096)).splitlines()
        assert [json.loads(line) for line in lines] == [{"ports": {"http": 1}}, {"drained": True}]
        assert not await lifetime.app_ended(0.05)
        supervisor.shutdown(socket.SHUT_WR)
        assert await lifetime.app_ended(5.0)
        assert await lifetime.stop_asked() == "app or supervisor ended"
    assert await asyncio.to_thread(supervisor.recv, 16) == b""


async def test_death_of_the_supervisor_stops_the_sidecar(ends: tuple[socket.socket, int]) -> None:
    supervisor, descriptor = ends
    with Lifetime(descriptor, supervised=True) as lifetime:
        supervisor.close()
        assert await asyncio.wait_for(lifetime.stop_asked(), 5.0)
        lifetime.drained()


async def test_one_who_only_waits_for_ready_may_leave(ends: tuple[socket.socket, int]) -> None:
    supervisor, descriptor = ends
    with Lifetime(descriptor, supervised=False) as lifetime:
        lifetime.ready({"ports": {}})
        assert json.loads(await asyncio.to_thread(supervisor.recv, 4096)) == {"ports": {}}
        assert await asyncio.to_thread(supervisor.recv, 16) == b""
        supervisor.close()
        assert not await lifetime.app_ended(0.05)
        assert lifetime.reason == ""


async def test_hangup_asks_for_a_reload_and_ends_nothing() -> None:
    with Lifetime(None, supervised=False) as lifetime:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.wait_for(lifetime.reload_asked.wait(), 5.0)
        assert lifetime.reason == ""


async def test_hangup_of_the_terminal_that_it_was_started_in_ends_it() -> None:
    leader, terminal = os.openpty()
    kept = os.dup(0)
    try:
        os.dup2(terminal, 0)
        os.close(terminal)
        with Lifetime(None, supervised=False) as lifetime:
            os.close(leader)
            os.kill(os.getpid(), signal.SIGHUP)
            assert await asyncio.wait_for(lifetime.stop_asked(), 5.0) == "SIGHUP"
            assert lifetime.by_signal
    finally:
        os.dup2(kept, 0)
        os.close(kept)
