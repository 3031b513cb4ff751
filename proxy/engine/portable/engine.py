"""The portable engine: pure Python on asyncio, h2 and h11. Runs wherever Python runs; the reference in differential tests."""

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress

from proxy.contract.breakers import BreakerGlance, BreakerSpec
from proxy.contract.budgets import BudgetGlance
from proxy.contract.engine import (
    Cluster,
    EngineStats,
    Limits,
    ListenerSpec,
    Observer,
    OpenWork,
    TlsIdentity,
    Tracing,
)
from proxy.contract.gates import LAG_SAMPLE_S, GateSpec
from proxy.contract.recording import Table
from proxy.contract.watching import Watch
from proxy.engine.portable.carrier import Carrier, Explain
from proxy.engine.portable.listener import Listener

_PULSE_S = 0.25  # between looks at connections to peers, which may be silent


class PortableEngine:
    """Mutable state: the listeners by name, and the TaskGroup that owns every task while `run` is running."""

    name = "portable"

    def __init__(
        self,
        limits: Limits,
        observer: Observer,
        tracing: Tracing,
        explain: Explain,
        *,
        keep_decisions: bool = True,
    ) -> None:
        self._carrier = Carrier(
            limits, observer, tracing, explain, self._spawn, keep_decisions=keep_decisions
        )
        self._listeners: dict[str, Listener] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._running = asyncio.Event()

    async def run(self) -> None:
        """Own every task until cancelled, then close what is open."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._running.set()
                tasks.create_task(self._watch_upstreams())
                loop = asyncio.get_running_loop()
                while True:
                    due = loop.time() + LAG_SAMPLE_S
                    await asyncio.sleep(LAG_SAMPLE_S)
                    now = loop.time()
                    self._carrier.gates.note_lag(now - due)
                    wall = time.time()
                    for listener in self._listeners.values():
                        listener.sweep(now, wall)
        finally:
            self._tasks = None
            for calls in list(self._carrier.calls.values()):
                for exchange in list(calls):
                    exchange.cut()
            self._carrier.pool.close()
            for listener in self._listeners.values():
                listener.end()

    async def _watch_upstreams(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_PULSE_S)
            now = loop.time()
            for origin, is_dead in self._carrier.pool.sweep(now, time.time()).items():
                state = self._carrier.clusters.get(origin.cluster)
                load = state.load(origin.address) if state is not None else None
                if load is not None and is_dead:
                    load.eject(now)
                elif load is not None:
                    load.avoid(now)

    def _spawn(self, task: Coroutine[None, None, None]) -> object:
        if self._tasks is not None:
            with suppress(RuntimeError):  # a TaskGroup that is ending takes no task, and leaves it to us
                return self._tasks.create_task(task)
        task.close()
        return None

    async def listen(self, spec: ListenerSpec) -> str:
        """Bind and accept; returns the bound address. Raises ListenError."""
        await self._running.wait()
        listener = Listener(spec, self._carrier)
        address = listener.bind()
        self._listeners[spec.name] = listener
        self._spawn(listener.run())
        return address

    async def unlisten(self, name: str) -> None:
        """Stop accepting; connections go on."""
        listener = self._listeners.get(name)
        if listener is not None:
            listener.stop_accepting()

    def set_cluster(self, cluster: Cluster) -> None:
        """Add or replace a cluster; connections to addresses that are gone drain."""
        gone = self._carrier.clusters.put(cluster)
        if gone:
            self._carrier.pool.retire(cluster.key, gone)

    def drop_cluster(self, key: str) -> None:
        """Forget a cluster."""
        state = self._carrier.clusters.drop(key)
        if state is not None:
            self._carrier.pool.retire(key, frozenset(load.address for load in state.loads()))

    def wake(self, key: str) -> None:
        """Have calls that are held for `key` ask again."""
        self._carrier.clusters.wake(key)

    def set_paths(self, number: int, table: Table) -> None:
        """Push a path table."""
        self._carrier.tables.put_paths(number, table)

    def set_members(self, number: int, members: frozenset[bytes]) -> None:
        """Push a header set."""
        self._carrier.tables.put_set(number, members)

    def set_gate(self, name: str, spec: GateSpec | None) -> None:
        """Put up, change or take down a gate."""
        self._carrier.gates.set(name, spec)

    def set_breaker(self, name: str, spec: BreakerSpec | None) -> None:
        """Set, replace or remove a circuit breaker."""
        self._carrier.breakers.set(name, spec)

    def breakers(self) -> Sequence[BreakerGlance]:
        """Those that have been asked."""
        return tuple(self._carrier.breakers.glances(self._carrier.now()))

    def budgets(self) -> Sequence[BudgetGlance]:
        """Those that calls had."""
        return self._carrier.budgets.glances(self._carrier.now())

    def set_identity(self, identity: TlsIdentity | None) -> None:
        """New contexts for new connections; connections under the old ones drain, at both ends."""
        self._carrier.contexts.put(identity)
        self._carrier.pool.retire_mesh()
        self._carrier.clusters.restore()
        for listener in self._listeners.values():
            listener.identity_changed()

    def invalidate(self, scope: str) -> None:
        """Drop every kept Plan of a scope."""
        self._carrier.plans.invalidate(scope)

    def redecide_open(self) -> None:
        """Decide about open calls again; end those that are denied now."""
        self._spawn(self._carrier.redecide_open())

    async def drain(self, listeners: Sequence[str], within_s: float) -> int:
        """Drain the listeners' connections (GOAWAY, or `Connection: close`) and wait for their calls; returns how many were cut."""
        chosen = [self._listeners[name] for name in listeners if name in self._listeners]
        for listener in chosen:
            listener.stop_accepting()
            listener.start_drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                for listener in chosen:
                    await listener.empty.wait()
        left = [
            exchange for listener in chosen for exchange in self._carrier.calls.get(listener.spec.name, ())
        ]
        for exchange in left:
            exchange.cut()
        return len(left)

    def stats(self) -> EngineStats:
        """Numbers for status."""
        return EngineStats(
            connections=sum(listener.connections for listener in self._listeners.values()),
            calls_in_flight=sum(len(calls) for calls in self._carrier.calls.values()),
            plans_kept=self._carrier.plans.size,
            upstream_connections=self._carrier.pool.size,
            gates=self._carrier.gates.states(),
        )

    def open_work(self) -> OpenWork:
        """What is open."""
        calls = [exchange for calls in self._carrier.calls.values() for exchange in calls]
        carried = (exchange.carried_as for exchange in calls)
        return OpenWork(
            calls=Counter(labels for labels in carried if labels is not None),
            streams_in=sum(exchange.is_stream for exchange in calls),
            streams_out=self._carrier.pool.streams,
            replay_bytes=sum(exchange.body.held_bytes for exchange in calls),
        )

    def watch(self, watch: Watch | None) -> None:
        """Tell of calls as they begin and are answered."""
        self._carrier.look(watch)

    async def report(self) -> None:
        """Nothing lies here: observers are told as calls end."""

    def recall(self) -> bool:
        """Nothing lies here."""
        return False

    def loads(self, key: str) -> tuple[dict[str, object], ...]:
        """Load and health of a cluster's endpoints, for status."""
        state = self._carrier.clusters.get(key)
        if state is None:
            return ()
        now = self._carrier.now()
        return tuple(
            {
                "address": load.address,
                "inFlight": load.in_flight,
                "rttMs": round(load.rtt_s * 1e3, 2),
                "ejectedForS": round(max(0.0, load.ejected_until - now, load.standing.out_until - now), 1),
                "outlier": load.standing.reason if load.standing.out_until else "",
                "proven": load.proven,
            }
            for load in state.loads()
        )
