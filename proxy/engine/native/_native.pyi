"""The extension built from `crates/binding`."""

from typing import Final, Literal

from proxy.contract.balancing import BalancingPolicy, TurnReason
from proxy.contract.breakers import BreakerState
from proxy.contract.budgets import BudgetKind
from proxy.contract.engine import PeerRefusal, SpanLabels
from proxy.contract.head import Form, Framing, Headers

seam: Final[str]  # `seam.SEAM` of the sources that it was built from
causes: Final[list[str]]
question_kinds: Final[list[str]]  # those of Asked
notice_kinds: Final[list[str]]  # those of Notice
news_kinds: Final[list[str]]  # those of News

Pairs = list[tuple[bytes, bytes]]
# number of the decision, of its labels, the pieces of its calls' lines, what their spans say, and the sampling of new traces
TokenParts = tuple[int, int, list[tuple[str, bytes]] | None, SpanLabels | None, int]
# The fields of SpansWanted, and the phrases of HTTP statuses.
SpansParts = tuple[str, bool, int | None, str, bool, list[str], list[tuple[int, str]]]
ReplyParts = tuple[TokenParts, int, Pairs, bytes, int, str, str, list[str], list[str]]
EditParts = tuple[str, bytes, bytes]
RouteParts = tuple[str, int, list[str], list[EditParts], list[str]]
RetryParts = tuple[int | None, list[str], list[int] | None, list[int] | None, float | None, bool, bool]
BreakerUseParts = tuple[str, str, Form, str | None, bool]
# target, and its share (ratio, per second, seconds), or its throttle (tokens, ratio)
BudgetParts = tuple[str, tuple[float, float, float] | None, tuple[float, float]]
BreakerParts = tuple[str, int, float, float, list[tuple[str, int | float]], int]
Times = tuple[float, float | None, float | None]
VerifiedParts = tuple[str, bytes, bytes, bytes]
ViaParts = tuple[str, bytes, VerifiedParts | None]
BalancingParts = tuple[BalancingPolicy, bytes, bytes]  # the fields of a Balancing, in order
PlanParts = tuple[
    TokenParts,
    list[RouteParts],
    tuple[list[RetryParts], tuple[int, float] | None, bool],  # and whether denials fail
    tuple[list[str], bool],  # gates, and whether authorizers are asked
    tuple[BreakerUseParts | None, BudgetParts | None],
    Times,
    int | None,
    int,
    list[EditParts],
    tuple[bool, bool],
    int | None,
    list[str],
]
OutlierParts = tuple[
    int, int, int, float, float, float, int, float, float
]  # the fields of Outliers, in order
# key, wire, TLS, upstreams by address, weight and rank, what is at them, what is before them, how calls are spread, outliers
ClusterParts = tuple[
    str,
    str,
    str | VerifiedParts | None,
    list[tuple[str, int, int]],
    str,
    ViaParts | None,
    BalancingParts,
    OutlierParts | None,
]
ReadParts = tuple[str, bytes, int | None, int | None]

# The fields of a RequestHead, in order.
HeadParts = tuple[
    str,
    Literal["http1", "http2", "grpc", "websocket"],
    Framing,
    str,
    str,
    bytes,
    str,
    bytes,
    Headers,
    str | None,
    str,
    int | None,
    Literal["origin", "absolute"],
]
CountParts = tuple[int, int, int, int, int]
SpanParts = tuple[int, int, int, int, bool, str]
AttemptParts = tuple[str, int, int, int, str | None, int, int | None, str, tuple[str | None, str], int, int]
OutcomeParts = tuple[
    HeadParts,
    int | None,
    SpanParts | int | None,
    int,
    int,
    int,
    int,
    int | None,
    str | None,
    list[AttemptParts],
    tuple[int, int],
    tuple[tuple[BreakerState, BreakerState] | None, str | None],
    tuple[int, int, int],
    int,
]

ShapeParts = tuple[str, list[tuple[str, str, set[str]]], bool, str]
SumParts = tuple[list[int], float]
KindParts = tuple[int, str, str, str, int, int | None, str | None, str | None, str | None]
# halves of the trace id, span id, duration and end in nanoseconds
ExemplarParts = tuple[int, int, int, int, int]
TallyParts = tuple[
    KindParts,
    int,
    tuple[SumParts, SumParts, SumParts, SumParts, SumParts, SumParts],
    list[ExemplarParts],
]

class Tallies:
    def __len__(self) -> int: ...
    def __iter__(self) -> Tallies: ...
    def __next__(self) -> TallyParts: ...

# What is asked: (kind, arguments, where to answer). Each is answered by the method of Question that its kind names, unless it says else.
Asked = (
    tuple[Literal["decide"], HeadParts, Question]  # by `plan`, `reply` or `hold`
    | tuple[Literal["class"], tuple[str, int], Question]  # of a path in a table; by `class_is`
    | tuple[Literal["span"], tuple[Headers, bool], Question]  # this hop's; of gRPC?
    | tuple[Literal["reply"], tuple[int, str], Question]  # of the Plan with this token for a cause
    | tuple[
        Literal["undecided"], tuple[HeadParts, str | None], Question
    ]  # what is bad of it, None: its deadline passed; by `reply`
    | tuple[
        Literal["pauses"], tuple[int, int, int, bool], Question
    ]  # call, token of its Plan, number of the rule, whether it begins anew
    | tuple[Literal["explain"], tuple[str], Question]  # a cluster's key
    | tuple[
        Literal["authorize"], tuple[HeadParts, int], Question
    ]  # about a call under the Plan with this token; by `granted`, `reply` or `unanswered`
    | tuple[Literal["verify"], tuple[bytes, bool], Question]  # a leaf; was it shown by a server?
)
# News, as the Observer's methods of these names take it.
Notice = (
    tuple[Literal["connection"], str, int]
    | tuple[Literal["refused_frames"], str, str]
    | tuple[Literal["refused_peer"], str, PeerRefusal, str, str]
    | tuple[Literal["upstream_failed"], str, str, str]
    | tuple[Literal["upstream_connected"], str, float, float]
    | tuple[
        Literal["phased"], int, tuple[float, float, float | None, float, float, float]
    ]  # of the decision with this number
    | tuple[Literal["breaker_turned"], str, str, str, BreakerState, BreakerState, CountParts]
    | tuple[Literal["endpoint_turned"], str, str, TurnReason, float, int]
)

