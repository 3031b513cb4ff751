"""Where finished spans go: a ring in memory for the admin API, and a bounded queue for each exporter."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence

from telemetry.exporting import Exporter, ExportLimits, ExportQueue
from telemetry.logs import get_logger
from telemetry.spans import Span

__all__ = ["ExportLimits", "Exporter", "Span", "Tracer"]

RING = 4_096  # spans of sampled calls in memory
KEPT = 1_024  # of others that failed or were slow: beside the first, so that no number of good calls pushes them out
KEPT_PER_S = 100


class Tracer:
    """Takes finished spans; never blocks, never raises. Used on the loop's thread.

    Owns two rings of the latest spans: of sampled calls, and of those that were kept for how they ended. Each ExportQueue owns its own.
    Mutable state: `queues`, one for each exporter, those that were replaced and still have spans to send, and how many spans may be kept
    now; `not_kept` counts those beyond.
    """

    def __init__(
        self,
        service: str,
        exporters: Sequence[Exporter] = (),
        ring: int = RING,
        *,
        limits: ExportLimits | None = None,
        random_source: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self._limits = limits or ExportLimits()
        self._random = random_source or random.Random()  # noqa: S311 - jitter, no secret
        self.queues = self._queued(exporters)
        self._replaced: list[ExportQueue] = []
        self._changed = asyncio.Event()
        self._ring: deque[Span] = deque(maxlen=ring)
        self._kept: deque[Span] = deque(maxlen=KEPT)
        self._clock = clock
        self._may_keep, self._since = float(KEPT_PER_S), clock()
        self.not_kept = 0
        self._last: Span | None = None

    def _queued(self, exporters: Sequence[Exporter]) -> tuple[ExportQueue, ...]:
        log = get_logger("postern.trace")
        return tuple(
            ExportQueue(exporter, limits=self._limits, log=log, random=self._random) for exporter in exporters
        )

    def replace(self, exporters: Sequence[Exporter]) -> None:
        """Exports by these from now on. Those before send what they have, for a bounded time (`ExportLimits.shutdown_s`)."""
        self._replaced += self.queues
        self.queues = self._queued(exporters)
        self._changed.set()

    def record(self, span: Span) -> None:
        """Keeps the span, and queues it for every exporter."""
        self._ring.append(self._latest(span))
        for queue in self.queues:
            queue.put(span)

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
        """The spans still in memory, oldest first, those kept for how they ended behind the others; of one trace if named."""
        if trace_id is None:
            return (*self._ring, *self._kept)
        return tuple(
            span for ring in (self._ring, self._kept) for span in ring if span.context.trace_id == trace_id
        )

    def last_trace_id(self) -> int | None:
        """The trace of the span that was recorded last."""
        return self._last.context.trace_id if self._last is not None else None

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
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    running = [group.create_task(queue.run()) for queue in self.queues]
                    await self._changed.wait()
                    self._changed.clear()
                    for task in running:
                        task.cancel()
                    if running:
                        await asyncio.wait(running)
                    while self._replaced:
                        group.create_task(self._replaced.pop().flush())
        finally:
            async with asyncio.TaskGroup() as group:
                for queue in (*self._replaced, *self.queues):
                    group.create_task(queue.flush())
