"""What Dapr's own commands do with our daprd.

No registry has them as a package, so what they do is done here: which program is started with which words, how they find it among all
processes, what they ask and tell it, and how they end it (pkg/standalone of dapr/cli, 1.18).
"""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Commands
from tests.support.apps import App
from tests.support.http_client import request
from tests.support.ports import free_ports
from tests.support.processes import Process

_START_S = 60.0
_PAUSE_S = 0.05


@dataclass(frozen=True)
class Listed:
    """A row of `dapr list`."""

    app_id: str
    http_port: int
    grpc_port: int
    app_port: int
    pid: int
    extended: dict[str, str]


class Dapr:
    """Dapr's commands, in a home folder of their own."""

    def __init__(self, commands: Commands, home: Path) -> None:
        self.commands = commands
        self.home = home
        self.daprd = home / ".dapr" / "bin" / "daprd"
        self._env = {"HOME": str(home), "POSTERN_HOME": str(commands.mesh.root)}

    async def postern(self, *words: str) -> tuple[int, str]:
        """Run `postern …` in that home."""
        process = self.commands.start(*words, env=self._env)
        return await process.ended(timeout_s=30.0), process.output

    def start(self, *words: str) -> Process:
        """The program that all commands start."""
        return self.commands.mesh.processes.start([self.daprd, *words], name="daprd", env=self._env)

    async def run(self, app_id: str, app: App | None, *more: str) -> tuple[Process, int]:
        """`dapr run`: the sidecar with its words, then what it is told of the run; its HTTP port."""
        http, grpc, metrics, peer = free_ports(4)
        folder = self.home / ".dapr"
        process = self.start(
            *("--config", str(folder / "config.yaml"), "--app-protocol", "http", "--log-level", "info"),
            *("--app-max-concurrency", "-1", "--placement-host-address", "localhost:50005"),
            *("--resources-path", str(folder / "components"), "--max-body-size", "4Mi"),
            *("--read-buffer-size", "4Ki", "--scheduler-host-address", "localhost:50006", *more),
            *("--app-id", app_id, "--app-port", str(app.port if app else 0)),
            *("--dapr-http-port", str(http), "--dapr-grpc-port", str(grpc), "--profile-port", "-1"),
            *("--metrics-port", str(metrics), "--dapr-internal-grpc-port", str(peer)),
        )
        told = {"cliPID": str(os.getpid()), "appPID": "1234", "appCommand": "python app.py"}
        for key, text in told.items():
            await self._put(http, f"/v1.0/metadata/{key}", text, process)
        return process, http

    async def _put(self, port: int, target: str, body: str, process: Process) -> None:
        async with asyncio.timeout(_START_S):
            while process.is_running:
                try:
                    answer = await request(port, "PUT", target, body=body.encode())
                except OSError:
                    await asyncio.sleep(_PAUSE_S)  # tried again as by the commands
                    continue
                assert answer.status == 204, answer.body
                return
        raise AssertionError(process.tail)

    async def list(self) -> dict[str, Listed]:
        """`dapr list`, by app-id: every process of the name, as its words and its metadata tell."""
        found = {}
        for pid, words in _daprds(self.home):
            flags = _parsed(words)
            port = int(flags["--dapr-http-port"])
            metadata = json.loads((await request(port, "GET", "/v1.0/metadata")).body)
            found[flags["--app-id"]] = Listed(
                app_id=flags["--app-id"],
                http_port=port,
                grpc_port=int(flags["--dapr-grpc-port"]),
                app_port=int(flags["--app-port"]),
                pid=pid,
                extended=metadata["extended"],
            )
        return found


def _daprds(home: Path) -> Iterator[tuple[int, list[str]]]:
    """The processes that are called `daprd`, of this home (others' tests run beside us), with their words."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            name = (folder / "stat").read_text().partition("(")[2].rpartition(")")[0]
            words = (folder / "cmdline").read_text().rstrip("\0").split("\0")
        except OSError:
            continue
        if name == "daprd" and any(str(home) in word for word in words):
            yield int(folder.name), words


def _parsed(words: list[str]) -> dict[str, str]:
    """As `dapr list` pairs them: the program's name is left out, and a word after a flag is its value."""
    flags, rest = {}, words[1:]
    while len(rest) > 1:
        is_alone = rest[1].startswith("--")
        flags[rest[0]] = "" if is_alone else rest[1]
        rest = rest[1 if is_alone else 2 :]
    return flags


