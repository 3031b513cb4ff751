"""The mesh under the shop, driven by the `postern` command alone: run, ask, stop."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from types import TracebackType

import yaml

from examples.boutique.errors import CommandFailedError, DemoError
from examples.boutique.processes import Deadline, end

PROJECT = Path(__file__).parents[2]
RUN_FILE = Path(__file__).with_name("mesh.yaml")
CONFIGURATION = RUN_FILE.with_name("config.yaml")
BIN = Path(sys.executable).parent
COMMAND_S = 30.0
TAIL_LINES = 15
STOP_S = 40.0
FORCED_STOP_S = 5.0
DASHBOARD_STOP_S = 5.0
MAX_HOME_BYTES = 60  # a unix socket's path holds 107 bytes, and the sockets lie in this folder

_PAGE = re.compile(rb"frontend listening on (127\.0\.0\.1:[0-9]+)")


class Mesh:
    """One `postern run -f` and all it starts. `_page_known` guards `_page`, written by the log's thread."""

    def __init__(self, run_file: Path, folder: Path) -> None:
        self.home = runtime_root(folder)
        self.log = folder / "mesh.log"
        self.ended_cleanly = False
        self._env = {
            **os.environ,
            "POSTERN_HOME": str(self.home),
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        log = self.log.open("wb", buffering=0)
        self._page = ""
        self._page_known = threading.Event()
        self._process = subprocess.Popen(
            [BIN / "postern", "run", "-f", run_file],
            cwd=PROJECT,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the demonstration, which then stops the mesh once
        )
        self._copier = threading.Thread(target=self._copy_log, args=(log,), name="log", daemon=True)
        self._copier.start()

    def __enter__(self) -> "Mesh":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def page(self, deadline: Deadline) -> str:
        """The front end's address, once it listens. Raises: DemoError."""
        while not self._page_known.is_set():
            self.wait_on("the front end did not start", deadline)
        return self._page

    def wait_on(self, problem: str, deadline: Deadline) -> None:
        """Let a moment pass. Raises: DemoError, if it is too late or the mesh has ended."""
        if deadline.is_past():
            raise DemoError(f"{problem} in time; all of it is in {self.log}\n{self.tail()}")
        if not deadline.pause(self._process):
            self._copier.join(COMMAND_S)
            raise DemoError(f"{problem}: postern run ended with {self._process.returncode}\n{self.tail()}")

    @contextmanager
    def dashboard(self) -> Iterator[str]:
        """A dashboard of this mesh: its link. It ends with the block. Raises: DemoError."""
        with subprocess.Popen(
            [BIN / "postern", "dashboard", "--no-open"],
            cwd=PROJECT,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            try:
                said = process.stdout.readline().strip()  # it says the link, or why it ends
                if not said.startswith("http://"):
                    raise DemoError(f"postern dashboard: {said or 'it said nothing'}")
                yield said
            finally:
                process.terminate()
                end(process, DASHBOARD_STOP_S)

    def wait(self) -> int:
        """Blocks until the mesh ends by itself; gives its exit code."""
        return self._process.wait()

    def command(self, *arguments: str) -> str:
        """What a `postern` command says. Raises: CommandFailedError."""
        try:
            done = subprocess.run(
                [BIN / "postern", *arguments],
                cwd=PROJECT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandFailedError(
                f"postern {' '.join(arguments)}: no answer in {COMMAND_S:.0f} s"
            ) from error
        if done.returncode:
            raise CommandFailedError(
                f"postern {' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()}"
            )
        return done.stdout

    def ask(self, *arguments: str) -> object:
        """What a `postern` command says in JSON. Raises: CommandFailedError."""
        text = self.command(*arguments, "-o", "json")
        try:
            return json.loads(text)
        except ValueError as error:
            raise CommandFailedError(
                f"postern {' '.join(arguments)}: expected JSON, got {text[:200]!r}"
            ) from error

    def tail(self) -> str:
        """What failed, as the log has it, and its last lines."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        failures = [line for line in lines[:-TAIL_LINES] if line.startswith("✗") or " level=error " in line]
        return "\n".join((*failures[:TAIL_LINES], *lines[-TAIL_LINES:]))

    def stop(self) -> None:
        """Ask the mesh to end, as Ctrl-C does; kill it if it stays."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self.ended_cleanly = end(self._process, STOP_S)
            except KeyboardInterrupt:
                self._process.send_signal(signal.SIGINT)  # the second one hurries it
                end(self._process, FORCED_STOP_S)
        self._copier.join(STOP_S)
        if not self.home.is_relative_to(self.log.parent):
            shutil.rmtree(self.home, ignore_errors=True)

    def _copy_log(self, log: FileIO) -> None:
        """Write what the mesh says to the log, and close it; notice where the page is."""
        assert self._process.stdout is not None
        with self._process.stdout as lines, log:
            for line in lines:
                log.write(line)
                found = None if self._page_known.is_set() else _PAGE.search(line)
                if found:
                    self._page = found[1].decode()
                    self._page_known.set()


def runtime_root(folder: Path) -> Path:
    """A folder of our own for the mesh: below `folder`, unless its name would be too long for sockets."""
    home = folder / "home"
    if len(os.fsencode(home)) > MAX_HOME_BYTES:
        return Path(tempfile.mkdtemp(prefix="boutique-"))
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home


def configuration_with_zipkin(folder: Path, spans_url: str) -> Path:
    """A copy of the Configuration that sends every span to Zipkin as well."""
    configuration = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))
    configuration["spec"]["tracing"]["zipkin"] = {"endpointAddress": spans_url}
    written = folder / "config.yaml"
    written.write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")
    return written


def run_file_in(folder: Path, configuration: Path) -> Path:
    """A copy of the run file with this Configuration, whose logs go into files in the folder, too."""
    shutil.rmtree(folder / ".dapr" / "logs", ignore_errors=True)  # of the demonstration before
    run = yaml.safe_load(RUN_FILE.read_text(encoding="utf-8"))
    common = run["common"]
    common["configFilePath"] = str(configuration)
    common["appLogDestination"] = common["daprdLogDestination"] = "fileAndConsole"
    common["env"] = {**common.get("env", {}), "PYTHONPATH": str(PROJECT)}
    common["resourcesPaths"] = [str(RUN_FILE.with_name("resources"))]
    for app in run["apps"]:
        app["appDirPath"] = str(folder)
    written = folder / "mesh.yaml"
    written.write_text(yaml.safe_dump(run, sort_keys=False), encoding="utf-8")
    return written
