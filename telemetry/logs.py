"""Structured logs: one line per event in logfmt or JSON, same keys in both, carried by Python's `logging`.

Owns the keys, the level filter and the rate limit; knows nothing of what is logged. A process configures it once,
at startup; loggers obtained earlier follow. Lines of asyncio, grpc and zeroconf take the same path.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from telemetry.context import SpanContext
from telemetry.errors import LogConfigError
from telemetry.log_ring import Kept, LogRing

LEVELS = {"debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40, "fatal": 50}
_LEVEL_NAMES = {number: name for name, number in LEVELS.items()}  # 30 is "warning"

#: What lines hold beside the facts of their event: the first eight always, those of a call in lines about one.
KEYS = {
    "time": "RFC 3339 in UTC, with nanoseconds",
    "level": "debug, info, warning, error or fatal",
    "msg": "the event: the same words for all events of a kind",
    "scope": "the part that writes: `postern…`, `dapr.runtime…`, or a library",
    "app_id": "whose sidecar it is",
    "instance": "the host's name",
    "type": "`log`",
    "ver": "the version",
    "trace_id": "of the call that the line is about",
    "span_id": "of this sidecar's span of it",
    "sampled": "whether the span is recorded",
    "peer": "SPIFFE id of the other side: the caller of what comes in, the callee of what goes out; not without mutual TLS",
    "suppressed": "lines of this kind that were left out since the last one, beyond ten in a second",
    "exception": "a traceback, where one is needed",
}
#: Lines a second of one message template; a loop that fails fast must not fill the disk.
LINES_PER_S = 10
#: Scopes with one line per call or span, asked for by name: all of them are wanted.
UNLIMITED_SCOPES = frozenset({"dapr.runtime.http-info", "dapr.runtime.grpc.api-info", "dapr.runtime.trace"})
#: What our scopes start with: `debug` is for them alone, as libraries would drown them.
_OURS = ("postern", "dapr")
#: Templates counted at once; beyond it all others share one allowance.
_TEMPLATES = 1024
_BARE = re.compile(r"[A-Za-z0-9_./@^+:\-]+")
# What json.dumps leaves as it is but a terminal may obey or a reader may take for the end of a line.
_UNSAFE = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}


def configure(
    app_id: str,
    instance: str,
    level: str = "info",
    as_json: bool = False,
    file: Path | None = None,
    *,
    version: str = "",
    stream: TextIO | None = None,
    ring: LogRing | None = None,
) -> TextIO:
    """Sends every later line to `file`, else `stream`, else stdout, and returns which; closing it is the caller's. ring: keeps them, too.

    Raises: LogConfigError for an unknown level or a file that can't be opened.
    """
    number_of(level)  # before a file is made
    target = stream if stream is not None else sys.stdout
    if file is not None:
        try:
            target = file.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise LogConfigError(f"log file {file}: {error.strerror}") from error
    handler = logging.StreamHandler(target if ring is None else Kept(target, ring))
    handler.addFilter(RateLimit(LINES_PER_S, time.monotonic))
    fixed = {"app_id": app_id, "instance": instance, "type": "log", "ver": version}
    handler.setFormatter(LineFormatter(fixed, render_json if as_json else render_text))
    root = logging.getLogger()
    for earlier in [h for h in root.handlers if isinstance(h.formatter, LineFormatter)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    set_level(level)
    return target


def number_of(level: str) -> int:
    """What Python's `logging` calls a level. Raises: LogConfigError for an unknown one."""
    number = LEVELS.get(level.lower())
    if number is None:
        raise LogConfigError(f"log level: expected one of debug, info, warn, error, fatal, got {level!r}")
    return number


def level_name(record: logging.LogRecord) -> str:
    """What lines call a record's level."""
    return _LEVEL_NAMES.get(record.levelno, record.levelname.lower())


def set_level(level: str) -> None:
    """Writes lines from this level on, from now on. Raises: LogConfigError for an unknown one."""
    number = number_of(level)
    logging.getLogger().setLevel(max(number, logging.INFO))
    for name in _OURS:
        logging.getLogger(name).setLevel(number)
    for name in UNLIMITED_SCOPES:  # as daprd writes them, whatever the level
        logging.getLogger(name).setLevel(min(number, logging.INFO))


