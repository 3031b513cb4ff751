"""What `postern run` prints: the lines of many apps and sidecars as one stream, and their log files.

Every line is prefixed with its app-id. On a terminal each app has a colour that stays the same from run to run, and what a sidecar says
is shortened and dimmed. Pipes and log files get plain, whole lines.
"""

import contextlib
import json
import os
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

from proxy.cli.loglines import Weight, shorten
from telemetry.standard_files import discard

Source = Literal["app", "app-error", "sidecar"]
MAX_LINE_BYTES = 64 * 1024  # a longer one is broken, so that an app can't make us hold more
LOG_BYTES = 10 * 1024 * 1024
LOG_FILES = 5
_COLOURS = ("36", "32", "33", "35", "34", "96", "92", "93", "95", "94")
_SIDECAR_COLOURS: Mapping[Weight, bytes] = {
    "quiet": b"\x1b[2m",
    "warning": b"\x1b[33m",
    "error": b"\x1b[31m",
}
_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def wants_colour(stream: BinaryIO, env: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal that the user wants coloured. Source: no-color.org."""
    return stream.isatty() and not env.get("NO_COLOR") and env.get("TERM") != "dumb"


def colour_of(app_id: str) -> str:
    """The terminal colour of an app: the same in every run."""
    return _COLOURS[zlib.crc32(app_id.encode()) % len(_COLOURS)]


def plain(line: bytes) -> bytes:
    """A line without terminal escapes."""
    return _ESCAPES.sub(b"", line)


class LineSplitter:
    """Bytes in, whole lines out, without their ends; owns what is left of the last one."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]
        return [line.removesuffix(b"\r") for line in lines]

    def close(self) -> list[bytes]:
        """The last line, if it had no end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class Console:
    """The two output streams of the command. Apps' output goes to `out`, everything else to `err`.

    A reader that goes away (`postern run | head`) sets `broken` and is told to `on_broken`; what comes later is dropped.
    """

    def __init__(
        self, out: BinaryIO, err: BinaryIO, env: Mapping[str, str], *, width: int, as_json: bool = False
    ) -> None:
        self.broken = False
        self.on_broken: Callable[[], None] = lambda: None
        self._out = out
        self._err = err
        self._terminals = {id(stream) for stream in (out, err) if stream.isatty()}
        self._colours = {id(out): wants_colour(out, env), id(err): wants_colour(err, env)}
        self._width = width
        self._as_json = as_json

    def line(self, app_id: str, source: Source, line: bytes) -> None:
        """One line of an app or its sidecar."""
        stream = self._out if source == "app" else self._err
        if self._as_json:
            text = plain(line).decode(errors="replace")
            if source == "sidecar" and text.startswith("{"):
                self._write(stream, text.encode())
                return
            self._write(stream, _json({"app_id": app_id, "source": source, "msg": text}))
            return
        name = f"{app_id:<{self._width}} | ".encode()
        weight: Weight = "quiet"
        if source == "sidecar" and id(stream) in self._terminals:
            short = shorten(plain(line).decode(errors="replace"))
            line, weight = (short.text.encode(), short.weight) if short is not None else (line, weight)
        if not self._colours[id(stream)]:
            self._write(stream, name + plain(line))
            return
        colour = colour_of(app_id).encode()
        shown = _SIDECAR_COLOURS[weight] + plain(line) if source == "sidecar" else line
        self._write(stream, b"\x1b[" + colour + b"m" + name + b"\x1b[0m" + shown + b"\x1b[0m")

    def say(self, mark: Literal["ok", "failed", "info"], message: str) -> None:
        """One status line of the command itself."""
        if self._as_json:
            status = {"ok": "success", "failed": "failure", "info": "info"}[mark]
            self._write(self._err, _json({"status": status, "msg": message}))
            return
        sign, colour = {"ok": ("✓", "32"), "failed": ("✗", "31"), "info": ("·", "2")}[mark]
        if self._colours[id(self._err)]:
            self._write(self._err, f"\x1b[{colour}m{sign} {message}\x1b[0m".encode())
        else:
            self._write(self._err, f"{sign} {message}".encode())

    def _write(self, stream: BinaryIO, line: bytes) -> None:
        if self.broken:
            return
        try:
            stream.write(line + b"\n")
            stream.flush()
        except BrokenPipeError:
            self.broken = True
            _forget(stream)
            self.on_broken()


class LogFile:
    """One log file, private to the user, rotated at LOG_BYTES; LOG_FILES old ones are kept beside it.

    Owns the open file. Mutable state: `problem`, why the latest line was lost, empty when it was not.
    """

    def __init__(self, path: Path, *, limit: int = LOG_BYTES) -> None:
        self.path = path
        self.problem = ""
        self._limit = limit
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open()
        self._size = self._file.tell()

    def line(self, line: bytes) -> bool:
        """Append a line, without terminal escapes. False, once, when lines begin to get lost, as on a full disk: `problem` says why."""
        data = plain(line) + b"\n"
        try:
            if self._size and self._size + len(data) > self._limit:
                self._rotate()
            self._file.write(data)
        except OSError as error:
            was_fine, self.problem = not self.problem, error.strerror or str(error)
            return not was_fine
        self.problem = ""
        self._size += len(data)
        return True

    def close(self) -> None:
        """Close it; again is harmless."""
        with contextlib.suppress(OSError):  # what a full disk could not take is lost
            self._file.close()

    def _open(self) -> BinaryIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.fdopen(os.open(self.path, flags, 0o600), "ab", buffering=0)

    def _rotate(self) -> None:
        self._file.close()
        for number in range(LOG_FILES - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        self._file = self._open()
        self._size = 0


def _json(message: Mapping[str, str]) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def _forget(stream: BinaryIO) -> None:
    """Point the descriptor to nowhere, so that the flush at exit does not fail again."""
    with contextlib.suppress(OSError, ValueError):
        discard(stream)
