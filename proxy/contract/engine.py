"""The contract of every engine: what it must do, and what it is given.

The control plane pushes clusters, tables, gates and the identity; nothing is looked up in the path of a call. The conformance suite is
written against this module.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol

from msgspec import Struct

from proxy.contract.authorizing import Authorize, ask_nobody
from proxy.contract.balancing import Balancing, EndpointTurn, Outliers
from proxy.contract.breakers import BreakerGlance, BreakerSpec, BreakerTurn
from proxy.contract.budgets import BudgetGlance
from proxy.contract.gates import GateSpec, GateState
from proxy.contract.head import Header, Headers
from proxy.contract.outcome import Outcome, Phases, Tally
from proxy.contract.plan import Decide, Labels
from proxy.contract.recording import Table
from proxy.contract.watching import AnswerBegun, CallBegun, Watch

WireProtocol = Literal["postern", "http1", "h2c"]
# The largest frame that the native engine takes: with its head it fills four TLS records (RFC 8446 §5.1) and no fifth.
_FRAME_BYTES: Final = 65_536 - 9
#: As in `crates/core/src/decision/cache.rs`, where a Plan takes more: an engine keeps as many as the other.
MAX_PLAN_BYTES = 32 << 20
MAX_REPLY_BYTES = 8 << 20

PeerRefusal = Literal[
    "no-certificate",  # the peer showed none
    "expired",  # its certificate has ended, or has not begun
    "unknown-ca",  # it chains to no root of ours
    "bad-certificate",  # it is invalid otherwise
    "no-workload",  # it has no workload SPIFFE ID
    "trust-domain",  # neither our own nor named by a policy
    "rejected-by-peer",  # the peer ended the handshake: it does not take our certificate
    "protocol",  # no TLS 1.3, no protocol of ours, or no HTTP/2 within
    "timeout",
    "too-many",  # its caller has as many connections as it may
    "closed",  # the peer hung up
    "not-ready",  # we hold no certificate yet
    "other",
]
"""Why a peer was refused, as metrics count it."""


class RefusedLeafError(ValueError):
    """A leaf whose owner is refused."""

    def __init__(self, reason: PeerRefusal, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class PeerLeaf(NamedTuple):
    """Whose a peer's leaf is, by SPIFFE id, and when it ends, in epoch seconds."""

    spiffe_id: str
    ends_at: float


class Upstream(Struct, frozen=True, kw_only=True):
    """One address of a cluster. `address`: `ip:port`, `[v6]:port` or `unix:/path`. `instance` names the process behind it.

    `rank`: among those that no certificate has proven yet, a lower one is tried before a higher one.
    """

    address: str
    instance: str = ""
    weight: int = 1
    rank: int = 0


class VerifiedTls(Struct, frozen=True, kw_only=True):
    """TLS 1.2 or later to a server outside of the mesh that proves to be `name`, a host name or an IP address (RFC 9525).

    roots_pem: what its certificate may chain to. chain_pem, key_pem: our certificate for servers that ask for one, or empty.
    """

    name: str
    roots_pem: bytes
    chain_pem: bytes = b""
    key_pem: bytes = b""

    def __repr__(self) -> str:
        return f"VerifiedTls({self.name})"


ClusterTls = Literal["mesh", "app"] | VerifiedTls | None


class Via(Struct, frozen=True, kw_only=True):
    """The HTTP proxy at `host:port` that stands before a cluster's servers; engines look its host up, and it looks theirs up.

    A server with TLS is reached through a tunnel (RFC 9110 §9.3.6); of one without, the proxy is asked for whole URLs (RFC 9112 §3.2.2).
    authorization: of the field Proxy-Authorization, or empty. tls: None where the proxy itself is spoken to in plaintext.
    """

    address: str
    authorization: bytes = b""
    tls: VerifiedTls | None = None

    def __repr__(self) -> str:
        return f"Via({self.address})"  # credentials are not for logs


class Cluster(Struct, frozen=True, kw_only=True):
    """Where a route leads. wire: `postern` is HTTP/2 with ALPN over mutual TLS, the others are for apps and private sockets.

    tls: "mesh" uses the pushed identity and checks the route's `expect`; "app" is TLS without verification, as Dapr has it for https
    and grpcs apps; VerifiedTls is for servers outside of the mesh, over wire "http1"; None is plaintext.
    Plaintext peers (mTLS off by explicit wish) are wire "postern" with tls None: HTTP/2, prior knowledge.
    who: what is at its addresses, in errors. via: with wire "http1", and tls None or VerifiedTls; a host of an address may be a name then.
    """

    key: str
    wire: WireProtocol
    tls: ClusterTls
    upstreams: tuple[Upstream, ...]
    stale: bool = False
    who: str = "the app"
    via: Via | None = None
    balancing: Balancing = Balancing()
    outliers: Outliers | None = None


