"""Processes under test start, are waited for, end, and never stay behind."""

import sys

import psutil
import pytest

from tests.support.errors import LeftoverError, NotReadyError, ProcessEndedError
from tests.support.netns import Host
from tests.support.processes import Processes

SLEEPER = "import subprocess as s; print(s.Popen(['sleep', '60'], stdout=s.DEVNULL, stderr=s.DEVNULL, start_new_session=True).pid)"


def test_wait_line_that_never_comes_names_what_was_printed(processes: Processes) -> None:
    process = processes.start([sys.executable, "-c", "print('hello'); input()"], name="short")
    with pytest.raises(ProcessEndedError, match="hello"):
        process.wait_line("ready")


def test_wait_line_of_a_silent_process_ends_at_the_deadline(processes: Processes) -> None:
    process = processes.start(["sleep", "60"], name="silent")
    with pytest.raises(NotReadyError, match=r"silent.* \(.* s of CPU used\)"):
        process.wait_line("ready", timeout_s=0.05)
    assert process.stop() == -15


def test_leftover_grandchild_is_reported_and_killed() -> None:
    scope = Processes()
    parent = scope.start([sys.executable, "-c", SLEEPER], name="parent")
    grandchild = int(parent.wait_line(r"^\d+$").string)
    parent.wait_end()
    with pytest.raises(LeftoverError, match="sleep 60"):
        scope.close(grace_s=0.1)
    psutil.wait_procs([psutil.Process(grandchild)] if psutil.pid_exists(grandchild) else [], timeout=2)
    assert not scope.leftovers()


def test_joined_hosts_reach_each_other_and_nothing_else(
    two_hosts: tuple[Host, Host], processes: Processes
) -> None:
    server, client = two_hosts
    listen = f"import socket; s=socket.create_server(({server.address!r}, 0)); print(s.getsockname()[1], flush=True); s.accept()"
    process = processes.start(server.command([sys.executable, "-c", listen]), name="listener")
    port = process.wait_line(r"^\d+$").string
    connect = f"import socket; socket.create_connection(({server.address!r}, {port}), 5); print('joined')"
    assert "joined" in client.run(sys.executable, "-c", connect)
    assert process.wait_end() == 0
