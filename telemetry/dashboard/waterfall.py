"""One trace as the rows of a waterfall: spans in order, each with its depth and its place in time. Pure: Zipkin v2 JSON in, JSON out."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = dict[str, Any]
SpanDict = Mapping[str, Any]

MAX_ROWS = 1_000
_TAGS = 40


def waterfall(spans: Iterable[SpanDict]) -> Json:
    """Rows from the top down, times in microseconds from the first span's start; `left_out` says how many spans are beyond MAX_ROWS.

    A span whose parent is not among them stands at the top with `orphan`. Clocks of several machines may differ: nothing is shifted.
    """
    listed = sorted(_once(spans), key=lambda span: (_number(span, "timestamp"), span.get("kind") != "CLIENT"))
    if not listed:
        return {"rows": [], "took_us": 0, "began_us": 0, "services": [], "errors": 0, "left_out": 0}
    began_us = min(_number(span, "timestamp") for span in listed)
    ended_us = max(_number(span, "timestamp") + _number(span, "duration") for span in listed)
    rows = [_row(span, depth, began_us, is_orphan=is_orphan) for span, depth, is_orphan in _walked(listed)]
    return {
        "rows": rows[:MAX_ROWS],
        "took_us": ended_us - began_us,
        "began_us": began_us,
        "services": list(dict.fromkeys(row["service"] for row in rows)),
        "errors": sum(1 for row in rows if row["error"]),
        "left_out": max(len(rows) - MAX_ROWS, 0),
    }


def _once(spans: Iterable[SpanDict]) -> list[SpanDict]:
    """Each span once: both ends of a call may share an id (Zipkin), but not a kind."""
    found: dict[tuple[str, str], SpanDict] = {}
    for span in spans:
        found.setdefault((str(span.get("id")), str(span.get("kind"))), span)
    return list(found.values())


def _walked(listed: Sequence[SpanDict]) -> list[tuple[SpanDict, int, bool]]:
    """Spans with their depth, children below their parents; those in a circle of parents stand at the top, too."""
    known = {str(span.get("id")) for span in listed}
    below: dict[str, list[SpanDict]] = defaultdict(list)
    tops: list[SpanDict] = []
    for span in listed:
        parent = str(span.get("parentId") or "")
        (below[parent] if parent in known else tops).append(span)
    found: list[tuple[SpanDict, int, bool]] = []
    shown: set[int] = set()
    for top in (*tops, *listed):
        todo = [(top, 0)]
        while todo:
            span, depth = todo.pop()
            if id(span) in shown:
                continue
            shown.add(id(span))
            found.append((span, depth, bool(span.get("parentId")) and not depth))
            todo += [(child, depth + 1) for child in reversed(below[str(span.get("id"))])]
    return found


def _row(span: SpanDict, depth: int, began_us: int, *, is_orphan: bool) -> Json:
    tags = span.get("tags")
    tags = tags if isinstance(tags, dict) else {}
    events = span.get("annotations")
    return {
        "id": str(span.get("id")),
        "depth": depth,
        "orphan": is_orphan,
        "kind": str(span.get("kind") or "LOCAL").lower(),
        "service": _service(span, "localEndpoint") or "?",
        "remote": _service(span, "remoteEndpoint"),
        "name": str(span.get("name") or "?"),
        "at_us": _number(span, "timestamp") - began_us,
        "took_us": _number(span, "duration"),
        "error": str(tags.get("error") or ""),
        "events": [
            {"at_us": _number(event, "timestamp") - began_us, "text": str(event.get("value"))}
            for event in (events if isinstance(events, list) else ())
            if isinstance(event, dict)
        ],
        "call": span.get("postern"),
        "tags": {str(key): str(value) for key, value in list(tags.items())[:_TAGS]},
    }


def _service(span: SpanDict, end: str) -> str:
    found = span.get(end)
    return str(found.get("serviceName") or "") if isinstance(found, dict) else ""


def _number(part: SpanDict, key: str) -> int:
    value = part.get(key)
    return int(value) if isinstance(value, int | float) else 0