class Line(logging.LogRecord):
    """A record with the fields of its event."""

    def __init__(self, scope: str, level: int, message: str, fields: dict[str, object]) -> None:
        super().__init__(scope, level, "", 0, message, None, None)
        self.fields = fields


class Logger:
    """Writes events of one scope: a message, the same for all events of a kind, and the fields that tell them apart."""

    __slots__ = ("_log",)

    def __init__(self, log: logging.Logger) -> None:
        self._log = log

    def debug(self, message: str, /, **fields: object) -> None:
        """Details, for debugging the proxy itself."""
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        """Worth knowing; nothing to do."""
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        """Something is wrong, but work goes on."""
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        """Something failed."""
        self._write(logging.ERROR, message, fields)

    def critical(self, message: str, /, **fields: object) -> None:
        """The process can't go on."""
        self._write(logging.CRITICAL, message, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """An error with the traceback of the exception being handled, in the field `exception`."""
        self._write(logging.ERROR, message, fields, is_caught=True)

    def _write(self, level: int, message: str, fields: dict[str, object], *, is_caught: bool = False) -> None:
        if not self._log.isEnabledFor(level):
            return
        line = Line(self._log.name, level, message, fields)
        if is_caught:
            line.exc_info = sys.exc_info()
        self._log.handle(line)


def get_logger(scope: str) -> Logger:
    """A logger whose lines carry `scope`; before `configure` only its warnings are seen, bare, on stderr."""
    return Logger(logging.getLogger(scope))


def call_fields(context: SpanContext, peer: str = "") -> dict[str, str]:
    """The keys that tie a line to a call: `log.info("…", **call_fields(context))`."""
    fields = {
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "sampled": "true" if context.sampled else "false",
    }
    if peer:
        fields["peer"] = peer
    return fields


class RateLimit(logging.Filter):
    """Drops a template's lines beyond so many a second, and says how many on the next line (`suppressed`)."""

    # Owns the counts of the running second: {(scope, template): lines}, and of those dropped since the last line.
    def __init__(self, lines_per_s: int, clock: Callable[[], float]) -> None:
        super().__init__()
        self._limit = lines_per_s
        self._clock = clock
        self._second = -1
        self._seen: dict[tuple[str, str], int] = {}
        self._dropped: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if record.levelno >= logging.CRITICAL or record.name in UNLIMITED_SCOPES:
            return True
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._seen.clear()
        key = (record.name, str(record.msg))
        if key not in self._seen and len(self._seen) >= _TEMPLATES:
            key = ("", "")
        count = self._seen[key] = self._seen.get(key, 0) + 1
        if count > self._limit:
            if key in self._dropped or len(self._dropped) < _TEMPLATES:
                self._dropped[key] = self._dropped.get(key, 0) + 1
            return False
        dropped = self._dropped.pop(key, 0)
        if dropped:
            record.__dict__["suppressed"] = dropped
        return True


class LineFormatter(logging.Formatter):
    """Names the keys as every line has them: time, level, msg, and who writes."""

    def __init__(self, fixed: dict[str, str], render: Callable[[dict[str, object]], str]) -> None:
        super().__init__()
        self._fixed = fixed
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        """The line without its end."""
        event: dict[str, object] = {
            "time": format_time(time.time_ns()),
            "level": level_name(record),
            "msg": record.getMessage(),
            "scope": record.name,
        }
        if isinstance(record, Line):
            event |= record.fields
        if record.exc_info and record.exc_info[0] is not None:
            event["exception"] = self.formatException(record.exc_info)
        if "suppressed" in record.__dict__:
            event["suppressed"] = record.__dict__["suppressed"]
        return self._render(event | self._fixed)


def render_json(event: dict[str, object]) -> str:
    """One JSON object with sorted keys."""
    return json.dumps(event, sort_keys=True, default=str)


def render_text(event: dict[str, object]) -> str:
    """logfmt: time, level and msg first, the other keys sorted. No value can start a new line."""
    rest = "".join(f" {key}={_logfmt(event[key])}" for key in sorted(event.keys() - {"time", "level", "msg"}))
    return f'time="{event["time"]}" level={event["level"]} msg={_quoted(str(event["msg"]))}{rest}'


def format_time(epoch_ns: int) -> str:
    """RFC 3339 with nanoseconds, in UTC."""
    seconds, nanos = divmod(epoch_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanos:09d}Z"


def _logfmt(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _BARE.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_UNSAFE)
