"""The tracer's memory and counters."""

import asyncio

from telemetry.otlp.received import Received
from telemetry.tracing import APP_RING, KEPT_PER_S, REFUSED, ExportLimits, Tracer
from telemetry.written import WrittenSpans
from telemetry.zipkin import ZipkinExporter
from tests.unit.telemetry.building import SAMPLED, a_span
from tests.unit.telemetry.test_exporting import FakeExporter, Forwarder


def test_recent_ring_keeps_the_latest() -> None:
    tracer = Tracer("cart", ring=3)
    for n in range(5):
        tracer.record(a_span(start_ns=n))
    assert [span.start_ns for span in tracer.recent()] == [2, 3, 4]


def test_recent_of_a_trace_leaves_out_others() -> None:
    tracer = Tracer("cart")
    tracer.record(a_span())
    tracer.record(a_span(context=SAMPLED._replace(trace_id=7)))
    assert [span.context.trace_id for span in tracer.recent(7)] == [7]
    assert tracer.last_trace_id() == 7


def test_last_trace_is_that_of_the_span_that_ended_last() -> None:
    tracer = Tracer("cart")
    tracer.record(a_span(context=SAMPLED._replace(trace_id=7), end_ns=9))
    tracer.remember(a_span(context=SAMPLED._replace(trace_id=8), end_ns=5))
    assert tracer.last_trace_id() == 7


async def test_gather_has_an_engine_remember_all_its_spans_before_it_looks() -> None:
    tracer = Tracer("cart", [FakeExporter()], limits=ExportLimits(shutdown_s=1.0))
    left = [3, 2, 1]

    def recall() -> bool:
        tracer.remember(a_span(start_ns=left.pop()))
        return bool(left)

    async with asyncio.TaskGroup() as group:
        running = group.create_task(tracer.run(recall))
        await asyncio.sleep(0)
        await tracer.gather()
        running.cancel()
    assert [span.start_ns for span in tracer.recent()] == [1, 2, 3]
    assert tracer.exported == tracer.dropped == 0


async def test_gather_ends_under_any_load() -> None:
    tracer = Tracer("cart")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(tracer.run(lambda: True))
        await asyncio.sleep(0)
        await tracer.gather()
        running.cancel()


def test_written_spans_go_to_exporters_that_take_them_and_to_no_others() -> None:
    zipkin = Tracer("cart", [ZipkinExporter("http://localhost:9411/api/v2/spans")])
    assert zipkin.is_written
    assert zipkin.per_piece == 128
    assert zipkin.put_written(WrittenSpans(b"{},{}", 2))
    zipkin.record(a_span())
    assert zipkin.queued == 3
    other = Tracer("cart", [FakeExporter()])
    assert not other.is_written
    assert other.per_piece is None
    assert not other.put_written(WrittenSpans(b"{}", 1))
    assert Tracer("cart").is_written  # those in memory are all there are


def test_last_trace_id_before_any_span_is_none() -> None:
    assert Tracer("cart").last_trace_id() is None


async def test_run_one_exporter_failing_leaves_the_other_alone() -> None:
    good, bad = FakeExporter(), FakeExporter(*(RuntimeError("bug") for _ in range(9)))
    tracer = Tracer("cart", [bad, good], limits=ExportLimits(shutdown_s=1.0))
    for _ in range(3):
        tracer.record(a_span())
    assert tracer.queued == 6
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(tracer.run())
        await asyncio.sleep(0)
        running.cancel()
    assert (tracer.exported, tracer.dropped, tracer.queued) == (3, 3, 0)
    assert good.closed
    assert bad.closed


async def test_run_without_exporters_ends_when_cancelled() -> None:
    tracer = Tracer("cart")
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(tracer.run())
        await asyncio.sleep(0)
        running.cancel()
    assert running.cancelled()


