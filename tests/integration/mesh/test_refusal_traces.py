"""Every answer of a real sidecar that names a sampled trace has one that can be found; so has each call of its own API, on both engines."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import grpc
import pytest
import pytest_asyncio

from nameresolution.host_registry import HostRegistry
from proxy.api.dapr.runtime_pb2 import GetMetadataRequest
from proxy.cli.traces import SpanJson, spans_of
from tests.integration.mesh.peers import h2_head, h2_request
from tests.integration.mesh.standing import eventually, invoke
from tests.support.dapr_client import DaprClient
from tests.support.engines import ENGINES
from tests.support.error_details import request_id
from tests.support.http_client import connect, request
from tests.support.http_wire import Response
from tests.support.mesh import Mesh, Sidecar

AnswerT = TypeVar("AnswerT")
TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")
EVIL = ("origin", "https://evil.example")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def web(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Mesh, Sidecar]]:
    """A sidecar alone: what it refuses names no callee."""
    async with Mesh(tmp_path_factory.mktemp("refusals")) as mesh:
        await mesh.start_sentry()
        yield mesh, await mesh.sidecar("web", flags=("--engine", request.param))


async def recorded(ask: Callable[[], Awaitable[AnswerT]], traceparent: Callable[[AnswerT], str]) -> AnswerT:
    """An answer whose trace is recorded: other tests' refusals may have used up those of a second."""
    answers: list[AnswerT] = []

    async def is_recorded() -> bool:
        answers.append(await ask())
        return traceparent(answers[-1]).endswith("-01")

    await eventually(is_recorded)
    return answers[-1]


def named(answer: Response) -> str:
    """The trace that an answer names."""
    return answer.get("traceparent")


async def found(mesh: Mesh, traceparent: str) -> list[SpanJson]:
    """What `postern trace` finds of the trace that an answer names."""
    _, trace_id, span_id, flags = traceparent.split("-")
    assert flags == "01"
    spans: list[SpanJson] = []

    async def is_there() -> bool:
        spans[:] = (await spans_of(HostRegistry(mesh.root).entries(), trace_id, "memory"))[0]
        return any(span["id"] == span_id for span in spans)

    await eventually(is_there)
    return [span for span in spans if span["id"] == span_id]


def tags_of(span: SpanJson) -> dict[str, str]:
    """Its attributes."""
    tags = span["tags"]
    assert isinstance(tags, dict)
    return tags


@pytest.mark.parametrize(
    ("method", "target", "headers", "why"),
    [
        ("GET", invoke("web", "/x"), (EVIL,), "forbidden-origin"),
        ("GET", "/v1.0/metadata", (("host", "evil.example"),), "forbidden-origin"),
        ("GET", "/v1.0/healthz", (EVIL,), "forbidden-origin"),
        ("GET", invoke("sh%20op", "/x"), (SAMPLED,), "no-app"),
        ("GET", "/v1.0/nowhere", (SAMPLED,), "no-app"),
        ("GET", "/x", (("dapr-app-id", "no/such"), SAMPLED), "no-app"),
        ("GET", "/v1.0/state/store", (SAMPLED,), "unsupported"),
        ("get", "/lower", (SAMPLED,), "bad-request"),
        ("GET", "/x%zz", (SAMPLED,), "bad-request"),
    ],
)
async def test_refusal_that_names_a_sampled_trace_is_found(
    web: tuple[Mesh, Sidecar], method: str, target: str, headers: tuple[tuple[str, str], ...], why: str
) -> None:
    mesh, sidecar = web
    answer = await recorded(lambda: request(sidecar.http_port, method, target, headers=headers), named)
    assert answer.get("postern-error") == why
    (span,) = await found(mesh, answer.get("traceparent"))
    assert (span["kind"], tags_of(span)["error.type"]) == ("CLIENT", why)
    assert f"Code({answer.status})" in tags_of(span)["error"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Name: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (
            b"PUT /v1.0/metadata/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
        ),
    ],
)
async def test_request_that_can_not_be_read_has_a_trace_in_answer_and_log(
    web: tuple[Mesh, Sidecar], raw: bytes, status: int
) -> None:
    mesh, sidecar = web
    answer = await recorded(lambda: answer_to(sidecar, raw), named)
    trace_ids = [answer.get("traceparent").split("-")[1]]
    assert (answer.status, answer.get("postern-error")) == (status, "bad-request")
    assert json.loads(answer.body)["details"][0]["requestId"] == trace_ids[0]
    (span,) = await found(mesh, answer.get("traceparent"))
    assert tags_of(span)["error.type"] == "bad-request"

    async def is_logged() -> bool:  # again, as the log has few lines a second of a kind
        trace_ids.append((await answer_to(sidecar, raw)).get("traceparent").split("-")[1])
        return any(f"trace_id={one}" in sidecar.process.output for one in trace_ids)

    await eventually(is_logged)


