"""Traces that this sidecar keeps in memory, for whoever asks its admin socket: a list of them, and the spans of one."""

import asyncio
import re
import time
from collections.abc import Mapping
from itertools import islice
from typing import Any

from telemetry.durations import parse_duration_s
from telemetry.traces import Json, TraceFilter, merged, newest_first, summarise, told
from telemetry.tracing import Tracer

Query = Mapping[str, list[str]]
LIMIT = 50
MAX_LIMIT = 500
_PIECE = 256  # spans summarised in one go: under 2 ms, and the loop has other work
_ID = re.compile(r"[0-9A-Fa-f]{1,32}")
_KEYS = frozenset({"id", "app", "error", "slower-than", "since", "limit"})


def trace_id_of(text: str) -> int:
    """The number that 1 to 32 hex digits write. Raises: ValueError."""
    if not _ID.fullmatch(text):
        raise ValueError(f"invalid trace id {text!r}: expected up to 32 hex digits")
    return int(text, 16)


async def listing(tracer: Tracer, query: Query) -> dict[str, Any]:
    """Summaries of the traces in memory, newest first: `telemetry.traces.summarise` has their keys.

    query: `app`, `error=1`, `slower-than` and `since` (durations), `limit`; or `id`, any number of them, whole or with commas between, for
    those traces alone. Raises: ValueError.
    """
    if strange := sorted(set(query) - _KEYS):
        raise ValueError(f"{strange[0]}: no such filter, expected {', '.join(sorted(_KEYS))}")
    wanted, limit = read_filter(query, time.time()), _limit(query)
    ids = {trace_id_of(one) for text in query.get("id", ()) for one in text.split(",")}
    await tracer.gather()
    spans = iter(tracer.recent())
    found: dict[str, Json] = {}
    while piece := list(islice(spans, _PIECE)):
        for one in summarise(span for span in piece if not ids or span.context.trace_id in ids):
            other = found.get(one["trace_id"])
            found[one["trace_id"]] = one if other is None else merged(other, one)
        await asyncio.sleep(0)
    traces = newest_first(one for one in found.values() if wanted.lets_through(one))
    return {"traces": traces[:limit], "more": max(len(traces) - limit, 0), "not_kept": tracer.not_kept}


def read_filter(query: Query, now_s: float) -> TraceFilter:
    """The filter of a query. Raises: ValueError, in words for whoever wrote it."""
    since = query.get("since", [""])[0]
    return TraceFilter(
        app=query.get("app", [""])[0],
        is_error=query.get("error", ["0"])[0] not in ("0", "false", ""),
        slower_us=int(_duration_s("slower-than", query.get("slower-than", ["0"])[0]) * 1e6),
        since_us=int((now_s - _duration_s("since", since)) * 1e6) if since else 0,
    )


def _duration_s(name: str, text: str) -> float:
    try:
        length_s = parse_duration_s(text)
    except ValueError as error:
        raise ValueError(f"{name} {text!r}: expected {error}") from error
    if length_s < 0:
        raise ValueError(f"{name} {text!r}: expected a duration that is not negative")
    return length_s


def _limit(query: Query) -> int:
    text = query.get("limit", [str(LIMIT)])[0]
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_LIMIT:
        raise ValueError(f"limit {text!r}: expected 1 to {MAX_LIMIT}")
    return int(text)


async def spans_of(tracer: Tracer, wanted: str) -> dict[str, Any]:
    """The spans of one trace, or without an id of the last one: `telemetry.traces.told` has their keys. Raises: ValueError."""
    await tracer.gather()
    trace_id = trace_id_of(wanted) if wanted else tracer.last_trace_id()
    spans = tracer.recent(trace_id) if trace_id is not None else ()
    return {"traceId": f"{trace_id:032x}" if trace_id else "", "spans": [told(span) for span in spans]}
