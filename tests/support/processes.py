"""Real child processes for tests: start, wait until ready, read what they say, end by pid, prove that none is left.

Output is read by one thread per process, so that a `Process` works within and outside an event loop, and outlives the loop
of one fixture. Nothing here ends a process that it did not start.
"""

import asyncio
import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from tests.support.errors import LeftoverError, NotReadyError, ProcessEndedError

MARKER: Final = "POSTERN_TEST_SCOPE"
REPOSITORY: Final = Path(__file__).resolve().parents[2]
_KEPT_LINES: Final = 20_000
_TAIL_LINES: Final = 40
# For what an ended process printed to be read: the machine may be busy, and a child that it left may keep its output open.
_LAST_WORDS_S: Final = 10.0


class Process:
    """One child and all that it has printed (stdout and stderr as one). Made by `Processes.start`."""

    def __init__(self, name: str, popen: "subprocess.Popen[str]") -> None:
        self.name = name
        self.pid = popen.pid
        self.started_at = time.monotonic()
        self._popen = popen
        # Guarded by _changed: _lines (the newest), _total (all ever read), _closed (the child shut its output).
        self._changed = threading.Condition()
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._total = 0
        self._closed = False
        self._reader = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._total += 1
                    self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def output(self) -> str:
        """What the process has printed so far."""
        with self._changed:
            return "\n".join(self._lines)

    @property
    def tail(self) -> str:
        """The end of what it has printed, for error messages."""
        with self._changed:
            return "\n".join(list(self._lines)[-_TAIL_LINES:])

    @property
    def code(self) -> int | None:
        """The exit code (negative: the signal), None while it runs."""
        return self._popen.poll()

    @property
    def is_running(self) -> bool:
        return self.code is None

    def wait_line(self, pattern: str, *, timeout_s: float = 60.0) -> re.Match[str]:
        """Block until a line of the output, printed before or after now, matches. Raises ProcessEndedError, NotReadyError."""
        wanted = re.compile(pattern)
        deadline = time.monotonic() + timeout_s
        seen = 0
        with self._changed:
            while True:
                fresh = min(self._total - seen, len(self._lines))
                for index in range(len(self._lines) - fresh, len(self._lines)):
                    if found := wanted.search(self._lines[index]):
                        return found
                seen = self._total
                if self._closed:
                    break
                if not self._changed.wait(deadline - time.monotonic()):
                    raise self.not_ready(f"line like {pattern!r}", timeout_s)
        raise ProcessEndedError(self.name, self._await_code(), self.tail)

    def not_ready(self, waited_for: str, timeout_s: float) -> NotReadyError:
        """The error of a wait in vain; it tells a process that hangs from one that had no processor."""
        try:
            doing = psutil.Process(self.pid).status()
            where = Path(f"/proc/{self.pid}/wchan").read_text()
            state = f"{doing} in {where}, {self.cpu_s():.1f} s of CPU used"
        except (OSError, psutil.Error):
            state = "gone"
        return NotReadyError(self.name, waited_for, timeout_s, state, self.tail)

    async def line(self, pattern: str, *, timeout_s: float = 60.0) -> re.Match[str]:
        """As `wait_line`, without blocking the loop."""
        return await asyncio.to_thread(self.wait_line, pattern, timeout_s=timeout_s)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def wait_end(self, *, timeout_s: float = 60.0) -> int:
        """Block until it has ended by itself; its exit code. Raises NotReadyError."""
        try:
            code = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self.not_ready("end", timeout_s) from None
        self._reader.join(_LAST_WORDS_S)
        return code

    async def ended(self, *, timeout_s: float = 60.0) -> int:
        """As `wait_end`, without blocking the loop."""
        return await asyncio.to_thread(self.wait_end, timeout_s=timeout_s)

    def stop(self, *, timeout_s: float = 30.0) -> int:
        """SIGTERM, and SIGKILL if that is not heeded in time; the exit code. Again is harmless."""
        self.send_signal(signal.SIGTERM)
        try:
            code = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = self.kill()
        self._reader.join(_LAST_WORDS_S)
        return code

    async def end(self, *, timeout_s: float = 30.0) -> int:
        """As `stop`, without blocking the loop."""
        return await asyncio.to_thread(self.stop, timeout_s=timeout_s)

    def kill(self) -> int:
        """SIGKILL, as a crash would end it; the exit code."""
        self.send_signal(signal.SIGKILL)
        return self._popen.wait(5.0)

    def cpu_s(self) -> float:
        """Processor time used so far, user and system, all threads."""
        return process_cpu_s(self.pid)

    def rss_mb(self) -> float:
        """Resident memory in MiB."""
        return float(psutil.Process(self.pid).memory_info().rss) / 2**20

    def _await_code(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._popen.wait(1.0)
        return None


class Processes:
    """A scope of child processes: what is started in it is ended with it, in reverse order, and nothing may be left.

    Every child, and whatever it starts in turn, carries the scope's id in its environment; that is how leftovers are found.
    """

    def __init__(self) -> None:
        self._scope = uuid.uuid4().hex
        self._children: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def start(
        self,
        args: Sequence[str | os.PathLike[str]],
        *,
        name: str,
        env: Mapping[str, str] | None = None,
        cwd: Path = REPOSITORY,
        pass_fds: tuple[int, ...] = (),
    ) -> Process:
        """Start a process. `env` is added to our own environment, without its POSTERN_* and DAPR_* and proxy variables."""
        popen = subprocess.Popen(
            [os.fspath(arg) for arg in args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**clean_environment(), **(env or {}), MARKER: self._scope},
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        process = Process(name, popen)
        self._children.append(process)
        return process

    def start_python(
        self, module: str, *args: str, name: str, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start a module of this repository (a test app) with unbuffered output."""
        return self.start([sys.executable, "-u", "-m", module, *args], name=name, env=env)

    def close(self, *, grace_s: float = 10.0) -> None:
        """End all of them. Raises LeftoverError when something that they started still runs `grace_s` later."""
        for child in reversed(self._children):
            if child.is_running:
                child.stop()
        leftovers = self._wait_gone(timeout_s=grace_s)
        described = tuple(_describe(process) for process in leftovers)
        for process in leftovers:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if described:
            raise LeftoverError(described)

    async def aclose(self) -> None:
        """As `close`, without blocking the loop."""
        await asyncio.to_thread(self.close)

    def leftovers(self) -> tuple[psutil.Process, ...]:
        """Every live process that was started in this scope, by us or by a child of ours."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if self._is_ours(process) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return tuple(found)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARKER) == self._scope
        except (
            psutil.AccessDenied
        ):  # whoever holds keys shows its environment to root alone: its session tells
            return os.getsid(process.pid) in {child.pid for child in self._children}

    def _wait_gone(self, *, timeout_s: float) -> tuple[psutil.Process, ...]:
        remaining = self.leftovers()
        if not remaining:
            return ()
        psutil.wait_procs(list(remaining), timeout=timeout_s)
        return self.leftovers()


def clean_environment() -> dict[str, str]:
    """Our environment without what would steer a sidecar or a client; POSTERN_ENGINE stays, to run all tests with one engine."""
    steering = (
        "POSTERN_",
        "DAPR_",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "GRPC_PROXY",
        "PYTHON",
    )
    return {
        key: value
        for key, value in os.environ.items()
        if key == "POSTERN_ENGINE" or not key.upper().startswith(steering)
    }


def process_cpu_s(pid: int) -> float:
    """Processor time of a process and its ended children of the same pid: utime + stime of /proc/<pid>/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_line(fd: int, process: Process, *, waited_for: str, timeout_s: float) -> str:
    """Read one line from a pipe that only `process` writes to. Raises ProcessEndedError, NotReadyError."""
    deadline = time.monotonic() + timeout_s
    collected = bytearray()
    while not collected.endswith(b"\n"):
        readable, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise process.not_ready(waited_for, timeout_s)
        chunk = os.read(fd, 65536)
        if not chunk:
            process.wait_end(timeout_s=5.0)
            raise ProcessEndedError(process.name, process.code, process.tail)
        collected += chunk
    return collected.decode()


def _describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"pid {process.pid} {' '.join(process.cmdline())[:200]}"
    return f"pid {process.pid}"
