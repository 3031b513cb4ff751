"""Structured logs: one line per event in logfmt or JSON, same keys in both, on structlog.

Owns the keys, the level filter and the rate limit; knows nothing of what is logged. A process configures it once,
at its start; loggers taken earlier follow. Lines of Python's own `logging` (asyncio, grpc, zeroconf) join in.
"""

import contextlib
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TextIO, cast

from telemetry.context import SpanContext
from telemetry.errors import LogConfigError


@contextlib.contextmanager
def _rich_hidden() -> Iterator[None]:
    """structlog imports rich for a console renderer we never use: 80 ms of the 105 that its import costs."""
    if "rich" in sys.modules:
        yield
        return
    sys.modules["rich"] = cast("ModuleType", None)
    try:
        yield
    finally:
        del sys.modules["rich"]


with _rich_hidden():
    import structlog

Logger = structlog.typing.FilteringBoundLogger
EventDict = structlog.typing.EventDict

LEVELS = {"debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40, "fatal": 50}

#: Lines a second of one message template; a loop that fails fast must not fill the disk.
LINES_PER_S = 10
#: Scopes with one line per call or span, asked for by name: all of them are wanted.
UNLIMITED_SCOPES = frozenset({"dapr.runtime.http-info", "dapr.runtime.grpc.api-info", "dapr.runtime.trace"})
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
) -> TextIO:
    """Sends every later line to `file`, else `stream`, else stdout, and returns which; closing it is the caller's.

    Raises: LogConfigError for an unknown level or a file that can't be opened.
    """
    number = LEVELS.get(level.lower())
    if number is None:
        raise LogConfigError(f"log level: expected one of debug, info, warn, error, fatal, met {level!r}")
    target = stream if stream is not None else sys.stdout
    if file is not None:
        try:
            target = file.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise LogConfigError(f"log file {file}: {error.strerror}") from error
    fixed = {"app_id": app_id, "instance": instance, "type": "log", "ver": version}
    structlog.configure(
        processors=[
            RateLimit(LINES_PER_S, time.monotonic),
            structlog.processors.format_exc_info,
            StandardKeys(fixed, time.time_ns),
            render_json if as_json else render_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [h for h in root.handlers if not isinstance(h, StdlibHandler)] + [StdlibHandler()]
    root.setLevel(max(number, logging.INFO))
    return target


def get_logger(scope: str) -> Logger:
    """A logger whose lines carry `scope`; before `configure` it writes structlog's own development format."""
    return cast("Logger", structlog.get_logger(scope=scope))


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


class RateLimit:
    """A processor that drops a template's lines beyond so many a second, and says how many on the next line."""

    # Owns the counts of the running second: {(scope, template): lines}, and of those dropped since the last line.
    def __init__(self, lines_per_s: int, clock: Callable[[], float]) -> None:
        self._limit = lines_per_s
        self._clock = clock
        self._second = -1
        self._seen: dict[tuple[str, str], int] = {}
        self._dropped: dict[tuple[str, str], int] = {}

    def __call__(self, _logger: object, method: str, event: EventDict) -> EventDict:
        if method in ("critical", "fatal") or event.get("scope") in UNLIMITED_SCOPES:
            return event
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._seen.clear()
        key = (str(event.get("scope", "")), str(event.get("event", "")))
        if key not in self._seen and len(self._seen) >= _TEMPLATES:
            key = ("", "")
        count = self._seen[key] = self._seen.get(key, 0) + 1
        if count > self._limit:
            if key in self._dropped or len(self._dropped) < _TEMPLATES:
                self._dropped[key] = self._dropped.get(key, 0) + 1
            raise structlog.DropEvent
        dropped = self._dropped.pop(key, 0)
        return {**event, "suppressed": dropped} if dropped else event


class StandardKeys:
    """A processor that names the keys as every line has them: time, level, msg, and who writes."""

    def __init__(self, fixed: dict[str, str], clock_ns: Callable[[], int]) -> None:
        self._fixed = fixed
        self._clock_ns = clock_ns

    def __call__(self, _logger: object, method: str, event: EventDict) -> EventDict:
        message = event.pop("event", "")
        level = {"warn": "warning", "critical": "fatal", "exception": "error"}.get(method, method)
        return {
            "time": format_time(self._clock_ns()),
            "level": level,
            "msg": message,
            **event,
            **self._fixed,
        }


def format_time(epoch_ns: int) -> str:
    """RFC 3339 with nanoseconds, in UTC."""
    seconds, nanos = divmod(epoch_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanos:09d}Z"


def render_json(_logger: object, _method: str, event: EventDict) -> str:
    """One JSON object with sorted keys."""
    return json.dumps(event, sort_keys=True, default=str)


def render_text(_logger: object, _method: str, event: EventDict) -> str:
    """logfmt: time, level and msg first, the other keys sorted. No value can start a new line."""
    time_ = event.pop("time")
    level = event.pop("level")
    message = event.pop("msg")
    rest = "".join(f" {key}={_logfmt(event[key])}" for key in sorted(event))
    return f'time="{time_}" level={level} msg={_quoted(str(message))}{rest}'


def _logfmt(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _BARE.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_UNSAFE)


class StdlibHandler(logging.Handler):
    """Brings lines of Python's `logging` into ours; the logger's name becomes the scope."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            logger = get_logger(record.name)
            logger.log(record.levelno, record.getMessage(), exc_info=record.exc_info or None)
        except (ValueError, TypeError, OSError):  # a bad format string, a closed stream
            self.handleError(record)