async def answer_to(sidecar: Sidecar, raw: bytes) -> Response:
    """What is answered to bytes that are no request."""
    async with connect(sidecar.http_port) as caller:
        await caller.send(raw)
        return await caller.read_response("GET")


async def test_head_over_http2_that_is_too_large_has_a_trace(web: tuple[Mesh, Sidecar]) -> None:
    mesh, sidecar = web
    fields = [(f"x-{number}", "v") for number in range(300)]
    answer = await recorded(
        lambda: h2_request(sidecar.http_port, [*h2_head("GET", "/echo"), *fields]),
        lambda answer: dict(answer.headers)["traceparent"],
    )
    assert answer.status == 431
    told = dict(answer.headers)
    assert json.loads(answer.body)["details"][0]["requestId"] == told["traceparent"].split("-")[1]
    await found(mesh, told["traceparent"])


@pytest.mark.parametrize(("app_id", "method"), [("", "x"), ("a b", "x"), ("web", "x?y")])
async def test_refusal_of_invoke_service_is_found(
    web: tuple[Mesh, Sidecar], app_id: str, method: str
) -> None:
    mesh, sidecar = web
    async with grpc.aio.insecure_channel(f"localhost:{sidecar.grpc_port}") as channel:
        ended = await recorded(
            lambda: DaprClient(channel).invoke(app_id, method, verb="GET", metadata=(SAMPLED,)),
            lambda ended: str(ended.trailing["traceparent"]),
        )
    traceparent = str(ended.trailing["traceparent"])
    assert request_id(ended.trailing["grpc-status-details-bin"])[2] == TRACE
    (span,) = await found(mesh, traceparent)
    assert span["name"] == "/dapr.proto.runtime.v1.Dapr/InvokeService"
    assert tags_of(span)["error.type"] == "bad-request"


@pytest.mark.parametrize("engine", ENGINES)
async def test_flood_of_refusals_is_no_flood_of_spans_and_says_so(engine: str, mesh: Mesh) -> None:
    web = await mesh.sidecar("web", flags=("--engine", engine))
    flags: set[str] = set()
    async with asyncio.timeout(60.0):
        while "00" not in flags:
            answers = [request(web.http_port, "GET", "/v1.0/nowhere", headers=[SAMPLED]) for _ in range(100)]
            flags.update(answer.get("traceparent")[-2:] for answer in await asyncio.gather(*answers))
    assert flags == {"00", "01"}


async def test_calls_of_the_own_api_have_spans_but_health_has_none(web: tuple[Mesh, Sidecar]) -> None:
    mesh, sidecar = web
    trace = "1af7651916cd43dd8448eb211c80319c"
    parent = ("traceparent", f"00-{trace}-b7ad6b7169203331-01")
    for target in ("/v1.0/healthz", "/v1.0/healthz/outbound", "/v1.0/metadata"):
        await request(sidecar.http_port, "GET", target, headers=[parent])
    await request(sidecar.http_port, "PUT", "/v1.0/metadata/key", headers=[parent], body=b"x")
    async with grpc.aio.insecure_channel(f"localhost:{sidecar.grpc_port}") as channel:
        await DaprClient(channel).call(
            "GetMetadata", GetMetadataRequest(), GetMetadataRequest, metadata=(parent,)
        )
    names: set[object] = set()

    async def are_there() -> bool:
        spans, _ = await spans_of(HostRegistry(mesh.root).entries(), trace, "memory")
        names.update((span["kind"], span["name"]) for span in spans)
        return len(names) >= 3

    await eventually(are_there)
    methods = ("/v1.0/metadata", "/v1.0/metadata/key", "/dapr.proto.runtime.v1.Dapr/GetMetadata")
    assert names == {("CLIENT", name) for name in methods}
