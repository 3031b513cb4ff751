"""What the environment does to a command (a full disk, a read-only place, Ctrl-C at once) is told in a line, never a traceback."""

import asyncio
import errno
import os
import signal
from pathlib import Path

import pytest

from tests.integration.cli.conftest import POSTERN, Commands
from tests.support.processes import Process

FREE = ("--dapr-http-port=0", "--dapr-grpc-port=0", "--metrics-port=0", "--insecure-plaintext")


def start_without_disk(commands: Commands, *words: str) -> Process:
    """Start a command that may write no byte to a file, as on a full disk."""
    return commands.mesh.processes.start(
        ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *POSTERN, *words],
        name="no disk",
        env={"POSTERN_HOME": str(commands.mesh.root)},
        cwd=commands.folder,
    )


@pytest.mark.parametrize("words", [("sidecar",), ("run",)])
async def test_full_disk_is_told_with_the_file_and_the_reason(
    commands: Commands, words: tuple[str, ...]
) -> None:
    process = start_without_disk(commands, *words, "--app-id=cart", *FREE)
    assert await process.ended(timeout_s=30.0) == 1
    assert f"host registry {commands.mesh.root}" in process.output
    assert "File too large" in process.output
    assert "Traceback" not in process.output


async def test_log_file_that_cannot_be_made_is_told_by_its_path(commands: Commands) -> None:
    (commands.folder / ".dapr").write_text("a file where a folder belongs")
    run = commands.run_file("version: 1\napps: [{appID: cart, appDirPath: ., command: [echo, up]}]\n")
    assert await run.ended(timeout_s=30.0) == 1
    assert f"{commands.folder}/.dapr/logs: Not a directory" in run.output
    assert "Traceback" not in run.output


async def test_ctrl_c_before_a_command_has_handlers_ends_it_quietly(commands: Commands) -> None:
    fifo = commands.folder / "slow.yaml"
    os.mkfifo(fifo)
    process = commands.start("run", "-f", str(fifo))
    writer = await opened_by_its_reader(fifo)
    process.send_signal(signal.SIGINT)
    os.close(writer)  # a signal just before a read begins is seen after it
    assert await process.ended(timeout_s=10.0) == 130
    assert process.output == ""


async def opened_by_its_reader(fifo: Path) -> int:
    """The writing end of a pipe, once somebody has opened the other."""
    async with asyncio.timeout(60.0):
        while True:
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            await asyncio.sleep(0.02)
