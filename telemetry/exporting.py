"""The queue in front of one exporter: bounded, drops the oldest, retries, logs sparingly.

Owns when a batch is sent and what happens to one that fails; knows no wire format. A slow or dead collector costs
the queue's memory and its spans, never a call and never the start.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from telemetry.errors import ExportError, PartialExportError
from telemetry.logs import Logger

ItemT = TypeVar("ItemT")
TakenT_contra = TypeVar("TakenT_contra", contravariant=True)

#: At most one line a minute about a failing exporter.
_COMPLAIN_EVERY_S = 60.0
#: A collector that asks for an hour's pause would hold one batch while the queue drops the rest.
_RETRY_AFTER_MAX_S = 30.0
_CLOSE_S = 1.0
_QUEUE_FULL, _EXPORT_FAILED, _SHUTDOWN = "queue-full", "export-failed", "shutdown"
#: Why spans are lost.
DROP_REASONS = (_QUEUE_FULL, _EXPORT_FAILED, _SHUTDOWN)


class Exporter(Protocol[TakenT_contra]):
    """Sends batches somewhere. `export` returns once the batch was taken, and raises ExportError otherwise."""

    @property
    def name(self) -> str: ...

    async def export(self, items: Sequence[TakenT_contra], /) -> None: ...

    async def close(self) -> None: ...


class ExportLimits(Struct, frozen=True, kw_only=True):
    """How a queue behaves; `backoff_s` is the range that each pause before a retry is drawn from. queue and batch count spans, or what
    else it is of.

    The limits in bytes are for items of any size, which spans of a proxy are not.
    """

    queue: int = 2048
    batch: int = 512
    queue_bytes: int = 16 * 1024 * 1024
    batch_bytes: int = 1024 * 1024
    flush_s: float = 5.0
    export_s: float = 30.0
    retries: int = 3
    backoff_s: tuple[float, float] = (1.0, 5.0)
    shutdown_s: float = 5.0


def _one(_: object) -> tuple[int, int]:
    return 1, 0


class Running(Protocol):
    """A queue, whatever is in it."""

    async def run(self) -> None: ...

    async def flush(self) -> None: ...


class QueueRunner:
    """Runs queues. Mutable state: those that run, and those that were replaced and still have something to send."""

    def __init__(self) -> None:
        self._queues: tuple[Running, ...] = ()
        self._replaced: list[Running] = []
        self._changed = asyncio.Event()

    def replace(self, queues: Sequence[Running]) -> None:
        """Run these from now on. Those before send what they have, for a bounded time (`ExportLimits.shutdown_s`)."""
        self._replaced += self._queues
        self._queues = tuple(queues)
        self._changed.set()

    async def run(self, *, is_last: bool = True) -> None:
        """Export until cancelled, then send what is left, for a bounded time; not is_last: only of those that were replaced."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    running = [group.create_task(queue.run()) for queue in self._queues]
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
                for queue in (*self._replaced, *(self._queues if is_last else ())):
                    group.create_task(queue.flush())


