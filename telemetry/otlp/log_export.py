"""Sends our own log, and the lines of the access log, to a collector, beside what else becomes of them or in its place."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from importlib import import_module

from msgspec.structs import replace

from telemetry.exporting import DROP_REASONS, Exporter, ExportLimits, ExportQueue, QueueRunner
from telemetry.logs import LINES_PER_S, Line, RateLimit, get_logger, level_name
from telemetry.metrics import Meters
from telemetry.otlp.exporter import Delivery, Pairs
from telemetry.otlp.log_items import Lines, LogItem, Told, weigh
from telemetry.otlp.relays import QUEUE
from telemetry.otlp.target import OtlpTarget

#: The severities of Python's levels (Logs Data Model, "Severity Fields").
_SEVERITIES = {10: 5, 20: 9, 30: 13, 40: 17, 50: 21}
_NO_COLLECTOR = "no-collector"


class OtlpLogExporter:
    """Sends log lines. `resource`: attributes beside the name of the service."""

    name = "otlp-logs"

    def __init__(self, target: OtlpTarget, service: str, resource: Pairs = (), marks: Pairs = ()) -> None:
        """Raises: ExporterConfigError for an invalid target address."""
        self._delivery = Delivery(target, "logs", marks)
        self._service = service
        self._resource = resource

    async def export(self, items: Sequence[LogItem]) -> None:
        """Raises: ExportError when the collector did not take a part of the batch."""
        encoding = await asyncio.to_thread(import_module, "telemetry.otlp.encoding")
        log_encoding = await asyncio.to_thread(import_module, "telemetry.otlp.log_encoding")
        pieces = []
        for piece in log_encoding.log_requests(items, encoding.resource_of(self._service, self._resource)):
            pieces.append(piece)
            await asyncio.sleep(0)
        await self._delivery.send(pieces)

    async def close(self) -> None:
        """Ends the connection."""
        await self._delivery.close()


class LogExport:
    """Takes lines; never blocks, never raises. Mutable state: the queue, and the handler while our own log is taken.

    Made and used on the loop's thread, but for lines of the log, which any thread writes.
    """

    def __init__(self, exporter: Exporter[LogItem] | None, meters: Meters, limits: ExportLimits) -> None:
        self._meters = meters
        self._limits = replace(limits, queue=QUEUE)
        self._random = random.Random()  # noqa: S311 - jitter, no secret
        self._log = get_logger("postern.log_export")
        self._runner = QueueRunner()
        self._queue: ExportQueue[LogItem] | None = None
        self._handler: logging.Handler | None = None
        self.replace(exporter)
        meters.on_scrape(self._count)

    def replace(self, exporter: Exporter[LogItem] | None) -> None:
        """Send by this one from now on. The one before sends what it has, for a bounded time."""
        self._queue = None
        if exporter is not None:
            limits, log, chance = self._limits, self._log, self._random
            self._queue = ExportQueue(
                exporter, limits=limits, log=log, random=chance, weigh=weigh, what="logs"
            )
        self._runner.replace(self.queues)

    def follow_log(self) -> None:
        """Take each line of our own log from now on."""
        self._handler = _Handler(asyncio.get_running_loop(), self._take)
        logging.getLogger().addHandler(self._handler)

    @property
    def queues(self) -> tuple[ExportQueue[LogItem], ...]:
        """The queue, where there is a collector."""
        return () if self._queue is None else (self._queue,)

    def put(self, lines: bytes) -> None:
        """Take whole lines of the access log."""
        self._take(Lines(at_ns=time.time_ns(), data=lines))

    def lose(self, count: int, _reason: str) -> None:
        """Count lines of the access log that are lost."""
        self._meters.reports_lost.add("line", amount=count)

    async def run(self) -> None:
        """Export until cancelled; what is left, `close` sends."""
        await self._runner.run(is_last=False)

    async def close(self) -> None:
        """Send what is left, for a bounded time."""
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
        if self._queue is not None:
            await self._queue.flush()

    def _take(self, item: LogItem) -> None:
        if self._queue is None:
            self._meters.exports.log_records.add(_NO_COLLECTOR, amount=weigh(item)[0])
        else:
            self._queue.put(item)

    def _count(self) -> None:
        meters = self._meters.exports
        for queue in self.queues:
            meters.log_queue.set(queue.queued)
            meters.log_records.slot("exported").value = queue.exported
            for reason in (*DROP_REASONS, "rejected"):
                if reason in queue.dropped:
                    meters.log_records.slot(reason).value = queue.dropped[reason]


class _Handler(logging.Handler):
    """Hands each line to the loop, as many of a kind as the log itself has."""

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Callable[[LogItem], None]) -> None:
        super().__init__()
        self._loop = loop
        self._hand_on = take
        self.addFilter(RateLimit(LINES_PER_S, time.monotonic))

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        item = told(record)
        with contextlib.suppress(RuntimeError):  # the loop has ended, and all is sent
            self._loop.call_soon_threadsafe(self._hand_on, item)


def told(record: logging.LogRecord) -> Told:
    """A line of the log for the collector: its trace where the record has it, every other field as an attribute."""
    fields = {name: str(value) for name, value in (record.fields if isinstance(record, Line) else {}).items()}
    trace, span = fields.pop("trace_id", ""), fields.pop("span_id", "")
    flags = 1 if fields.pop("sampled", "") == "true" else 0
    if record.exc_info and record.exc_info[0] is not None:
        fields["exception.stacktrace"] = logging.Formatter().formatException(record.exc_info)
    if "suppressed" in record.__dict__:
        fields["suppressed"] = str(record.__dict__["suppressed"])
    return Told(
        at_ns=int(record.created * 1e9),
        severity=_SEVERITIES.get(record.levelno, 9),
        level=level_name(record),
        scope=record.name,
        message=record.getMessage(),
        attributes=tuple(fields.items()),
        trace_id=bytes.fromhex(trace),
        span_id=bytes.fromhex(span),
        flags=flags,
    )
