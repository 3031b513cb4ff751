"""The outcome of a call, reported once after its last byte, or added up with others."""

from enum import Enum
from typing import NamedTuple

from msgspec import Struct

from proxy.contract.breakers import BreakerState
from proxy.contract.head import RequestHead
from proxy.contract.plan import Cause, Labels


class NotRetried(Enum):
    """Why a failure is the call's last; the value is what spans and lines say."""

    NOT_COVERED = "not-covered"  # no rule speaks of such a failure
    STREAMING = "streaming"  # a body of unknown length is never sent twice
    BODY = "body-not-kept"  # too large for the replay buffer, or that is full
    NO_ATTEMPTS = "no-attempts-left"
    TOO_LATE = "time-of-the-rule-over"
    DEADLINE = "deadline"  # of the call: passed, or before the pause would end
    PUSHBACK = "pushback"  # the answer asks for none
    BUDGET = "budget"  # that of the target is empty
    BEGUN = "response-begun"
    DENIED = "denied"  # by the callee's proxy: another attempt would meet the same rules


class Attempt(Struct):
    """One try at one endpoint. Times are epoch nanoseconds, 0 where it did not come to that. sent_ns: when it had a connection.

    queue_ns: how long it waited at the limits of its route, before it looked for a connection.
    """

    endpoint: str
    started_ns: int
    head_ns: int = 0
    ended_ns: int = 0
    cause: Cause | None = None
    status: int = 0
    grpc_code: int | None = None
    detail: str = ""
    said: Cause | None = None  # by the peer's proxy, of an answer that it made in its app's place
    sent_ns: int = 0
    queue_ns: int = 0
    fault: str = ""  # names of those that were injected into it, with commas between


class Outcome(Struct):
    """What came of one call; handed to the Observer once, after the last byte. `trace` is the engine-opaque span of this hop.

    `attempts`: as they were begun; the one by which the call ended is last. `breaker`: how the call found the circuit breaker that it
    asked first, and how it left it. `not_retried`: of a failure that another attempt might have mended.
    resolve_ns: how long it waited for its callee to be found; queue_ns: at limits before its first attempt; authorize_ns: for
    external authorizers.
    number: of the call, as `CallBegun` has it, and no other has.
    """

    head: RequestHead
    labels: Labels
    trace: object
    started_ns: int
    head_ns: int
    ended_ns: int
    status: int
    grpc_code: int | None
    cause: Cause | None
    attempts: list[Attempt]
    up_bytes: int
    down_bytes: int
    breaker: tuple[BreakerState, BreakerState] | None = None
    not_retried: NotRetried | None = None
    resolve_ns: int = 0
    queue_ns: int = 0
    authorize_ns: int = 0
    number: int = -1


PHASED = 64  # of so many calls that a worker begins, the first is looked at for its phases


class Phases(NamedTuple):
    """Where the time of one call went, in seconds.

    resolve: waiting for its callee to be found. queue: at limits. authorize: for external authorizers,
    None where none was asked. upstream_ttfb: from when it had a connection to the answer's head.
    body: to the answer's end. proxy_overhead: all else but waiting for a connection, which is measured of each connection.
    """

    resolve: float
    queue: float
    authorize: float | None
    upstream_ttfb: float
    body: float
    proxy_overhead: float


def phases_of(outcome: Outcome) -> Phases | None:
    """None for a tunnel, or a call with more than one attempt or no answer."""
    if len(outcome.attempts) != 1 or outcome.head.protocol == "websocket":
        return None
    (attempt,) = outcome.attempts
    if not attempt.sent_ns or not attempt.head_ns:
        return None
    queue = outcome.queue_ns + attempt.queue_ns
    connect = max(0, attempt.sent_ns - attempt.started_ns - attempt.queue_ns)
    ttfb = max(0, attempt.head_ns - attempt.sent_ns)
    body = max(0, attempt.ended_ns - attempt.head_ns)
    took = max(0, outcome.ended_ns - outcome.started_ns)
    rest = max(0, took - outcome.resolve_ns - queue - outcome.authorize_ns - connect - ttfb - body)
    authorize = outcome.authorize_ns / 1e9 if outcome.authorize_ns else None
    return Phases(outcome.resolve_ns / 1e9, queue / 1e9, authorize, ttfb / 1e9, body / 1e9, rest / 1e9)


Sums = tuple[list[int], float]  # observations per bucket, and their sum


class Exemplar(NamedTuple):
    """A sampled call. took_ns: from its start to `ended_ns`, epoch nanoseconds."""

    trace_id: int
    span_id: int
    took_ns: int
    ended_ns: int


class Tally(Struct, frozen=True, kw_only=True):
    """Finished calls with the same labels and answer, added up. Buckets by `Measures`; the last is what lies above all bounds.

    `said`: as of their last attempts. `path`: of gRPC calls, and of HTTP's where `Measures` asks for it; "other" beyond the first of them.
    `to_head_whole_ms`: in whole milliseconds, as `to_end_ms`. `latency_bounds_ms`: those of `Measures` by which they were added up.
    `exemplars`: the latest sampled call in each bucket of `duration_s` that has one.
    """

    labels: Labels
    protocol: str
    method: str
    path: str
    status: int
    grpc_code: int | None
    cause: Cause | None
    said: Cause | None = None
    not_retried: NotRetried | None = None
    calls: int
    latency_bounds_ms: tuple[float, ...]
    duration_s: Sums
    to_end_ms: Sums
    to_head_ms: Sums
    to_head_whole_ms: Sums
    up_bytes: Sums
    down_bytes: Sums
    exemplars: tuple[Exemplar, ...] = ()
