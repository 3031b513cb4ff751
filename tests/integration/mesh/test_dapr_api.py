"""Dapr's gRPC API on the gRPC port of real sidecars, over both engines."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict

from tests.integration.mesh.standing import NO_SECRET_FOR_WEB, Standing, eventually, standing
from tests.support.dapr_client import DaprClient, Ended, Metadata
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.error_details import error_info
from tests.support.http_client import request
from tests.support.mesh import Sidecar
from tests.support.proto.echo_pb2 import EchoRequest

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def mesh(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Standing]:
    """The module's mesh, once for each engine: `shop` denies web /secret."""
    files: Path = tmp_path_factory.mktemp("dapr-api")
    rules = files / "rules.yaml"
    rules.write_text(NO_SECRET_FOR_WEB)
    flags = ("--engine", request.param, "--enable-api-logging")
    async with standing(files, flags=flags, shop=("--config", str(rules))) as started:
        yield started


@asynccontextmanager
async def calling(sidecar: Sidecar, metadata: Metadata = ()) -> AsyncIterator[DaprClient]:
    """A client of a sidecar."""
    async with grpc.aio.insecure_channel(f"localhost:{sidecar.grpc_port}") as channel:
        yield DaprClient(channel, metadata)


@pytest.fixture
async def client(mesh: Standing) -> AsyncIterator[DaprClient]:
    """A client of `web`."""
    async with calling(mesh.web) as made:
        yield made


def seen(ended: Ended) -> dict[str, Any]:
    """What the app under test says that it was asked."""
    assert ended.code is grpc.StatusCode.OK, ended
    told: dict[str, Any] = json.loads(ended.response.data.value)
    return told


# --- InvokeService -------------------------------------------------------------------------------------------------------------


async def test_app_gets_what_was_asked_for_and_the_caller_its_answer(client: DaprClient) -> None:
    ended = await client.invoke(
        "shop",
        "echo/a b",
        verb="PUT",
        query="x=1&y=%20",
        data=b"hello",
        content_type="text/plain",
        metadata=(("x-note", "one"), ("x-note", "two"), ("x-raw-bin", b"\x00")),
    )
    told = seen(ended)
    assert (told["method"], told["target"], told["body"]) == ("PUT", "/echo/a%20b?x=1&y=%20", "hello")
    fields = [(name.lower(), value) for name, value in told["headers"]]
    assert [value for name, value in fields if name == "x-note"] == ["one", "two"]
    by_name = dict(fields)
    assert by_name["content-type"] == "text/plain"
    assert by_name["content-length"] == "5"
    assert by_name["user-agent"].startswith("grpc-python")
    assert by_name["dapr-caller-app-id"] == "web"
    assert by_name["x-raw-bin"] == "AA=="
    assert not {"te", "dapr-app-id", "grpc-timeout", "dapr-grpc-timeout"} & by_name.keys()
    assert ended.response.content_type == "application/json"
    assert ended.initial["dapr-http-status"] == "200"
    assert (ended.initial["x-app"], ended.initial["dapr-content-type"]) == ("shop", "application/json")


async def test_app_may_be_called_in_its_namespace_and_by_itself(mesh: Standing, client: DaprClient) -> None:
    assert seen(await client.invoke("shop.default", "echo"))["app"] == "shop"
    async with calling(mesh.shop) as itself:
        assert seen(await itself.invoke("shop", "echo", verb="GET"))["app"] == "shop"


@pytest.mark.parametrize(
    "method", ["v1.0/metadata", "v1.0/healthz", "v1.0/invoke/web/method/x", "v1.0/state/s"]
)
async def test_path_of_daprs_own_api_is_a_path_of_the_app(client: DaprClient, method: str) -> None:
    told = seen(await client.invoke("shop", method, verb="GET"))
    assert (told["app"], told["target"]) == ("shop", f"/{method}")


async def test_answer_without_a_body(client: DaprClient) -> None:
    ended = await client.invoke("shop", "status", verb="DELETE", query="code=204")
    assert (ended.code, ended.response.data.value) == (grpc.StatusCode.OK, b"")
    assert ended.initial["dapr-http-status"] == "204"
    head = await client.invoke("shop", "echo", verb="HEAD")
    assert (head.code, head.response.data.value) == (grpc.StatusCode.OK, b"")


