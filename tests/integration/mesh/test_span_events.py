"""What spans tell of a call that took long or went wrong, and the headers of traces, on both engines."""

import json
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from tests.integration.mesh.standing import Standing, eventually, invoke, standing
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.mesh import Sidecar
from tests.support.proto.echo_pb2 import EchoRequest

RESILIENCY = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: events}
spec:
  policies:
    timeouts: {short: 300ms}
    retries:
      twice: {policy: constant, duration: 20ms, maxRetries: 2, matching: {httpStatusCodes: "503"}}
  targets:
    apps:
      shop: {retry: twice}
      shop.default: {timeout: short}
"""


@dataclass(frozen=True)
class Scene:
    """`web` calls by the rules above: `shop` with retries, `shop.default` with a timeout."""

    mesh: Standing
    web: Sidecar
    quiet: Sidecar

    async def call(self, target: str, **more: object) -> tuple[Response, dict[str, object]]:
        """The answer, and the CLIENT span of the call."""
        trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
        headers = (("traceparent", f"00-{trace_id}-{span_id}-01"), ("tracestate", "a=1"))
        answer = await request(self.web.http_port, "POST", target, headers=headers, **more)  # type: ignore[arg-type]
        return answer, (await self.spans(trace_id, 1))[0]

    async def spans(self, trace_id: str, count: int) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []

        async def are_there() -> bool:
            found[:] = json.loads((await self.web.admin(f"/trace?id={trace_id}")).body)["spans"]
            return len(found) >= count

        await eventually(are_there)
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    files = tmp_path_factory.mktemp("events")
    (files / "res").mkdir()
    (files / "res" / "r.yaml").write_text(RESILIENCY)
    engine = ("--engine", request.param)
    async with standing(files, flags=engine) as mesh:
        own = ("--resources-path", str(files / "res"), "--max-body-size", "1Ki")
        web = await mesh.mesh.sidecar("caller", flags=(*engine, *own))
        quiet = await mesh.mesh.sidecar("quiet", flags=(*engine, "--no-response-traceparent"))
        yield Scene(mesh, web, quiet)


def events(span: dict[str, object]) -> list[str]:
    noted: list[dict[str, str]] = span.get("annotations", [])  # type: ignore[assignment]
    return [note["value"] for note in noted]


def error_type(span: dict[str, object]) -> str:
    tags: dict[str, str] = span["tags"]  # type: ignore[assignment]
    return tags.get("error.type", "")


async def test_name_that_nobody_has_was_waited_for(scene: Scene) -> None:
    answer, span = await scene.call(invoke("nobody", "/x"))
    assert answer.status == 500
    assert error_type(span) == "no-app"
    held, failed = events(span)
    assert re.fullmatch(r"resolve delay_ms=\d{3,5}", held)
    assert failed == "no-app"


async def test_each_retry_says_why_and_after_how_long(scene: Scene) -> None:
    target = invoke("shop", f"/script?key={secrets.token_hex(4)}&codes=503,503,200")
    answer, span = await scene.call(target)
    assert answer.status == 200
    retries = [event for event in events(span) if event.startswith("retry")]
    for number, event in enumerate(retries, 2):
        assert re.fullmatch(rf"retry attempt={number} reason=503 delay_ms=\d+ endpoint=\S+:\d+", event), event
    assert len(retries) == 2
    assert error_type(span) == ""


async def test_timeout_is_told(scene: Scene) -> None:
    _, span = await scene.call(invoke("shop.default", "/slow?s=3"))
    assert (error_type(span), events(span)[-1]) == ("timeout", "timeout")


async def test_limit_is_told(scene: Scene) -> None:
    answer, span = await scene.call(invoke("shop", "/echo"), body=bytes(2048))
    assert answer.status >= 400
    assert (error_type(span), events(span)[-1]) == ("too-large", "too-large")


async def test_http_answer_carries_the_callers_span_unless_told_not_to(scene: Scene) -> None:
    answer, span = await scene.call(invoke("shop", "/echo"))
    told = dict(answer.headers)["traceparent"]
    assert told.split("-")[1:3] == [span["traceId"], span["id"]]
    silent = await request(scene.quiet.http_port, "GET", invoke("shop", "/echo"))
    assert silent.status == 200
    assert "traceparent" not in dict(silent.headers)


async def test_tracestate_and_one_traceparent_reach_apps_of_both_kinds(scene: Scene) -> None:
    answer, _ = await scene.call(invoke("shop", "/echo"))
    received = [(key.lower(), value) for key, value in json.loads(answer.body)["headers"]]
    assert [value for key, value in received if key == "tracestate"] == ["a=1"]
    assert len([value for key, value in received if key == "traceparent"]) == 1
    trace_id = secrets.token_hex(16)
    metadata = (
        ("dapr-app-id", "echo"),
        ("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01"),
        ("tracestate", "a=1"),
        ("baggage", "user=7,broken,plan=gold"),
    )
    async with grpc.aio.insecure_channel(f"localhost:{scene.web.grpc_port}") as channel:
        reply = await EchoClient(channel, metadata=metadata).unary(EchoRequest(message="m"))
    at_app = [(item.name, item.value.decode("latin-1")) for item in reply.metadata]
    (parent,) = [value for name, value in at_app if name == "traceparent"]
    assert parent.split("-")[1] == trace_id
    assert [value for name, value in at_app if name == "tracestate"] == ["a=1"]
    assert [value for name, value in at_app if name == "baggage"] == ["user=7,plan=gold"]
