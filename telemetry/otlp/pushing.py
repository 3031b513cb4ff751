"""Pushes the meters to an OTLP collector, once a minute and once at the end. protobuf is loaded with the first push, off the loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Protocol

from telemetry.errors import ExportError, PartialExportError
from telemetry.logs import Logger
from telemetry.metrics import Meters
from telemetry.otlp.exporter import Pairs
from telemetry.otlp.temporality import Temporality, since

_COMPLAIN_EVERY_S = 60.0
_LAST_S = 5.0


class Requests(Protocol):
    """Takes requests to a collector: a `Delivery`."""

    async def send(self, pieces: Sequence[bytes], /) -> None:
        """Raises: ExportError."""

    async def close(self) -> None:
        """Ends the connection."""


class MetricsPusher:
    """Owns the delivery. report: has the engine count all calls that are over.

    temporality: cumulative, or delta. A push that fails is not repeated: the next has the same counts and more. Mutable state: when a
    failure was logged last; what was pushed is kept by `since`.
    """

    def __init__(
        self,
        meters: Meters,
        delivery: Requests,
        service: str,
        resource: Pairs,
        *,
        every_s: float,
        temporality: Temporality = "cumulative",
        report: Callable[[], Awaitable[None]],
        log: Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meters = meters
        self._delivery = delivery
        self._service = service
        self._resource = resource
        self._every_s = every_s
        self._report = report
        self._log = log
        self._clock = clock
        self._since = since(temporality, time.time_ns())
        self._complained_at = float("-inf")

    async def run(self) -> None:
        """Push until cancelled; then once more, for a bounded time. A push under way ends before that: what it took is not told again."""
        ending = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            pushing = tasks.create_task(self._push_until(ending))
            try:
                await asyncio.shield(pushing)
            except asyncio.CancelledError:
                ending.set()
                try:
                    async with asyncio.timeout(_LAST_S):
                        await pushing
                except TimeoutError as error:
                    self._complain(error)
                raise

    async def _push_until(self, ending: asyncio.Event) -> None:
        is_last = False
        while not is_last:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await ending.wait()
            is_last = ending.is_set()
            await self.push()
        await self._delivery.close()

    async def push(self) -> None:
        """Send what has been counted so far. A failure is logged and counted."""
        await self._report()
        self._meters.refresh()
        result = "ok"
        now_ns = time.time_ns()
        try:
            await self._delivery.send(await asyncio.to_thread(self._encode, now_ns))
            self._since.taken(now_ns)
        except PartialExportError as error:
            result = "partial"
            self._since.taken(now_ns)
            self._complain(error)
        except ExportError as error:
            result = "failed"
            self._complain(error)
        self._meters.exports.metric_pushes.add(result)

    def _encode(self, now_ns: int) -> list[bytes]:
        encoding, metrics = (import_module(f"telemetry.otlp.{name}") for name in ("encoding", "metrics"))
        resource = encoding.resource_of(self._service, self._resource)
        return list(metrics.metrics_requests(self._meters.families(), resource, self._since, now_ns=now_ns))

    def _complain(self, error: Exception) -> None:
        now = self._clock()
        if now - self._complained_at >= _COMPLAIN_EVERY_S:
            self._complained_at = now
            self._log.warning("metrics are not pushed", problem=str(error) or type(error).__name__)
