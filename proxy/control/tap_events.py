"""One call as a tap tells it: what an access line says, and what else helps to find a fault. Pure.

No header, no query and no body of a call is told. Times are microseconds.
"""

from typing import Any

from proxy.contract.outcome import Outcome
from proxy.contract.plan import Cause
from proxy.control.notes import note_of, timings_of
from telemetry.access_log import access_fields
from telemetry.report import Call
from telemetry.spans import clipped
from telemetry.split import MAX_ATTEMPTS, attempt_told


def event_of(call: Call, outcome: Outcome, *, obfuscate: bool) -> dict[str, Any]:
    """A finished call by the keys of the access log, then by whom it was answered, the policies, each attempt, and where the time went.

    cause: why a proxy answered in the app's place, `made_by` tells which: `this-proxy` or `peer-proxy`; None: the app answered.
    mtls: whether mutual TLS carried it; None: nothing was sent, so nothing was proven.
    """
    cause, made_by = _cause(outcome)
    return {
        "event": "call",
        **access_fields(call),
        "path": "" if obfuscate else clipped(call.path),
        "cause": cause,
        "made_by": made_by,
        "mtls": _is_mutual(call, outcome),
        "attempts": len(outcome.attempts),
        "policies": [f"{name}/{kind}" for name, _, kind, _ in call.policies],
        "timings_us": timings_of(outcome),
        "tried": [attempt_told(note_of(one), outcome.started_ns) for one in outcome.attempts[-MAX_ATTEMPTS:]],
    }


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