async def test_replaced_exporter_sends_what_it_has_and_the_next_gets_the_rest() -> None:
    old, new = FakeExporter(), FakeExporter()
    tracer = Tracer("cart", [old], limits=ExportLimits(shutdown_s=1.0))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(tracer.run())
        tracer.record(a_span(start_ns=1))
        tracer.replace([new])
        tracer.record(a_span(start_ns=2))
        await old.ended.wait()
        running.cancel()
    assert [span.start_ns for batch in old.batches for span in batch] == [1]
    assert [span.start_ns for batch in new.batches for span in batch] == [2]
    assert new.closed


async def test_exporter_is_taken_up_and_given_up_while_running() -> None:
    added = FakeExporter()
    tracer = Tracer("cart")
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(tracer.run())
        await asyncio.sleep(0)
        tracer.replace([added])
        tracer.record(a_span())
        tracer.replace([])
        tracer.record(a_span())
        await added.ended.wait()
        running.cancel()
    assert sum(len(batch) for batch in added.batches) == 1


def test_spans_kept_for_how_they_ended_are_marked_exported_and_bounded() -> None:
    now = [0.0]
    tracer = Tracer("cart", [FakeExporter()], clock=lambda: now[0])
    for n in range(KEPT_PER_S + 5):
        tracer.keep(a_span(context=SAMPLED._replace(trace_id=n + 1)))
    assert (len(tracer.recent()), tracer.not_kept, tracer.queued) == (KEPT_PER_S, 5, KEPT_PER_S)
    assert {dict(span.attributes)["sampling.promoted"] for span in tracer.recent()} == {"true"}
    assert tracer.last_trace_id() == KEPT_PER_S
    now[0] = 1.0
    tracer.keep(a_span(context=SAMPLED._replace(trace_id=0x999)))
    assert [span.context.trace_id for span in tracer.recent(0x999)] == [0x999]


def test_good_calls_push_out_no_span_that_was_kept_for_how_it_ended() -> None:
    tracer = Tracer("cart", ring=2)
    tracer.keep(a_span(context=SAMPLED._replace(trace_id=7)))
    for _ in range(10):
        tracer.record(a_span())
    assert len(tracer.recent(7)) == 1


def test_refused_requests_push_out_no_call_that_failed() -> None:
    now = [0.0]
    tracer = Tracer("cart", clock=lambda: now[0])
    tracer.keep(a_span(context=SAMPLED._replace(trace_id=7)))
    for n in range(2_000):
        now[0] = n
        tracer.keep(a_span(context=SAMPLED._replace(trace_id=8)), of_call=False)
    assert len(tracer.recent(7)) == 1
    assert len(tracer.recent(8)) == REFUSED


async def test_what_the_app_sent_has_queues_and_memory_of_its_own() -> None:
    own, app = FakeExporter(), Forwarder()
    tracer = Tracer("cart", [own], forwarders=[app], limits=ExportLimits(queue=3, shutdown_s=1.0))
    tracer.record(a_span(start_ns=1))
    assert [queue.name for queue in tracer.used_queues] == ["fake"]
    assert [tracer.forward(Received(b"x", 1)) for _ in range(9)] == [0] * 3 + [1] * 6
    assert [queue.name for queue in tracer.used_queues] == ["fake", "fake-app"]
    theirs = SAMPLED._replace(trace_id=5)
    tracer.keep_of_app(a_span(start_ns=10 + n, context=theirs) for n in range(APP_RING + 2))
    kept = [span.start_ns for span in tracer.recent()]
    assert (kept[:2], len(kept)) == ([1, 12], 1 + APP_RING)
    assert len(tracer.recent(5)) == APP_RING
    assert tracer.last_trace_id() == SAMPLED.trace_id
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(tracer.run())
        await asyncio.sleep(0)
        running.cancel()
    assert (len(own.batches), len(app.batches[0])) == (1, 3)
    assert (tracer.exported, tracer.dropped) == (4, 6)


def test_last_trace_is_the_apps_where_nothing_was_called() -> None:
    tracer = Tracer("cart")
    tracer.keep_of_app([a_span(context=SAMPLED._replace(trace_id=5))])
    assert tracer.last_trace_id() == 5
