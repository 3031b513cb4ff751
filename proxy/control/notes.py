"""Attempts of an engine as telemetry has them. Pure."""

from proxy.contract.outcome import Attempt
from telemetry.report import AttemptNote


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
    )
