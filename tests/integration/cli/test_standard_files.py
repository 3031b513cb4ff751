"""Commands and sidecars whose standard output can't be written to, or is closed."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli.conftest import POSTERN
from tests.support.mesh import Mesh
from tests.support.ports import free_port
from tests.support.readiness import OUTBOUND_HEALTH, wait_status

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full and /proc are Linux's")


def ran(shell: str, *words: str) -> tuple[int, str]:
    """What a command ends with and writes to standard error, with its streams as a shell says."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$@" {shell}', "sh", *POSTERN, *words],
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("words", [("version",), ("get", "all", "-o", "json")])
def test_output_that_cannot_be_written_is_told(tmp_path: Path, words: tuple[str, ...]) -> None:
    root = ("--runtime-path", str(tmp_path)) if words[0] == "get" else ()
    code, said = ran("> /dev/full", *words, *root)
    assert (code, said) == (1, "postern: its output can't be written: No space left on device\n")


@pytest.mark.parametrize("shell", [">&-", "<&- >&-"])
@pytest.mark.parametrize("words", [("version",), ("get", "all", "-o", "json")])
def test_closed_output_is_nobodys(tmp_path: Path, shell: str, words: tuple[str, ...]) -> None:
    root = ("--runtime-path", str(tmp_path)) if words[0] == "get" else ()
    assert ran(shell, *words, *root) == (0, "")


async def test_no_file_of_a_sidecar_takes_the_number_of_its_closed_output(mesh: Mesh) -> None:
    await mesh.start_sentry()
    port = free_port()
    words = mesh.arguments("web", flags=("--dapr-http-port", str(port)))
    command = ["/bin/sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-I", "-m", "proxy", *words]
    process = mesh.processes.start(command, name="web")
    await asyncio.to_thread(wait_status, port, OUTBOUND_HEALTH, 204, process)
    assert [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (0, 1)] == ["/dev/null"] * 2
    assert "Traceback" not in process.output
