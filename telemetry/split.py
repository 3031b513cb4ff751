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
    def queue_ns(self) -> int: ...
    @property
    def sent_ns(self) -> int: ...
    @property
    def head_ns(self) -> int: ...


def timings_us(
    started_ns: int,
    ended_ns: int,
    attempts: Sequence[_Tried],
    *,
    resolve_ns: int = 0,
    queue_ns: int = 0,
    authorize_ns: int = 0,
) -> dict[str, int]:
    """Where a call's time went; the parts add up to all of it, but for rounding. Their names are those of `postern_phase_seconds`.

    resolve: its callee's name was looked up. queue: at limits. authorize: external authorizers. connect: of the last attempt, until it had
    a connection; next to nothing where one was open. upstream_ttfb: to the head of the answer. body: to its end. retries: earlier attempts
    and their pauses. proxy_overhead: all else: the decision, and what is asked for it. What did not come to that is left out.
    """
    found = {"resolve": resolve_ns, "queue": queue_ns}
    if authorize_ns:
        found["authorize"] = authorize_ns
    if attempts:
        first, last = attempts[0], attempts[-1]
        sent_ns, head_ns = last.sent_ns or ended_ns, last.head_ns or ended_ns
        found["queue"] += last.queue_ns
        found["connect"] = sent_ns - last.started_ns - last.queue_ns
        if last.sent_ns:
            found["upstream_ttfb"] = head_ns - sent_ns
        if last.head_ns:
            found["body"] = ended_ns - head_ns
        if len(attempts) > 1:
            found["retries"] = last.started_ns - first.started_ns
    found = {part: us(took_ns) for part, took_ns in found.items()}
    return {**found, "proxy_overhead": max(us(ended_ns - started_ns) - sum(found.values()), 0)}


def attempt_told(attempt: AttemptNote, started_ns: int) -> dict[str, Any]:
    """One try. `start_us`: after the call began; `connect_us` and `upstream_ttfb_us`: None where it did not come to that."""
    code, cause = attempt.grpc_code, attempt.cause or attempt.said
    sent_ns, head_ns = attempt.sent_ns, attempt.head_ns
    return {
        "endpoint": attempt.endpoint,
        "status": attempt.status,
        "grpc_code": None if code is None else names.grpc_code_name(code),
        "cause": cause,
        "detail": clipped(attempt.detail),
        "start_us": us(attempt.started_ns - started_ns),
        "queue_us": us(attempt.queue_ns),
        "connect_us": us(sent_ns - attempt.started_ns - attempt.queue_ns) if sent_ns else None,
        "upstream_ttfb_us": us(head_ns - sent_ns) if sent_ns and head_ns else None,
        "took_us": us(attempt.ended_ns - attempt.started_ns),
    }


def us(length_ns: int) -> int:
    """Microseconds; a clock that was set back makes no negative length."""
    return max(length_ns, 0) // 1_000
