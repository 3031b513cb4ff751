"""Metrics and logs of the app on their way to a collector, as it sent them: a bounded queue for each signal. Nothing of them stays here."""

import random
from collections.abc import Mapping

from msgspec.structs import replace

from telemetry.exporting import DROP_REASONS, Exporter, ExportLimits, ExportQueue, QueueRunner
from telemetry.logs import get_logger
from telemetry.metrics import Meters
from telemetry.otlp.received import Received, weigh
from telemetry.otlp.target import Signal

Forwarders = Mapping[Signal, Exporter[Received]]
#: One push of an app's metrics may hold more data points than a queue of spans: bytes are what bounds these queues.
QUEUE = 1_000_000
_WHATS: Mapping[Signal, str] = {"metrics": "metrics of the app", "logs": "logs of the app"}
_NO_COLLECTOR = "no-collector"


class Relays:
    """Takes what the app sent; never blocks, never raises. Used on the loop's thread. Mutable state: the queues, by signal."""

    def __init__(self, forwarders: Forwarders, meters: Meters, limits: ExportLimits) -> None:
        self._meters = meters
        self._limits = replace(limits, queue=QUEUE)
        self._random = random.Random()  # noqa: S311 - jitter, no secret
        self._log = get_logger("postern.trace")
        self._runner = QueueRunner()
        self._queues: dict[Signal, ExportQueue[Received]] = {}
        self.replace(forwarders)
        meters.on_scrape(self._count)

    def replace(self, forwarders: Forwarders) -> None:
        """Send by these from now on. Those before send what they have, for a bounded time."""
        self._queues = {
            signal: ExportQueue(
                exporter,
                limits=self._limits,
                log=self._log,
                random=self._random,
                weigh=weigh,
                what=_WHATS[signal],
            )
            for signal, exporter in forwarders.items()
        }
        self._runner.replace(tuple(self._queues.values()))

    @property
    def used_queues(self) -> tuple[ExportQueue[Received], ...]:
        """Those of signals that the app has sent."""
        return tuple(queue for queue in self._queues.values() if queue.is_used)

    def forward(self, signal: Signal, received: Received) -> int | None:
        """Queue it; how many items were lost by that, older ones, or None where there is no collector."""
        queue = self._queues.get(signal)
        if queue is None:
            self._meters.exports.app_exports.add(signal, _NO_COLLECTOR, amount=received.items)
            return None
        before = sum(queue.dropped.values())
        queue.put(received)
        return sum(queue.dropped.values()) - before

    async def run(self) -> None:
        """Export until cancelled, then send what is left, for a bounded time."""
        await self._runner.run()

    def _count(self) -> None:
        for signal, queue in self._queues.items():
            if queue.is_used:
                self._meters.exports.app_exports_queued.set(queue.queued, signal)
                self._meters.exports.app_exports.slot(signal, "exported").value = queue.exported
                for reason in (*DROP_REASONS, "rejected"):
                    if reason in queue.dropped:
                        self._meters.exports.app_exports.slot(signal, reason).value = queue.dropped[reason]
