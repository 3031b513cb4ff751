"""One call as a tap tells it: what an access line says, and what only whoever looks for a fault wants to know. Pure.

No header, no query and no body of a call is told. Times are microseconds.
"""

from typing import Any

from proxy.contract.outcome import Attempt, Outcome
from proxy.contract.plan import Cause
from telemetry import names
from telemetry.access_log import access_fields
from telemetry.report import Call

MAX_PATH_CHARS = 1_024
MAX_ATTEMPTS = 16  # told of one call, the last ones; a retry policy may have no limit


def event_of(call: Call, outcome: Outcome, *, obfuscate: bool) -> dict[str, Any]:
    """A finished call by the keys of the access log, then by whom it was answered, the policies, each attempt, and where the time went.

    cause: why a proxy answered in the app's place, `made_by` tells which: `this-proxy` or `peer-proxy`; None: the app answered.
    mtls: whether mutual TLS carried it; None: nothing was sent, so nothing was proven.
    """
    cause, made_by = _cause(outcome)
    return {
        "event": "call",
        **access_fields(call),
        "path": "" if obfuscate else _cut(call.path),
        "cause": cause,
        "made_by": made_by,
        "mtls": _is_mutual(call, outcome),
        "attempts": len(outcome.attempts),
        "policies": [f"{name}/{kind}" for name, _, kind, _ in call.policies],
        "timings_us": timings_us(outcome),
        "tried": [_attempt(one, outcome.started_ns) for one in outcome.attempts[-MAX_ATTEMPTS:]],
    }


def timings_us(outcome: Outcome) -> dict[str, int]:
    """Where a call's time went; the parts add up to all of it, but for rounding.

    hold: the decision, a name that is looked up, gates. retries: earlier attempts and their pauses. connect: of the last attempt, the gates
    before it and a connection; next to nothing where one was open. wait: to the head of the answer. body: the rest.
    """
    if not outcome.attempts:
        return {"hold": _us(outcome.ended_ns - outcome.started_ns)}
    first, last = outcome.attempts[0], outcome.attempts[-1]
    sent_ns = last.sent_ns or outcome.ended_ns
    head_ns = last.head_ns or outcome.ended_ns
    found = {"hold": first.started_ns - outcome.started_ns}
    if len(outcome.attempts) > 1:
        found["retries"] = last.started_ns - first.started_ns
    found["connect"] = sent_ns - last.started_ns
    if last.sent_ns:
        found["wait"] = head_ns - sent_ns
    if last.head_ns:
        found["body"] = outcome.ended_ns - head_ns
    return {part: _us(took_ns) for part, took_ns in found.items()}


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


def _attempt(attempt: Attempt, started_ns: int) -> dict[str, object]:
    """One try. `start`: after the call began; `connect` and `wait`: None where it did not come to that."""
    code, cause = attempt.grpc_code, attempt.cause or attempt.said
    sent_ns, head_ns = attempt.sent_ns, attempt.head_ns
    return {
        "endpoint": attempt.endpoint,
        "status": attempt.status,
        "grpc_code": None if code is None else names.grpc_code_name(code),
        "cause": None if cause is None else cause.value,
        "detail": _cut(attempt.detail),
        "start_us": _us(attempt.started_ns - started_ns),
        "connect_us": _us(sent_ns - attempt.started_ns) if sent_ns else None,
        "wait_us": _us(head_ns - sent_ns) if sent_ns and head_ns else None,
        "took_us": _us(attempt.ended_ns - attempt.started_ns),
    }


def _us(length_ns: int) -> int:
    return max(length_ns, 0) // 1_000  # a clock that was set back makes no negative length


def _cut(text: str) -> str:
    return text if len(text) <= MAX_PATH_CHARS else f"{text[: MAX_PATH_CHARS - 1]}…"