@pytest.fixture
async def dapr(commands: Commands, tmp_path: Path) -> Dapr:
    """Dapr's commands, with our shim."""
    home = tmp_path / "home"
    home.mkdir()
    started = Dapr(commands, home)
    code, said = await started.postern("init", "--shim")
    assert code == 0, said
    return started


@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="Dapr's commands find us by name on Linux")
async def test_daprs_commands_start_list_call_and_stop_us(dapr: Dapr, http_app: App) -> None:
    cart, _ = await dapr.run(
        "cart", http_app, "--enable-app-health-check", "--app-health-check-path", "/echo"
    )
    web, port = await dapr.run("web", None)
    listed = await dapr.list()
    assert set(listed) == {"cart", "web"}
    assert (listed["cart"].pid, listed["cart"].app_port) == (cart.pid, http_app.port)
    told = listed["cart"].extended
    assert (told["cliPID"], told["appPID"], told["appCommand"]) == (str(os.getpid()), "1234", "python app.py")
    for through in (listed["cart"].http_port, port):  # `dapr invoke` asks the callee's own sidecar
        answer = await request(
            through,
            "POST",
            "/v1.0/invoke/cart/method/echo",
            headers=[("Content-Type", "application/json")],
            body=b"{}",
        )
        assert answer.status == 200, answer.body
    os.kill(listed["web"].pid, signal.SIGTERM)  # `dapr stop`
    assert await web.ended() == 0
    assert set(await dapr.list()) == {"cart"}


async def test_flag_that_is_emptied_with_its_value_left_is_ignored(dapr: Dapr) -> None:
    process, _ = await dapr.run("web", None, "", "localhost:50006")
    await process.line("ignored, as daprd does: 'localhost:50006': unexpected argument")


async def test_version_is_one_line_that_daprs_commands_can_compare(dapr: Dapr) -> None:
    process = dapr.start("--version")
    assert await process.ended() == 0
    assert process.output.startswith("1.18.3+postern.")
    assert len(process.output.splitlines()) == 1


async def test_shim_leaves_another_daprd_alone_unless_told_and_gives_it_back(dapr: Dapr) -> None:
    bin_folder = dapr.daprd.parent
    code, said = await dapr.postern("init", "--shim")
    assert code == 0, said  # again is harmless
    code, said = await dapr.postern("uninstall")
    assert (code, dapr.daprd.exists()) == (0, False), said
    code, said = await dapr.postern("uninstall")
    assert (code, "is not there: nothing to take away" in said) == (1, True)
    dapr.daprd.write_bytes(b"\x7fELF of Dapr's")
    code, said = await dapr.postern("init", "--shim")
    assert (code, "is not postern's: Dapr's own daprd, it seems; --force keeps it" in said) == (1, True)
    assert dapr.daprd.read_bytes() == b"\x7fELF of Dapr's"
    code, said = await dapr.postern("uninstall")
    assert (code, "is not postern's: nothing to take away" in said) == (1, True)
    code, said = await dapr.postern("init", "--shim", "--force")
    assert (code, (bin_folder / "daprd.before-postern").exists()) == (0, True), said
    assert dapr.daprd.read_bytes().startswith(b"#!/bin/sh")
    code, said = await dapr.postern("uninstall")
    assert (code, dapr.daprd.read_bytes()) == (0, b"\x7fELF of Dapr's"), said
    assert sorted(path.name for path in bin_folder.iterdir()) == ["daprd"]


async def test_shim_makes_what_daprs_commands_need_and_changes_nothing_there(dapr: Dapr) -> None:
    folder = dapr.home / ".dapr"
    assert (folder / "components").is_dir()
    assert "kind: Configuration" in (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text("mine")
    code, said = await dapr.postern("init", "--shim", "--dapr-path", str(dapr.home))
    assert (code, (folder / "config.yaml").read_text()) == (0, "mine"), said
    code, said = await dapr.postern("init", "--force")
    assert (code, "--force is for --shim" in said) == (2, True)
