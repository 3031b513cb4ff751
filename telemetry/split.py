"""Where a call's time went and what each attempt came to, as taps and traces tell it. Pure. Times are microseconds."""

from collections.abc import Sequence
from typing import Any, Protocol

from telemetry import names
from telemetry.report import AttemptNote
from telemetry.spans import clipped

MAX_ATTEMPTS = 16  # told of one call, the last ones; a retry policy may have no limit


class _Tried(Protocol):
    @property
    def started_ns(self) -> int: ...
    @property
    def sent_ns(self) -> int: ...
    @property
    def head_ns(self) -> int: ...


def timings_us(started_ns: int, ended_ns: int, attempts: Sequence[_Tried]) -> dict[str, int]:
    """Where a call's time went; the parts add up to all of it, but for rounding.

    hold: the decision, a name that is looked up, gates. retries: earlier attempts and their pauses. connect: of the last attempt, the gates
    before it and a connection; next to nothing where one was open. wait: to the head of the answer. body: the rest.
    """
    if not attempts:
        return {"hold": us(ended_ns - started_ns)}
    first, last = attempts[0], attempts[-1]
    sent_ns = last.sent_ns or ended_ns
    head_ns = last.head_ns or ended_ns
    found = {"hold": first.started_ns - started_ns}
    if len(attempts) > 1:
        found["retries"] = last.started_ns - first.started_ns
    found["connect"] = sent_ns - last.started_ns
    if last.sent_ns:
        found["wait"] = head_ns - sent_ns
    if last.head_ns:
        found["body"] = ended_ns - head_ns
    return {part: us(took_ns) for part, took_ns in found.items()}


def attempt_told(attempt: AttemptNote, started_ns: int) -> dict[str, Any]:
    """One try. `start_us`: after the call began; `connect_us` and `wait_us`: None where it did not come to that."""
    code, cause = attempt.grpc_code, attempt.cause or attempt.said
    sent_ns, head_ns = attempt.sent_ns, attempt.head_ns
    return {
        "endpoint": attempt.endpoint,
        "status": attempt.status,
        "grpc_code": None if code is None else names.grpc_code_name(code),
        "cause": cause,
        "detail": clipped(attempt.detail),
        "start_us": us(attempt.started_ns - started_ns),
        "connect_us": us(sent_ns - attempt.started_ns) if sent_ns else None,
        "wait_us": us(head_ns - sent_ns) if sent_ns and head_ns else None,
        "took_us": us(attempt.ended_ns - attempt.started_ns),
    }


def us(length_ns: int) -> int:
    """Microseconds; a clock that was set back makes no negative length."""
    return max(length_ns, 0) // 1_000
