"""Apps that export spans to their sidecar: what becomes of these, on both engines."""

import gzip
import json
import secrets
from pathlib import Path

import grpc
import grpc.aio
import pytest

from telemetry.otlp.json_form import request_json
from telemetry.otlp.messages_pb2 import (
    AnyValue,
    KeyValue,
    Resource,
    ResourceSpans,
    Response,
    Scope,
    ScopeSpans,
    Span,
    TracesRequest,
)
from tests.integration.mesh.standing import eventually, invoke, pair
from tests.integration.mesh.test_otlp import SOON, ids
from tests.integration.telemetry.collector import collecting
from tests.integration.telemetry.test_otlp_exporter import SERVICE, grpc_collecting
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh, SharedSentry, Sidecar
from tests.support.ports import free_port

PROTOBUF = ("content-type", "application/x-protobuf")
JSON = ("content-type", "application/json")


def export(trace: tuple[str, str], *, service: str = "my-app", count: int = 1, value: str = "x") -> bytes:
    """A request with spans below `trace`; the first has the id that is 1."""
    spans = [
        Span(
            trace_id=bytes.fromhex(trace[0]),
            span_id=n.to_bytes(8, "big"),
            parent_span_id=bytes.fromhex(trace[1]),
            name=f"work {n}",
            start_time_unix_nano=1_700_000_000_000_000_000,
            end_time_unix_nano=1_700_000_000_001_000_000,
            attributes=[KeyValue(key="k", value=AnyValue(string_value=value))],
        )
        for n in range(1, count + 1)
    ]
    named = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value=service))])
    scope = ScopeSpans(scope=Scope(name="lib"), spans=spans)
    return TracesRequest(
        resource_spans=[ResourceSpans(resource=named, scope_spans=[scope])]
    ).SerializeToString()


async def by_grpc(sidecar: Sidecar, body: bytes, *metadata: tuple[str, str], packed: bool = False) -> bytes:
    async with grpc.aio.insecure_channel(f"localhost:{sidecar.grpc_port}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/Export", None, None)
        answer: bytes = await call(
            body,
            timeout=60,
            metadata=metadata,
            compression=grpc.Compression.Gzip if packed else None,
        )
    return answer


