"""The queue between the call path and one exporter: bounded, drops the oldest, retries, logs sparingly.

Owns when a batch is sent and what happens to one that fails; knows no wire format. A slow or dead collector costs
the queue's memory and its spans, never a call and never the start.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from telemetry.errors import ExportError
from telemetry.logs import Logger
from telemetry.spans import Span

#: At most one line a minute about a failing exporter.
_COMPLAIN_EVERY_S = 60.0
#: A collector that asks for an hour's pause would hold one batch while the queue drops the rest.
_RETRY_AFTER_MAX_S = 30.0
_CLOSE_S = 1.0


class Exporter(Protocol):
    """Takes batches somewhere. `export` returns once the batch was taken, and raises ExportError otherwise."""

    @property
    def name(self) -> str: ...

    async def export(self, spans: Sequence[Span]) -> None: ...

    async def close(self) -> None: ...


class ExportLimits(Struct, frozen=True, kw_only=True):
    """How a queue behaves; `backoff_s` is the range that each pause before a retry is drawn from."""

    queue: int = 2048
    batch: int = 512
    flush_s: float = 5.0
    export_s: float = 30.0
    retries: int = 3
    backoff_s: tuple[float, float] = (1.0, 5.0)
    shutdown_s: float = 5.0


class ExportQueue:
    """Feeds one exporter.

    Owns `_waiting`, `_batch` (taken from it, not yet answered) and the counts; all on the loop's thread.
    """

    def __init__(
        self,
        exporter: Exporter,
        *,
        limits: ExportLimits,
        log: Logger,
        random: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exporter = exporter
        self._limits = limits
        self._log = log
        self._random = random
        self._clock = clock
        self._waiting: deque[Span] = deque()
        self._batch: tuple[Span, ...] = ()
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
        return len(self._waiting) + len(self._batch)

    def put(self, span: Span) -> None:
        """Adds a span; a full queue loses its oldest."""
        waiting = self._waiting
        waiting.append(span)
        size = len(waiting)
        if size > self._limits.queue:
            waiting.popleft()
            self._drop("queue-full", 1)
        if size >= self._limits.batch:
            self._full.set()

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
                self._drop("shutdown", left)
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._exporter.close()
        except Exception as error:  # noqa: BLE001 - foreign exporter code; shutting down goes on
            self._complain(error)

    async def _drain(self) -> None:
        while self._batch or self._waiting:
            if not self._batch:
                take = min(len(self._waiting), self._limits.batch)
                self._batch = tuple(self._waiting.popleft() for _ in range(take))
            await self._send()
            self._batch = ()

    async def _send(self) -> None:
        batch = self._batch
        for attempt in range(self._limits.retries + 1):
            try:
                async with asyncio.timeout(self._limits.export_s):
                    await self._exporter.export(batch)
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
                self.exported += len(batch)
                return
        self._drop("export-failed", len(batch))

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
                "spans are not exported",
                exporter=self.name,
                problem=problem,
                queued=self.queued,
                dropped=sum(self.dropped.values()),
            )
