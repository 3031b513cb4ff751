"""The log files of an app and its sidecar as they grow: their last lines first, then what is added."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from nameresolution.host_registry import Entry
from proxy.cli.logs import files_of, is_replaced
from telemetry.printable import printable

Json = dict[str, Any]
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
    """Tell which log files a sidecar and its app have, then their lines, until cancelled."""
    found = await files_of([entry], app=True, sidecar=True)
    about = {"app": entry.app_id, "instance": entry.instance}
    tell(
        {**about, "event": "files", "files": [{"kind": file.label, "path": str(file.path)} for file in found]}
    )
    files = [LogTail(file.label, file.path) for file in found]
    try:
        while files:
            for file in list(files):
                try:
                    lines, left_out = await asyncio.to_thread(file.read)
                except OSError as error:
                    tell({**about, "event": "problem", "text": f"{file.path}: {error.strerror}"})
                    files.remove(file)
                    continue
                if lines:
                    told = {"event": "lines", "kind": file.label, "lines": lines, "leftOut": left_out}
                    tell({**about, **told})
            await asyncio.sleep(_POLL_S)
    finally:
        for file in files:
            file.close()
