"""Where lines of calls go: a file with rotation, or standard output; gathered, and written in pieces by a thread, never by a call.

What finds no room, or can't be written, is lost and counted; a warning says so, at most once a minute.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from telemetry.logs import Logger, get_logger

MAX_BYTES: Final = 16 * 1024 * 1024  # that wait to be written
FLUSH_S: Final = 0.2
_WARN_S: Final = 60.0
_PIPE_BYTES: Final = 4_096


class LineFile:
    """Lines of calls on their way to a file of mode 0600, or standard output.

    Owns the descriptor and what waits, which a lock guards. Mutable state: `lost`, how many lines. limit_bytes: of the file, then it is
    moved to `.1`, that to `.2` and so on, up to `keep`; 0: never. Raises: OSError when made.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        limit_bytes: int = 0,
        keep: int = 5,
        lost: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.lost = 0
        self._path = path
        self._limit = limit_bytes
        self._keep = keep
        self._tell_lost = lost
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._log: Logger = get_logger("postern.access_log")
        self._warned_at = -_WARN_S
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._fd = self._open()

    def _open(self) -> int:
        if self._path is None:
            return sys.stdout.fileno()
        flags = (
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        )  # a pipe without a reader blocks nobody
        return os.open(self._path, flags, 0o600)

    def put(self, lines: bytes) -> None:
        """Take whole lines."""
        with self._lock:
            has_room = self._waiting_bytes + len(lines) <= MAX_BYTES
            if has_room:
                self._waiting.append(lines)
                self._waiting_bytes += len(lines)
        if not has_room:
            self.lose(lines.count(b"\n"), "they come faster than they can be written")

    def lose(self, count: int, reason: str) -> None:
        """Count lines that are lost."""
        self.lost += count
        self._tell_lost(count)
        now = time.monotonic()
        if now - self._warned_at >= _WARN_S:
            self._warned_at = now
            where = str(self._path) if self._path is not None else "standard output"
            self._log.warning("access log lines lost", path=where, reason=reason, lines=self.lost)

    async def run(self) -> None:
        """Write until cancelled; what is left, `close` writes."""
        while True:
            await asyncio.sleep(FLUSH_S)
            if self._waiting:
                await asyncio.to_thread(self._write)

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._write()
        if self._path is not None:
            os.close(self._fd)

    def _taken(self) -> bytes:
        with self._lock:
            data = b"".join(self._waiting)
            self._waiting, self._waiting_bytes = [], 0
        return data

    def _write(self) -> None:
        """Write what waits. It is taken only here: a thread that is cancelled before it begins takes nothing along."""
        left = memoryview(b"")
        try:
            with self._writing:
                data = self._taken()
                left = memoryview(data)
                if self._path is not None:
                    self._reopen(self._path, len(data))
                while left:
                    left = left[os.write(self._fd, left if self._path is not None else _whole(left)) :]
        except OSError as error:
            self.lose(bytes(left).count(b"\n"), error.strerror or str(error))

    def _reopen(self, path: Path, more: int) -> None:
        """Put a full file aside, and go on with a new one, also where somebody else did so."""
        size = os.fstat(self._fd).st_size
        is_full = bool(self._limit and size and size + more > self._limit)
        if _is_same(path, self._fd):
            if not is_full:
                return
            for number in range(self._keep, 0, -1):
                older = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
                if older.exists():
                    older.replace(path.with_name(f"{path.name}.{number}"))
        os.close(self._fd)
        self._fd = self._open()


def _whole(lines: memoryview) -> memoryview:
    """Some whole lines that a pipe takes in one piece (POSIX: PIPE_BUF), so that lines of the log can't come between."""
    end = bytes(lines[:_PIPE_BYTES]).rfind(b"\n") + 1
    return lines[: end or _PIPE_BYTES]


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False