@pytest.mark.parametrize(
    ("status", "code", "phrase"),
    [
        (302, grpc.StatusCode.UNKNOWN, "Found"),
        (400, grpc.StatusCode.INTERNAL, "Bad Request"),
        (401, grpc.StatusCode.UNAUTHENTICATED, "Unauthorized"),
        (404, grpc.StatusCode.NOT_FOUND, "Not Found"),
        (500, grpc.StatusCode.UNKNOWN, "Internal Server Error"),
        (503, grpc.StatusCode.UNAVAILABLE, "Service Unavailable"),
    ],
)
async def test_error_of_the_app_has_daprs_code_and_its_details(
    client: DaprClient, status: int, code: grpc.StatusCode, phrase: str
) -> None:
    ended = await client.invoke("shop", "status", verb="GET", query=f"code={status}&header=x-why:because")
    assert (ended.code, ended.text) == (code, phrase)
    assert (ended.initial["dapr-http-status"], ended.initial["x-why"]) == (str(status), "because")
    details = ended.trailing["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    assert b"google.rpc.ErrorInfo" in details
    assert f"status {status}".encode() in details  # the start of the body


async def test_failure_of_the_sidecars_is_internal_and_says_why(client: DaprClient) -> None:
    denied = await client.invoke("shop", "secret", verb="GET")
    assert (denied.code, denied.trailing["postern-error"]) == (grpc.StatusCode.INTERNAL, "denied")
    assert "failed to invoke, id: shop, err: rpc error: code = PermissionDenied" in denied.text
    assert "dapr-http-status" not in denied.initial
    unknown = await client.invoke("nobody", "x", verb="GET")
    assert (unknown.code, unknown.trailing["postern-error"]) == (grpc.StatusCode.INTERNAL, "no-app")
    assert "failed to invoke, id: nobody, err: couldn't find service: nobody" in unknown.text
    invalid = await client.invoke("a.b.c", "x", verb="GET")
    assert invalid.code is grpc.StatusCode.INTERNAL
    assert "invalid app-id" in invalid.text
    verbless = await client.invoke("shop", "echo", verb="")
    assert verbless.code is grpc.StatusCode.INTERNAL
    assert "http_extension.verb" in verbless.text


async def test_answer_that_breaks_off_is_a_failure(client: DaprClient) -> None:
    for when in ("body", "length", "head"):
        ended = await client.invoke("shop", "die", query=f"when={when}")
        assert (ended.code, ended.response) == (grpc.StatusCode.INTERNAL, None), when
        assert ended.trailing["postern-error"], when
        assert "unix:" not in ended.text


async def test_message_that_is_none_is_refused_as_grpc_servers_do(client: DaprClient) -> None:
    not_utf8 = b"\x0a\x02\xff\xfe"
    for garbage in (b"\xff\xff\xff", not_utf8, b"\x0a\x05ab"):
        for method in ("InvokeService", "SetMetadata"):
            ended = await client.call(method, garbage)
            assert ended.code is grpc.StatusCode.INTERNAL, garbage
            assert "error unmarshalling request" in ended.text


async def test_message_of_four_mebibytes_is_the_limit_both_ways(client: DaprClient) -> None:
    fits = await client.invoke("shop", "sink", data=b"x" * 4_194_000)
    assert seen(fits)["bytes"] == 4_194_000
    too_large = await client.invoke("shop", "sink", data=b"x" * 4_194_304)
    assert too_large.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    whole = await client.invoke("shop", "bytes", verb="GET", query="n=4194000")
    assert len(whole.response.data.value) == 4_194_000
    for query in ("n=4194304", "n=5000000", "n=5000000&chunk=65536"):
        beyond = await client.invoke("shop", "bytes", verb="GET", query=query)
        assert beyond.code is grpc.StatusCode.RESOURCE_EXHAUSTED, query
        assert "--max-body-size" in beyond.text


async def test_metadata_has_the_limit_of_a_head(client: DaprClient) -> None:
    for size in [12_000] * 10 + [40_000]:
        told = seen(await client.invoke("shop", "echo", metadata=(("x-large", "y" * size),)))
        assert len(dict(told["headers"])["x-large"]) == size
    beyond = await client.invoke("shop", "echo", metadata=(("x-large", "y" * 70_000),))
    assert beyond.code is grpc.StatusCode.UNKNOWN  # as the head's limit is one of HTTP: 431
    method = await client.invoke("shop", "ü" * 1_500_000)
    assert method.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "--read-buffer-size" in method.text


@pytest.mark.parametrize(
    "name", ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"]
)
async def test_metadata_that_http2_forbids_costs_its_own_call(client: DaprClient, name: str) -> None:
    """RFC 9113 §8.2.2 and §8.3.1: such a request is malformed, whose stream is reset (§8.1.1)."""
    beyond = await client.invoke("shop", "echo", metadata=((name, "x"),))
    assert beyond.code is grpc.StatusCode.INTERNAL
    assert "RST_STREAM with error code 1" in beyond.text
    seen(await client.invoke("shop", "echo"))


async def test_metadata_of_one_hop_is_not_passed_on(client: DaprClient) -> None:
    names = ("te", "trailer", "expect", "http2-settings", "proxy-authorization", "dapr-app-id")
    told = seen(await client.invoke("shop", "echo", metadata=tuple((name, "x") for name in names)))
    assert not set(names) & {name.lower() for name, _ in told["headers"]}


async def test_deadline_and_cancellation_reach_the_app(mesh: Standing, client: DaprClient) -> None:
    async def arrived_and_cut() -> tuple[int, int]:
        told = json.loads((await request(mesh.http_app.port, "GET", "/stats")).body)
        return told["requests"].get("/sse", 0), told["cut"]

    arrived, cut = await arrived_and_cut()
    endless = "n=1000000&every_s=0.01"
    for timeout_s in (0.5, 2.0, 8.0):
        late = await client.invoke("shop", "sse", verb="GET", query=endless, timeout_s=timeout_s)
        assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
        if (await arrived_and_cut())[0] > arrived:
            break  # on a busy machine it may come to the app too late

    async def all_are_cut() -> bool:
        now_arrived, now_cut = await arrived_and_cut()
        return now_cut - cut == now_arrived - arrived > 0

    await eventually(all_are_cut)
    arrived, cut = await arrived_and_cut()
    async with asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(client.invoke("shop", "sse", verb="GET", query=endless))

        async def has_arrived() -> bool:
            return (await arrived_and_cut())[0] > arrived

        await eventually(has_arrived)
        leaving.cancel()
    await eventually(all_are_cut)


async def test_deadline_of_invoke_service_is_told_to_an_http_app(client: DaprClient) -> None:
    told = seen(await client.invoke("shop", "echo", timeout_s=60.0))
    left = [value for name, value in told["headers"] if name.lower() == "postern-timeout"]
    assert len(left) == 1
    assert 30_000 < int(left[0]) <= 61_000


async def test_many_calls_at_once_each_get_their_own_answer(client: DaprClient) -> None:
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(client.invoke("shop", "echo", data=b"%d" % n)) for n in range(64)]
    assert [seen(call.result())["body"] for call in calls] == [str(n) for n in range(64)]


