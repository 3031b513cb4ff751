"""Attempts of an engine, and where a call's time went, as telemetry has them. Pure."""

from proxy.contract.outcome import Attempt, Outcome
from telemetry.report import AttemptNote
from telemetry.split import timings_us


def note_of(attempt: Attempt) -> AttemptNote:
    """One attempt."""
    return AttemptNote(
        endpoint=attempt.endpoint,
        started_ns=attempt.started_ns,
        ended_ns=attempt.ended_ns,
        cause=attempt.cause.value if attempt.cause is not None else None,
        status=attempt.status,
        grpc_code=attempt.grpc_code,
        sent_ns=attempt.sent_ns,
        head_ns=attempt.head_ns,
        detail=attempt.detail,
        said=attempt.said.value if attempt.said is not None else None,
        queue_ns=attempt.queue_ns,
    )


def timings_of(outcome: Outcome) -> dict[str, int]:
    """Where its time went, in microseconds: see `timings_us`."""
    return timings_us(
        outcome.started_ns,
        outcome.ended_ns,
        outcome.attempts,
        resolve_ns=outcome.resolve_ns,
        queue_ns=outcome.queue_ns,
        authorize_ns=outcome.authorize_ns,
    )
