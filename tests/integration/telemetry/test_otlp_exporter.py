"""OTLP over real sockets, HTTP and gRPC: what is sent, what comes of answers, and of a collector that is not there."""

import asyncio
import json
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from msgspec.structs import replace

from telemetry.errors import ExporterConfigError, ExportError, PartialExportError
from telemetry.otlp.exporter import OtlpExporter, OtlpForwarder
from telemetry.otlp.messages_pb2 import (
    PartialSuccess,
    ResourceSpans,
    Response,
    RetryInfo,
    RpcStatus,
    TracesRequest,
)
from telemetry.otlp.received import Received
from telemetry.otlp.requests import item_count
from telemetry.otlp.target import OtlpTarget
from telemetry.tracing import ExportLimits, Tracer
from tests.integration.telemetry.collector import Collector, answer, collecting
from tests.support.web_pki import WebCa
from tests.unit.telemetry.building import SAMPLED, a_span

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
LOGS = "opentelemetry.proto.collector.logs.v1.LogsService"
METRICS = "opentelemetry.proto.collector.metrics.v1.MetricsService"
QUICK = ExportLimits(flush_s=0.02, backoff_s=(0.01, 0.02), shutdown_s=2.0)
PARTIAL = Response(partial_success=PartialSuccess(rejected=2, error_message="too old")).SerializeToString()


class GrpcCollector:
    """Answers `Export` as told, first to last, then with nothing rejected; keeps requests and metadata."""

    def __init__(self, *answers: "bytes | Callable[[Any], Any]") -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.metric_requests: list[bytes] = []
        self.log_requests: list[bytes] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.port = 0
        self.got = asyncio.Event()

    async def export(self, request: bytes, context: Any) -> bytes:
        self.metadata.append(dict(context.invocation_metadata()))
        self.requests.append(request)
        self.got.set()
        answer = self.answers.pop(0) if self.answers else b""
        if isinstance(answer, bytes):
            return answer
        await answer(context)
        return b""

    async def export_metrics(self, request: bytes, _: Any) -> bytes:
        self.metric_requests.append(request)
        return b""

    async def export_logs(self, request: bytes, _: Any) -> bytes:
        self.log_requests.append(request)
        return b""

    @property
    def target(self) -> OtlpTarget:
        return OtlpTarget(host="127.0.0.1", port=self.port, protocol="grpc", is_secure=False)


@asynccontextmanager
async def grpc_collecting(
    *answers: "bytes | Callable[[Any], Any]", tls: grpc.ServerCredentials | None = None
) -> AsyncIterator[GrpcCollector]:
    collector = GrpcCollector(*answers)
    server = grpc.aio.server()
    for service, export in (
        (SERVICE, collector.export),
        (METRICS, collector.export_metrics),
        (LOGS, collector.export_logs),
    ):
        methods = {"Export": grpc.unary_unary_rpc_method_handler(export)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    where = "127.0.0.1:0"  # of both families, one may be taken
    collector.port = server.add_secure_port(where, tls) if tls else server.add_insecure_port(where)
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)


def http_target(collector: Collector, **changes: Any) -> OtlpTarget:
    target = OtlpTarget(host="127.0.0.1", port=collector.port, protocol="http", is_secure=False)
    return replace(target, **changes)


async def exported(target: OtlpTarget, count: int = 1) -> None:
    exporter = OtlpExporter(target, "cart", (("zone", "a"),), (("postern-instance", "i1"),))
    try:
        await exporter.export([a_span(context=SAMPLED._replace(span_id=n)) for n in range(1, count + 1)])
    finally:
        await exporter.close()


async def test_http_request_is_protobuf_at_the_usual_path() -> None:
    async with collecting() as collector:
        await exported(http_target(collector, headers=(("Api-Key", "k"),)), 300)
    (head,) = collector.heads
    assert head.startswith(b"POST /v1/traces HTTP/1.1\r\n")
    assert b"Content-Type: application/x-protobuf" in head
    assert b"Content-Encoding: gzip" in head
    assert b"Api-Key: k" in head
    assert b"postern-instance: i1" in head
    request = TracesRequest.FromString(collector.bodies[0])
    assert item_count(request) == 300
    assert {pair.key for pair in request.resource_spans[0].resource.attributes} == {"service.name", "zone"}


async def test_http_small_request_is_not_compressed_nor_is_any_where_nobody_wants_it() -> None:
    async with collecting() as collector:
        await exported(http_target(collector))
        await exported(http_target(collector, is_compressed=False), 300)
    assert not any(b"gzip" in head for head in collector.heads)