async def test_calls_beyond_the_limit_are_refused_with_the_reason(mesh: Standing) -> None:
    own = (("grpc.use_local_subchannel_pool", 1),)  # else they share a connection, which takes fewer calls
    async with AsyncExitStack() as channels:
        opened = [grpc.aio.insecure_channel(f"localhost:{mesh.web.grpc_port}", own) for _ in range(12)]
        clients = [DaprClient(await channels.enter_async_context(channel)) for channel in opened]
        async with asyncio.timeout(50.0), asyncio.TaskGroup() as tasks:
            calls = [
                tasks.create_task(
                    clients[n % 12].invoke("shop", "slow", verb="GET", query="s=100", timeout_s=60.0)
                )
                for n in range(1_024 + 70)
            ]
            refused = [await ended for ended in islice(asyncio.as_completed(calls), 70)]
            for call in calls:
                call.cancel()
    for one in refused:
        assert one.code is grpc.StatusCode.RESOURCE_EXHAUSTED, one
        assert "1024 calls" in one.text


async def test_call_is_one_hop_of_the_callers_trace(mesh: Standing, client: DaprClient) -> None:
    given: Metadata = (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"),)
    told = seen(await client.invoke("shop", "echo", metadata=given))
    (at_app,) = (value for name, value in told["headers"] if name.lower() == "traceparent")
    assert at_app.split("-")[1] == TRACE_ID

    async def spans(sidecar: Sidecar) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((await sidecar.admin(f"/trace?id={TRACE_ID}")).body)["spans"]
        return found

    async def are_there() -> bool:
        return bool(await spans(mesh.web)) and bool(await spans(mesh.shop))

    await eventually(are_there)
    (out,), (into,) = await spans(mesh.web), await spans(mesh.shop)
    assert (out["parentId"], into["parentId"]) == (SPAN_ID, out["id"])


async def test_call_is_logged_once_as_the_app_made_it(mesh: Standing, client: DaprClient) -> None:
    mark = "dapr-api-log-mark"
    await client.invoke("shop", mark, verb="GET", metadata=(("user-agent", mark),))
    await client.get_metadata()

    async def is_logged() -> bool:
        return "/dapr.proto.runtime.v1.Dapr/GetMetadata" in mesh.web.process.output

    await eventually(is_logged)
    lines = [line for line in mesh.web.process.output.splitlines() if "API Called" in line]
    assert any("/dapr.proto.runtime.v1.Dapr/InvokeService" in line for line in lines)
    assert not [line for line in lines if mark in line]


# --- the rest of the service ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "block", "path"),
    [
        ("GetState", "state store", "state/store/key"),
        ("PublishEvent", "publish and subscribe", "publish/orders/new"),
        ("SubscribeTopicEventsAlpha1", "publish and subscribe", "publish/orders/new"),
        ("GetSecret", "secret store", "secrets/store/key"),
        ("StartWorkflowBeta1", "workflows", "workflows/engine/flow/start"),
    ],
)
async def test_method_of_a_building_block_is_unimplemented_at_once_with_the_code_of_http(
    mesh: Standing, client: DaprClient, method: str, block: str, path: str
) -> None:
    began = time.monotonic()
    ended = await client.call(method, timeout_s=60.0)
    assert (ended.code, ended.trailing["postern-error"]) == (grpc.StatusCode.UNIMPLEMENTED, "unsupported")
    assert block in ended.text
    assert time.monotonic() - began < 30.0
    over_http = await request(mesh.web.http_port, "GET", f"/v1.0/{path}")
    told = {"reason": json.loads(over_http.body)["errorCode"], "domain": "dapr.io"}
    assert error_info(ended.trailing["grpc-status-details-bin"]) == (12, ended.text, told)


