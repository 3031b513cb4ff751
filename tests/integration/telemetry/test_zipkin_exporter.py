"""The exporter over real sockets: batches, failures, pauses, deadlines, shutdown."""

import asyncio
import gc
import random
import socket
import ssl
import time
from pathlib import Path

import pytest

from telemetry.errors import ExportError
from telemetry.tracing import ExportLimits, Tracer
from telemetry.written import WrittenSpans
from telemetry.zipkin import ZipkinExporter
from tests.integration.telemetry.collector import answer, collecting
from tests.support.web_pki import self_signed
from tests.unit.telemetry.building import SAMPLED, a_span

QUICK = ExportLimits(flush_s=0.02, backoff_s=(0.01, 0.02), shutdown_s=2.0)


def tracer(url: str, limits: ExportLimits = QUICK, timeout_s: float = 5.0) -> Tracer:
    exporter = ZipkinExporter(url, timeout_s=timeout_s)
    return Tracer("cart", [exporter], limits=limits, random_source=random.Random(1))


async def test_export_batches_reuse_one_connection() -> None:
    async with collecting() as collector:
        exporter = ZipkinExporter(collector.url)
        for _ in range(3):
            await exporter.export([a_span()])
        await exporter.close()
    assert collector.connections == 1
    assert len(collector.spans) == 3
    assert b"POST /api/v2/spans HTTP/1.1\r\n" in collector.heads[0]
    assert b"content-type: application/json" in collector.heads[0].lower()


async def test_export_sends_written_spans_as_they_are_between_others() -> None:
    async with collecting() as collector:
        exporter = ZipkinExporter(collector.url)
        await exporter.export([a_span(), WrittenSpans(b'{"id":"1"},{"id":"2"}', 2), a_span(), a_span()])
        await exporter.close()
    assert [span["id"] for span in collector.spans] == [
        "00000000000000a1",
        "1",
        "2",
        *["00000000000000a1"] * 2,
    ]


async def test_export_to_another_host_is_gzipped_where_it_is_large() -> None:
    async with collecting() as collector:
        exporter = ZipkinExporter(collector.url.replace("127.0.0.1", "0.0.0.0"))  # which leads here, too
        await exporter.export([a_span()])
        await exporter.export([a_span(context=SAMPLED._replace(span_id=n)) for n in range(1, 301)])
        await exporter.close()
    assert b"gzip" not in collector.heads[0]
    assert b"Content-Encoding: gzip" in collector.heads[1]
    assert [span["id"] for span in collector.posted[1]] == [f"{n:016x}" for n in range(1, 301)]


async def test_export_to_this_host_is_not_gzipped() -> None:
    async with collecting() as collector:
        exporter = ZipkinExporter(collector.url)
        await exporter.export([a_span()] * 300)
        await exporter.close()
    assert b"gzip" not in collector.heads[0]
    assert len(collector.spans) == 300


async def test_export_more_than_a_mebibyte_goes_in_several_requests() -> None:
    big = tuple((f"k{n}", "v" * 1000) for n in range(10))
    async with collecting() as collector:
        exporter = ZipkinExporter(collector.url)
        await exporter.export([a_span(attributes=big) for _ in range(256)])
        await exporter.close()
    assert len(collector.posted) > 1
    assert len(collector.spans) == 256


async def test_export_collector_that_closed_the_idle_connection_is_asked_again() -> None:
    closing = [answer(202, "Connection: close"), answer(202)]
    async with collecting(closing) as collector:
        exporter = ZipkinExporter(collector.url)
        await exporter.export([a_span()])
        await exporter.export([a_span()])
        await exporter.close()
    assert collector.connections == 2
    assert len(collector.spans) == 2


async def test_export_connection_dropped_without_answer_on_reuse_is_repeated() -> None:
    async with collecting([answer(202), b""]) as collector:
        exporter = ZipkinExporter(collector.url)
        await exporter.export([a_span()])
        await exporter.export([a_span()])
        await exporter.close()
    assert collector.connections == 2


