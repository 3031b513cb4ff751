"""What a tap tells of one call: its request, the head of its answer, its end. Pure.

Each event has whose call it is and what it asks for, by the keys of the access log; no query and no body of it, and of headers only
those that were asked for. Times are microseconds.
"""

from collections.abc import Mapping
from typing import Any, Final

from proxy.contract.head import Headers
from proxy.contract.outcome import Outcome
from proxy.contract.plan import Cause
from proxy.control.notes import note_of, timings_of
from telemetry.access_log import access_fields
from telemetry.line_form import KEYS as KEYS_OF_LINES
from telemetry.line_form import MAX_CHARS
from telemetry.logs import format_time
from telemetry.report import Call
from telemetry.spans import clipped
from telemetry.split import MAX_ATTEMPTS, attempt_told, us

#: What every event says of its call.
_OF_ALL: Final = (
    *("direction", "src", "src_namespace", "dst", "dst_namespace", "peer", "protocol", "verb", "path"),
    *("decision", "policies", "trace_id", "span_id", "sampled"),
)
_ALL, _ENDS = "all", "end"
#: Every key, which events have it, and what it says.
KEYS: Final[Mapping[str, tuple[str, str]]] = {
    "event": (_ALL, "request, response or end; also open, the first, and skipped, where calls were left out"),
    "id": (_ALL, "of the call: its events have the same, and no other call's of this host has"),
    "under_way": (_ALL, "whether it began before the tap did"),
    "time": (_ALL, "when it began, its answer did, or it ended; in UTC with nanoseconds"),
    **{key: (_ALL, KEYS_OF_LINES[key]) for key in _OF_ALL},
    "headers": ("request, response", "values by name, of those that `--headers` names"),
    "status": ("response, end", KEYS_OF_LINES["status"]),
    "ttfb_us": ("response, end", KEYS_OF_LINES["ttfb_us"]),
    **{
        key: (_ENDS, KEYS_OF_LINES[key])
        for key in ("grpc_code", "cause", "made_by", "bytes_in", "bytes_out", "duration_us")
    },
    "attempts": (_ENDS, "tries; 0: nothing was tried"),
    **{key: (_ENDS, KEYS_OF_LINES[key]) for key in ("not_retried", "endpoint", "breaker", "fault")},
    "mtls": (_ENDS, "whether mutual TLS carried it; null: nothing was sent, so nothing was proven"),
    "timings_us": (
        _ENDS,
        "where the time went, in microseconds: resolve (its callee's name), queue (limits), authorize (external authorizers), connect,"
        " upstream_ttfb (to the head of the answer), body, retries (attempts before the last), proxy_overhead (the rest); what it did not"
        " come to is missing",
    ),
    "tried": (
        _ENDS,
        f"the last {MAX_ATTEMPTS} attempts, each with endpoint, status, grpc_code, cause, detail, start_us, queue_us, connect_us,"
        " upstream_ttfb_us and took_us",
    ),
}


def request_of(call: Call, headers: Headers) -> dict[str, Any]:
    """A call that began: what to do about it is decided, or its callee is being looked for."""
    return {"time": format_time(call.started_ns), **_of_all(call), "headers": _told(headers)}


def response_of(call: Call, status: int, head_ns: int, headers: Headers) -> dict[str, Any]:
    """The head of its answer came. ttfb_us: since the call began."""
    return {
        "time": format_time(head_ns),
        **_of_all(call),
        "status": status,
        "ttfb_us": us(head_ns - call.started_ns),
        "headers": _told(headers),
    }


def end_of(call: Call, outcome: Outcome) -> dict[str, Any]:
    """It is over: what the access log says of it, each attempt, and where the time went; see `KEYS`."""
    cause, made_by = _cause(outcome)
    return {
        **access_fields(call),
        "path": clipped(call.path),
        "cause": cause,
        "made_by": made_by,
        "mtls": _is_mutual(call, outcome),
        "attempts": len(outcome.attempts),
        "timings_us": timings_of(outcome),
        "tried": [attempt_told(note_of(one), outcome.started_ns) for one in outcome.attempts[-MAX_ATTEMPTS:]],
    }


def _of_all(call: Call) -> dict[str, Any]:
    facts = access_fields(call)
    told = {key: facts[key] for key in _OF_ALL} | {"path": clipped(call.path)}
    if not call.context.trace_id:  # its span is not known here, or not yet
        told |= dict.fromkeys(("trace_id", "span_id", "sampled"))
    return told


def _told(headers: Headers) -> dict[str, str]:
    """Values by name; of a header that came more than once, all of them."""
    found: dict[str, str] = {}
    for key, data in headers:
        name, value = key.decode("ascii", "replace"), data.decode("utf-8", "replace")
        found[name] = (f"{found[name]}, {value}" if name in found else value)[:MAX_CHARS]
    return found


def _cause(outcome: Outcome) -> tuple[str | None, str | None]:
    if outcome.cause is not None and outcome.cause is not Cause.STATUS:
        return outcome.cause.value, "this-proxy"
    said = outcome.attempts[-1].said if outcome.attempts else None
    return (None, None) if said is None else (said.value, "peer-proxy")


def _is_mutual(call: Call, outcome: Outcome) -> bool | None:
    if call.direction == "inbound":
        return bool(call.peer_id)
    was_sent = any(attempt.sent_ns for attempt in outcome.attempts)
    return bool(call.peer_id) if was_sent else None