async def test_http_json_is_openteletrys() -> None:
    async with collecting() as collector:
        await exported(http_target(collector, is_json=True))
    made = json.loads(collector.bodies[0])["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert made["traceId"] == f"{SAMPLED.trace_id:032x}"


@pytest.mark.parametrize("is_json", [True, False])
async def test_http_rejected_part_is_told(*, is_json: bool) -> None:
    body = b'{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}' if is_json else PARTIAL
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with collecting([head + body]) as collector:
        with pytest.raises(PartialExportError, match="rejected 2: too old") as caught:
            await exported(http_target(collector, is_json=is_json), 5)
    assert caught.value.rejected == 2


@pytest.mark.parametrize(
    ("status", "retryable"), [(400, False), (500, False), (429, True), (502, True), (503, True), (504, True)]
)
async def test_http_refusal_says_whether_to_retry(status: int, *, retryable: bool) -> None:
    date = "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"
    async with collecting([answer(status, date)]) as collector:
        with pytest.raises(ExportError, match=f"answered {status}") as caught:
            await exported(http_target(collector))
    assert (caught.value.retryable, caught.value.retry_after_s) == (retryable, 0.0)


async def test_http_over_tls_checks_the_certificate(tmp_path: Path) -> None:
    server, _, pem = _tls(tmp_path)
    async with collecting(tls=server) as collector:
        target = http_target(collector, host="localhost", is_secure=True, certificate_pem=pem)
        await exported(target)
        with pytest.raises(ExportError, match="certificate"):
            await exported(replace(target, certificate_pem=b""))
    assert len(collector.bodies) == 1


async def test_grpc_request_has_headers_and_is_compressed() -> None:
    async with grpc_collecting() as collector:
        target = replace(collector.target, headers=(("Api-Key", "k"),))
        await exported(target, 300)
    (request,), (metadata,) = collector.requests, collector.metadata
    assert item_count(TracesRequest.FromString(request)) == 300
    assert (metadata["api-key"], metadata["postern-instance"]) == ("k", "i1")


async def test_grpc_rejected_part_is_told() -> None:
    async with grpc_collecting(PARTIAL) as collector:
        with pytest.raises(PartialExportError, match="rejected 2: too old"):
            await exported(collector.target, 5)


def aborting(code: grpc.StatusCode, details: bytes = b"") -> Callable[[Any], Any]:
    async def abort(context: Any) -> None:
        await context.abort(code, "no", (("grpc-status-details-bin", details),) if details else ())

    return abort


def come_again(delay_s: int) -> bytes:
    info = RetryInfo(retry_delay=Duration(seconds=delay_s)).SerializeToString()
    detail = AnyMessage(type_url="type.googleapis.com/google.rpc.RetryInfo", value=info)
    return RpcStatus(details=[detail]).SerializeToString()


@pytest.mark.parametrize(
    ("code", "details", "retryable", "after_s"),
    [
        (grpc.StatusCode.UNAVAILABLE, b"", True, None),
        (grpc.StatusCode.UNAVAILABLE, come_again(3), True, 3.0),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, b"", False, None),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, come_again(3), True, 3.0),
        (grpc.StatusCode.INVALID_ARGUMENT, b"", False, None),
        (grpc.StatusCode.UNAUTHENTICATED, b"", False, None),
    ],
)
async def test_grpc_refusal_says_whether_to_retry(
    code: grpc.StatusCode, details: bytes, after_s: float | None, *, retryable: bool
) -> None:
    async with grpc_collecting(aborting(code, details)) as collector:
        with pytest.raises(ExportError, match=code.name) as caught:
            await exported(collector.target)
    assert (caught.value.retryable, caught.value.retry_after_s) == (retryable, after_s)


async def test_grpc_over_tls_checks_the_certificate(tmp_path: Path) -> None:
    _, server, pem = _tls(tmp_path)
    async with grpc_collecting(tls=server) as collector:
        target = replace(collector.target, host="localhost", is_secure=True, certificate_pem=pem)
        await exported(target)
        with pytest.raises(ExportError):
            await exported(replace(target, certificate_pem=b"", timeout_s=5.0))
    assert len(collector.requests) == 1


@dataclass(frozen=True, slots=True)
class Mutual:
    """Servers that demand a certificate, and what their clients have."""

    http: ssl.SSLContext
    grpc: grpc.ServerCredentials
    root_pem: bytes
    client: tuple[str, str]