@pytest.mark.parametrize(
    ("status", "retryable"), [(400, False), (404, False), (500, False), (503, True), (429, True)]
)
async def test_export_refusal_says_whether_to_retry(status: int, retryable: bool) -> None:
    async with collecting([answer(status, "Retry-After: 7")]) as collector:
        exporter = ZipkinExporter(collector.url)
        with pytest.raises(ExportError, match=f"answered {status}") as caught:
            await exporter.export([a_span()])
        await exporter.close()
    assert caught.value.retryable is retryable
    assert caught.value.retry_after_s == 7.0


async def test_export_answer_that_is_no_http_is_an_error() -> None:
    async with collecting([b"what?\r\n\r\n"]) as collector:
        exporter = ZipkinExporter(collector.url)
        with pytest.raises(ExportError):
            await exporter.export([a_span()])


async def test_export_silent_collector_ends_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        began = time.monotonic()
        with pytest.raises(ExportError, match=r"no answer within 0\.2 s"):
            await ZipkinExporter(url, timeout_s=0.2).export([a_span()])
    assert time.monotonic() - began < 15


async def test_export_over_tls_checks_the_collectors_certificate(tmp_path: Path) -> None:
    server, client = _tls(tmp_path)
    async with collecting(tls=server) as collector:
        url = collector.url.replace("http:", "https:").replace("127.0.0.1", "localhost")
        exporter = ZipkinExporter(url, tls=client)
        await exporter.export([a_span()])
        await exporter.close()
        with pytest.raises(ExportError, match="certificate"):
            await ZipkinExporter(url).export([a_span()])
    assert len(collector.spans) == 1
    # The refused connection is torn down by its transport; let it go while this loop still runs.
    gc.collect()


async def test_run_retries_until_the_collector_is_well_again() -> None:
    async with collecting([answer(503), answer(503, "Retry-After: 0")]) as collector:
        traced = tracer(collector.url)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(traced.run())
            traced.record(a_span())
            while not collector.posted:
                collector.got.clear()
                await collector.got.wait()
            running.cancel()
    # Cancelled before the answer was read, the batch goes once more: Zipkin keeps one of equal spans.
    assert len(collector.heads) >= 3
    assert (traced.exported, traced.dropped, traced.queued) == (1, 0, 0)


async def test_run_cancelled_sends_what_is_left() -> None:
    async with collecting() as collector:
        traced = tracer(collector.url, ExportLimits(flush_s=60.0))
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(traced.run())
            await asyncio.sleep(0)
            for n in range(1, 101):
                traced.record(a_span(context=SAMPLED._replace(span_id=n)))
            running.cancel()
    assert len(collector.spans) == 100
    assert (traced.exported, traced.queued) == (100, 0)


async def test_run_full_batch_leaves_before_the_flush() -> None:
    async with collecting() as collector:
        traced = tracer(collector.url, ExportLimits(flush_s=60.0, batch=10))
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(traced.run())
            for _ in range(10):
                traced.record(a_span())
            await collector.got.wait()
            running.cancel()
    assert len(collector.posted[0]) == 10


async def test_run_dead_collector_loses_spans_but_bounds_memory_and_shutdown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        limits = ExportLimits(queue=100, batch=50, flush_s=0.01, backoff_s=(0.01, 0.02), shutdown_s=0.3)
        traced = tracer(url, limits, timeout_s=30.0)
        began = time.monotonic()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(traced.run())
            await asyncio.sleep(0)
            for _ in range(1000):
                traced.record(a_span())
                assert traced.queued <= 150
            running.cancel()
        assert time.monotonic() - began < 15
    assert traced.dropped == 1000
    assert traced.queued == 0


def _tls(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    pem = self_signed(folder / "collector.pem")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cafile=str(pem))
    return server, client
