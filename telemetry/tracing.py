"""Where finished spans go: a ring in memory for the admin API, and a bounded queue for each exporter."""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from telemetry.exporting import Exporter, ExportLimits, ExportQueue, QueueRunner
from telemetry.logs import get_logger
from telemetry.otlp.received import Received, weigh
from telemetry.spans import Span

__all__ = ["ExportLimits", "Exporter", "Received", "Span", "Tracer"]

AnyQueue = ExportQueue[Span] | ExportQueue[Received]

RING = 4_096  # spans of sampled calls in memory
KEPT = 1_024  # of others that failed or were slow: beside the first, so that no number of good calls pushes them out
KEPT_PER_S = 100
APP_RING = 2_048  # that the app itself made


class Tracer:
    """Takes finished spans, and what the app sent of its own; never blocks, never raises. Used on the loop's thread.

    Owns three rings of the latest spans: of sampled calls, of those that were kept for how they ended, and of the app's own. Each queue
    owns its own. Mutable state: the queues, one for each exporter, and how many spans may be kept now; `not_kept` counts those beyond.
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
        self._kept: deque[Span] = deque(maxlen=KEPT)
        self._clock = clock
        self._may_keep, self._since = float(KEPT_PER_S), clock()
        self.not_kept = 0
        self._last: Span | None = None
        self._app_ring: deque[Span] = deque(maxlen=APP_RING)

    def _open(self, exporters: Sequence[Exporter[Span]], forwarders: Sequence[Exporter[Received]]) -> None:
        limits, log, random_source = self._limits, self._log, self._random
        self._span_queues = tuple(
            ExportQueue(exporter, limits=limits, log=log, random=random_source) for exporter in exporters
        )
        self._app_queues = tuple(
            ExportQueue(exporter, limits=limits, log=log, random=random_source, weigh=weigh)
            for exporter in forwarders
        )
        self._runner.replace(self.queues)

    @property
    def queues(self) -> tuple[AnyQueue, ...]:
        """One for each exporter, those of the app's spans last."""
        return (*self._span_queues, *self._app_queues)

    @property
    def used_queues(self) -> tuple[AnyQueue, ...]:
        """The same without those of an app that has sent nothing."""
        return (*self._span_queues, *(queue for queue in self._app_queues if queue.is_used))

    def replace(
        self, exporters: Sequence[Exporter[Span]], forwarders: Sequence[Exporter[Received]] = ()
    ) -> None:
        """Exports by these from now on. Those before send what they have, for a bounded time (`ExportLimits.shutdown_s`)."""
        self._open(exporters, forwarders)

    def record(self, span: Span) -> None:
        """Keeps the span, and queues it for every exporter."""
        self._ring.append(self._latest(span))
        for queue in self._span_queues:
            queue.put(span)

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

    def keep(self, span: Span) -> None:
        """Keeps the span of a call that was not sampled, at most so many a second; no exporter gets it."""
        now = self._clock()
        self._may_keep = min(KEPT_PER_S, self._may_keep + (now - self._since) * KEPT_PER_S)
        self._since = now
        if self._may_keep < 1:
            self.not_kept += 1
            return
        self._may_keep -= 1
        self._kept.append(self._latest(span))

    def _latest(self, span: Span) -> Span:
        self._last = span
        return span

    def recent(self, trace_id: int | None = None) -> tuple[Span, ...]:
        """The spans in memory, oldest first: ours, behind them those kept for how they ended, and the app's; of one trace if named."""
        rings = (self._ring, self._kept, self._app_ring)
        return tuple(
            span for ring in rings for span in ring if trace_id is None or span.context.trace_id == trace_id
        )

    def last_trace_id(self) -> int | None:
        """The trace of the span that was recorded last."""
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

    async def run(self) -> None:
        """Exports until cancelled, then sends what is left, for a bounded time (`ExportLimits.shutdown_s`)."""
        await self._runner.run()
