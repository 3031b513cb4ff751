"""Does a trace show a checkout as it must have gone: every service in it, each call under its caller? Pure.

Spans come as `postern trace -o json` gives them: {"spans": […]}, each in Zipkin's form.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# Who calls whom in a checkout, and how often: the first column calls the second.
CHECKOUT_CALLS: Mapping[tuple[str, str], int] = {
    ("frontend", "checkout"): 1,
    ("checkout", "cart"): 2,
    ("checkout", "catalog"): 1,
    ("checkout", "currency"): 1,
    ("checkout", "shipping"): 2,
    ("shipping", "currency"): 1,
    ("checkout", "payment"): 1,
    ("checkout", "reviews"): 1,
}
ROOT = "frontend"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at, and what was found where it is not as it should be."""

    title: str
    passed: bool
    found: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    span_id: str
    parent_id: str
    trace_id: str
    kind: str
    name: str
    service: str


def check_checkout(document: object, trace_id: str) -> tuple[Check, ...]:
    """Look at the spans of the trace that a checkout should have left."""
    spans = {span.span_id: span for span in _read(document)}
    return (
        _check_identity(spans, trace_id),
        _check_root(spans),
        _check_parents(spans),
        *(_check_call(spans, caller, callee, times) for (caller, callee), times in CHECKOUT_CALLS.items()),
    )


def _check_identity(spans: Mapping[str, _Span], trace_id: str) -> Check:
    found = {span.trace_id for span in spans.values()}
    return Check(
        title="the last trace is the one on the receipt",
        passed=bool(trace_id) and found == {trace_id},
        found=f"expected trace {trace_id or '(none on the receipt)'}, found {sorted(found) or 'no spans'}",
    )


def _check_root(spans: Mapping[str, _Span]) -> Check:
    roots = [f"{span.kind} {span.service}" for span in spans.values() if not span.parent_id]
    return Check(
        title=f"it begins with one call, made by {ROOT}",
        passed=roots == [f"CLIENT {ROOT}"],
        found=f"it begins with {sorted(roots) or 'nothing'}",
    )


def _check_parents(spans: Mapping[str, _Span]) -> Check:
    lost = [span for span in spans.values() if span.parent_id and span.parent_id not in spans]
    return Check(
        title="every span's parent is in it",
        passed=bool(spans) and not lost,
        found="; ".join(f"{span.service} {span.name} lacks its parent" for span in lost) or "no spans",
    )


def _check_call(spans: Mapping[str, _Span], caller: str, callee: str, times: int) -> Check:
    """Count the spans of `callee` whose parent is a call by `caller`, itself made while serving its own caller."""
    seen = sum(
        1
        for span in spans.values()
        if (span.kind, span.service) == ("SERVER", callee) and _is_made_by(spans, span, caller)
    )
    return Check(
        title=f"{caller} called {callee}{f' {times} times' if times > 1 else ''}, under its own call",
        passed=seen == times,
        found=f"seen {seen} times, expected {times}",
    )


def _is_made_by(spans: Mapping[str, _Span], served: _Span, caller: str) -> bool:
    call = spans.get(served.parent_id)
    if call is None or (call.kind, call.service) != ("CLIENT", caller):
        return False
    if caller == ROOT:
        return not call.parent_id
    cause = spans.get(call.parent_id)
    return cause is not None and (cause.kind, cause.service) == ("SERVER", caller)


def _read(document: object) -> Iterator[_Span]:
    rows = document.get("spans") if isinstance(document, dict) else None
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict):
            continue
        endpoint = row.get("localEndpoint")
        yield _Span(
            span_id=_text(row, "id"),
            parent_id=_text(row, "parentId"),
            trace_id=_text(row, "traceId"),
            kind=_text(row, "kind"),
            name=_text(row, "name"),
            service=_text(endpoint, "serviceName") if isinstance(endpoint, dict) else "",
        )


def _text(row: Mapping[str, object], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""
