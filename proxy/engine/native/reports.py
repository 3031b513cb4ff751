"""Passes on what the engine counted and saw, in pieces that leave the loop free: connection events, sums, outcomes one by one, spans."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from msgspec.structs import astuple, replace

from proxy.contract.balancing import EndpointTurn
from proxy.contract.breakers import BreakerTurn, Counts
from proxy.contract.engine import HopSpan, LinesWanted, Measures, Observer, SpanIds, SpansWanted, Tracing
from proxy.contract.head import RequestHead
from proxy.contract.outcome import Outcome, Phases
from proxy.contract.watching import AnswerBegun, CallBegun, Watch
from proxy.engine.native import parts
from proxy.engine.native.known import Known
from proxy.wire import answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.engine.native import _native
    from proxy.engine.native._native import News, Notice, OutcomeParts, SpanParts, TallyParts

_BATCH = 32  # reports handed on in one piece: the loop has other work
_BATCHES = 128  # of which so many at most at a time, so that a report comes to an end under any load
# Pause for each kind of call that was counted, which takes 0.1 ms: many kinds are added up longer, at a bounded share of time.
_COUNT_S = 0.005
_MAX_COUNT_S = 2.0
_MAX_HELD = 1_024  # decisions that nothing but calls that are remembered holds
_PHRASES = [(status.value, status.phrase) for status in HTTPStatus]


class Reports:
    """Mutable state: by which measures calls are added up, when sums are due again, and whether calls are told as they go on.

    `now`: the loop's clock.
    """

    def __init__(
        self,
        core: "_native.NativeEngine",
        known: Known,
        observer: Observer,
        tracing: Tracing,
        now: "Callable[[], float]",
    ) -> None:
        self._core = core
        self._known = known
        self._observer = observer
        self._tracing = tracing
        self._now = now
        self._counts_due = 0.0
        self._measures: Measures | None = None
        self._latency_bounds_ms: tuple[float, ...] = ()  # of the calls that are added up
        self._lines_wanted: LinesWanted | None = None
        self._spans_wanted: SpansWanted | None = None
        self._is_watched = False
        self.push_measures()
        self.push_lines()
        self.push_spans()

    def push_lines(self) -> None:
        """Have lines of the access log written, where there is one."""
        lines = self._observer.lines
        wanted = None if lines is None else lines.wanted
        if wanted != self._lines_wanted:
            self._lines_wanted = wanted
            self._core.set_lines(None if wanted is None else astuple(wanted))

    def push_spans(self) -> None:
        """Have spans of calls that are added up written, remembered alone, or told of here, as the observer wants it now."""
        spans = self._observer.spans
        wanted = None if spans is None else spans.wanted
        if wanted == self._spans_wanted:
            return
        self._tell_spans()  # what was written as it was wanted before
        self._spans_wanted = wanted
        self._core.set_spans(None if wanted is None else parts.spans_parts(wanted, _PHRASES))

    def push_measures(self) -> None:
        """Have calls added up as the observer wants it now. Times of those that were not taken yet are lost where their bounds change."""
        measures = self._observer.measures
        if measures == self._measures:
            return
        self._measures = measures
        if measures is None:
            self._core.set_measures(None)
            return
        self._latency_bounds_ms = measures.latency_ms
        bounds = (list(measures.duration_s), list(measures.latency_ms), list(measures.size_bytes))
        self._core.set_measures((*bounds, measures.http_paths, measures.slow_ns))

    def tell_all(self) -> None:
        """Hand on what there is, at once."""
        self.expect_counts()
        for _ in self.tell():
            pass

    def expect_counts(self) -> None:
        """Have sums be due."""
        self._counts_due = 0.0

    def tell(self) -> Iterator[None]:
        """Hand on what there is, in pieces."""
        core, observer = self._core, self._observer
        for notice in core.take_notices():
            tell_notice(observer, notice, self._known)
        self._tell_counts()
        self._tell_lines()
        self._tell_spans()
        dead = core.take_dead()  # before what may still name a token is taken: those are forgotten next time
        yield from self._count()
        for take, tell in ((core.take_outcomes, observer.finished), (core.take_spans, observer.traced)):
            for _ in range(_BATCHES):
                outcomes = take(_BATCH)
                self._tell_news()  # those of these calls are there
                for outcome in outcomes:
                    tell(self._outcome(outcome))
                if len(outcomes) < _BATCH:
                    break
                yield
        while self._known.count > self._core.stats()[2] + _MAX_HELD and self.recall():
            yield
        self._known.forget(dead)

    def _count(self) -> Iterator[None]:
        now = self._now()
        if now < self._counts_due:
            return
        self.push_measures()
        left, bounds = self._core.take_tallies(), self._latency_bounds_ms
        self._counts_due = now + min(len(left) * _COUNT_S, _MAX_COUNT_S)
        try:
            for number, tally in enumerate(left, 1):
                self._counted(tally, bounds)
                if number % _BATCH == 0:
                    yield
            yield
        finally:
            for tally in left:  # at the end of the engine nobody comes again
                self._counted(tally, bounds)

    def _tell_lines(self) -> None:
        lines = self._observer.lines
        if lines is not None:
            text, lost = self._core.take_lines()
            if text or lost:
                lines.written(text, lost)

    def _tell_spans(self) -> None:
        spans = self._observer.spans
        if spans is not None:
            for text, count in self._core.take_written():
                spans.written(text, count)

    def recall(self) -> bool:
        """Hand on some of the calls that are remembered; False: none is left."""
        outcomes = self._core.take_recent(_BATCH)
        for outcome in outcomes:
            self._observer.recalled(self._outcome(outcome))
        return len(outcomes) == _BATCH

    def watch(self, watch: Watch | None) -> None:
        """Have calls told as they go on, or not."""
        self._is_watched = watch is not None
        self._core.take_news()  # what was on its way when nobody looked any more
        self._core.watch(None if watch is None else sorted(watch.fields))

    def _tell_news(self) -> None:
        if not self._is_watched:
            return
        news, lost = self._core.take_news()
        for one in news:
            self.tell_one(one)
        if lost:
            self._observer.lost(0, 0, lost)

    def tell_one(self, news: "News") -> None:
        """Hand on what one call came to."""
        match news:
            case ("begun", number, of, fields, token, span, started_ns):
                head = replace(parts.head(of), headers=fields)
                decision = self._known.decision(token)
                self._observer.begun(
                    CallBegun(
                        number=number,
                        head=head,
                        labels=decision.labels if decision is not None else answers.unlabelled(head.listener),
                        trace=None if span is None else self._span(span, head),
                        started_ns=started_ns,
                    )
                )
            case ("answered", number, head_ns, status, fields):
                self._observer.answered(
                    AnswerBegun(number=number, head_ns=head_ns, status=status, fields=fields)
                )
            case _:
                parts.unknown(news)

    def _tell_counts(self) -> None:
        hits, misses, reports, spans = self._core.take_counts()
        if misses:
            self._observer.plan_cache(hit=False, count=misses)
        if hits:
            self._observer.plan_cache(hit=True, count=hits)
        if reports or spans:
            self._observer.lost(reports, spans)

    def _counted(self, counted: "TallyParts", latency_bounds_ms: tuple[float, ...]) -> None:
        decision = self._known.decision(counted[0][0])
        if decision is not None:
            self._observer.counted(parts.tally(counted, decision.labels, latency_bounds_ms))

    def _outcome(self, ended: "OutcomeParts") -> Outcome:
        head = parts.head(ended[0])
        decision = self._known.decision(ended[1])
        labels = decision.labels if decision is not None else answers.unlabelled(head.listener)
        return parts.outcome(ended, head, labels, self._span(ended[2], head))

    def _span(self, begun: "SpanParts | int | None", head: RequestHead) -> HopSpan:
        if isinstance(begun, tuple):
            upper, lower, span_id, parent_id, is_sampled, tracestate = begun
            return self._tracing.from_ids(
                SpanIds(upper << 64 | lower, span_id, parent_id, is_sampled, tracestate)
            )
        span = self._known.take_span(begun)
        return span or self._tracing.begin(head.headers, grpc=head.protocol == "grpc")


def tell_notice(observer: Observer, notice: "Notice", known: Known) -> None:
    """Hand on one piece of news."""
    match notice:
        case ("connection", listener, change):
            observer.connection(listener, change)
        case ("refused_frames", kind, who):
            observer.refused_frames(kind, who)
        case ("refused_peer", listener, reason, detail, address):
            observer.refused_peer(listener, reason, detail, address)
        case ("upstream_failed", cluster, address, reason):
            observer.upstream_failed(cluster, address, reason)
        case ("upstream_connected", cluster, connect_s, tls_s):
            observer.upstream_connected(cluster, connect_s, tls_s)
        case ("phased", token, phases):
            decision = known.decision(token)
            if decision is not None:
                observer.phased(decision.labels, Phases(*phases))
        case ("endpoint_turned", cluster, address, ejected, for_s, times):
            observer.endpoint_turned(EndpointTurn(cluster, address, ejected, for_s, times))
        case ("breaker_turned", name, target, method, before, after, counts):
            observer.breaker_turned(BreakerTurn(name, target, method, before, after, Counts(*counts)))
        case _:
            parts.unknown(notice)
