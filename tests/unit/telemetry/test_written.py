"""Spans that an engine wrote, in a queue beside others."""

import random

import pytest

from telemetry.exporting import ExportLimits, ExportQueue
from telemetry.logs import get_logger
from telemetry.written import SpanItem, WrittenSpans, by_bytes, weigh
from telemetry.zipkin import ZipkinExporter
from tests.unit.telemetry.building import a_span


def queue(limits: ExportLimits) -> ExportQueue[SpanItem]:
    exporter = ZipkinExporter("http://localhost:9411/api/v2/spans")
    return ExportQueue(
        exporter, limits=by_bytes(limits), log=get_logger("test"), random=random.Random(1), weigh=weigh
    )


@pytest.mark.parametrize("most", [1, 3, 2048])
def test_queue_holds_as_many_spans_as_its_limit_says(most: int) -> None:
    waiting = queue(ExportLimits(queue=most))
    for _ in range(most + 2):
        waiting.put(a_span())
    assert (waiting.queued, waiting.dropped) == (most, {"queue-full": 2})


def test_queue_holds_written_spans_up_to_the_memory_of_as_many_others() -> None:
    waiting = queue(ExportLimits(queue=2))
    for _ in range(9):
        waiting.put(WrittenSpans(b"x" * 1_000, 2))
    assert (waiting.queued, waiting.dropped) == (16, {"queue-full": 2})