def no_fields(_: Headers) -> Headers:
    """Nothing is added to answers."""
    return ()


class ListenerSpec(Struct, frozen=True, kw_only=True):
    """One place to listen. `decide` has the rules; `authorize` asks the authorizers that Plans name; tls: "mesh" demands a client
    certificate.

    address: `host:port` (port 0: any free one) or `unix:/path`. for_pages: by the fields of a request, what an answer to it has beside
    its own fields where no decider made it.
    """

    name: str
    address: str
    decide: Decide
    authorize: Authorize = ask_nobody
    for_pages: Callable[[Headers], Headers] = no_fields
    tls: Literal["mesh"] | None = None


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds of an engine; each has a reason beside it."""

    head_bytes: int = 65_536  # one request or response head, decoded; larger ones get 431
    header_count: int = 256  # h2 itself has no bound on the number of fields
    head_s: float = 10.0  # slow heads (slowloris)
    handshake_s: float = 10.0
    idle_s: float = 180.0  # a connection without a call
    rest_s: float = 1.0  # an HTTP/2 connection without one; then the native engine holds but what it must
    stall_s: float = 300.0  # in which a caller moves less than `stall_bytes` of a body of announced length, or of an answer
    stall_bytes: int = 1_024
    ping_s: float = 10.0  # of silence on an HTTP/2 connection with calls, then a PING
    pong_s: float = 5.0  # for its answer; then the peer is dead
    connections: int = 10_000  # per listener
    streams: int = 250  # concurrent per HTTP/2 connection that we accept
    # Per stream, about a MiB: what one slow reader may make us hold (a quarter of it slows large bodies by a tenth). In whole frames:
    # what is left over would go out as a frame and a TLS record of its own.
    window_bytes: int = 16 * _FRAME_BYTES
    connection_window_bytes: int = 128 * _FRAME_BYTES
    # Per HTTP/2 connection, beyond what its calls and data account for. A call accounts for its own cancellation, data for the PINGs and
    # window updates of a peer that measures the path.
    resets_per_s: int = 100  # streams that the peer makes us reset (CVE-2025-8671)
    resets_burst: int = 400
    control_per_s: int = 50  # PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, resets of nothing (CVE-2019-9512..9518, CVE-2023-44487)
    control_burst: int = (
        1_000  # as many again slow our reading down, at half of them the peer is sent away, past them cut off
    )
    own_app_factor: float = 10.0  # of all four for our own app, which is ours to trust
    expiry_lead_s: float = 60.0  # before a certificate of either end ends, its connections drain; at most a quarter of what is left of it
    expiry_skew_s: float = 10.0  # after it, they are closed with all that is on them
    replay_bytes: int = (
        64 << 20
    )  # of request bodies kept for another attempt, of all calls; past it they are sent once
    continuations: int = 60  # frames of one header block (VU#421644): a megabyte; h2 has a bound at 64


class HopSpan(Protocol):
    """This hop's span as engines see it: wire values only."""

    @property
    def traceparent(self) -> bytes:
        """The traceparent to send on."""

    @property
    def grpc_trace_bin(self) -> bytes:
        """The same in gRPC's binary form, base64."""


class SpanIds(NamedTuple):
    """A span that an engine began by itself."""

    trace_id: int
    span_id: int
    parent_id: int  # 0: a root
    is_sampled: bool
    tracestate: str


class SamplingRule(NamedTuple):
    """A rate for new traces, and how many of them are recorded in a second at most (None: any number)."""

    rate: float
    per_s: float | None = None


class Sampling(Struct, frozen=True, kw_only=True):
    """How spans begin, for engines that begin them: the parent's decision holds, a root is sampled by its trace id at this rate."""

    rate: float
    is_b3_read: bool = True
    rules: tuple["SamplingRule", ...] = ()  # by the numbers that labels have, less 1


class Tracing(Protocol):
    """Makes the span of a call from its headers."""

    @property
    def sampling(self) -> Sampling | None:
        """What `begin` does, as a rule that an engine can apply; None: only `begin` can tell. Read again now and then."""

    def from_ids(self, ids: SpanIds) -> HopSpan:
        """The span that an engine began by `sampling`."""

    def begin(self, headers: Sequence[Header], *, grpc: bool) -> HopSpan:
        """A fresh span, child of what the headers carry."""

    def by_rule(self, span: HopSpan, number: int) -> HopSpan:
        """The same span by the sampling that its labels name: `Labels.sampling`."""


