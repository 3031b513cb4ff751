"""Durations as Dapr's resources write them; pure.

As in Go, except that a number without a unit counts milliseconds. Not `telemetry.durations`, as policies import nothing of ours.
"""

import re

from policies.errors import DurationError

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_WHOLE = re.compile(rf"[-+]?(?:{_PART.pattern})+", re.ASCII)
_BARE = re.compile(r"[-+]?\d+", re.ASCII)
MAX_S = 290 * 365 * 86400.0  # Go's durations end after some 292 years


def is_bare(text: str) -> bool:
    """Whether a duration has no unit; it then counts milliseconds, which few who write it expect. 0 needs none."""
    return _BARE.fullmatch(text) is not None and int(text) != 0


def parse_duration(text: str) -> float:
    """Seconds of `300ms`, `1.5s`, `1h30m`; of a bare integer, which counts milliseconds. Raises: DurationError."""
    if len(text) <= 64:
        if _BARE.fullmatch(text) is not None:
            return _checked(text, int(text) / 1000)
        if _WHOLE.fullmatch(text) is not None:
            total = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
            return _checked(text, -total if text.startswith("-") else total)
    raise DurationError(
        f"`{text[:64]}` is not a duration (expected a number and a unit, such as 300ms, 1.5s or 1h30m)"
    )


def _checked(text: str, seconds: float) -> float:
    if abs(seconds) > MAX_S:
        raise DurationError(f"`{text}` is too long (expected a duration of at most 290 years)")
    return seconds
