"""Go durations, as flags and documents write them. Pure.

For sentry, name resolution and the sidecar alike, which all may import telemetry. `policies` imports nothing of ours and has a parser
of its own (`policies.reading.durations`).
"""

import re
from datetime import timedelta
from typing import Final

_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNIT_S: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_MAX_LENGTH: Final = 64  # longer than any duration that makes sense; bounds the work on nonsense


def parse_duration_s(text: str) -> float:
    """Seconds of a Go duration such as `1h2m3.5s`, `500ms` or `0`. Raises ValueError. Source: Go `time.ParseDuration`."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    parts = _PART.findall(rest) if len(text) <= _MAX_LENGTH else []
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise ValueError("a duration such as 500ms, 5s or 1m30s")
    return sign * sum(float(number) * _UNIT_S[unit] for number, unit in parts)


def parse_lifetime(text: str) -> timedelta:
    """A Go duration that is not negative, such as `24h` or `1h30m`. Raises ValueError."""
    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        raise ValueError(f"expected a duration such as 24h or 15m, got {text!r}") from error
    if seconds < 0:
        raise ValueError(f"expected a duration that is not negative, got {text!r}")
    try:
        return timedelta(seconds=seconds)
    except OverflowError as error:
        raise ValueError(f"duration {text!r} is too long") from error
