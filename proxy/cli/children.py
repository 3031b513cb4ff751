"""Child processes of `postern run`: each in a process group of its own, known to the guard, its output read line by line."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy.cli.errors import CliError
from proxy.cli.output import LineSplitter

GUARD = Path(__file__).with_name("guard.py")
REAP_S = 5.0  # the kernel may take a moment to end a process after KILL
GROUP_POLL_S = 0.05
LATE_S = 1.0
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
    """One child process. `ended` is set when it has exited; `code` is then its exit code, 128+n after signal n.

    `_is_watched` turns False once its group is gone: the number may then be somebody else's.
    """

    def __init__(
        self, process: "subprocess.Popen[bytes]", streams: tuple[FileIO, FileIO], guard: Guard
    ) -> None:
        self.pid = process.pid
        self.code: int | None = None
        self.ended = asyncio.Event()
        self._process = process
        self._streams = streams
        self._guard = guard
        self._is_watched = True

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        guard: Guard,
        env: Mapping[str, str],
        folder: Path,
        stdin: int,
        pass_fds: tuple[int, ...] = (),
    ) -> Self:
        """Start a process in a group of its own. Raises: CliError if it can't be started.

        Blocks for the millisecond of a fork, so that nothing comes between the start and the guard's knowing of it.
        """
        (out, child_out), (err, child_err) = os.pipe(), os.pipe()
        try:
            process = subprocess.Popen(  # noqa: S603 - what the user asked us to run
                command,
                env=dict(env),
                cwd=folder,
                stdin=stdin,
                stdout=child_out,
                stderr=child_err,
                pass_fds=pass_fds,
                process_group=0,
            )
            guard.began(process.pid)
        except OSError as error:
            os.close(out)
            os.close(err)
            code = 127 if isinstance(error, FileNotFoundError) else 126
            on_path = code == 127 and "/" not in command[0] and folder.is_dir()
            hint = "is it installed, and on PATH?" if on_path else ""
            raise CliError(
                f"can't start {command[0]!r} in {folder}: {error.strerror}", hint=hint, code=code
            ) from error
        finally:
            os.close(child_out)
            os.close(child_err)
        return cls(process, (os.fdopen(out, "rb", buffering=0), os.fdopen(err, "rb", buffering=0)), guard)

    async def watch(
        self, on_out: Callable[[bytes], None], on_err: Callable[[bytes], None], on_end: Callable[[], None]
    ) -> None:
        """Read its output until both streams end, and note its exit; run it in a task of the owner's group."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._reap, args=(loop, on_end), daemon=True).start()
        async with asyncio.TaskGroup() as tasks:
            readers = [
                tasks.create_task(_read(pipe, sink))
                for pipe, sink in zip(self._streams, (on_out, on_err), strict=True)
            ]
            await self.ended.wait()
            # What it left behind may hold the streams open; what is in them already is read.
            await asyncio.wait(readers, timeout=LATE_S)
            for reader in readers:
                reader.cancel()

    def _reap(self, loop: asyncio.AbstractEventLoop, on_end: Callable[[], None]) -> None:
        """In a thread of its own: the one way to wait for a process that every system has."""
        code = self._process.wait()

        def note() -> None:
            self.code = 128 - code if code < 0 else code
            self.ended.set()
            on_end()

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is interested any more
            loop.call_soon_threadsafe(note)

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
        """Send SIGKILL to what is left of its process group, and stop watching it."""
        if self._is_watched:
            self.send_group(signal.SIGKILL)
            self._guard.ended(self.pid)
        self._is_watched = False


async def _read(pipe: FileIO, sink: Callable[[bytes], None]) -> None:
    splitter = LineSplitter()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    with pipe:
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            while data := await reader.read(_CHUNK):
                for line in splitter.feed(data):
                    sink(line)
        finally:
            transport.close()
            for line in splitter.close():
                sink(line)