class Measures(Struct, frozen=True, kw_only=True):
    """Upper bounds (inclusive) of the buckets that an Observer counts calls in.

    http_paths: whether tallies of HTTP calls have a path: none, the first few (then `other`), or all of them.
    slow_ns: a call whose answer takes at least this long is worth keeping (0: none is for being slow).
    """

    duration_s: tuple[float, ...]
    latency_ms: tuple[float, ...]
    size_bytes: tuple[float, ...]
    http_paths: Literal["none", "first", "all"] = "none"
    slow_ns: int = 0


class LinesWanted(Struct, frozen=True, kw_only=True):
    """Which calls have a line in the access log: `telemetry.line_form.LineFilter`. is_json: else values are written bare."""

    is_json: bool
    min_status: int
    slower_ns: int
    every: int
    hides_paths: bool


class Lines(Protocol):
    """The access log, for an engine that writes its lines itself: one for each call whose decision has pieces.

    The others leave that to the observer.
    """

    @property
    def wanted(self) -> LinesWanted:
        """Read again now and then."""

    def pieces(self, labels: Labels) -> list[tuple[str, bytes]] | None:
        """What lines of calls with these labels are made of, see `telemetry.call_lines.pieces`; None: they have none."""

    def written(self, lines: bytes, lost: int) -> None:
        """Whole lines, and how many found no room."""


class SpansWanted(Struct, frozen=True, kw_only=True):
    """What becomes of spans of calls that an engine adds up. service: this app, as spans name it.

    per_piece: of Zipkin's JSON, the most spans that leave together; None: they go nowhere. The rest: of `telemetry.spans.SpanForm`.
    """

    service: str
    hides_paths: bool
    per_piece: int | None = None
    conventions: Literal["dapr", "otel", "both"] = "both"
    captures_query: bool = False
    baggage: tuple[str, ...] = ()


class SpanLabels(NamedTuple):
    """What spans say of every call under one decision: of `Labels`. is_by_path: the method is what follows `/method`."""

    is_outbound: bool
    is_dapr: bool
    is_by_path: bool
    is_grpc_web: bool
    src: str
    dst: str
    decision: str


class Spans(Protocol):
    """Spans, for an engine that writes those of the calls that it adds up itself. The others leave that to the observer."""

    @property
    def wanted(self) -> SpansWanted | None:
        """Read again now and then. None: each call is `traced`."""

    def labels(self, labels: Labels) -> SpanLabels | None:
        """What spans say of calls with these labels; None: they have none."""

    def written(self, spans: bytes, count: int) -> None:
        """Take spans: objects of JSON, with commas between."""


class Observer(Protocol):
    """Where an engine reports. Every method is quick and never raises.

    An engine may add calls up where `measures` says how: all but those that a proxy ended (of many at once, some) or that were tried
    again, or met a circuit breaker that was not closed or turned one, which are `finished` one by one.
    """

    @property
    def lines(self) -> Lines | None:
        """The access log, where there is one."""

    @property
    def spans(self) -> Spans | None:
        """Where spans go; None: each call is `traced`."""

    @property
    def measures(self) -> Measures | None:
        """None: every call must be reported individually. Read again now and then."""

    def counted(self, tally: Tally) -> None:
        """Calls ended."""

    def traced(self, outcome: Outcome) -> None:
        """A call ended that is in a tally already, and is sampled; or that its app failed or that was slow, of many at once some.

        Its head comes without headers.
        """

    def recalled(self, outcome: Outcome) -> None:
        """The same of a sampled call whose span the engine wrote, or would have; see `Engine.recall`."""

    def lost(self, reports: int, spans: int, news: int = 0) -> None:
        """So many reports were lost for good. news: of calls that began or were answered."""

    def begun(self, call: CallBegun) -> None:
        """Somebody looks, and a call began or is under way; always before it is `finished`. Once for each call."""

    def answered(self, answer: AnswerBegun) -> None:
        """And its answer has begun."""

    def finished(self, outcome: Outcome) -> None:
        """One call ended."""

    def connection(self, listener: str, change: int) -> None:
        """A connection opened (+1) or closed (-1)."""

    def refused_frames(self, kind: str, who: str = "") -> None:
        """A peer broke a flood limit or sent what HTTP forbids. `who`: for people, empty if unknown."""

    def refused_peer(self, listener: str, reason: PeerRefusal, detail: str, address: str) -> None:
        """A TLS handshake or an identity check failed. `address`: the peer's, without its port."""

    def plan_cache(self, hit: bool, count: int = 1) -> None:
        """Heads were covered by a kept Plan, or not."""

    def upstream_failed(self, cluster: str, address: str, reason: str) -> None:
        """A connection to an upstream could not be made, or broke."""

    def upstream_connected(self, cluster: str, connect_s: float, tls_s: float) -> None:
        """A connection over TCP was made, in so many seconds; tls_s: of its handshake, 0 for plaintext."""

    def endpoint_turned(self, turn: EndpointTurn) -> None:
        """An endpoint is left out for what it answers, or takes calls again."""

    def breaker_turned(self, turn: BreakerTurn) -> None:
        """A circuit breaker opened, closed, or lets calls probe."""

    def phased(self, labels: Labels, phases: Phases) -> None:
        """Where the time of a call went, of one in `PHASED`."""


