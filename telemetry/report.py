"""The report of one finished call at one proxy: what an engine's outcome is mapped to. Values only, no rules."""

from collections.abc import Sequence

from msgspec import Struct

from telemetry.context import SpanContext


class AttemptNote(Struct, frozen=True, kw_only=True):
    """One attempt. `cause` is why it failed (None: it did not), `status` 0 when no head came, `detail` what the system or the peer said.

    `said`: by the callee's proxy, of an answer that it made in its app's place. `sent_ns`: when it had a connection; times are 0 where it
    did not come to that. `queue_ns`: how long it waited at limits before it looked for one.
    """

    endpoint: str
    started_ns: int
    ended_ns: int
    cause: str | None = None
    status: int = 0
    grpc_code: int | None = None
    sent_ns: int = 0
    head_ns: int = 0
    detail: str = ""
    said: str | None = None
    queue_ns: int = 0


class Buckets(Struct, frozen=True):
    """Observations of many calls: how many in each bucket (the last lies above all bounds), and their sum."""

    counts: Sequence[int]
    sum: float


class Batch(Struct, frozen=True, kw_only=True):
    """What many calls with equal labels and answers came to. `to_head_whole_ms`: as `to_end_ms`, in whole milliseconds.

    latency_bounds_ms: of the buckets in milliseconds. exemplars: of `duration_s`, as (span, seconds, epoch seconds).
    """

    calls: int
    latency_bounds_ms: tuple[float, ...]
    duration_s: Buckets
    to_end_ms: Buckets
    to_head_ms: Buckets
    to_head_whole_ms: Buckets
    bytes_in: Buckets
    bytes_out: Buckets
    exemplars: tuple[tuple[SpanContext, float, float], ...] = ()


# Not frozen: one is made per call, and a frozen one costs 4 µs more. Whoever records it never changes it.
class Call(Struct, kw_only=True):
    """One finished call.

    direction `outbound` (app to peer) or `inbound` (peer to app); protocol `http`, `grpc` or `websocket`; surface
    `dapr` or `own`. `path` is for people, without the query. Times are epoch nanoseconds, `head_ns` 0 when no
    response head came. `status` is HTTP's, 0 for none. `cause` names a failure made by a proxy, not by the app,
    in lower case with dashes. `said`: the same of a failure that the callee's proxy
    answered with. `endpoint` is `ip:port` or "", `peer_address` the caller's IP address or "". `bytes_in` is the request's body,
    `bytes_out` the answer's. `attempts` may stay empty when there was but one; `tried` has all of them, of calls that a trace is kept of.
    is_inner: it was made by Dapr's InvokeService, which is reported as a call of the API itself. Without a `dst` the call was to that API,
    or named nobody.
    query, baggage: where spans are to have them, the raw query, and (key, value) of members of the request's baggage.
    policies: those in force, as (resource, its namespace, kind, target). is_by_path: the callee was named in Dapr's path form, of which
    `path` is what follows `/method`. breaker: the states in which it found the circuit breaker that it asked first, and left it; both
    empty where it asked none. not_retried: why a failure was its last; empty: it was none, or nothing could have mended it. faults: those
    that were injected, as (epoch ns, names with commas between).
    resolve_ns: how long it waited for its callee to be found; queue_ns: at limits before its first attempt; authorize_ns: for
    external authorizers.
    """

    direction: str
    protocol: str
    surface: str
    src: str
    dst: str
    src_namespace: str
    dst_namespace: str
    verb: str
    path: str
    status: int
    grpc_code: int | None
    cause: str | None
    context: SpanContext
    started_ns: int
    head_ns: int
    ended_ns: int
    attempts: tuple[AttemptNote, ...] = ()
    bytes_in: int = 0
    bytes_out: int = 0
    endpoint: str = ""
    peer_id: str = ""
    decision: str = ""
    peer_address: str = ""
    is_by_path: bool = False
    is_inner: bool = False
    policies: tuple[tuple[str, str, str, str], ...] = ()
    breaker: tuple[str, str] = ("", "")
    not_retried: str = ""
    faults: tuple[tuple[int, str], ...] = ()
    said: str | None = None
    tried: tuple[AttemptNote, ...] = ()
    query: str = ""
    baggage: tuple[tuple[str, str], ...] = ()
    resolve_ns: int = 0
    queue_ns: int = 0
    authorize_ns: int = 0
