"""Two sidecars' calls, recorded and exported by us, as a real Zipkin shows them."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import pytest

from telemetry.bridge import BridgeExporter
from telemetry.calls import CallRecorder
from telemetry.context import Sampler, extract, format_grpc_trace_bin, format_traceparent
from telemetry.metrics import Meters
from telemetry.report import Call
from telemetry.tracing import Exporter, ExportLimits, Span, Tracer
from telemetry.zipkin import ZipkinExporter
from tests.support.zipkin import ZipkinServer
from tests.unit.telemetry.building import a_call, a_grpc_call, an_attempt

# The first use may download the server: that has its own deadline, the test keeps the usual one.
pytestmark = pytest.mark.timeout(func_only=True)


class Sidecar:
    """What of a sidecar makes spans: a sampler, a recorder, a tracer."""

    def __init__(self, app_id: str, exporters: Sequence[Exporter[Span]]) -> None:
        self.sampler = Sampler(1.0, random.Random())
        self.tracer = Tracer(app_id, exporters, limits=ExportLimits(flush_s=0.05, shutdown_s=25.0))
        self.recorder = CallRecorder(app_id, "shop", Meters(app_id, "shop"), self.tracer)

    def record(self, call: Call) -> None:
        """Records a finished call."""
        self.recorder.record(call)


async def exported(*sidecars: Sidecar) -> None:
    """Runs the sidecars' tracers until all that was recorded has been taken."""
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = [group.create_task(sidecar.tracer.run()) for sidecar in sidecars]
        await asyncio.sleep(0)
        for task in running:
            task.cancel()
    assert [sidecar.tracer.dropped for sidecar in sidecars] == [0] * len(sidecars)


def by_service(spans: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {span["localEndpoint"]["serviceName"]: span for span in spans if span["kind"] == kind}


def times(begins_ms: int, takes_ms: int) -> dict[str, int]:
    began = time.time_ns() + begins_ms * 1_000_000
    return {
        "started_ns": began,
        "head_ns": began + takes_ms * 1_000_000,
        "ended_ns": began + takes_ms * 1_000_000,
    }


async def test_zipkin_shows_a_chain_of_calls_with_parents_endpoints_and_links(zipkin: ZipkinServer) -> None:
    cart, checkout, bank = (
        Sidecar(name, [ZipkinExporter(zipkin.endpoint)]) for name in ("cart", "checkout", "bank")
    )
    first = cart.sampler.start(None)
    second = checkout.sampler.start(extract([(b"traceparent", format_traceparent(first))], grpc=False))
    third = checkout.sampler.start(second)
    wire = [(b"grpc-trace-bin", format_grpc_trace_bin(third))]
    fourth = bank.sampler.start(extract(wire, grpc=True))
    cart.record(a_call(context=first, endpoint="10.0.0.2:5000", **times(0, 40)))
    checkout.record(a_call(context=second, direction="inbound", peer_address="10.0.0.1", **times(5, 30)))
    hop = {"src": "checkout", "dst": "bank", "path": "/bank.Ledger/Book"}
    retried = (an_attempt(cause="connect", status=0), an_attempt(started_ns=time.time_ns()))
    checkout.record(
        a_grpc_call(context=third, endpoint="[fd00::9]:5000", attempts=retried, **hop, **times(10, 20))
    )
    bank.record(a_grpc_call(context=fourth, direction="inbound", grpc_code=13, **hop, **times(12, 15)))
    await exported(cart, checkout, bank)

    spans = await asyncio.to_thread(zipkin.wait_trace, f"{first.trace_id:032x}", 4)
    clients, servers = by_service(spans, "CLIENT"), by_service(spans, "SERVER")
    assert len(spans) == 4
    assert "parentId" not in clients["cart"]
    assert servers["checkout"]["parentId"] == clients["cart"]["id"]
    assert clients["checkout"]["parentId"] == servers["checkout"]["id"]
    assert servers["bank"]["parentId"] == clients["checkout"]["id"]
    assert clients["cart"]["name"] == "calllocal/checkout/orders/1"
    assert clients["checkout"]["name"] == "/bank.ledger/book"
    assert clients["cart"]["remoteEndpoint"] == {"serviceName": "checkout", "ipv4": "10.0.0.2", "port": 5000}
    assert clients["checkout"]["remoteEndpoint"] == {"serviceName": "bank", "ipv6": "fd00::9", "port": 5000}
    assert servers["checkout"]["remoteEndpoint"] == {"serviceName": "cart", "ipv4": "10.0.0.1"}
    assert not any("shared" in span or "debug" in span for span in spans)
    assert clients["checkout"]["annotations"][0]["value"].startswith("retry attempt=2 reason=connect")
    assert servers["bank"]["tags"]["error"] == "Code(13): INTERNAL"
    assert servers["bank"]["tags"]["otel.status_code"] == "ERROR"

    links = {(link["parent"], link["child"]): link for link in await asyncio.to_thread(zipkin.dependencies)}
    assert links["cart", "checkout"]["callCount"] >= 1
    assert links["checkout", "bank"]["callCount"] >= 1
    assert links["checkout", "bank"]["errorCount"] >= 1
    assert {"cart", "checkout", "bank"} <= set(await asyncio.to_thread(zipkin.services))


async def test_zipkin_takes_a_gzipped_batch_of_hundreds(zipkin: ZipkinServer) -> None:
    cart = Sidecar("bulk", [ZipkinExporter(zipkin.endpoint)])
    root = cart.sampler.start(None)
    for _ in range(600):
        cart.record(a_call(context=cart.sampler.start(root), **times(0, 1)))
    await exported(cart)
    spans = await asyncio.to_thread(zipkin.wait_trace, f"{root.trace_id:032x}", 600)
    assert len(spans) == 600


async def test_zipkin_takes_spans_of_the_opentelemetry_exporter(zipkin: ZipkinServer) -> None:
    bridge = BridgeExporter(
        "opentelemetry.exporter.zipkin.json", "bridged", options={"endpoint": zipkin.endpoint}
    )
    cart = Sidecar("bridged", [bridge])
    root = cart.sampler.start(None)
    child = cart.sampler.start(root)
    cart.record(a_call(context=root, **times(0, 5)))
    cart.record(a_call(context=child, direction="inbound", status=500, **times(1, 3)))
    await exported(cart)
    spans = await asyncio.to_thread(zipkin.wait_trace, f"{root.trace_id:032x}", 2)
    clients, servers = by_service(spans, "CLIENT"), by_service(spans, "SERVER")
    assert servers["bridged"]["parentId"] == clients["bridged"]["id"]
    assert "error" in servers["bridged"]["tags"]
