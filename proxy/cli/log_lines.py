"""Lines of many logs in the order of time; pure. A line without a time of its own is taken to be as old as the one before it."""

import heapq
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime

from msgspec import Struct

# What logs begin with: our own logfmt, and the usual forms of ISO 8601, maybe in brackets.
_LOGFMT = re.compile(r'time="([^"]+)"')
_BEGINNING = re.compile(r"\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?(?:Z|[+-]\d\d:?\d\d))?)")
_JSON_KEYS = ("time", "timestamp", "@timestamp", "ts")
_WHOLE = re.compile(r"(.*?)(?:[.,](\d+))?(?: ?(Z|[+-]\d\d:?\d\d))?")


class Line(Struct, frozen=True, kw_only=True):
    """One line of a source. at: epoch seconds. number: of its source, as the sources were named."""

    at: float
    number: int
    text: str


def time_of(text: str) -> float | None:
    """When a line says that it was written, in epoch seconds; a time without a zone is this host's. None: it does not say."""
    found: object = None
    if text.startswith("{"):
        try:
            event = json.loads(text)
        except ValueError:
            return None
        found = next((event[key] for key in _JSON_KEYS if key in event), None)
        if isinstance(found, int | float) and not isinstance(found, bool):
            return found / 1e3 if found > 1e11 else float(found)  # milliseconds, as many write it
    elif match := _LOGFMT.match(text) or _BEGINNING.match(text):
        found = match[1]
    return _epoch(found) if isinstance(found, str) else None


def _epoch(text: str) -> float | None:
    """Of a date and time; digits beyond microseconds are cut off."""
    match = _WHOLE.fullmatch(text)
    assert match is not None
    moment, fraction, zone = match.groups()
    try:
        return datetime.fromisoformat(f"{moment}.{(fraction or '0')[:6]:0<6}{zone or ''}").timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def dated(texts: Iterable[str], number: int, otherwise: float) -> list[Line]:
    """The lines of one source, none older than the one before it. otherwise: when they were written where no line says."""
    lines = list(texts)
    times = [time_of(text) for text in lines]
    last = next((at for at in times if at is not None), otherwise)
    found = []
    for text, at in zip(lines, times, strict=True):
        last = max(last, at) if at is not None else last
        found.append(Line(at=last, number=number, text=text))
    return found


def chosen(lines: Iterable[Line], *, since: float | None, tail: int) -> deque[Line]:
    """The last so many, of those that are not older."""
    return deque((line for line in lines if since is None or line.at >= since), maxlen=tail)


def merged(sources: Iterable[Iterable[Line]]) -> Iterator[Line]:
    """All of them, the oldest first."""
    return heapq.merge(*sources, key=lambda line: line.at)