def mutual(folder: Path) -> Mutual:
    ca = WebCa()
    certificate, key = ca.leaf("localhost")
    files = folder / "client.pem", folder / "client.key"
    for file, pem in zip(files, ca.leaf(), strict=True):
        file.write_bytes(pem)
    rpc = grpc.ssl_server_credentials([(key, certificate)], ca.root_pem, require_client_auth=True)
    return Mutual(
        ca.server_context("localhost", clients=ca), rpc, ca.root_pem, (str(files[0]), str(files[1]))
    )


async def test_collector_that_demands_a_certificate_is_shown_one_over_http(tmp_path: Path) -> None:
    tls = mutual(tmp_path)
    async with collecting(tls=tls.http) as collector:
        target = http_target(collector, host="localhost", is_secure=True, certificate_pem=tls.root_pem)
        await exported(replace(target, client=tls.client))
        with pytest.raises(ExportError):
            await exported(target)
    assert len(collector.bodies) == 1


async def test_collector_that_demands_a_certificate_is_shown_one_over_grpc(tmp_path: Path) -> None:
    tls = mutual(tmp_path)
    async with grpc_collecting(tls=tls.grpc) as collector:
        target = replace(
            collector.target, host="localhost", is_secure=True, certificate_pem=tls.root_pem, timeout_s=5.0
        )
        await exported(replace(target, client=tls.client))
        with pytest.raises(ExportError):
            await exported(target)
    assert len(collector.requests) == 1


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_client_certificate_that_is_gone_is_said(tmp_path: Path, protocol: Any) -> None:
    gone = str(tmp_path / "gone.pem")
    target = OtlpTarget(host="localhost", port=1, protocol=protocol, client=(gone, gone))
    with pytest.raises(ExporterConfigError, match=r"client certificate .*gone\.pem"):
        await exported(target)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_collector_that_is_not_there_is_a_failure_to_be_retried(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    target = OtlpTarget(host="127.0.0.1", port=port, protocol=protocol, is_secure=False, timeout_s=5.0)  # type: ignore[arg-type]
    with pytest.raises(ExportError) as caught:
        await exported(target)
    assert caught.value.retryable


async def test_what_the_app_sent_goes_on_byte_for_byte() -> None:
    first, second = b"\x0a\x00" * 3, b"\x0a\x02\x12\x00"
    async with collecting() as collector, grpc_collecting() as other:
        for target in (http_target(collector), other.target):
            forwarder = OtlpForwarder(target)
            await forwarder.export([Received(first, 1), Received(second, 1)])
            await forwarder.close()
    assert collector.bodies == other.requests == [first + second]


async def test_more_than_a_mebibyte_goes_in_several_requests() -> None:
    piece = TracesRequest(resource_spans=[ResourceSpans(schema_url="x" * 0x40000)]).SerializeToString()
    async with collecting() as collector:
        forwarder = OtlpForwarder(http_target(collector))
        await forwarder.export([Received(piece, 1)] * 6)
        await forwarder.close()
    assert [len(body) for body in collector.bodies] == [3 * len(piece), 3 * len(piece)]


async def test_every_exporter_has_its_own_queue_and_none_waits_for_another() -> None:
    """One collector hangs, one is gone, and the third has all spans."""
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as gone:
        gone.close()
        async with grpc_collecting() as well:
            hanging = OtlpTarget(
                host="127.0.0.1", port=silent.getsockname()[1], protocol="http", is_secure=False
            )
            targets = (hanging, replace(hanging, port=well.port, protocol="grpc"), replace(hanging, port=1))
            traced = Tracer(
                "cart",
                [OtlpExporter(target, "cart") for target in targets],
                limits=replace(QUICK, queue=100, shutdown_s=0.5),
                random_source=random.Random(1),
            )
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                running = group.create_task(traced.run())
                for n in range(1, 301):
                    traced.record(a_span(context=SAMPLED._replace(span_id=n)))
                    await asyncio.sleep(0)
                await well.got.wait()
                running.cancel()
    hung, fine, absent = traced.queues
    assert (hung.exported, absent.exported) == (0, 0)
    assert fine.exported + sum(fine.dropped.values()) == 300
    assert sum(hung.dropped.values()) == sum(absent.dropped.values()) == 300


def _tls(folder: Path) -> tuple[ssl.SSLContext, grpc.ServerCredentials, bytes]:
    """The server's side for HTTP and for gRPC, and what clients are to trust."""
    ca = WebCa()
    certificate, key = ca.leaf("localhost")
    (folder / "server.pem").write_bytes(certificate + key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem")
    return server, grpc.ssl_server_credentials([(key, certificate)]), ca.root_pem