async def test_unknown_method_is_unimplemented_and_says_what_is_served(client: DaprClient) -> None:
    ended = await client.call("Frobnicate", timeout_s=10.0)
    assert ended.code is grpc.StatusCode.UNIMPLEMENTED
    assert "InvokeService, GetMetadata" in ended.text


async def test_method_that_streams_is_unimplemented_too(mesh: Standing) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{mesh.web.grpc_port}") as channel:
        made: Any = channel.stream_stream  # the stubs want serializers, which it does without
        stream = made("/dapr.proto.runtime.v1.Dapr/SubscribeTopicEventsAlpha1")(timeout=60.0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_metadata_is_that_of_the_http_api(mesh: Standing) -> None:
    async with calling(mesh.shop) as client:
        assert (await client.set_metadata("owner team", "grün")).code is grpc.StatusCode.OK
        assert (await client.set_metadata("", "nothing")).code is grpc.StatusCode.OK
        refused = await client.set_metadata("large", "x" * 4_097)
        assert (refused.code, "4096 bytes" in refused.text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        found = MessageToDict((await client.get_metadata()).response)
    told = json.loads((await request(mesh.shop.http_port, "GET", "/v1.0/metadata")).body)
    assert told["extended"]["owner team"] == "grün"
    assert "" not in told["extended"]
    assert found == {
        "id": told["id"],
        "runtimeVersion": told["runtimeVersion"],
        "extendedMetadata": told["extended"],
        "appConnectionProperties": told["appConnectionProperties"],
        "actorRuntime": {"runtimeStatus": told["actorRuntime"]["runtimeStatus"]},  # false is left out
    }


async def test_service_of_an_app_is_carried_as_before(mesh: Standing, client: DaprClient) -> None:
    assert (await client.get_metadata()).response.id == "web"
    async with grpc.aio.insecure_channel(f"localhost:{mesh.web.grpc_port}") as channel:
        echo = EchoClient(channel, metadata=(("dapr-app-id", "echo"),))
        assert (await echo.unary(EchoRequest(message="one"))).message == "one"


# --- tokens, sockets, the end ----------------------------------------------------------------------------------------------------


async def test_token_is_wanted_and_goes_no_further(mesh: Standing) -> None:
    guarded = await mesh.mesh.sidecar(
        "guarded", env={"DAPR_API_TOKEN": "open-sesame"}, flags=_engine_of(mesh)
    )
    async with calling(guarded) as stranger, calling(guarded, (("dapr-api-token", "open-sesame"),)) as friend:
        for ended in (
            await stranger.invoke("shop", "echo"),
            await stranger.get_metadata(),
            await stranger.call("GetState"),
        ):
            assert ended.code is grpc.StatusCode.UNAUTHENTICATED
        told = seen(await friend.invoke("shop", "echo"))
        assert "open-sesame" not in json.dumps(told)
        assert (await friend.get_metadata()).response.id == "guarded"
    assert await guarded.end() == 0


async def test_server_starts_with_the_first_call_and_leaves_nothing(mesh: Standing) -> None:
    fresh = await mesh.mesh.sidecar("fresh", flags=_engine_of(mesh))
    folder = Path(fresh.admin_socket).parent
    own = Path(fresh.admin_socket).stem

    def sockets() -> set[str]:
        return {path.suffix for path in folder.iterdir() if path.stem == own}

    before = sockets()
    async with calling(fresh) as client:
        async with asyncio.TaskGroup() as tasks:
            first = [tasks.create_task(client.get_metadata()) for _ in range(8)]
        assert {ended.result().response.id for ended in first} == {"fresh"}
        assert seen(await client.invoke("shop", "echo"))["app"] == "shop"
    assert sockets() - before == {".rpc", ".rpcw"}
    for suffix in sockets():
        assert os.stat(folder / f"{own}{suffix}").st_mode & 0o777 == 0o600
    assert await fresh.end() == 0
    assert sockets() == set()


async def test_call_in_flight_ends_well_when_the_sidecar_leaves(mesh: Standing) -> None:
    leaving = await mesh.mesh.sidecar("leaving", flags=_engine_of(mesh))
    async with calling(leaving) as client, asyncio.TaskGroup() as tasks:
        assert seen(await client.invoke("shop", "echo"))["app"] == "shop"
        slow = tasks.create_task(client.invoke("shop", "slow", verb="GET", query="s=1"))

        async def is_there() -> bool:
            stats = (await leaving.status())["engineStats"]
            assert isinstance(stats, dict)
            return int(stats["callsInFlight"]) >= 2

        await eventually(is_there)
        assert (await client.shutdown()).code is grpc.StatusCode.OK
    assert slow.result().code is grpc.StatusCode.OK
    assert await leaving.process.ended() == 0


async def test_shutdown_by_force(mesh: Standing) -> None:
    leaving = await mesh.mesh.sidecar("forced", flags=_engine_of(mesh))
    async with calling(leaving) as client:
        assert (await client.shutdown(force=True)).code is grpc.StatusCode.OK
    assert await leaving.process.ended() == 1


def _engine_of(mesh: Standing) -> tuple[str, str]:
    """The engine of the module's mesh, for another sidecar beside it."""
    return ("--engine", "native" if "engine=native" in mesh.web.process.output else "portable")
