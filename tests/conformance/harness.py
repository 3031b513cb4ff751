"""Engines under test, in-process, with deciders of the test, an observer that remembers, and real sockets on both sides.

Written against `proxy.contract.engine` alone: an engine is a name in `ENGINES`.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from msgspec.structs import replace

from proxy import errors
from proxy.contract.authorizing import Authorize, ask_nobody
from proxy.contract.balancing import EndpointTurn
from proxy.contract.breakers import BreakerTurn
from proxy.contract.engine import (
    Cluster,
    Engine,
    HopSpan,
    Limits,
    Lines,
    ListenerSpec,
    Measures,
    Observer,
    PeerRefusal,
    SpanIds,
    Spans,
    Tracing,
    Upstream,
    WireProtocol,
)
from proxy.contract.gates import ConcurrencyGate
from proxy.contract.head import Header
from proxy.contract.outcome import Outcome, Phases, Tally
from proxy.contract.plan import (
    DETAIL,
    Cause,
    Decide,
    Decision,
    Edit,
    Labels,
    Op,
    Plan,
    Reply,
    RetryPolicy,
    Route,
)
from proxy.contract.watching import AnswerBegun, CallBegun
from proxy.engine.portable.engine import PortableEngine
from proxy.settings.version import has_native
from tests.conformance.identities import Mint, spiffe

DEADLINE_S: Final = 30.0
Explain = Callable[[str], str]


# POSTERN_TEST_THREADS=2 runs the whole suite with so many threads in the native engine.
THREADS: Final = int(os.environ.get("POSTERN_TEST_THREADS", "1"))


def native(
    limits: Limits,
    observer: Observer,
    tracing: Tracing,
    explain: Explain,
    *,
    threads: int = THREADS,
    keep_decisions: bool = True,
) -> Engine:
    """The native engine, reporting at once."""
    from proxy.engine.native.adapter import NativeEngine  # noqa: PLC0415 - the extension is not part of every installation

    return NativeEngine(
        limits, observer, tracing, explain, threads=threads, report_s=0, keep_decisions=keep_decisions
    )


ENGINES: Final[Mapping[str, Callable[..., Engine]]] = {
    "portable": PortableEngine,
    "native": native,
    "native-threads": partial(native, threads=max(THREADS, 2)),
}
# POSTERN_TEST_ENGINES=portable,native chooses; without it, every engine that is part of this installation.
CHOSEN: Final = tuple(
    os.environ.get("POSTERN_TEST_ENGINES", "portable,native" if has_native() else "portable").split(",")
)
# A test reads from one peer at a time: on a busy machine the others answer a PING later than any in earnest.
PINGLESS: Final = Limits(ping_s=600.0)
LABELS: Final = Labels(direction="outbound")
EDITS: Final = (Edit(op=Op.HOP_BY_HOP), Edit(op=Op.TRACE), Edit(op=Op.DEADLINE))
HOPS: Final = ("one", "two")
TRACEPARENT: Final = b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


@dataclass(frozen=True, slots=True)
class FixedSpan:
    """The same span for every call."""

    traceparent: bytes = TRACEPARENT
    grpc_trace_bin: bytes = b"AAABI0VniavN7wEjRWeJq83vAQEjRWeJq83vAgE"


class FixedTracing:
    """Tracing without chance."""

    sampling = None

    def from_ids(self, ids: SpanIds) -> FixedSpan:
        """See Tracing."""
        return FixedSpan()

    def begin(self, headers: Sequence[Header], *, grpc: bool) -> FixedSpan:
        """See Tracing."""
        return FixedSpan()

    def by_rule(self, span: HopSpan, number: int) -> HopSpan:
        """See Tracing."""
        return span


class Recorder:
    """An Observer that remembers. Native engines may call from threads of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.outcomes: list[Outcome] = []
        self.begun_calls: list[CallBegun] = []
        self.answers: list[AnswerBegun] = []
        self.news: list[tuple[str, int]] = []  # what was told of which call, in order
        self.kept: list[Outcome] = []
        self.recalls: list[Outcome] = []
        self.refused: Counter[str] = Counter()
        self.refused_of: list[tuple[str, str]] = []
        self.refused_peers: list[tuple[PeerRefusal, str, str]] = []
        self.cache: list[bool] = []
        self.upstream_failures: list[str] = []
        self.dials: list[tuple[float, float]] = []
        self.phases: list[Phases] = []
        self.turns: list[BreakerTurn] = []
        self.endpoint_turns: list[EndpointTurn] = []
        self.open = 0
        self.opened = 0

    def _tell(self) -> None:
        self._loop.call_soon_threadsafe(self._changed.set)

    def finished(self, outcome: Outcome) -> None:
        """See Observer."""
        self.outcomes.append(outcome)
        self.news.append(("finished", outcome.number))
        self._tell()

    def begun(self, call: CallBegun) -> None:
        """See Observer."""
        self.begun_calls.append(call)
        self.news.append(("begun", call.number))
        self._tell()

    def answered(self, answer: AnswerBegun) -> None:
        """See Observer."""
        self.answers.append(answer)
        self.news.append(("answered", answer.number))
        self._tell()

    def connection(self, listener: str, change: int) -> None:
        """See Observer."""
        self.open += change
        self.opened += max(change, 0)
        self._tell()

    def refused_frames(self, kind: str, who: str = "") -> None:
        """See Observer."""
        self.refused[kind] += 1
        self.refused_of.append((kind, who))
        self._tell()

    def refused_peer(self, listener: str, reason: PeerRefusal, detail: str, address: str) -> None:
        """See Observer."""
        self.refused_peers.append((reason, detail, address))
        self._tell()

    def endpoint_turned(self, turn: EndpointTurn) -> None:
        """See Observer."""
        self.endpoint_turns.append(turn)
        self._tell()

    def breaker_turned(self, turn: BreakerTurn) -> None:
        """See Observer."""
        self.turns.append(turn)
        self._tell()

    lines: Lines | None = None
    spans: Spans | None = None
    measures: Measures | None = None
    tallied = 0

    def counted(self, tally: Tally) -> None:
        """See Observer. Only their number is kept."""
        self.tallied += tally.calls

    def traced(self, outcome: Outcome) -> None:
        """See Observer."""
        self.kept.append(outcome)

    def recalled(self, outcome: Outcome) -> None:
        """See Observer."""
        self.recalls.append(outcome)

    def lost(self, reports: int, spans: int, news: int = 0) -> None:
        """See Observer."""

    def plan_cache(self, hit: bool, count: int = 1) -> None:
        """See Observer."""
        self.cache.extend([hit] * count)
        self._tell()

    def upstream_failed(self, cluster: str, address: str, reason: str) -> None:
        """See Observer."""
        self.upstream_failures.append(reason)
        self._tell()

    def upstream_connected(self, cluster: str, connect_s: float, tls_s: float) -> None:
        """See Observer."""
        self.dials.append((connect_s, tls_s))
        self._tell()

    def phased(self, labels: Labels, phases: Phases) -> None:
        """See Observer."""
        self.phases.append(phases)
        self._tell()

    async def until(self, predicate: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
        """Wait until what was reported makes `predicate` true."""
        async with asyncio.timeout(timeout_s):
            while not predicate():
                self._changed.clear()
                await self._changed.wait()

    async def outcome(self, number: int = 0, timeout_s: float = DEADLINE_S) -> Outcome:
        """The outcome of that number, once it is there."""
        await self.until(lambda: len(self.outcomes) > number, timeout_s)
        return self.outcomes[number]


def reply(cause: Cause, **changes: Any) -> Reply:
    """A ready-made answer."""
    return replace(errors.reply(cause, LABELS, f"{cause.value}: {DETAIL}"), **changes)


LOCAL_REPLIES: Final = {cause: reply(cause) for cause in Cause}


def retry(attempts: int | None, *on: Cause, **fields: Any) -> RetryPolicy:
    """A retry rule without pauses."""
    delay_s = fields.pop("delay_s", 0.0)

    class Constant:
        def __next__(self) -> float:
            return float(delay_s)

    return RetryPolicy(attempts=attempts, on=frozenset(on), delays_s=Constant, **fields)


def plan(cluster: str = "app", *, expect: frozenset[str] = frozenset(), **fields: Any) -> Plan:
    """A Plan onto one cluster."""
    route = Route(cluster=cluster, expect=expect, edits=EDITS)
    given: dict[str, Any] = {
        "labels": LABELS,
        "routes": (route,),
        "local_replies": LOCAL_REPLIES,
        "reply_edits": EDITS[:1],
    }
    return Plan(**(given | fields))


def always(decision: Decision) -> Decide:
    """A decider with one answer."""
    return lambda _: decision


class Node:
    """One running engine and what it reported."""

    def __init__(self, engine: Engine, seen: Recorder) -> None:
        self.engine = engine
        self.seen = seen

    async def listen(
        self,
        decide: Decide,
        *,
        name: str = "in",
        tls: Literal["mesh"] | None = None,
        authorize: Authorize = ask_nobody,
    ) -> int:
        """Listen on any free port; returns it."""
        spec = ListenerSpec(name=name, address="127.0.0.1:0", decide=decide, authorize=authorize, tls=tls)
        return int((await self.engine.listen(spec)).rpartition(":")[2])

    def gate(self, name: str, limit: int | None) -> None:
        """Put up a gate for so many at once, or take it down."""
        self.engine.set_gate(name, None if limit is None else ConcurrencyGate(limit=limit))

    def cluster(
        self,
        key: str,
        *ports: int,
        wire: WireProtocol = "http1",
        tls: Literal["mesh", "app"] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        """Push a cluster of local ports."""
        upstreams = tuple(Upstream(address=f"{host}:{port}") for port in ports)
        self.engine.set_cluster(Cluster(key=key, wire=wire, tls=tls, upstreams=upstreams))


def _is_of_another_loop(context: Mapping[str, Any]) -> bool:
    """grpcio has one queue for all loops: what ends late of a test that is over is handed to that test's closed loop by the next one."""
    told = f"{context.get('message')} {context.get('handle')!r}"
    return str(context.get("exception")) == "Event loop is closed" and "PollerCompletionQueue" in told


@asynccontextmanager
async def running(
    engine: str, *, limits: Limits | None = None, keep_decisions: bool = True
) -> AsyncIterator[Node]:
    """A running engine. Ends it, and fails if anything went wrong where nobody looks (callbacks, lost futures)."""
    loop = asyncio.get_running_loop()
    strays: list[Mapping[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(
        lambda _, context: None if _is_of_another_loop(context) else strays.append(context)
    )
    seen = Recorder()
    made = ENGINES[engine](
        *(limits or PINGLESS, seen, FixedTracing(), lambda key: f"looked for {key}"),
        keep_decisions=keep_decisions,
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(made.run())
            try:
                yield Node(made, seen)
            finally:
                task.cancel()
    finally:
        loop.set_exception_handler(before)
    assert not strays, strays


@dataclass(frozen=True, slots=True)
class Way:
    """A listener that leads to an app: through one engine (`back` is `front`) or through two with mutual TLS between."""

    port: int
    front: Node
    back: Node


@asynccontextmanager
async def leading(
    engine: str,
    hops: str,
    app_port: int,
    *,
    wire: WireProtocol = "http1",
    limits: Limits | None = None,
    mint: Mint | None = None,
    decide: Decide | None = None,
    authorize: Authorize = ask_nobody,
    **fields: Any,
) -> AsyncIterator[Way]:
    """A way to an app. `fields` go into the Plan at the caller's side; `decide` replaces it. authorize: at the caller's side, too."""
    async with running(engine, limits=limits) as front:
        if hops == "one":
            front.cluster("app", app_port, wire=wire)
            yield Way(await front.listen(decide or always(plan(**fields)), authorize=authorize), front, front)
            return
        mint = mint or Mint()
        async with running(engine, limits=limits) as back:
            back.engine.set_identity(mint.identity("callee"))
            back.cluster("app", app_port, wire=wire)
            peer = await back.listen(always(plan()), name="peer", tls="mesh")
            front.engine.set_identity(mint.identity("caller"))
            front.cluster("app", peer, wire="postern", tls="mesh")
            expect = frozenset({spiffe("callee")})
            decided = decide or always(plan(expect=expect, **fields))
            yield Way(await front.listen(decided, authorize=authorize), front, back)
