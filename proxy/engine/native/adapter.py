"""The Python side of the native engine: answers its questions, passes on its reports, pushes what the control plane sets.

Runs on the loop. The engine's own threads write questions and reports into queues and ring a bell (a descriptor that the loop
watches), so they never wait for the interpreter; a head that no kept Plan covers waits alone until the loop has decided.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import asdict

from proxy import errors
from proxy.contract.breakers import BreakerGlance, BreakerSpec, Counts
from proxy.contract.budgets import BudgetGlance
from proxy.contract.engine import (
    Cluster,
    EngineStats,
    Limits,
    ListenerSpec,
    Observer,
    OpenWork,
    Sampling,
    TlsIdentity,
    Tracing,
)
from proxy.contract.gates import GateSpec, GateState
from proxy.contract.plan import Labels
from proxy.contract.recording import Table
from proxy.contract.watching import Watch
from proxy.engine.native import _native, parts
from proxy.engine.native.known import Known
from proxy.engine.native.questions import Answers, Explain
from proxy.engine.native.reports import Reports

_TURN_S = 1.0  # which a scraper waits for
REPORT_S = 0.1  # how long a report may lie; 0: not at all, for tests
_ANSWERS = 32  # questions answered in one piece: the loop has other work


class NativeEngine:
    """See Engine. Mutable state: the sampling and the circuit breakers pushed last; the rest has its own owners (`Known`, `Answers`,
    `Reports`).
    """

    name = "native"

    def __init__(
        self,
        limits: Limits,
        observer: Observer,
        tracing: Tracing,
        explain: Explain,
        *,
        threads: int = 1,
        report_s: float = REPORT_S,
        keep_decisions: bool = True,
    ) -> None:
        self._core = _native.NativeEngine(asdict(limits), prompt=report_s == 0, threads=threads)
        self._threads = threads
        self._is_prompt = report_s == 0
        self._report_s = report_s or REPORT_S
        self._tracing = tracing
        self._loop = asyncio.get_running_loop()
        lines, spans = observer.lines, observer.spans
        self._known = known = Known(
            (lambda _: None) if lines is None else lines.pieces,
            (lambda _: None) if spans is None else spans.labels,
        )
        self._answers = Answers(known, tracing, explain, keep_decisions=keep_decisions)
        self._reports = Reports(self._core, known, observer, tracing, self._loop.time)
        self._sampling: Sampling | None = None
        self._breakers: dict[str, BreakerSpec | None] = {}
        self._running = asyncio.Event()
        self._telling = asyncio.Lock()
        self._push_sampling()

    async def run(self) -> None:
        """Answer and report until cancelled, then end everything."""
        self._loop.add_reader(self._core.bell(), self._rung)
        self._running.set()
        try:
            while True:
                await asyncio.sleep(self._report_s)
                self._push_sampling()
                self._reports.push_measures()
                self._reports.push_lines()
                self._reports.push_spans()
                await self._tell()
        finally:
            self._running.clear()
            self._loop.remove_reader(self._core.bell())
            self._core.stop()
            self._reports.tell_all()

    async def listen(self, spec: ListenerSpec) -> str:
        """Bind and accept; returns the bound address. Raises ListenError."""
        await self._running.wait()
        self._answers.listeners[spec.name] = spec
        try:
            return self._core.listen(spec.name, spec.address, spec.tls == "mesh")
        except OSError as error:
            raise errors.ListenError(spec.name, spec.address, error.strerror or str(error)) from error

    async def unlisten(self, name: str) -> None:
        """Stop accepting; connections go on."""
        self._core.unlisten(name)
        spec = self._answers.listeners.get(name)
        if spec is not None and spec.address.startswith("unix:"):
            _remove(spec.address[5:])

    # --- pushes ----------------------------------------------------------------------------------------------------------

    def set_cluster(self, cluster: Cluster) -> None:
        """Add or replace a cluster; connections to addresses that are gone drain."""
        self._core.set_cluster(parts.cluster_parts(cluster))

    def drop_cluster(self, key: str) -> None:
        """Forget a cluster."""
        self._core.drop_cluster(key)

    def wake(self, key: str) -> None:
        """Have calls that are held for `key` ask again."""
        self._core.wake(key)

    def set_paths(self, number: int, table: Table) -> None:
        """Push a path table; the engine reads those that have a shape, others are read here and remembered there."""
        self._core.set_paths(number, self._answers.set_paths(number, table))

    def set_members(self, number: int, members: frozenset[bytes]) -> None:
        """Push a header set."""
        self._answers.set_members(number, members)
        self._core.set_members(number, list(members))

    def set_gate(self, name: str, spec: GateSpec | None) -> None:
        """Put up, change or take down a gate."""
        self._core.set_gate(name, None if spec is None else parts.gate_parts(spec))

    def set_breaker(self, name: str, spec: BreakerSpec | None) -> None:
        """Set, replace or remove a circuit breaker."""
        if self._breakers.get(name) != spec:
            self._breakers[name] = spec
            self._core.set_breaker(name, None if spec is None else parts.breaker_parts(spec))

    def breakers(self) -> Sequence[BreakerGlance]:
        """Those that have been asked."""
        return tuple(
            BreakerGlance(name, target, method, state, Counts(*counts), left_s)
            for name, target, method, state, counts, left_s in self._core.breakers()
        )

    def budgets(self) -> Sequence[BudgetGlance]:
        """Those that calls had."""
        return tuple(BudgetGlance(*parts) for parts in self._core.budgets())

    def set_identity(self, identity: TlsIdentity | None) -> None:
        """New contexts for new connections. Raises ValueError and leaves the old ones where the material is unusable."""
        if identity is None:
            self._core.set_identity(None)
            return
        self._core.set_identity((identity.chain_pem, identity.key_pem, identity.roots_pem, identity.ends_at))
        self._answers.verify = identity.verify

    def invalidate(self, scope: str) -> None:
        """Drop every kept Plan of a scope."""
        self._reports.push_lines()  # their form is the new decisions'
        self._core.invalidate(scope)

    def redecide_open(self) -> None:
        """Decide about open calls again; end those that are denied now."""
        self._core.redecide_open()

    async def drain(self, listeners: Sequence[str], within_s: float) -> int:
        """Drain the listeners' connections (GOAWAY, or `Connection: close`) and wait for their calls; returns how many were cut."""
        done: asyncio.Future[int] = self._loop.create_future()

        def tell(count: int) -> None:
            if not done.done():
                done.set_result(count)

        self._core.drain(
            list(listeners), within_s, lambda count: self._loop.call_soon_threadsafe(tell, count)
        )
        async with asyncio.timeout(within_s + 10.0):
            return await done

    def stats(self) -> EngineStats:
        """Numbers for status."""
        connections, calls, plans, upstream = self._core.stats()
        return EngineStats(
            connections=connections,
            calls_in_flight=calls,
            plans_kept=plans,
            upstream_connections=upstream,
            threads=self._threads,
            gates={
                name: GateState(inside=inside, waiting=waiting, left=left, refused=refused, limit=limit)
                for name, inside, waiting, left, refused, limit in self._core.gates()
            },
        )

    def open_work(self) -> OpenWork:
        """What is open; without what a thread that is stuck has not counted."""
        if not self._running.is_set():  # its threads would not answer
            return OpenWork(calls={}, streams_in=0, streams_out=0, replay_bytes=0)
        counts, streams_in, streams_out, replay_bytes, lag_s = self._core.open_work()
        calls: Counter[Labels] = Counter()
        for token, count in counts:
            decision = self._known.decision(token)
            if decision is not None:
                calls[decision.labels] += count
        return OpenWork(
            calls=calls,
            streams_in=streams_in,
            streams_out=streams_out,
            replay_bytes=replay_bytes,
            lag_s=lag_s,
        )

    def watch(self, watch: Watch | None) -> None:
        """Tell of calls as they begin and are answered."""
        self._reports.push_measures()  # first: no call that is told to have begun is added up at its end
        self._reports.watch(watch)

    async def report(self) -> None:
        """Hand on what lies there, however little time has passed; without what a thread that is stuck has not counted."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TURN_S):
                await self.drain((), 0.0)  # a turn of each thread: calls that it has answered, it has counted
        self._reports.expect_counts()
        await self._tell()

    def recall(self) -> bool:
        """Hand on some of the calls that are remembered; False: none is left."""
        return self._reports.recall()

    async def _tell(self) -> None:
        async with self._telling:  # what one forgets, the other may still need
            for _ in self._reports.tell():
                await asyncio.sleep(0)

    def loads(self, key: str) -> tuple[dict[str, object], ...]:
        """Load and health of a cluster's endpoints, for status."""
        return tuple(
            {
                "address": address,
                "inFlight": in_flight,
                "rttMs": round(rtt_s * 1e3, 2),
                "ejectedForS": round(ejected_s, 1),
                "proven": is_proven,
                "outlier": outlier,
            }
            for address, in_flight, rtt_s, ejected_s, is_proven, outlier in self._core.loads(key)
        )

    # --- questions and reports -------------------------------------------------------------------------------------------

    def _rung(self) -> None:
        self._core.clear_wakeup()
        self._answer()

    def _answer(self) -> None:
        """Answer some questions; the rest after other work, also where a decider raised: the bell rings only once none is left."""
        is_more = True
        try:
            for _ in range(_ANSWERS):
                asked = self._core.next_question()
                if asked is None:
                    is_more = False
                    break
                self._answers.answer(asked)
        finally:
            if is_more:
                self._loop.call_soon(self._answer)
        if self._is_prompt:
            self._reports.tell_all()

    def _push_sampling(self) -> None:
        sampling = self._tracing.sampling
        if sampling != self._sampling:
            self._sampling = sampling
            if sampling is None:
                self._core.set_sampling(None, False, [])
            else:
                self._core.set_sampling(sampling.rate, sampling.is_b3_read, list(sampling.rules))


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)
