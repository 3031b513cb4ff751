"""The outcome of a call, reported once after its last byte, or added up with others."""

from msgspec import Struct

from proxy.contract.head import RequestHead
from proxy.contract.plan import Cause, Labels


class Attempt(Struct):
    """One try at one endpoint. Times are epoch nanoseconds, 0 where it did not come to that. sent_ns: when it had a connection."""

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


class Outcome(Struct):
    """What came of one call; handed to the Observer once, after the last byte. `trace` is the engine-opaque span of this hop.

    `attempts`: as they were begun; the one by which the call ended is last.
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


Sums = tuple[list[int], float]  # observations per bucket, and their sum


class Tally(Struct, frozen=True, kw_only=True):
    """Finished calls with the same labels and answer, added up. Buckets by `Measures`; the last is what lies above all bounds.

    `path`: of gRPC calls, and of HTTP's where `Measures` asks for it; "other" beyond the first of them.
    `to_head_whole_ms`: in whole milliseconds, as `to_end_ms`.
    """

    labels: Labels
    protocol: str
    method: str
    path: str
    status: int
    grpc_code: int | None
    cause: Cause | None
    calls: int
    duration_s: Sums
    to_end_ms: Sums
    to_head_ms: Sums
    to_head_whole_ms: Sums
    up_bytes: Sums
    down_bytes: Sums