class TlsIdentity(Struct, frozen=True, kw_only=True):
    """What mutual TLS is made of, until `ends_at` (epoch seconds).

    `verify(der, as_server)` checks a peer's leaf, or raises RefusedLeafError.
    """

    chain_pem: bytes
    key_pem: bytes
    roots_pem: bytes
    ends_at: float
    verify: Callable[[bytes, bool], PeerLeaf]
    strict: bool = True

    def __repr__(self) -> str:
        return "TlsIdentity(…)"


class EngineStats(Struct, frozen=True):
    """A glance at an engine, for status pages."""

    connections: int
    calls_in_flight: int
    plans_kept: int
    upstream_connections: int
    threads: int = 1
    gates: Mapping[str, GateState] = {}


class OpenWork(Struct, frozen=True, kw_only=True):
    """What is open at one moment. calls: those being carried, by their labels. streams_in, streams_out: HTTP/2's.

    replay_bytes: of request bodies, held in memory, mostly for another attempt. lag_s: how late a thread of the engine's own ran a timer,
    at worst in the last 15 seconds; None where it has none.
    """

    calls: Mapping[Labels, int]
    streams_in: int
    streams_out: int
    replay_bytes: int
    lag_s: float | None = None


class Engine(Protocol):
    """Carries Plans. All `set_*` take effect for the next call and never block."""

    name: str

    async def run(self) -> None:
        """Own every task of the engine until cancelled."""

    async def listen(self, spec: ListenerSpec) -> str:
        """Bind and accept; returns the bound address. Raises ListenError."""

    async def unlisten(self, name: str) -> None:
        """Stop accepting on a listener; its connections go on."""

    def set_cluster(self, cluster: Cluster) -> None:
        """Add or replace a cluster; wakes calls held for it."""

    def drop_cluster(self, key: str) -> None:
        """Forget a cluster; its idle connections close."""

    def wake(self, key: str) -> None:
        """Have calls that are held for `key` ask again."""

    def set_paths(self, number: int, table: Table) -> None:
        """Push a path table."""

    def set_members(self, number: int, members: frozenset[bytes]) -> None:
        """Push a header set."""

    def set_gate(self, name: str, spec: GateSpec | None) -> None:
        """Set a gate or replace it; None removes it. A gate that was never set is open."""

    def set_breaker(self, name: str, spec: BreakerSpec | None) -> None:
        """Set a circuit breaker or replace it, with its state; None removes it. One that was never set is closed."""

    def breakers(self) -> Sequence[BreakerGlance]:
        """The circuit breakers that have been asked, for status and metrics."""

    def budgets(self) -> Sequence[BudgetGlance]:
        """The budgets of retries that calls had, for status."""

    def set_identity(self, identity: TlsIdentity | None) -> None:
        """New contexts for new connections; connections under the old ones drain."""

    def invalidate(self, scope: str) -> None:
        """Drop every kept Plan of a scope."""

    def redecide_open(self) -> None:
        """Decide about every open call again, once for all that kept decisions cover together; end those that are denied now."""

    async def drain(self, listeners: Sequence[str], within_s: float) -> int:
        """Drain the listeners' connections (GOAWAY, or `Connection: close`) and wait for their calls; returns how many were cut."""

    async def report(self) -> None:
        """Tell the observer of every call that has ended by now."""

    def recall(self) -> bool:
        """Tell the observer of some of the latest sampled calls that it has not seen, oldest first (`recalled`); False: none is left."""

    def watch(self, watch: Watch | None) -> None:
        """Tell of calls as they begin and are answered, first of those under way; None: nobody looks. Replaces the last one, quickly."""

    def loads(self, key: str) -> tuple[dict[str, object], ...]:
        """Load and health of a cluster's endpoints, for status."""

    def stats(self) -> EngineStats:
        """Numbers for status."""

    def open_work(self) -> OpenWork:
        """What is open; without what a thread that is stuck has not counted."""