class ExportQueue(Generic[ItemT]):
    """Feeds one exporter. weigh: how many spans (or `what`) an item holds, and its bytes where these are to be bounded.

    Owns `_waiting`, `_batch` (taken from it, not yet answered), what both hold, and the counts; all on the loop's thread.
    """

    def __init__(
        self,
        exporter: Exporter[ItemT],
        *,
        limits: ExportLimits,
        log: Logger,
        random: random.Random,
        weigh: Callable[[ItemT], tuple[int, int]] = _one,
        what: str = "spans",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._weigh = weigh
        self._what = what
        self._exporter = exporter
        self._limits = limits
        self._log = log
        self._random = random
        self._clock = clock
        self._waiting: deque[ItemT] = deque()
        self._waiting_spans = self._waiting_bytes = 0
        self._batch: tuple[ItemT, ...] = ()
        self._batch_spans = 0
        self._full = asyncio.Event()
        self._complained_at = float("-inf")
        self.exported = 0
        self.dropped: dict[str, int] = {}

    @property
    def name(self) -> str:
        """The exporter's name: a label value."""
        return self._exporter.name

    @property
    def queued(self) -> int:
        """Spans not yet taken by the exporter."""
        return self._waiting_spans + self._batch_spans

    @property
    def is_used(self) -> bool:
        """Whether there was ever anything to export."""
        return bool(self.queued or self.exported or self.dropped)

    def put(self, item: ItemT) -> None:
        """Adds an item; a full queue loses its oldest, but for one item that is larger than the queue by itself."""
        limits, (spans, size) = self._limits, self._weigh(item)
        self._waiting.append(item)
        self._waiting_spans += spans
        self._waiting_bytes += size
        while len(self._waiting) > 1 and (
            self._waiting_spans > limits.queue or self._waiting_bytes > limits.queue_bytes
        ):
            self._drop(_QUEUE_FULL, self._weigh(self._take())[0])
        if self._waiting_spans >= limits.batch or self._waiting_bytes >= limits.batch_bytes:
            self._full.set()

    def _take(self) -> ItemT:
        item = self._waiting.popleft()
        spans, size = self._weigh(item)
        self._waiting_spans -= spans
        self._waiting_bytes -= size
        return item

    async def run(self) -> None:
        """Sends a batch whenever one is full, and what there is every `flush_s`; ends only by cancellation."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.flush_s):
                    await self._full.wait()
            self._full.clear()
            await self._drain()

    async def flush(self) -> None:
        """The last batches, within `shutdown_s`; what is left then is dropped and counted, and the exporter closed."""
        try:
            async with asyncio.timeout(self._limits.shutdown_s):
                await self._drain()
        except TimeoutError as error:
            self._complain(error)
        finally:
            left = self.queued
            if left:
                self._waiting.clear()
                self._batch = ()
                self._waiting_spans = self._waiting_bytes = self._batch_spans = 0
                self._drop(_SHUTDOWN, left)
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._exporter.close()
        except Exception as error:  # noqa: BLE001 - foreign exporter code; shutting down goes on
            self._complain(error)

    async def _drain(self) -> None:
        while self._batch or self._waiting:
            if not self._batch:
                self._fill()
            await self._send()
            self._batch, self._batch_spans = (), 0

    def _fill(self) -> None:
        """Take a batch: at least one item, and no more than the limits."""
        batch: list[ItemT] = []
        spans = size = 0
        while self._waiting:
            more_spans, more_size = self._weigh(self._waiting[0])
            spans, size = spans + more_spans, size + more_size
            if batch and (spans > self._limits.batch or size > self._limits.batch_bytes):
                break
            batch.append(self._take())
            self._batch_spans += more_spans
        self._batch = tuple(batch)

    async def _send(self) -> None:
        batch, spans = self._batch, self._batch_spans
        for attempt in range(self._limits.retries + 1):
            try:
                async with asyncio.timeout(self._limits.export_s):
                    await self._exporter.export(batch)
            except PartialExportError as error:
                self._complain(error)
                rejected = min(error.rejected, spans)
                self.exported += spans - rejected
                if rejected:
                    self._drop("rejected", rejected)
                return
            except ExportError as error:
                self._complain(error)
                if not error.retryable or attempt == self._limits.retries:
                    break
                await asyncio.sleep(self._pause_s(error))
            except TimeoutError as error:
                self._complain(error)
            except Exception as error:  # noqa: BLE001 - foreign exporter code must not end the sidecar
                self._complain(error)
                break
            else:
                self.exported += spans
                return
        self._drop(_EXPORT_FAILED, spans)

    def _pause_s(self, error: ExportError) -> float:
        if error.retry_after_s is not None:
            return min(error.retry_after_s, _RETRY_AFTER_MAX_S)
        return self._random.uniform(*self._limits.backoff_s)

    def _drop(self, reason: str, count: int) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def _complain(self, error: Exception) -> None:
        now = self._clock()
        if now - self._complained_at >= _COMPLAIN_EVERY_S:
            self._complained_at = now
            problem = str(error) or type(error).__name__
            self._log.warning(
                f"{self._what} are not exported",
                exporter=self.name,
                problem=problem,
                queued=self.queued,
                dropped=sum(self.dropped.values()),
            )
