"""The contract between deciding and carrying: what arrived, what to do about it, what came of it.

Deciders (`outbound`, `inbound`) turn a `RequestHead` into a `Plan`, a `Reply` or a `Hold`; an engine carries it out and reports an
`Outcome`. Everything here is a frozen value. This module does no I/O and imports nothing of ours but `fields` and
`path`, which import nothing of ours.

`vary` is recorded, never declared: a decider asks through `Asking`, which writes down every facet it read. Two heads that are equal
in a Plan's `vary` get equal decisions, so an engine may reuse the Plan until one of its `scopes` is replaced.
"""

import binascii
from collections.abc import Callable, Hashable, Mapping
from enum import Enum
from typing import Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from msgspec import Struct, field

from proxy.fields import carries, read_baggage
from proxy.path import Form

T = TypeVar("T")


Header = tuple[bytes, bytes]
Headers = tuple[Header, ...]
Framing = Literal["none", "length", "stream"]
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


class Facet(Enum):
    """What a decision may depend on."""

    LISTENER = "listener"
    PROTOCOL = "protocol"
    FRAMING = "framing"
    METHOD = "method"
    AUTHORITY = "authority"
    FORM = "form"  # origin or absolute
    PATH = "path"  # always the class in a pushed table
    PEER = "peer"
    HEADER = "header"  # the value of a naming header, or membership in a pushed set
    CARRIES = "carries"  # whether any field matches a pushed set of patterns
    BAGGAGE = "baggage"  # what is wrong with it


# Headers whose value names a callee, or what a page asks for: short, not secret, so the value itself may be a key. Of `authorization`
# it is the app-id in `http://dapr-app-id:<app-id>@localhost` alone; any other credentials read as absent.
NAMING_HEADERS = frozenset(
    {
        b"dapr-app-id",
        b"dapr-callee-app-id",
        b"postern-callee",
        b"postern-surface",
        b"origin",
        b"access-control-request-headers",
        b"access-control-request-method",
        b"authorization",
        b"max-forwards",
    }
)
# A longer naming value is never a key: deciders themselves read LONG, which names nobody. Who calls is always the whole value.
MAX_KEY_BYTES = 256
LONG = "\x00long"


class Op(Enum):
    """Edits on a head. A kept Plan holds no value of one call, so what differs per call is an operation."""

    SET = "set"
    ADD = "add"
    LIST = "list"  # more members of a comma-separated field (RFC 9110 §5.6.1), those that are not among them
    REMOVE = "remove"
    REMOVE_PREFIX = "remove-prefix"  # every header whose name starts so
    HOP_BY_HOP = "hop-by-hop"  # RFC 9110 §7.6.1: connection-listed names and the fixed set
    AUTHORITY = "authority"  # replace :authority / Host
    DAPR_PATH = (
        "dapr-path"  # the path as `proxy.path.as_forwarded` has it in the form `data`, query as it came
    )
    CALLER = "caller"  # dapr-caller-app-id and dapr-caller-namespace of the peer that this call's certificate proves; none: nothing
    TRACE = "trace"  # a fresh traceparent of this hop's span, and grpc-trace-bin on gRPC and where the request has one
    DEADLINE = "deadline"  # of gRPC: grpc-timeout with what is left
    GRPC_WEB = "grpc-web"  # a call of gRPC-Web becomes one of gRPC, and its answer one of gRPC-Web
    HTTP_ONLY = "http-only"  # of a call that is not gRPC: an answer in gRPC fails it as UNSUPPORTED
    BAGGAGE = "baggage"  # of a request: its sound members alone
    TELL_TRACE = "tell-trace"  # into an answer: traceparent of this hop's span, unless it has one
    ECHO = "echo"  # into an answer: a field as the request has it, unless the answer has it


class Edit(Struct, frozen=True, kw_only=True):
    """One operation; `name` and `data` mean what the operation says, empty where it needs none."""

    op: Op
    name: bytes = b""
    data: bytes = b""


Edits = tuple[Edit, ...]


