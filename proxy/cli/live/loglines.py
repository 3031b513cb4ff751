"""The lines of an app and its sidecar as they come, from files or the sidecar's memory: the last first, then what is added."""

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import IO, Any

from nameresolution.host_registry import Entry
from proxy.cli.errors import CliError
from proxy.cli.log_sources import Opened, Source, is_replaced, sources_of
from telemetry.printable import printable

Json = dict[str, Any]
Told = Callable[[str, list[str], int], None]  # of a kind: lines, and how many before them were left out
_POLL_S = 0.25
TAIL_BYTES = 131_072
MAX_LINES = 500  # of one file that are told at once; the oldest go first
_MAX_CHARS = 4_096


class LogTail:
    """One open file. Mutable state: the stream, and the beginning of a line whose end is not written yet."""

    def __init__(self, label: str, path: Path) -> None:
        self.label = label
        self.path = path
        self._stream: IO[bytes] | None = None
        self._begun = b""

    def read(self) -> tuple[list[str], int]:
        """The new whole lines, and how many before them were left out. Blocks on the disk. Raises: OSError."""
        if self._stream is None:
            self._stream = self.path.open("rb")
            size = os.fstat(self._stream.fileno()).st_size
            if size > TAIL_BYTES:
                self._stream.seek(size - TAIL_BYTES)
                self._stream.readline()
        data = self._begun + self._stream.read(TAIL_BYTES)
        *lines, self._begun = data.split(b"\n")
        if len(self._begun) > TAIL_BYTES:
            lines, self._begun = [*lines, self._begun], b""
        if not data and is_replaced(self.path, self._stream):
            self.close()
        texts = [printable(line.decode("utf-8", "replace")[:_MAX_CHARS]) for line in lines]
        return texts[-MAX_LINES:], max(len(texts) - MAX_LINES, 0)

    def close(self) -> None:
        """Read it from the beginning the next time."""
        if self._stream is not None:
            self._stream.close()
        self._stream, self._begun = None, b""


async def follow(entry: Entry, tell: Callable[[Json], None]) -> None:
    """Tell where a sidecar's lines and its app's are, then these, until cancelled. A place without a path is the sidecar's memory."""
    found = await sources_of([entry])
    sources = found.sources
    about = {"app": entry.app_id, "instance": entry.instance}
    places = [{"kind": one.kind, "path": str(one.path or "")} for one in sources]
    tell({**about, "event": "files", "files": places})

    def problem(text: str) -> None:
        tell({**about, "event": "problem", "text": text})

    def told(kind: str, lines: list[str], left_out: int) -> None:
        tell({**about, "event": "lines", "kind": kind, "lines": lines, "leftOut": left_out})

    for each in found.problems:
        problem(each)
    async with asyncio.TaskGroup() as tasks:
        for source in sources:
            if source.path is None:
                tasks.create_task(_kept(source, told, problem))
            else:
                tasks.create_task(_growing(LogTail(source.kind, source.path), told, problem))


async def _growing(file: LogTail, told: Told, problem: Callable[[str], None]) -> None:
    try:
        while True:
            lines, left_out = await asyncio.to_thread(file.read)
            if lines:
                told(file.label, lines, left_out)
            await asyncio.sleep(_POLL_S)
    except OSError as error:
        problem(f"{file.path}: {error.strerror}")
    finally:
        file.close()


async def _kept(source: Source, told: Told, problem: Callable[[str], None]) -> None:
    """What a sidecar has in memory."""
    opened = Opened(source)
    try:
        lines, _ = await opened.history()
        told(source.kind, [_cut(line) for line in lines[-MAX_LINES:]], max(len(lines) - MAX_LINES, 0))
        async with aclosing(opened.news()) as news:
            async for line in news:
                told(source.kind, [_cut(line)], 0)
    except (CliError, OSError, TimeoutError) as error:
        problem(str(error) or "its sidecar does not answer")


def _cut(line: str) -> str:
    return printable(line[:_MAX_CHARS])
