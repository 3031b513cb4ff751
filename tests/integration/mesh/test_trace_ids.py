"""The trace's id in all that real sidecars answer themselves, and in their log lines, on both engines."""

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from tests.integration.mesh.standing import NO_SECRET_FOR_WEB, Standing, invoke, standing, until_logged
from tests.support.dapr_client import DaprClient
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.error_details import request_id
from tests.support.http_client import connect, request
from tests.support.proto.echo_pb2 import EchoRequest

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-00")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Standing]:
    """`web` may not call `/secret` of `shop`."""
    files: Path = tmp_path_factory.mktemp("ids")
    (files / "rules.yaml").write_text(NO_SECRET_FOR_WEB)
    flags = ("--engine", request.param)
    async with standing(files, flags=flags, shop=("--config", str(files / "rules.yaml"))) as found:
        yield found


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (invoke("shop", "/secret"), ()),
        (invoke("nobody", "/x"), ()),
        (invoke("sh%20op", "/x"), ()),
        ("/v1.0/nowhere", ()),
        ("/v1.0/state/store", ()),
        ("/v1.0/metadata", (("host", "evil.example"),)),
        ("/x", (("dapr-app-id", "no/such"),)),
    ],
)
async def test_refusal_over_http_has_the_trace_in_head_and_body(
    shop: Standing, target: str, headers: tuple[tuple[str, str], ...]
) -> None:
    answer = await request(shop.web.http_port, "GET", target, headers=[PARENT, *headers])
    assert answer.status >= 400
    assert answer.get("traceparent").split("-")[1] == TRACE
    assert json.loads(answer.body)["details"][0]["requestId"] == TRACE


async def test_request_that_is_no_http_has_a_trace_of_its_own(shop: Standing) -> None:
    async with connect(shop.web.http_port) as caller:
        await caller.send(b"GET /v1.0/invoke/shop/method/%zz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await caller.read_response("GET")
    assert answer.status == 400
    assert json.loads(answer.body)["details"][0]["requestId"] == answer.get("traceparent").split("-")[1]


@pytest.mark.parametrize("app_id", ["nobody", "shop"])
async def test_refusal_in_grpc_has_the_trace_in_its_details(shop: Standing, app_id: str) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{shop.web.grpc_port}") as channel:
        call = EchoClient(channel, metadata=(("dapr-app-id", app_id), PARENT)).unary(EchoRequest())
        met = await call.code()
        trailing = dict(await call.trailing_metadata() or ())
        details = await call.details()
    assert met is not grpc.StatusCode.OK
    assert str(trailing["traceparent"]).split("-")[1] == TRACE
    assert request_id(trailing["grpc-status-details-bin"]) == (met.value[0], details, TRACE)


@pytest.mark.parametrize(("app_id", "method"), [("shop", "secret"), ("nobody", "x")])
async def test_failure_of_invoke_service_has_the_trace_in_its_details(
    shop: Standing, app_id: str, method: str
) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{shop.web.grpc_port}") as channel:
        found = await DaprClient(channel).invoke(app_id, method, verb="GET", metadata=(PARENT,))
    trailing = dict(found.trailing)
    assert str(trailing["traceparent"]).split("-")[1] == TRACE
    assert request_id(trailing["grpc-status-details-bin"])[2] == TRACE


async def test_denial_and_failure_have_the_trace_in_both_logs(shop: Standing) -> None:
    for target, told in (
        (invoke("shop", "/secret"), ((shop.shop, "access denied"), (shop.web, "call failed.*cause=denied"))),
        (invoke("nobody", "/x"), ((shop.web, "call failed.*cause=no-app"),)),
    ):
        call = partial(request, shop.web.http_port, "GET", target, headers=[PARENT])
        for sidecar, line in told:
            await until_logged(sidecar.process, f"{line}.*span_id=.*trace_id={TRACE}", call)
