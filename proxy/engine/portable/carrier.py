"""What the calls of one portable engine share: clusters, kept Plans, the pool, gates, clock and randomness."""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Coroutine

from msgspec.structs import replace

from proxy.contract.engine import HopSpan, Limits, ListenerSpec, Observer, Tracing
from proxy.contract.head import Headers, RequestHead
from proxy.contract.outcome import Outcome
from proxy.contract.plan import Cause, Hold, Labels
from proxy.contract.recording import Tables
from proxy.contract.watching import AnswerBegun, CallBegun, Watch
from proxy.engine.portable.breakers import Breakers
from proxy.engine.portable.budgets import Budgets
from proxy.engine.portable.clusters import Clusters
from proxy.engine.portable.exchange import Exchange
from proxy.engine.portable.gates import Gates
from proxy.engine.portable.plans import Kept, PlanCache
from proxy.engine.portable.pool import Pool
from proxy.engine.portable.request_body import ReplayRoom
from proxy.wire import answers
from proxy.wire.streams import AcceptCall, Downstream, RawHead, Refuse
from proxy.wire.tls import TlsContexts
from proxy.wire.turns import Rota

_REDECIDED = 64  # open calls decided about again in one turn of the loop

Explain = Callable[[str], str]


class Carrier:
    """Shared by every exchange. Mutable state: `calls` in flight, and `watch`, whether somebody looks at them."""

    def __init__(
        self,
        limits: Limits,
        observer: Observer,
        tracing: Tracing,
        explain: Explain,
        spawn: Callable[[Coroutine[None, None, None]], object],
        *,
        keep_decisions: bool = True,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.later = self._loop.call_later
        self.rng = random.Random(time.time_ns())  # noqa: S311 - balancing, not secrets
        self.limits = limits
        self.observer = observer
        self.tracing = tracing
        self.explain = explain
        self.tables = Tables()
        self.plans = PlanCache(self.tables, keep=keep_decisions)
        self.clusters = Clusters()
        self.gates = Gates()
        self.breakers = Breakers(observer.breaker_turned)
        self.budgets = Budgets()
        self.replay = ReplayRoom(limits.replay_bytes)
        self.contexts = TlsContexts()
        self.rota = Rota()
        self.pool = Pool(limits, self.contexts, observer, spawn, self.rota)
        self.calls: dict[str, set[Exchange]] = {}
        self.watch: Watch | None = None
        self._numbers = itertools.count()

    def acceptor(self, listener: ListenerSpec, peer: str | None, address: str) -> AcceptCall:
        """What a connection hands its request heads to."""
        calls = self.calls.setdefault(listener.name, set())

        def accept(down: Downstream, raw: RawHead) -> Exchange:
            number = next(self._numbers)
            exchange = Exchange(self, listener, down, raw, peer=peer, address=address, number=number)
            calls.add(exchange)
            try:
                exchange.start()
            except (
                BaseException
            ):  # a fault of ours ends this connection; the call must not be waited for at the end
                calls.discard(exchange)
                raise
            return exchange

        return accept

    def refuser(self, listener: ListenerSpec, peer: str | None, address: str) -> Refuse:
        """What a connection reports requests to whose heads it can't read."""
        labels = answers.unlabelled(listener.name)

        def refuse(status: int) -> bytes:
            span, now_ns = self.sampled(self.tracing.begin((), grpc=False), labels), time.time_ns()
            outcome = Outcome(
                head=RequestHead(listener.name, "http1", "none", "", "", b"", "", b"", (), peer, address),
                labels=labels,
                trace=span,
                started_ns=now_ns,
                head_ns=0,
                ended_ns=now_ns,
                status=status,
                grpc_code=None,
                cause=Cause.BAD_REQUEST,
                attempts=[],
                up_bytes=0,
                down_bytes=0,
            )
            self.observer.finished(outcome)
            return span.traceparent

        return refuse

    def decide(self, listener: ListenerSpec, head: RequestHead) -> Kept | Hold:
        """The kept decision that covers a head, or a fresh one."""
        kept = self.plans.find(head)
        self.observer.plan_cache(kept is not None)
        return kept if kept is not None else self.plans.decide(listener.decide, head)

    def sampled(self, span: HopSpan, labels: Labels) -> HopSpan:
        """The span of a call by the sampling of its decision."""
        return self.tracing.by_rule(span, labels.sampling) if labels.sampling else span

    async def redecide_open(self) -> None:
        """Decide about open calls again, a few in one turn of the loop."""
        calls = [exchange for calls in self.calls.values() for exchange in calls]
        for number, exchange in enumerate(calls, 1):
            exchange.decide_again()
            if number % _REDECIDED == 0:
                await asyncio.sleep(0)

    def look(self, watch: Watch | None) -> None:
        """Tell of calls as they go on, first of those under way, unless these were told."""
        is_news = self.watch is None
        self.watch = watch
        if watch is None or not is_news:
            return
        for calls in self.calls.values():
            for exchange in calls:
                if (labels := exchange.carried_as or exchange.held_as) is not None:
                    self.tell_begun(exchange, labels)
                    if exchange.is_committed:
                        self.tell_answered(exchange, ())

    def tell_begun(self, exchange: Exchange, labels: Labels) -> None:
        """To whoever looks."""
        if self.watch is None:
            return
        self.observer.begun(
            CallBegun(
                number=exchange.number,
                head=replace(exchange.head, headers=self._watched(exchange.head.headers)),
                labels=labels,
                trace=exchange.span if exchange.held_as is None else None,
                started_ns=exchange.started_ns,
            )
        )

    def tell_answered(self, exchange: Exchange, fields: Headers) -> None:
        """To whoever looks. fields: of the answer."""
        if self.watch is None:
            return
        self.observer.answered(
            AnswerBegun(
                number=exchange.number,
                head_ns=exchange.head_ns,
                status=exchange.status,
                fields=self._watched(fields),
            )
        )

    def _watched(self, fields: Headers) -> Headers:
        wanted = self.watch.fields if self.watch is not None else ()
        return tuple(field for field in fields if field[0] in wanted) if wanted else ()

    def finished(self, exchange: Exchange, outcome: Outcome) -> None:
        """A call is over."""
        self.calls[outcome.head.listener].discard(exchange)
        self.observer.finished(outcome)
