"""Where finished spans go: a ring in memory for the admin API, and a bounded queue for each exporter."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from telemetry.exporting import Exporter, ExportLimits, ExportQueue, QueueRunner
from telemetry.kept import KeptSpans
from telemetry.logs import get_logger
from telemetry.names import SAMPLING_PROMOTED
from telemetry.otlp.log_items import LogItem
from telemetry.otlp.received import Received, weigh
from telemetry.spans import Span
from telemetry.written import SpanItem, TakesWritten, WrittenSpans, by_bytes
from telemetry.written import weigh as weigh_spans

__all__ = ["ExportLimits", "Exporter", "Received", "Span", "Tracer"]

AnyQueue = ExportQueue[Span] | ExportQueue[SpanItem] | ExportQueue[Received] | ExportQueue[LogItem]

RING = 4_096  # spans of sampled calls in memory
KEPT = 1_024  # of others that failed or were slow: beside the first, so that no number of good calls pushes them out
KEPT_PER_S = 100
KEPT_BYTES = 8 * 1024 * 1024
REFUSED = 256  # of what we refused and names no callee: apart from calls that failed, which a flood of bad requests is not to push out
REFUSED_PER_S = 20
REFUSED_BYTES = 1024 * 1024
APP_RING = 2_048  # that the app itself made
_ROUNDS = 256  # of remembering: more spans than there is room for, and an end under any load
_PIECE = 128  # written spans that are lost together at most


class Tracer:
    """Takes finished spans, and what the app sent of its own; never blocks, never raises. Used on the loop's thread.

    Owns the latest spans: of sampled calls, of those that were kept for how they ended, and of the app's own. Each queue
    owns its own. Mutable state: the queues, one for each exporter.
    forwarders: for what the app sent, apart from our own spans, so that a talkative app displaces none of them.
    """

    def __init__(
        self,
        service: str,
        exporters: Sequence[Exporter[Span]] = (),
        ring: int = RING,
        *,
        forwarders: Sequence[Exporter[Received]] = (),
        limits: ExportLimits | None = None,
        random_source: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self._limits = limits or ExportLimits()
        self._random = random_source or random.Random()  # noqa: S311 - jitter, no secret
        self._log = get_logger("postern.trace")
        self._runner = QueueRunner()
        self._open(exporters, forwarders)
        self._ring: deque[Span] = deque(maxlen=ring)
        self._kept = KeptSpans(KEPT, KEPT_BYTES, KEPT_PER_S, clock)
        self._refused = KeptSpans(REFUSED, REFUSED_BYTES, REFUSED_PER_S, clock)
        self._recall: Callable[[], bool] = lambda: False
        self._last: Span | None = None
        self._app_ring: deque[Span] = deque(maxlen=APP_RING)

    def _open(self, exporters: Sequence[Exporter[Span]], forwarders: Sequence[Exporter[Received]]) -> None:
        limits, log, random_source = self._limits, self._log, self._random
        self._written_queues = tuple(
            ExportQueue(exporter, limits=by_bytes(limits), log=log, random=random_source, weigh=weigh_spans)
            for exporter in exporters
            if isinstance(exporter, TakesWritten)
        )
        self._span_queues = tuple(
            ExportQueue(exporter, limits=limits, log=log, random=random_source)
            for exporter in exporters
            if not isinstance(exporter, TakesWritten)
        )
        self._app_queues = tuple(
            ExportQueue(exporter, limits=limits, log=log, random=random_source, weigh=weigh)
            for exporter in forwarders
        )
        self._runner.replace(self.queues)

    @property
    def queues(self) -> tuple[AnyQueue, ...]:
        """One for each exporter, those of the app's spans last."""
        return (*self._written_queues, *self._span_queues, *self._app_queues)

    @property
    def used_queues(self) -> tuple[AnyQueue, ...]:
        """The same without those of an app that has sent nothing."""
        used = (queue for queue in self._app_queues if queue.is_used)
        return (*self._written_queues, *self._span_queues, *used)

    def replace(
        self, exporters: Sequence[Exporter[Span]], forwarders: Sequence[Exporter[Received]] = ()
    ) -> None:
        """Exports by these from now on. Those before send what they have, for a bounded time (`ExportLimits.shutdown_s`)."""
        self._open(exporters, forwarders)

    def record(self, span: Span) -> None:
        """Keeps the span, and queues it for every exporter."""
        self.remember(span)
        self._queue(span)

    def _queue(self, span: Span) -> None:
        for written_queue in self._written_queues:
            written_queue.put(span)
        for queue in self._span_queues:
            queue.put(span)

    def remember(self, span: Span) -> None:
        """Keeps the span alone."""
        self._ring.append(self._latest(span))

    @property
    def is_written(self) -> bool:
        """Whether every exporter takes spans that an engine wrote."""
        return not self._span_queues

    @property
    def per_piece(self) -> int | None:
        """How many of those `put_written` may be given at once; None: they go nowhere."""
        return min(_PIECE, self._limits.batch) if self._written_queues else None

    def put_written(self, spans: WrittenSpans) -> bool:
        """Queues spans that an engine wrote, for every exporter that takes them; False: there is none."""
        for queue in self._written_queues:
            queue.put(spans)
        return bool(self._written_queues)

    async def gather(self) -> None:
        """Have all spans here that an engine remembers: what `recent` and `last_trace_id` say is of those that are here."""
        for _ in range(_ROUNDS):
            if not self._recall():
                break
            await asyncio.sleep(0)

    @property
    def has_forwarders(self) -> bool:
        """Whether what the app sent goes anywhere."""
        return bool(self._app_queues)

    def forward(self, received: Received) -> int:
        """Queues what the app sent for every collector; how many spans were lost by that, at the collector that lost most."""
        lost = 0
        for queue in self._app_queues:
            before = sum(queue.dropped.values())
            queue.put(received)
            lost = max(lost, sum(queue.dropped.values()) - before)
        return lost

    def keep_of_app(self, spans: Iterable[Span]) -> None:
        """Keeps spans that the app made."""
        self._app_ring.extend(spans)

    def keep(self, span: Span, *, of_call: bool = True) -> None:
        """Keeps the span of a call that was not sampled and queues it for every exporter, at most so many a second.

        of_call: it named a callee.
        """
        span.attributes = (*span.attributes, (SAMPLING_PROMOTED, "true"))
        if (self._kept if of_call else self._refused).take(span):
            self._queue(self._latest(span))

    @property
    def not_kept(self) -> int:
        """Spans that were too many in their second."""
        return self._kept.refused + self._refused.refused

    def _latest(self, span: Span) -> Span:
        if self._last is None or span.end_ns >= self._last.end_ns:  # an engine's are remembered late
            self._last = span
        return span

    def recent(self, trace_id: int | None = None) -> tuple[Span, ...]:
        """The spans in memory, oldest first: ours, behind them those kept for how they ended, and the app's; of one trace if named."""
        rings = (self._ring, self._kept, self._refused, self._app_ring)
        return tuple(
            span for ring in rings for span in ring if trace_id is None or span.context.trace_id == trace_id
        )

    def last_trace_id(self) -> int | None:
        """The trace of the span that ended last."""
        last = self._last or (self._app_ring[-1] if self._app_ring else None)
        return last.context.trace_id if last is not None else None

    @property
    def exported(self) -> int:
        """Spans taken, over all exporters."""
        return sum(queue.exported for queue in self.queues)

    @property
    def dropped(self) -> int:
        """Spans lost, over all exporters and reasons."""
        return sum(sum(queue.dropped.values()) for queue in self.queues)

    @property
    def queued(self) -> int:
        """Spans waiting, over all exporters."""
        return sum(queue.queued for queue in self.queues)

    async def run(self, recall: Callable[[], bool] = lambda: False) -> None:
        """Exports until cancelled, then sends what is left, for a bounded time (`ExportLimits.shutdown_s`).

        recall: has an engine `remember` some of the spans that are in its memory alone, and says whether there may be more.
        """
        self._recall = recall
        await self._runner.run()
