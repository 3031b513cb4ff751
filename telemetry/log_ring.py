"""The latest lines of a process's own log, kept in memory and bounded, for whoever asks a running process what it has logged.

A reader goes by the numbers of lines, so that it has no queue of its own: one that is slower than the log loses the oldest and is told so.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from itertools import islice
from typing import Final, TextIO

MAX_LINES: Final = 2_000
MAX_CHARS: Final = 1 << 20  # of all lines: a sidecar's own are about 250 long
MAX_FOLLOWERS: Final = 16
_PIECE: Final = 256  # lines handed on together


class LogRing:
    """Mutable state, which a lock guards as any thread may log: the lines, the number of the first, and whom to wake."""

    def __init__(self, *, lines: int = MAX_LINES, chars: int = MAX_CHARS) -> None:
        self._most_lines = lines
        self._most_chars = chars
        self._lines: deque[str] = deque()
        self._chars = 0
        self._first = 0
        self._followers: set[Callable[[], None]] = set()
        self._lock = threading.Lock()

    @property
    def followers(self) -> int:
        """How many read on."""
        return len(self._followers)

    def put(self, line: str) -> None:
        """Keep one more line, without its end."""
        with self._lock:
            self._lines.append(line)
            self._chars += len(line)
            while len(self._lines) > self._most_lines or self._chars > self._most_chars:
                self._chars -= len(self._lines.popleft())
                self._first += 1
            wake = tuple(self._followers)
        for each in wake:
            each()

    def since(self, number: int, most: int = MAX_LINES) -> tuple[list[str], int, int]:
        """Lines from this number on, the number of the next, and how many before them are no longer kept."""
        with self._lock:
            start = max(number, self._first)
            lines = list(islice(self._lines, start - self._first, start - self._first + most))
        return lines, start + len(lines), start - number

    async def follow(self, number: int) -> AsyncGenerator[bytes]:
        """Lines from this number on, until it is closed. Run it in the loop that it is closed in."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(news.set)

        self._followers.add(wake)
        try:
            while True:
                news.clear()
                lines, number, missed = self.since(number, _PIECE)
                if missed:
                    yield f"… {missed} lines came faster than they were read\n".encode()
                if lines:
                    yield ("\n".join(lines) + "\n").encode("utf-8", "replace")
                else:
                    await news.wait()
        finally:
            self._followers.discard(wake)


class Kept:
    """A stream that lines are written to, which keeps the latest of them as well."""

    def __init__(self, stream: TextIO, ring: LogRing) -> None:
        self._stream = stream
        self._ring = ring

    def write(self, text: str) -> int:
        """Write lines with their ends."""
        for line in text.splitlines():
            self._ring.put(line)
        return self._stream.write(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        self._stream.flush()
