"""What to do about a request: a Plan to carry out, a Reply made here, or a Hold until the callee is known.

Everything here is a frozen value. A kept Plan holds no value of one call: what differs per call is an operation in its edits.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, Literal, Protocol

from msgspec import Struct, field

from proxy.contract.breakers import BreakerUse
from proxy.contract.budgets import BudgetUse
from proxy.contract.head import Headers
from proxy.contract.recording import RecordingHead

Surface = Literal["dapr", "own"]


class Cause(Enum):
    """Why postern itself ended an attempt or a call; the value is what the `postern-error` header says."""

    NO_APP = "no-app"  # the app-id is unknown, or no app was named
    NO_ENDPOINT = "no-endpoint"  # known, but nothing healthy to send to
    DENIED = "denied"  # an access rule says no
    CONNECT = "connect"  # nobody accepted the connection
    TLS_IDENTITY = "tls-identity"  # the peer is not who it should be
    REFUSED = "refused"  # the stream was refused before the peer looked at it
    RESET_EARLY = "reset-early"  # cut before a response head
    RESET_LATE = "reset-late"  # cut after the response head
    TIMEOUT = "timeout"
    BREAKER = "breaker-open"
    PROBING = "breaker-probing"  # the breaker is half-open, and others probe
    SHED = "shed"
    RATE = "rate-limited"
    TOO_LARGE = "too-large"
    STATUS = "status"  # the app's own answer counts as a failure
    CALLER_LEFT = "caller-left"
    DRAINING = "draining"
    BAD_REQUEST = "bad-request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN_ORIGIN = "forbidden-origin"
    MISDIRECTED = "misdirected"
    UNSUPPORTED = "unsupported"  # what was asked for cannot be carried to this peer or app
    APP_DOWN = "app-down"  # our own app does not accept connections
    APP_UNHEALTHY = "app-unhealthy"
    NOT_READY = "not-ready"  # no SVID yet: we neither send nor accept plaintext instead
    INVALID_ANSWER = "invalid-answer"  # the answer breaks HTTP's rules
    AUTHORIZER = "authorizer"  # an external authorizer that has to be asked gave no answer that counts


class Op(Enum):
    """Edits on a head. A kept Plan holds no value of one call, so what differs per call is an operation."""

    SET = "set"
    ADD = "add"
    LIST = "list"  # more members of a comma-separated field (RFC 9110 §5.6.1), those that are not among them
    REMOVE = "remove"
    REMOVE_PREFIX = "remove-prefix"  # every header whose name starts so
    HOP_BY_HOP = "hop-by-hop"  # RFC 9110 §7.6.1: connection-listed names and the fixed set
    AUTHORITY = "authority"  # replace :authority / Host
    DAPR_PATH = "dapr-path"  # the path as `proxy.wire.target.as_forwarded` has it in the form `data`, query as it came
    PATH = "path"  # the path becomes `data`; what of that is a query goes before the query as it came; the last one counts
    BASE = "base"  # put `data` before the path that is sent on, which can't lead out of it, as `proxy.wire.target.below` has it
    CALLER = "caller"  # dapr-caller-app-id and dapr-caller-namespace of the peer that this call's certificate proves; none: nothing
    TRACE = "trace"  # a fresh traceparent of this hop's span, and grpc-trace-bin on gRPC and where the request has one
    DEADLINE = "deadline"  # what is left of the call's time: in grpc-timeout, or of HTTP in postern-timeout
    GRPC_WEB = "grpc-web"  # a call of gRPC-Web becomes one of gRPC, and its answer one of gRPC-Web
    HTTP_ONLY = "http-only"  # of a call that is not gRPC: an answer in gRPC fails it as UNSUPPORTED
    BAGGAGE = "baggage"  # of a request: its sound members alone; where there is a `name`, those with keys in `data`, with commas between
    TELL_TRACE = "tell-trace"  # into an answer: traceparent of this hop's span, unless it has one
    ECHO = "echo"  # into an answer: a field as the request has it, unless the answer has it


class Edit(Struct, frozen=True, kw_only=True):
    """One operation; `name` and `data` mean what the operation says, empty where it needs none."""

    op: Op
    name: bytes = b""
    data: bytes = b""


Edits = tuple[Edit, ...]


FORCED: Final = -1
REFUSED: Final = (
    -2
)  # an answer of ours that names no callee: recorded up to a rate, however its trace is sampled
NEVER: Final = (
    -3
)  # a call with no span of its own: health, what another call stands for, telemetry that the app sends
REFUSED_PER_S: Final = 20.0  # so that a flood of bad requests is no flood of spans


class Labels(Struct, frozen=True, kw_only=True):
    """What telemetry says of every call under one Plan or Reply.

    peer_id: the caller, as its certificate proves it, of calls that come in; of those that go out, who alone is let answer. Empty without
    mutual TLS.
    """

    direction: Literal["outbound", "inbound"]
    surface: Surface = "own"
    src: str = ""
    src_namespace: str = ""
    dst: str = ""
    dst_namespace: str = ""
    peer_id: str = ""
    decision: str = ""
    strip: bool = False  # Dapr's path form: the method is what follows `/method`
    is_grpc_web: bool = False  # translated for an app that speaks gRPC: counts as a gRPC call
    is_inner: bool = False  # made by InvokeService, a call of its own in the metrics of the API, or a daprd's envelope: the call is within
    baggage: str = ""  # why some of it was dropped
    sampling: int = 0  # the number of the sampling rule for new traces, from 1 on; FORCED, REFUSED, NEVER; 0: the common rate holds
    policies: tuple[tuple[str, str, str, str], ...] = ()  # in force: resource, its namespace, kind, target


class Route(Struct, frozen=True, kw_only=True):
    """weight: for splits. expect: SPIFFE ids that may answer; empty means a cluster without mutual TLS.

    gates: names of those that each attempt passes, within its time and before an endpoint is chosen; what one refuses is a failed attempt.
    """

    cluster: str
    weight: int = 1
    expect: frozenset[str] = frozenset()
    edits: Edits = ()
    gates: tuple[str, ...] = ()


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """A retry policy as data; the engine loops. Of several, the first that covers the failure decides.

    delays_s draws the pauses of one call. http_codes/grpc_codes: None means every failure status, empty none. within_s: no attempt
    begins later than so long after the call. is_inner: all its attempts are one to a circuit breaker, which hears of the last, and to the
    rules after it, which go on where it has none left; each of their attempts has all of its anew.
    heeds_answer: an answer may ask for a later attempt, or for none (`proxy.wire.pushback`).
    """

    attempts: int | None  # in all, None: no limit
    on: frozenset[Cause]
    http_codes: frozenset[int] | None = frozenset()
    grpc_codes: frozenset[int] | None = frozenset()
    delays_s: Callable[[], "Delays"]
    within_s: float | None = None
    is_inner: bool = False
    heeds_answer: bool = False


class Hedge(Struct, frozen=True, kw_only=True):
    """Another attempt beside those under way each `delay_s`, up to so many `attempts` in all, until one of them is answered.

    Only of a request that is complete and can be sent again. Each takes from the Plan's budget; without, there is no further one. What
    makes a failure no answer is a rule of the Plan's `retries`. Source: gRPC proposal A6, Hedging.
    """

    attempts: int
    delay_s: float


class Delays(Protocol):
    """The pauses of one call, in seconds."""

    def __next__(self) -> float: ...


class Reply(Struct, frozen=True, kw_only=True):
    """An answer made here, HTTP and gRPC form together. Only before the response head has left; afterwards a reset.

    gates: names of those that the call passes before it is answered so; local_replies: the answers where one refuses.
    In `body` and `grpc_message`, `DETAIL` stands for what the engine knows (an address, a system error); it is escaped when put in.
    """

    cause: Cause
    status: int
    headers: Headers
    body: bytes
    grpc_code: int
    grpc_message: str
    labels: Labels
    scopes: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    local_replies: Mapping[Cause, "Reply"] = field(default_factory=dict)


DETAIL = "\x01"
TRACE_ID = "\x02"  # likewise, for the trace's id in hexadecimal digits


class Plan(Struct, frozen=True, kw_only=True):
    """How to carry a call. Dies with its scopes.

    gates: names of those that the call passes once, before its first attempt.
    authorizers: names of those that are asked once, after the gates: see `proxy.contract.authorizing`.
    budget: what retries are taken from, but those of inner rules; where it is empty, there is none.
    hedge: whether attempts are made at once; then no rule is to have pauses but inner ones.
    breaker: asked before each attempt but those that are made at once or by an inner rule; where it refuses, the call fails.
    local_replies: the answer to each cause for which the call ends here.
    by_daprd: place of the route (of weight 0) that an attempt takes instead where its call is not gRPC and the peer takes nothing else, as
    a daprd does. None: such an attempt fails as UNSUPPORTED.
    attempt_s bounds one attempt up to its end (streams: up to the response head), total_s the whole call.
    denials_fail: a call that the callee's proxy denies has failed like any other, as for a daprd. Without, its denial is a decision, which
    no rule covers that does not name its status, and no failure to a circuit breaker.
    upper_request, upper_response: ASCII letters of bodies go on in upper case, all other bytes as they are, so that lengths stay. Bodies of
    HTTP alone: not those of gRPC and gRPC-Web, nor tunnels.
    """

    labels: Labels
    routes: tuple[Route, ...]
    retries: tuple[RetryPolicy, ...] = ()
    hedge: Hedge | None = None
    gates: tuple[str, ...] = ()
    authorizers: tuple[str, ...] = ()
    breaker: BreakerUse | None = None
    budget: BudgetUse | None = None
    connect_s: float = 5.0
    attempt_s: float | None = None
    total_s: float | None = None
    body_bytes: int | None = None
    replay_bytes: int = 65_536  # of a request body kept for another attempt; a larger body is sent once
    reply_edits: Edits = ()
    upper_request: bool = False
    upper_response: bool = False
    by_daprd: int | None = None
    denials_fail: bool = False
    local_replies: Mapping[Cause, Reply] = field(default_factory=dict)
    scopes: tuple[str, ...] = ()


class Hold(Struct, frozen=True, kw_only=True):
    """The callee is being resolved. Ask again when the cluster `key` is set; after `for_s` seconds, answer `then`."""

    key: str
    for_s: float
    then: Reply


Decision = Plan | Reply | Hold
Decide = Callable[[RecordingHead], Decision]
