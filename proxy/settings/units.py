"""Kubernetes quantities as flags write them, durations as Go prints them. Pure. Durations are read in `telemetry.durations`."""

import re

_QUANTITY = re.compile(
    r"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,2})|(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E))?", re.ASCII
)
_TENS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_TWOS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
MAX_LENGTH = 64  # longer than any number that makes sense; bounds the work on nonsense


def parse_quantity(text: str) -> int:
    """Whole units of a Kubernetes quantity such as `4Mi`, `1.5G` or `1e3`, rounded up. Raises ValueError.

    Source: Kubernetes `resource.Quantity`.
    """
    found = _QUANTITY.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if found is None or not (found[2] or found[3]):
        raise ValueError("a quantity such as 4Mi, 512Ki or 1000000")
    sign, whole, part, exponent, suffix = (group or "" for group in found.groups())
    tens = int(exponent or _TENS.get(suffix, 0)) - len(part)
    size: int = int(whole + part) << _TWOS.get(suffix, 0)
    size = size * 10**tens if tens >= 0 else -(-size // 10**-tens)
    return -size if sign == "-" else size


def go_duration(seconds: float) -> str:
    """As Go prints a duration: `500ms`, `2s`, `1m30s`, `1h0m0s`. To the millisecond, not below 0.

    Source: Go's time.Duration.String.
    """
    millis = max(round(seconds * 1000), 0)
    if 0 < millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
