"""Child processes of `postern run`: each in a process group of its own, known to the guard, its output read line by line."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy.cli.errors import CliError
from proxy.cli.output import LineSplitter

GUARD = Path(__file__).with_name("guard.py")
REAP_S = 5.0  # the kernel may take a moment to end a process after KILL
GROUP_POLL_S = 0.05
_CHUNK = 64 * 1024


class Guard:
    """The process that ends our children if we are killed. Owns the pipe to it; use as a context."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 - our own file, our own interpreter
            [sys.executable, "-I", "-S", str(GUARD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            process.wait(timeout=1.0)  # it knows no group any more, so it goes at once
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def began(self, group: int) -> None:
        """A process group that must not outlive us."""
        self._tell(b"+%d\n" % group)

    def ended(self, group: int) -> None:
        """A process group that has ended; its number may be used again by others."""
        self._tell(b"-%d\n" % group)

    def _tell(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line)


class Child:
    """One child process. `ended` is set when it has exited; `code` is then its exit code, 128+n after signal n."""

    def __init__(self, process: asyncio.subprocess.Process, guard: Guard) -> None:
        self.pid = process.pid
        self.code: int | None = None
        self.ended = asyncio.Event()
        self._process = process
        self._guard = guard
        self._is_watched = True  # False: the group is gone, its number may be somebody else's

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        guard: Guard,
        env: Mapping[str, str],
        folder: Path,
        stdin: int,
        pass_fds: tuple[int, ...] = (),
    ) -> Self:
        """Start a process in a group of its own. Raises: CliError if it can't be started."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=dict(env),
                cwd=folder,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=pass_fds,
                process_group=0,
            )
        except OSError as error:
            code = 127 if isinstance(error, FileNotFoundError) else 126
            raise CliError(f"can't start {command[0]!r} in {folder}: {error.strerror}", code=code) from error
        guard.began(process.pid)
        return cls(process, guard)

    async def watch(
        self, on_out: Callable[[bytes], None], on_err: Callable[[bytes], None], on_end: Callable[[], None]
    ) -> None:
        """Read its output until both streams end, and note its exit; run it in a task of the owner's group."""
        async with asyncio.TaskGroup() as tasks:
            readers = [
                tasks.create_task(_read(stream, sink))
                for stream, sink in ((self._process.stdout, on_out), (self._process.stderr, on_err))
                if stream is not None
            ]
            code = await self._process.wait()
            self.code = 128 - code if code < 0 else code
            self.ended.set()
            on_end()
            # What it left behind may hold the streams open; what is in them already is read.
            await asyncio.wait(readers, timeout=1.0)
            for reader in readers:
                reader.cancel()

    def send_group(self, number: int) -> bool:
        """Signal its whole group, which may outlive the process itself; False if nothing of it is there any more."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
            return True
        return False

    def send(self, number: signal.Signals) -> None:
        """Signal the process alone."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def end(self, within_s: float) -> None:
        """TERM to its group, KILL to what is left of it after `within_s`."""
        if self.send_group(signal.SIGTERM):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self.ended.wait()
                    await self._group_gone()
        self.kill()
        await self.wait(REAP_S)

    async def wait(self, within_s: float) -> bool:
        """Wait until it has exited; False if it has not in time."""
        try:
            async with asyncio.timeout(within_s):
                await self.ended.wait()
        except TimeoutError:
            return False
        return True

    async def _group_gone(self) -> None:
        while self.send_group(0):  # noqa: ASYNC110 - the system tells nobody when a group is empty
            await asyncio.sleep(GROUP_POLL_S)

    def kill(self) -> None:
        """KILL to whatever is left of its group; afterwards nobody watches it any more."""
        if self._is_watched:
            self.send_group(signal.SIGKILL)
            self._guard.ended(self.pid)
        self._is_watched = False


async def _read(stream: asyncio.StreamReader, sink: Callable[[bytes], None]) -> None:
    splitter = LineSplitter()
    try:
        while data := await stream.read(_CHUNK):
            for line in splitter.feed(data):
                sink(line)
    finally:
        for line in splitter.close():
            sink(line)