async def remembered(sidecar: Sidecar, trace: tuple[str, str]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((await sidecar.admin(f"/trace?id={trace[0]}")).body)["spans"]
    return found


@pytest.mark.parametrize("engine", ENGINES)
async def test_every_way_of_exporting_reaches_collector_and_memory(
    tmp_path: Path, shared: SharedSentry, engine: str
) -> None:
    """gRPC and HTTP, protobuf and JSON, packed and plain; to an OTLP collector byte for byte, and to Zipkin."""
    traces = [ids() for _ in range(6)]
    bodies = [export(trace, value=secrets.token_hex(2000)) for trace in traces]
    async with grpc_collecting() as otel, collecting() as zipkin:
        config = tmp_path / "traced.yaml"
        config.write_text(CONFIG.format(zipkin=zipkin.url, port=otel.port))
        flags = ("--engine", engine, "--config", str(config))
        async with Mesh(tmp_path, shared=shared) as mesh:
            web = await mesh.sidecar("web", flags=flags, env=SOON)
            assert await by_grpc(web, bodies[0]) == b""
            assert await by_grpc(web, bodies[1], packed=True) == b""
            posts = (
                (bodies[2], (PROTOBUF,)),
                (gzip.compress(bodies[3]), (PROTOBUF, ("content-encoding", "gzip"))),
                (request_json(bodies[4], "traces"), (JSON,)),
                (gzip.compress(request_json(bodies[5], "traces")), (JSON, ("content-encoding", "gzip"))),
            )
            for body, headers in posts:
                answer = await request(web.http_port, "POST", "/v1/traces", headers=headers, body=body)
                assert (answer.status, dict(answer.headers)["content-type"]) == (200, headers[0][1])
                assert answer.body == (b"{}" if headers[0] == JSON else b"")
            for trace in traces:
                (span,) = await remembered(web, trace)
                assert (span["name"], span["localEndpoint"]) == ("work 1", {"serviceName": "my-app"})
                assert span["parentId"] == trace[1]
            metrics = (await request(web.metrics_port, "GET", "/metrics")).body.decode()
            assert 'postern_app_spans_total{result="taken"} 6.0' in metrics
            assert await web.end() == 0
        sent = b"".join(otel.requests)
        assert all(body in sent for body in bodies)
        assert {span["traceId"] for span in zipkin.spans} == {trace[0] for trace in traces}
        assert {span["localEndpoint"]["serviceName"] for span in zipkin.spans} == {"my-app"}


CONFIG = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {{name: traced}}
spec:
  tracing:
    samplingRate: "1"
    zipkin: {{endpointAddress: "{zipkin}"}}
    otel: {{endpointAddress: "127.0.0.1:{port}", protocol: grpc, isSecure: false}}
"""


@pytest.mark.parametrize("engine", ENGINES)
async def test_spans_of_app_and_proxies_are_one_tree(
    tmp_path: Path, shared: SharedSentry, engine: str
) -> None:
    """The app's span is the parent of the proxy's, as an instrumented app has it."""
    trace = ids()
    async with pair(tmp_path, shared, flags=("--engine", engine)) as mesh:
        parent = f"00-{trace[0]}-{1:016x}-01"
        answer = await request(
            mesh.web.http_port, "GET", invoke("shop", "/echo"), headers=(("traceparent", parent),)
        )
        assert answer.status == 200
        await by_grpc(mesh.web, export(trace))

        async def are_there() -> bool:
            return len(await remembered(mesh.web, trace)) == 2

        await eventually(are_there)
        ours, theirs = await remembered(mesh.web, trace)
        assert (ours["kind"], ours["parentId"], theirs["id"]) == ("CLIENT", f"{1:016x}", f"{1:016x}")
        listed = json.loads((await mesh.web.admin("/postern/v1/traces")).body)["traces"]
        (one,) = [entry for entry in listed if entry["trace_id"] == trace[0]]
        assert (one["spans"], one["root"]["name"]) == (2, "work 1")
        await mesh.web.process.line("as no collector is configured")
        assert mesh.web.process.output.count("as no collector is configured") == 1


@pytest.mark.parametrize("engine", ENGINES)
async def test_nonsense_is_refused_in_words(tmp_path: Path, shared: SharedSentry, engine: str) -> None:
    async with Mesh(tmp_path, shared=shared) as mesh:
        web = await mesh.sidecar("web", flags=("--engine", engine))
        too_large = gzip.compress(bytes(5 << 20))
        for headers, body, status in (
            ((PROTOBUF,), b"\xff\xff", 400),
            ((JSON,), b"{", 400),
            ((("content-type", "text/plain"),), b"x", 415),
            ((PROTOBUF, ("content-encoding", "br")), b"x", 415),
            ((PROTOBUF, ("content-encoding", "gzip")), too_large, 413),
            ((PROTOBUF,), bytes(5 << 20), 413),
        ):
            answer = await request(web.http_port, "POST", "/v1/traces", headers=headers, body=body)
            assert answer.status == status, answer.body
        for body, code in (
            (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
            (bytes(5 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await by_grpc(web, body)
            assert caught.value.code() == code
        assert await by_grpc(web, export(ids())) == b""


@pytest.mark.parametrize("engine", ENGINES)
async def test_app_that_serves_it_itself_loses_nothing(
    tmp_path: Path, shared: SharedSentry, engine: str
) -> None:
    """Named by metadata or header, or routed to; and with the flag nothing is taken here."""
    trace = ids()
    async with grpc_collecting() as app, Mesh(tmp_path, shared=shared) as mesh:
        http_app = await mesh.http_app("shop")
        await mesh.sidecar("shop", app=http_app, flags=("--engine", engine))
        await mesh.sidecar("otelcol", app_port=app.port, app_protocol="grpc", flags=("--engine", engine))
        web = await mesh.sidecar("web", flags=("--engine", engine))
        assert await by_grpc(web, export(trace), ("dapr-app-id", "otelcol")) == b""
        named = (PROTOBUF, ("dapr-app-id", "shop"))
        answer = await request(web.http_port, "POST", "/v1/traces", headers=named, body=b"\xff\xff")
        assert answer.status != 400
        routed = await mesh.sidecar("routed", flags=("--engine", engine, "--route", f"{SERVICE}=otelcol"))
        assert await by_grpc(routed, export(trace)) == b""
        assert len(app.requests) == 2
        for sidecar in (web, routed):
            assert [one for one in await remembered(sidecar, trace) if one["name"] == "work 1"] == []
        off = await mesh.sidecar("off", flags=("--engine", engine, "--no-otlp-receiver", "--no-learn-names"))
        answer = await request(off.http_port, "POST", "/v1/traces", headers=(PROTOBUF,), body=export(trace))
        assert answer.status == 404
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await by_grpc(off, export(trace))
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_sidecar_whose_collector_is_itself_keeps_spans_and_says_so(
    tmp_path: Path, shared: SharedSentry
) -> None:
    """As where one variable is meant for the app and reaches both."""
    port, trace = free_port(), ids()
    async with Mesh(tmp_path, shared=shared) as mesh:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://localhost:{port}", **SOON}
        web = await mesh.sidecar("web", flags=("--dapr-grpc-port", str(port)), env=env)
        await web.process.line("the OTLP collector is this sidecar itself")
        assert await by_grpc(web, export(trace)) == b""
        assert len(await remembered(web, trace)) == 1
        assert json.loads((await web.admin("/status")).body)["exporters"] == []


async def test_sidecar_whose_collector_is_itself_by_another_name_refuses_what_comes_back(
    tmp_path: Path,
    shared: SharedSentry,
) -> None:
    port = free_port()
    async with Mesh(tmp_path, shared=shared) as mesh:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://[::ffff:127.0.0.1]:{port}", **SOON}
        app = await mesh.http_app("shop")
        shop = await mesh.sidecar("shop", app=app, flags=("--dapr-grpc-port", str(port)), env=env)
        answer = await request(shop.http_port, "GET", invoke("shop", "/echo"))
        assert answer.status == 200
        await shop.process.line("spans are not exported.*this is the exporter's own proxy")
        trace = ids()
        assert await by_grpc(shop, export(trace)) == b""

        async def is_given_up() -> bool:
            told = json.loads((await shop.admin("/status")).body)["exporters"]
            lost = {one["name"]: one["dropped"] for one in told}
            return bool(lost.get("otlp-app") == {"export-failed": 1})

        await eventually(is_given_up)
        assert len(await remembered(shop, trace)) == 1


async def test_app_that_floods_is_answered_and_what_is_lost_is_counted(
    tmp_path: Path, shared: SharedSentry
) -> None:
    """The collector is gone: memory and queue stay bounded, the answers say what was dropped, and calls go on."""
    async with Mesh(tmp_path, shared=shared) as mesh:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
        app = await mesh.http_app("shop")
        shop = await mesh.sidecar("shop", app=app, env=env)
        body = export(ids(), count=512)
        answers = [await by_grpc(shop, body) for _ in range(20)]
        assert Response.FromString(answers[-1]).partial_success.rejected == 512
        answer = await request(shop.http_port, "GET", invoke("shop", "/echo"))
        assert answer.status == 200
        told = json.loads((await shop.admin("/status")).body)["exporters"]
        (queue,) = [one for one in told if one["name"] == "otlp-app"]
        assert queue["queued"] <= 2048 + 512
        assert queue["queued"] + sum(queue["dropped"].values()) == 20 * 512


async def test_token_is_asked_of_exporters_too(tmp_path: Path, shared: SharedSentry) -> None:
    async with Mesh(tmp_path, shared=shared) as mesh:
        web = await mesh.sidecar("web", env={"DAPR_API_TOKEN": "hush"})
        answer = await request(web.http_port, "POST", "/v1/traces", headers=(PROTOBUF,), body=export(ids()))
        assert answer.status == 401
        with pytest.raises(grpc.aio.AioRpcError):
            await by_grpc(web, export(ids()))
        assert await by_grpc(web, export(ids()), ("dapr-api-token", "hush")) == b""