PeerRefusal = Literal[
    "no-certificate",  # the peer showed none
    "expired",  # its certificate has ended, or has not begun
    "unknown-ca",  # it chains to no root of ours
    "bad-certificate",  # it is invalid otherwise
    "no-workload",  # it is no workload's
    "trust-domain",  # neither our own nor named by a policy
    "rejected-by-peer",  # the peer ended the handshake: it does not take our certificate
    "protocol",  # no TLS 1.3, no protocol of ours, or no HTTP/2 within
    "timeout",
    "closed",  # the peer hung up
    "not-ready",  # we hold no certificate yet
    "other",
]
"""Why a peer was not let in, as metrics count it."""


class RefusedLeafError(ValueError):
    """A peer's leaf whose owner is not let in."""

    def __init__(self, reason: PeerRefusal, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class PeerLeaf(NamedTuple):
    """Whose a peer's leaf is, by SPIFFE id, and when it ends, in epoch seconds."""

    spiffe_id: str
    ends_at: float


class RequestHead(Struct, frozen=True):
    """What arrived. `target` as it came; `path` as sent, of gRPC the whole target; `query` raw without `?`.

    protocol: http1, http2, grpc or websocket (an HTTP/1.1 Upgrade and an RFC 8441 CONNECT alike, method then GET). `headers` lower-case,
    in order, without pseudo-headers. `peer`: SPIFFE id proven by mutual TLS, else None.
    """

    listener: str
    protocol: Literal["http1", "http2", "grpc", "websocket"]
    framing: Framing
    method: str
    authority: str
    target: bytes
    path: str
    query: bytes
    headers: Headers
    peer: str | None = None
    peer_address: str = ""
    length: int | None = None
    form: Literal["origin", "absolute"] = "origin"

    def get(self, name: bytes) -> bytes | None:
        """The first value of a header, or None."""
        for key, data in self.headers:
            if key == name:
                return data
        return None


class Table(Protocol):
    """A pushed table: maps a path as sent to one of few classes."""

    def classify(self, path: str) -> Hashable:
        """The class of a path; equal paths give equal classes."""


class Shape(Struct, frozen=True, kw_only=True):
    """How an engine may class a table's paths by itself; paths in one class there must be in one class here.

    `rules` of access tables: the pattern as the ordered reading compares it, as the open one does, and its verbs
    (`policies/matcher.py`). form: which path counts, see `Form`.
    """

    kind: Literal["out-paths", "services", "access"]
    rules: tuple[tuple[str, str, frozenset[str]], ...] = ()
    fold_case: bool = False
    form: Form = "sent"


@runtime_checkable
class ShapedTable(Table, Protocol):
    """A table that says how it classes."""

    @property
    def shape(self) -> Shape | None:
        """None: only `classify` can tell."""


class Read(Struct, frozen=True, kw_only=True):
    """One facet that a decider read. `table`: which pushed table or set gave the answer."""

    facet: Facet
    name: bytes = b""
    table: int | None = None


class Tables:
    """Pushed path tables and header sets by number. Owned by one engine; only `put_*` and `drop` write."""

    def __init__(self) -> None:
        self._paths: dict[int, Table] = {}
        self._sets: dict[int, frozenset[bytes]] = {}

    def put_paths(self, number: int, table: Table) -> None:
        """Add or replace a path table."""
        self._paths[number] = table

    def put_set(self, number: int, members: frozenset[bytes]) -> None:
        """Add or replace a header set."""
        self._sets[number] = members

    def facet_value(self, read: Read, head: RequestHead) -> Hashable:
        """What `head` has in the facet that `read` names."""
        match read.facet:
            case Facet.PATH:
                return self._paths[read.table if read.table is not None else 0].classify(head.path)
            case Facet.HEADER if read.table is not None:
                return any(k == read.name and v in self._sets[read.table] for k, v in head.headers)
            case Facet.HEADER:
                return _naming_value(head, read.name)
            case Facet.CARRIES:
                return carries(head.headers, self._sets[read.table or 0])
            case Facet.BAGGAGE:
                return read_baggage(head.headers)[0]
            case facet:
                return _PLAIN[facet](head)


def _naming_value(head: RequestHead, name: bytes) -> str | None:
    found = head.get(name)
    if found is not None and name == b"authorization":
        found = _basic_app_id(found)
    if found is None:
        return None
    return found.decode("latin-1").strip() if len(found) <= MAX_KEY_BYTES else LONG


def _basic_app_id(credentials: bytes) -> bytes | None:
    """X of `Basic base64("dapr-app-id:X")`, None for any other credentials (RFC 7617)."""
    scheme, _, encoded = credentials.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, app_id = binascii.a2b_base64(encoded.strip(), strict_mode=True).partition(b":")
    except ValueError:
        return None
    return app_id if colon and user.lower() == b"dapr-app-id" and b":" not in app_id else None


_PLAIN: dict[Facet, Callable[[RequestHead], Hashable]] = {
    Facet.LISTENER: lambda head: head.listener,
    Facet.PROTOCOL: lambda head: head.protocol,
    Facet.FRAMING: lambda head: head.framing,
    Facet.METHOD: lambda head: head.method if len(head.method) <= 32 else "*",
    Facet.AUTHORITY: lambda head: head.authority if len(head.authority) <= MAX_KEY_BYTES else LONG,
    Facet.PEER: lambda head: head.peer,
    Facet.FORM: lambda head: head.form,
}


class Asking:
    """What a decider sees of a head: each question answers *and* records a `Read`, so `vary` can't be forgotten."""

    __slots__ = ("_head", "_reads", "_tables")

    def __init__(self, head: RequestHead, tables: Tables) -> None:
        self._head = head
        self._tables = tables
        self._reads: dict[Read, Hashable] = {}

    def _ask(self, read: Read) -> Hashable:
        if read not in self._reads:
            self._reads[read] = self._tables.facet_value(read, self._head)
        return self._reads[read]

    def listener(self) -> str:
        """The id of the listener."""
        return str(self._ask(_LISTENER))

    def protocol(self) -> str:
        """http1, http2, grpc or websocket."""
        return str(self._ask(_PROTOCOL))

    def framing(self) -> str:
        """none, length or stream."""
        return str(self._ask(_FRAMING))

    def method(self) -> str:
        """The verb as sent."""
        return str(self._ask(_METHOD))

    def authority(self) -> str:
        """Host or :authority, lower-case, as sent otherwise."""
        return str(self._ask(_AUTHORITY))

    def peer(self) -> str | None:
        """The proven SPIFFE id."""
        found = self._ask(_PEER)
        return None if found is None else str(found)

    def form(self) -> str:
        """origin, or absolute: the request was sent as to an HTTP proxy."""
        return str(self._ask(_FORM))

    def path_class(self, table: int) -> Hashable:
        """The class of the path in a pushed table."""
        return self._ask(Read(facet=Facet.PATH, table=table))

    def naming(self, name: bytes) -> str | None:
        """The value of a naming header; raises ValueError for any other header, which might hold a secret."""
        if name not in NAMING_HEADERS:
            raise ValueError(f"{name!r} is not a naming header: its value must not become a key")
        found = self._ask(Read(facet=Facet.HEADER, name=name))
        return None if found is None else str(found)

    def header_is(self, name: bytes, accepted: int) -> bool:
        """Whether a header's value is in a pushed set; the value itself is not kept."""
        return bool(self._ask(Read(facet=Facet.HEADER, name=name, table=accepted)))

    def carries(self, patterns: int) -> bool:
        """Whether any field matches a pushed set of patterns; see `carries`."""
        return bool(self._ask(Read(facet=Facet.CARRIES, table=patterns)))

    def baggage(self) -> str:
        """What is wrong with the baggage: "" (nothing), malformed, too-many or too-large."""
        return str(self._ask(_BAGGAGE))

    @property
    def vary(self) -> tuple[Read, ...]:
        """What was read so far, in order."""
        return tuple(self._reads)

    @property
    def key(self) -> tuple[Hashable, ...]:
        """The answers to `vary`, in the same order."""
        return tuple(self._reads.values())


_LISTENER = Read(facet=Facet.LISTENER)
_PROTOCOL = Read(facet=Facet.PROTOCOL)
_FRAMING = Read(facet=Facet.FRAMING)
_METHOD = Read(facet=Facet.METHOD)
_AUTHORITY = Read(facet=Facet.AUTHORITY)
_PEER = Read(facet=Facet.PEER)
_FORM = Read(facet=Facet.FORM)
_BAGGAGE = Read(facet=Facet.BAGGAGE)


class Labels(Struct, frozen=True, kw_only=True):
    """What telemetry says of every call under one Plan or Reply."""

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
    baggage: str = ""  # why some of it was dropped
    policies: tuple[tuple[str, str, str, str], ...] = ()  # in force: resource, its namespace, kind, target


class Route(Struct, frozen=True, kw_only=True):
    """weight: for splits. expect: SPIFFE ids that may answer; empty means a cluster without mutual TLS."""

    cluster: str
    weight: int = 1
    expect: frozenset[str] = frozenset()
    edits: Edits = ()


class Again(Struct, frozen=True, kw_only=True):
    """Retry as data; the engine loops. Several rules: the first that covers the failure decides.

    delays_s draws the pauses of one call. http_codes/grpc_codes: None means every failure status, empty none. within_s: no attempt
    begins later than so long after the call.
    """

    attempts: int | None  # in all, None: no limit
    on: frozenset[Cause]
    http_codes: frozenset[int] | None = frozenset()
    grpc_codes: frozenset[int] | None = frozenset()
    delays_s: Callable[[], "Delays"]
    within_s: float | None = None


class Delays(Protocol):
    """The pauses of one call, in seconds."""

    def __next__(self) -> float: ...


class Reply(Struct, frozen=True, kw_only=True):
    """An answer made here, HTTP and gRPC form together. Only before the response head has left; afterwards a reset.

    In `body` and `grpc_message`, `DETAIL` stands for what the engine knows (an address, a system error); it is escaped when put in.
    """

    cause: Cause
    status: int
    headers: Headers
    body: bytes
    grpc_code: int
    grpc_message: str
    labels: Labels
    vary: tuple[Read, ...] = ()
    key: tuple[Hashable, ...] = ()
    scopes: tuple[str, ...] = ()


DETAIL = "\x01"
TRACE_ID = "\x02"  # likewise, for the trace's id in hexadecimal digits


class Plan(Struct, frozen=True, kw_only=True):
    """How to carry a call. Dies with its scopes. gates: breaker, concurrency, rate, fault. on_cause: the answer for each.

    attempt_s bounds one attempt up to its end (streams: up to the response head), total_s the whole call, idle_s a silent one.
    """

    labels: Labels
    routes: tuple[Route, ...]
    again: tuple[Again, ...] = ()
    gates: tuple[str, ...] = ()
    mirror: tuple[tuple[str, float], ...] = ()
    connect_s: float = 5.0
    attempt_s: float | None = None
    total_s: float | None = None
    idle_s: float | None = None
    body_bytes: int | None = None
    replay_bytes: int = 65_536  # of a request body kept for another attempt; a larger body is sent once
    reply_edits: Edits = ()
    on_cause: Mapping[Cause, Reply] = field(default_factory=dict)
    vary: tuple[Read, ...] = ()
    key: tuple[Hashable, ...] = ()
    scopes: tuple[str, ...] = ()


class Hold(Struct, frozen=True, kw_only=True):
    """The callee is being resolved. Ask again when the cluster `key` is set; after `for_s` seconds, answer `then`."""

    key: str
    for_s: float
    then: Reply


Decision = Plan | Reply | Hold
Decide = Callable[[Asking], Decision]


class Attempt(Struct):
    """One try at one endpoint. Times are epoch nanoseconds, 0 where it did not come to that."""

    endpoint: str
    started_ns: int
    head_ns: int = 0
    ended_ns: int = 0
    cause: Cause | None = None
    status: int = 0
    grpc_code: int | None = None
    detail: str = ""
    said: Cause | None = None  # by the peer's proxy, of an answer that it made in its app's place


class Outcome(Struct):
    """What came of one call; handed to the Observer once, after the last byte. `trace` is the engine-opaque span of this hop."""

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
