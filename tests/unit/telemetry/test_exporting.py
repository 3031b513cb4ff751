"""The queue before an exporter: what leaves when, what is dropped, what is said."""

import asyncio
import random
from collections.abc import Sequence

from telemetry.errors import ExportError, PartialExportError
from telemetry.exporting import ExportLimits, ExportQueue
from telemetry.otlp.received import Received, weigh
from telemetry.spans import Span
from tests.unit.telemetry.building import KeptLines, a_span

NO_WAIT = ExportLimits(flush_s=0.001, backoff_s=(0.0, 0.0), shutdown_s=1.0)


class FakeExporter:
    """Keeps batches; raises what it is told to, first to last."""

    name = "fake"

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.batches: list[Sequence[Span]] = []
        self.tries = 0
        self.closed = False
        self.ended = asyncio.Event()

    async def export(self, spans: Sequence[Span]) -> None:
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(spans)

    async def close(self) -> None:
        self.closed = True
        self.ended.set()


class Lines:
    """A clock that stands still unless told, and the lines logged."""

    def __init__(self) -> None:
        self.now = 0.0
        self._kept = KeptLines()
        self.logged = self._kept.lines

    def queue(self, exporter: FakeExporter, limits: ExportLimits = NO_WAIT) -> ExportQueue[Span]:
        return ExportQueue(
            exporter,
            limits=limits,
            log=self._kept.get("x"),
            random=random.Random(1),
            clock=lambda: self.now,
        )


def retryable() -> ExportError:
    return ExportError("down", retryable=True)


async def test_put_full_queue_drops_the_oldest_and_counts() -> None:
    exporter = FakeExporter()
    queue = Lines().queue(exporter, ExportLimits(queue=3, batch=2))
    for n in range(5):
        queue.put(a_span(start_ns=n))
    assert queue.queued == 3
    assert queue.dropped == {"queue-full": 2}
    await queue.flush()
    assert [span.start_ns for batch in exporter.batches for span in batch] == [2, 3, 4]


async def test_flush_sends_everything_in_batches_and_closes() -> None:
    exporter = FakeExporter()
    queue = Lines().queue(exporter, ExportLimits(batch=2))
    for n in range(5):
        queue.put(a_span(start_ns=n))
    await queue.flush()
    assert [len(batch) for batch in exporter.batches] == [2, 2, 1]
    assert (queue.exported, queue.queued, queue.dropped, exporter.closed) == (5, 0, {}, True)


async def test_flush_retryable_failure_is_tried_again() -> None:
    exporter = FakeExporter(retryable(), retryable(), retryable())
    queue = Lines().queue(exporter)
    queue.put(a_span())
    await queue.flush()
    assert (exporter.tries, queue.exported) == (4, 1)


async def test_flush_gives_up_after_the_last_retry_and_goes_on() -> None:
    exporter = FakeExporter(*(retryable() for _ in range(4)))
    queue = Lines().queue(exporter, ExportLimits(batch=1, backoff_s=(0.0, 0.0)))
    queue.put(a_span())
    queue.put(a_span())
    await queue.flush()
    assert (queue.exported, queue.dropped) == (1, {"export-failed": 1})


async def test_flush_failure_not_to_be_retried_loses_the_batch_at_once() -> None:
    exporter = FakeExporter(ExportError("no", retryable=False))
    queue = Lines().queue(exporter)
    queue.put(a_span())
    await queue.flush()
    assert (exporter.tries, queue.dropped) == (1, {"export-failed": 1})


async def test_flush_exporter_with_a_bug_is_logged_and_counted() -> None:
    lines = Lines()
    exporter = FakeExporter(RuntimeError("bug"))
    queue = lines.queue(exporter)
    queue.put(a_span())
    await queue.flush()
    assert queue.dropped == {"export-failed": 1}
    assert lines.logged[0]["problem"] == "bug"