# News of calls, as the Observer's methods of these names take it: number, head without its fields, those that are told, token, span, start;
# or number, when the head came, status, fields that are told.
News = (
    tuple[Literal["begun"], int, HeadParts, Headers, int, SpanParts | None, int]
    | tuple[Literal["answered"], int, int, int, Headers]
)

class Question:
    def plan(self, parts: PlanParts, reads: list[ReadParts] | None) -> None: ...
    def reply(self, parts: ReplyParts, reads: list[ReadParts] | None) -> None: ...
    def hold(self, key: str, within_s: float, then: ReplyParts) -> None: ...
    def class_is(self, kind: int | None) -> None: ...
    def span(self, number: int, traceparent: bytes, grpc_trace_bin: bytes) -> None: ...
    def pauses(self, pauses_s: list[float]) -> None: ...
    def explain(self, text: str) -> None: ...
    def granted(self, request: list[EditParts], reply: list[EditParts]) -> None: ...
    def unanswered(self, detail: str) -> None: ...
    def verify(self, leaf: tuple[str, float] | None, reason: str, detail: str) -> None: ...

class NativeEngine:
    def __init__(self, limits_given: dict[str, float], prompt: bool, threads: int) -> None: ...
    def bell(self) -> int: ...
    def clear_wakeup(self) -> None: ...
    def next_question(self) -> Asked | None: ...
    def listen(self, name: str, address: str, mesh: bool) -> str: ...
    def unlisten(self, name: str) -> None: ...
    def set_cluster(self, parts: ClusterParts) -> None: ...
    def drop_cluster(self, key: str) -> None: ...
    def wake(self, key: str) -> None: ...
    def set_paths(self, number: int, shape: ShapeParts) -> None: ...
    def set_sampling(self, rate: float | None, b3: bool, rules: list[tuple[float, float | None]]) -> None: ...
    def set_measures(self, bounds: tuple[list[float], list[float], list[float], str, int] | None) -> None: ...
    def set_lines(self, wanted: tuple[bool, int, int, int, bool] | None) -> None: ...
    def take_lines(self) -> tuple[bytes, int]: ...
    def set_spans(self, wanted: SpansParts | None) -> None: ...
    def take_written(self) -> list[tuple[bytes, int]]: ...
    def take_recent(self, most: int) -> list[OutcomeParts]: ...
    def set_members(self, number: int, members: list[bytes]) -> None: ...
    def set_gate(self, name: str, spec: tuple[str, dict[str, float], dict[str, str]] | None) -> None: ...
    def gates(self) -> list[tuple[str, int, int, dict[str, int], dict[str, int], int | None]]: ...
    def set_breaker(self, name: str, spec: BreakerParts | None) -> None: ...
    def breakers(self) -> list[tuple[str, str, str, BreakerState, CountParts, float]]: ...
    def budgets(self) -> list[tuple[str, BudgetKind, float, float]]: ...
    def set_identity(self, material: tuple[bytes, bytes, bytes, float] | None) -> None: ...
    def invalidate(self, scope: str) -> None: ...
    def redecide_open(self) -> None: ...
    def drain(self, names: list[str], within_s: float, done: object) -> None: ...
    def loads(self, key: str) -> list[tuple[str, int, float, float, bool, TurnReason]]: ...
    def stats(self) -> tuple[int, int, int, int]: ...
    def open_work(self) -> tuple[list[tuple[int, int]], int, int, int, float]: ...
    def take_counts(self) -> tuple[int, int, int, int]: ...
    def take_tallies(self) -> Tallies: ...
    def take_spans(self, most: int) -> list[OutcomeParts]: ...
    def take_outcomes(self, most: int) -> list[OutcomeParts]: ...
    def take_notices(self) -> list[Notice]: ...
    def watch(self, fields: list[bytes] | None) -> None: ...
    def take_news(self) -> tuple[list[News], int]: ...
    def take_dead(self) -> list[int]: ...
    def stop(self) -> None: ...

def zipkin_span(
    call: tuple[str, bytes, str, bytes, Pairs, str],
    labels: SpanLabels,
    wanted: SpansParts,
    span: tuple[int, int, int, int],
    end: tuple[int, int, int, int, int | None, str | None, str | None, int, int, int],
    attempts: list[AttemptParts],
) -> bytes | None: ...
def read_baggage(headers: list[tuple[bytes, bytes]], allowed: set[bytes] | None) -> tuple[str, bytes]: ...
def carries(headers: list[tuple[bytes, bytes]], patterns: set[bytes]) -> bool: ...
def parse_target(data: bytes) -> tuple[str, bytes, int, bytes]: ...
def path_class(shape: ShapeParts, path: str) -> bytes | None: ...
def path_readings(path: str) -> list[str] | None: ...
def forwarded_path(path: str, form: str) -> str: ...
def path_below(base: str, path: str) -> str: ...
def extract_context(
    headers: list[tuple[bytes, bytes]], grpc: bool, b3: bool
) -> tuple[int, int, int, bool, str] | None: ...
def format_context(upper: int, lower: int, span_id: int, sampled: bool) -> tuple[bytes, str]: ...
