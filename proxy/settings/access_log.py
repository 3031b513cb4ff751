"""The flags of the access log as one value. Pure."""

from pathlib import Path
from typing import Final

from proxy.settings.readers import FlagReader
from proxy.settings.values import AccessLogSettings
from telemetry.line_form import LineFilter, parse_form

OTLP: Final = "otlp"  # in a file's place
_LOG_BYTES = 100 * 1024 * 1024


def access_log_settings(read: FlagReader) -> AccessLogSettings | None:
    """The log of calls, where it is asked for; faults in its flags are told anyway."""
    where = read.or_env("access-log", "POSTERN_ACCESS_LOG", "")
    flag = "--access-log-format" if read.text("access-log-format") else "POSTERN_ACCESS_LOG_FORMAT"
    try:
        form = parse_form(
            read.or_env("access-log-format", "POSTERN_ACCESS_LOG_FORMAT", "json"),
            read.words("access-log-headers"),
        )
    except ValueError as error:
        read.faults.append(f"{flag}: {error}")
        form = parse_form("json")
    size = read.size("access-log-max-size")
    chosen = LineFilter(
        min_status=min(read.natural("access-log-min-status") or 0, 999),
        slower_ns=int(read.duration("access-log-slower", 0.0) * 1e9),
        every=read.count("access-log-sample", 1),
    )
    keep = read.count("access-log-keep", 5)
    if not where:
        return None
    return AccessLogSettings(
        path=None if where in ("-", OTLP) else Path(where).expanduser(),
        is_otlp=where == OTLP,
        form=form,
        chosen=chosen,
        max_bytes=_LOG_BYTES if size is None else size,
        keep=keep,
    )