async def test_flush_out_of_time_drops_and_counts_what_is_left() -> None:
    exporter = FakeExporter(*(ExportError("busy", retryable=True, retry_after_s=30.0) for _ in range(9)))
    queue = Lines().queue(exporter, ExportLimits(shutdown_s=0.01))
    queue.put(a_span())
    await queue.flush()
    assert (queue.queued, queue.dropped, exporter.closed) == (0, {"shutdown": 1}, True)


async def test_failing_exporter_is_logged_once_a_minute() -> None:
    lines = Lines()
    exporter = FakeExporter(*(ExportError("no", retryable=False) for _ in range(3)))
    queue = lines.queue(exporter, ExportLimits(batch=1))
    for now in (0.0, 59.9, 60.0):
        lines.now = now
        queue.put(a_span())
        await queue.flush()
    assert [line["problem"] for line in lines.logged] == ["no", "no"]
    assert lines.logged[1]["dropped"] == 2


async def test_run_sends_what_there_is_after_the_flush_time() -> None:
    exporter = FakeExporter()
    queue = Lines().queue(exporter)
    sent = asyncio.Event()

    async def export(spans: Sequence[Span]) -> None:
        exporter.batches.append(spans)
        sent.set()

    exporter.export = export  # type: ignore[method-assign]
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(queue.run())
        queue.put(a_span())
        await sent.wait()
        running.cancel()
    assert len(exporter.batches) == 1


async def test_flush_exporter_that_hangs_is_given_up_on_and_counted() -> None:
    class Hanging(FakeExporter):
        async def export(self, spans: Sequence[Span]) -> None:
            self.tries += 1
            await asyncio.Event().wait()

    lines = Lines()
    exporter = Hanging()
    queue = lines.queue(exporter, ExportLimits(export_s=0.001, retries=1))
    queue.put(a_span())
    await queue.flush()
    assert (exporter.tries, queue.dropped, exporter.closed) == (2, {"export-failed": 1}, True)
    assert lines.logged[0]["problem"] == "TimeoutError"


async def test_flush_rejected_part_is_counted_and_not_sent_again() -> None:
    lines = Lines()
    exporter = FakeExporter(PartialExportError(2, "too old"))
    queue = lines.queue(exporter)
    for _ in range(5):
        queue.put(a_span())
    await queue.flush()
    assert (exporter.tries, queue.exported, queue.dropped) == (1, 3, {"rejected": 2})
    assert "too old" in lines.logged[0]["problem"]


class Forwarder:
    """Keeps what it is given."""

    name = "fake-app"

    def __init__(self) -> None:
        self.batches: list[list[Received]] = []

    async def export(self, items: Sequence[Received]) -> None:
        self.batches.append(list(items))

    async def close(self) -> None:
        """Nothing to close."""


def forwarding(exporter: Forwarder, limits: ExportLimits) -> ExportQueue[Received]:
    log = KeptLines().get("x")
    return ExportQueue(exporter, limits=limits, log=log, random=random.Random(1), weigh=weigh)


async def test_items_count_by_their_spans_and_bytes() -> None:
    exporter = Forwarder()
    queue = forwarding(exporter, ExportLimits(batch=10, batch_bytes=100))
    for spans, size in ((4, 10), (4, 10), (4, 10), (1, 80), (1, 30)):
        queue.put(Received(b"x" * size, spans))
    assert queue.queued == 14
    await queue.flush()
    assert [[item.items for item in batch] for batch in exporter.batches] == [[4, 4], [4, 1], [1]]
    assert (queue.exported, queue.queued) == (14, 0)


async def test_full_queue_of_items_loses_the_oldest_by_spans_or_bytes() -> None:
    exporter = Forwarder()
    queue = forwarding(exporter, ExportLimits(queue=10, queue_bytes=1000))
    queue.put(Received(b"a", 8))
    queue.put(Received(b"b", 3))
    queue.put(Received(b"c" * 1000, 1))
    assert (queue.queued, queue.dropped) == (1, {"queue-full": 11})
    queue.put(Received(b"d" * 2000, 50))  # larger than the queue, but alone
    assert (queue.queued, queue.dropped) == (50, {"queue-full": 12})
    await queue.flush()
    assert queue.exported == 50
