"""Spans of one or more sidecars -> a tree that people read in a terminal. Pure: JSON values in, text out.

What peers sent (names, errors) may hold anything, so nothing unprintable gets through to the terminal.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from telemetry.printable import printable
from telemetry.shown import error_shown

_BOLD, _DIM, _RED, _CYAN, _OFF = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[36m", "\x1b[0m"
# Deeper than any real chain of calls, and well below Python's own limit on recursion.
_DEPTH = 100

SpanDict = Mapping[str, Any]


class _Row(Struct, frozen=True, kw_only=True):
    """A line before its columns are aligned. `note` stands below the span, without times."""

    branch: str
    service: str
    text: str
    timing: str = ""
    error: str = ""
    note: bool = False


def render(spans: Iterable[SpanDict], *, color: bool = False) -> str:
    """The traces that these spans belong to, oldest first, each as a tree; "" for none.

    Spans are Zipkin v2 JSON: of `Span.as_dict()`, or as a Zipkin server returns them. One whose parent was not
    handed in stands at the top and says so. Spans handed in twice appear once.
    """
    traces: dict[str, dict[tuple[str, str], SpanDict]] = defaultdict(dict)
    for span in spans:
        traces[str(span["traceId"])].setdefault((str(span["id"]), str(span.get("kind"))), span)
    ordered = sorted(traces.items(), key=lambda item: min(map(_start_us, item[1].values())))
    return "\n\n".join(_render_trace(trace_id, list(found.values()), color) for trace_id, found in ordered)


def _render_trace(trace_id: str, spans: list[SpanDict], color: bool) -> str:
    spans.sort(key=lambda span: (_start_us(span), span.get("kind") != "CLIENT"))
    began_us = _start_us(spans[0])
    took_us = max(_start_us(span) + _took_us(span) for span in spans) - began_us
    services = {_service(span) for span in spans}
    errors = sum(1 for span in spans if _error(span))
    title = (
        f"trace {printable(trace_id)}  {_plural(len(services), 'service')}, {_plural(len(spans), 'span')}, "
        f"{_duration(took_us)}" + (f", {_plural(errors, 'error')}" if errors else "")
    )
    rows: list[_Row] = []
    children = _children(spans)
    shown: set[int] = set()
    for root in _roots(spans):
        _walk(root, children, rows, shown, began_us, head="", tail="")
    # Only spans in a circle of parents are left: shown flat rather than lost.
    for span in spans:
        if id(span) not in shown:
            _walk(span, children, rows, shown, began_us, head="", tail="")
    return "\n".join([f"{_BOLD}{title}{_OFF}" if color else title, *_aligned(rows, color)])


def _children(spans: list[SpanDict]) -> dict[str, list[SpanDict]]:
    children: dict[str, list[SpanDict]] = defaultdict(list)
    for span in spans:
        if span.get("parentId"):
            children[str(span["parentId"])].append(span)
    return children


def _roots(spans: list[SpanDict]) -> list[SpanDict]:
    known = {str(span["id"]) for span in spans}
    return [span for span in spans if str(span.get("parentId") or "") not in known]


def _walk(
    span: SpanDict,
    children: dict[str, list[SpanDict]],
    rows: list[_Row],
    shown: set[int],
    began_us: int,
    *,
    head: str,
    tail: str,
) -> None:
    """Adds the span and its descendants; `head` stands before its own line, `tail` before those below it."""
    shown.add(id(span))
    rows.append(_row(span, head, began_us))
    below = [child for child in children[str(span["id"])] if id(child) not in shown]
    if len(tail) > 3 * _DEPTH:
        return
    bar = "│  " if below else "   "
    rows += [
        _Row(branch=tail + bar, service="", text=f"· {printable(note)}", note=True)
        for note in _notes(span, began_us)
    ]
    for child in below:
        last = child is below[-1]
        if id(child) not in shown:
            _walk(
                child,
                children,
                rows,
                shown,
                began_us,
                head=tail + ("└─ " if last else "├─ "),
                tail=tail + ("   " if last else "│  "),
            )


def _row(span: SpanDict, branch: str, began_us: int) -> _Row:
    kind = str(span.get("kind") or "LOCAL")
    remote = span.get("remoteEndpoint") or {}
    other = printable(remote.get("serviceName") or "")
    text = f"{printable(span.get('name') or '?')}  {kind.lower()}"
    if other:
        text += f" → {other}" if kind == "CLIENT" else f" ← {other}"
    host = remote.get("ipv4") or remote.get("ipv6")
    if kind == "CLIENT" and host:
        text += f" ({printable(host)}:{remote.get('port', 0)})"
    if not branch and span.get("parentId"):
        text += f"  (parent {printable(span['parentId'])} not seen)"
    return _Row(
        branch=branch,
        service=printable(_service(span)),
        text=text,
        timing=f"{_duration(_took_us(span))}  +{_duration(_start_us(span) - began_us)}",
        error=printable(error_shown(_error(span))),
    )


def _notes(span: SpanDict, began_us: int) -> Iterator[str]:
    """What stands below a span: of our own in memory where its time went, each attempt, who decided; of others their events."""
    told = span.get("postern") or {}
    tried = told.get("tried") or ()
    for event in span.get("annotations") or ():
        if not (tried and str(event["value"]).startswith("retry ")):  # an attempt says more
            yield f"{event['value']} (+{_duration(event['timestamp'] - began_us)})"
    if told.get("cause"):
        by = "this proxy" if told["made_by"] == "this-proxy" else "the callee's proxy"
        yield f"{told['cause']}: answered by {by}"
    if told.get("decision"):
        yield f"{'denied' if told['cause'] == 'denied' else 'allowed'}: {told['decision']}"
    if told.get("policies"):
        yield f"policies {', '.join(told['policies'])}"
    if len(tried) > 1 or told.get("cause"):
        for number, one in enumerate(tried, 1):
            yield f"attempt {number}: {_attempt(one)}"
    if told.get("timings_us"):
        yield ", ".join(f"{part} {_duration(took)}" for part, took in told["timings_us"].items())


def _attempt(tried: Mapping[str, Any]) -> str:
    code = tried["grpc_code"] or tried["status"] or ""
    result = " ".join(str(part) for part in (tried["cause"], code, tried["detail"]) if part)
    return f"{tried['endpoint'] or 'no endpoint'}  {result}  {_duration(tried['took_us'])}"


def _start_us(span: SpanDict) -> int:
    return int(span.get("timestamp") or 0)


def _took_us(span: SpanDict) -> int:
    return int(span.get("duration") or 0)


def _service(span: SpanDict) -> str:
    return str((span.get("localEndpoint") or {}).get("serviceName") or "?")


def _error(span: SpanDict) -> str:
    return str((span.get("tags") or {}).get("error") or "")


def _aligned(rows: list[_Row], color: bool) -> list[str]:
    left = [
        f"{row.branch}{row.service}  {row.text}" if row.service else f"{row.branch}{row.text}" for row in rows
    ]
    width = max((len(text) for text, row in zip(left, rows, strict=True) if not row.note), default=0)
    return [_line(text, row, width, color) for text, row in zip(left, rows, strict=True)]


def _line(text: str, row: _Row, width: int, color: bool) -> str:
    if not color:
        if row.note:
            return text
        return f"{text.ljust(width)}  {row.timing}" + (f"  ✗ {row.error}" if row.error else "")
    if row.note:
        return f"{_DIM}{text}{_OFF}"
    padding = " " * (width - len(text))
    line = f"{row.branch}{_CYAN}{row.service}{_OFF}  {row.text}{padding}  {_DIM}{row.timing}{_OFF}"
    return line + (f"  {_RED}✗ {row.error}{_OFF}" if row.error else "")


def _duration(us: int) -> str:
    if abs(us) < 1000:
        return f"{us} µs"
    return f"{us / 1e3:.1f} ms" if abs(us) < 1_000_000 else f"{us / 1e6:.2f} s"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
