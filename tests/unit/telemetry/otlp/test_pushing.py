"""When metrics are pushed, and what comes of a failure."""

import asyncio
from collections.abc import Sequence

import pytest

from telemetry.errors import ExportError, PartialExportError
from telemetry.metrics import Meters
from telemetry.otlp.messages_pb2 import MetricsRequest
from telemetry.otlp.pushing import MetricsPusher
from telemetry.otlp.temporality import Temporality
from tests.unit.telemetry.building import KeptLines


class FakeDelivery:
    """Keeps what is sent; raises what it is told to, first to last."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.sent: list[Sequence[bytes]] = []
        self.is_closed = False
        self.came = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def send(self, pieces: Sequence[bytes]) -> None:
        self.came.set()
        await self.may_end.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(pieces)

    async def close(self) -> None:
        self.is_closed = True


class Pushed:
    """A pusher whose clock stands still unless told."""

    def __init__(
        self, *failures: Exception, every_s: float = 60.0, temporality: Temporality = "cumulative"
    ) -> None:
        self.now = 0.0
        self.reports = 0
        self.delivery = FakeDelivery(*failures)
        self.meters = Meters("cart")
        kept = KeptLines()
        self.lines = kept.lines
        self.pusher = MetricsPusher(
            *(self.meters, self.delivery, "cart", (("service.instance.id", "i1"),)),
            every_s=every_s,
            temporality=temporality,
            report=self._report,
            log=kept.get("x"),
            clock=lambda: self.now,
        )

    async def _report(self) -> None:
        self.reports += 1

    def results(self) -> dict[str, float]:
        return {labels[0]: slot.value for labels, slot in self.meters.exports.metric_pushes.slots.items()}


async def test_push_has_what_the_engine_reports_and_who_it_is_of() -> None:
    it = Pushed()
    it.meters.exports.app_spans.add("taken")
    await it.pusher.push()
    request = MetricsRequest.FromString(b"".join(it.delivery.sent[0]))
    named = {pair.key: pair.value.string_value for pair in request.resource_metrics[0].resource.attributes}
    assert named == {"service.name": "cart", "service.instance.id": "i1"}
    assert (it.reports, it.results()) == (1, {"ok": 1})


@pytest.mark.parametrize(
    ("error", "result"),
    [(ExportError("down", retryable=True), "failed"), (PartialExportError(2, "no"), "partial")],
)
async def test_failure_is_counted_and_logged_once_a_minute(error: Exception, result: str) -> None:
    it = Pushed(error, error, error)
    for now in (0.0, 59.0, 60.0):
        it.now = now
        await it.pusher.push()
    assert it.results() == {result: 3}
    assert len(it.lines) == 2


async def test_run_pushes_again_and_again_and_at_the_end() -> None:
    it = Pushed(every_s=0.01)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(it.pusher.run())
        await it.delivery.came.wait()
        running.cancel()
    assert len(it.delivery.sent) >= 1
    assert it.delivery.is_closed


async def test_run_that_is_ended_early_pushes_once() -> None:
    it = Pushed()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(it.pusher.run())
        await asyncio.sleep(0)
        running.cancel()
    assert (len(it.delivery.sent), it.delivery.is_closed) == (1, True)


async def test_deltas_of_a_push_that_failed_are_in_the_next() -> None:
    it = Pushed(ExportError("away", retryable=False), temporality="delta")
    it.meters.exports.app_spans.add("taken")
    for _ in range(3):
        await it.pusher.push()
    sent = [b"".join(pieces) for pieces in it.delivery.sent]
    has_spans = [b"postern_app_spans" in one for one in sent]
    assert has_spans == [True, False]


async def test_push_that_is_under_way_at_the_end_is_not_told_again() -> None:
    it = Pushed(every_s=0.01, temporality="delta")
    it.meters.exports.app_spans.add("taken")
    it.delivery.may_end.clear()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(it.pusher.run())
        await it.delivery.came.wait()
        running.cancel()
        it.delivery.may_end.set()
    has_spans = [b"postern_app_spans" in b"".join(one) for one in it.delivery.sent]
    assert has_spans == [True, False]
    assert it.delivery.is_closed
