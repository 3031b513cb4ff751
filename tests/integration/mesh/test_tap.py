"""Taps of real sidecars, on both engines: what is seen of calls, what a reader that does not read costs, and that it ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from proxy.wire.http_stream import open_stream
from tests.integration.mesh.standing import NO_SECRET_FOR_WEB, Standing, eventually, invoke, standing
from tests.support.apps import App
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.grpc_app import SERVICE
from tests.support.http_client import connect, request
from tests.support.mesh import Mesh, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest

ASK_S = 10.0
BURST = 3_000  # calls whose events are more than sockets and a tap's queue hold together


@dataclass
class Seen:
    """What a tap has told so far."""

    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The calls that ended."""
        return [event for event in self.events if event["event"] == "end"]

    def to(self, path: str) -> list[dict[str, Any]]:
        """Those of a path."""
        return [call for call in self.calls if call["path"] == path]

    async def of(self, path: str, *events: str) -> list[dict[str, Any]]:
        """What is told of the first call to a path, once it is all that."""

        async def is_all() -> bool:
            return [event["event"] for event in self._first(path)] == list(events)

        await eventually(is_all)
        return self._first(path)

    def _first(self, path: str) -> list[dict[str, Any]]:
        found = [event for event in self.events if event.get("path") == path]
        return [event for event in found if event["id"] == found[0]["id"]]


@asynccontextmanager
async def tapping(sidecar: Sidecar, query: str = "") -> AsyncIterator[Seen]:
    """What a sidecar tells a tap, as it comes."""
    seen = Seen()

    async def read() -> None:
        target = f"/postern/v1/tap{query}"
        async with open_stream(f"unix:{sidecar.admin_socket}", target, timeout_s=ASK_S) as stream:
            assert stream.status == 200
            async for line in stream.lines():
                seen.events.append(json.loads(line))

    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read())
        await eventually(lambda: _is(bool(seen.events)))
        yield seen
        reading.cancel()


async def _is(value: bool) -> bool:
    return value


async def taps_of(sidecar: Sidecar) -> str:
    """The gauge of taps that are open; empty before the first."""
    lines = (await sidecar.admin("/metrics")).body.decode().splitlines()
    return next((line.split()[-1] for line in lines if line.startswith("postern_taps ")), "")


async def shown(seen: Seen, port: int, target: str, path: str, **asked: Any) -> dict[str, Any]:
    """The event of a call, made over and over until it is shown: an engine may still be adding calls up."""

    async def is_shown() -> bool:
        await request(port, asked.get("method", "GET"), target, headers=asked.get("headers", ()))
        return bool(seen.to(path))

    await eventually(is_shown)
    return seen.to(path)[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Standing]:
    """`web` may not call `/secret` of `shop`."""
    files: Path = tmp_path_factory.mktemp("tap")
    rules = files / "rules.yaml"
    rules.write_text(NO_SECRET_FOR_WEB)
    async with standing(files, flags=("--engine", request.param), shop=("--config", str(rules))) as found:
        yield found


async def test_call_is_seen_at_both_sidecars_with_identity_attempt_and_timings(shop: Standing) -> None:
    target = invoke("shop", "/bytes?n=7")
    async with tapping(shop.web) as at_caller, tapping(shop.shop) as at_callee:
        out = await shown(at_caller, shop.web.http_port, target, "/bytes")
        into = await shown(at_callee, shop.web.http_port, target, "/bytes")
    assert (out["direction"], out["src"], out["dst"], out["status"]) == ("outbound", "web", "shop", 200)
    assert (out["verb"], out["bytes_out"], out["cause"], out["made_by"]) == ("GET", 7, None, None)
    assert (out["mtls"], out["peer"]) == (True, "spiffe://public/ns/default/shop")
    assert (into["direction"], into["src"], into["dst"]) == ("inbound", "web", "shop")
    assert (into["mtls"], into["peer"]) == (True, "spiffe://public/ns/default/web")
    assert "rule" in into["decision"]
    assert out["tried"][0]["endpoint"].endswith(f":{shop.shop.peer_port}")
    for event in (out, into):
        parts = {"resolve", "queue", "connect", "upstream_ttfb", "body", "proxy_overhead"}
        assert set(event["timings_us"]) == parts
        assert abs(sum(event["timings_us"].values()) - event["duration_us"]) <= 7
        assert len(event["trace_id"]) == 32
        assert "n=7" not in json.dumps(event)


async def test_request_and_answer_are_seen_while_a_call_hangs_and_its_end_when_its_caller_leaves(
    shop: Standing,
) -> None:
    async with tapping(shop.web) as at_caller, tapping(shop.shop) as at_callee:
        async with connect(shop.web.http_port) as caller:
            await caller.send_head("GET", invoke("shop", "/script?key=hang&codes=0"))
            (request_line,) = await at_caller.of("/script", "request")
            (into,) = await at_callee.of("/script", "request")
            assert (request_line["src"], request_line["dst"], request_line["under_way"]) == (
                "web",
                "shop",
                False,
            )
            assert "rule" in into["decision"]
            assert into["peer"] == "spiffe://public/ns/default/web"
            async with tapping(shop.web) as later:  # it is listed for who comes later
                (listed,) = await later.of("/script", "request")
                assert (listed["under_way"], listed["id"]) == (True, request_line["id"])
        for seen in (at_caller, at_callee):
            _, end = await seen.of("/script", "request", "end")
            assert end["cause"] == "caller-left"


async def test_request_is_seen_while_its_callee_is_looked_for(shop: Standing) -> None:
    async with tapping(shop.web) as tap, connect(shop.web.http_port) as caller:
        await caller.send_head("GET", invoke("nobody", "/looked-for"))
        (line,) = await tap.of("/looked-for", "request")
        assert (line["dst"], line["decision"]) == ("nobody", "")
        _, end = await tap.of("/looked-for", "request", "end")
        assert (end["id"], end["cause"]) == (line["id"], "no-app")
        assert end["timings_us"]["resolve"] > 0


async def test_grpc_stream_is_seen_to_begin_and_be_answered_and_its_end_has_its_code(shop: Standing) -> None:
    async with (
        tapping(shop.web, "?headers=x-note,content-type") as seen,
        grpc.aio.insecure_channel(f"localhost:{shop.web.grpc_port}") as channel,
    ):
        metadata = (("dapr-app-id", "echo"), ("x-note", "kept"), ("authorization", "Bearer c"))
        client = EchoClient(channel, metadata=metadata)
        stream = client.server_stream(EchoRequest(count=1_000_000, delay_s=0.01), timeout_s=60.0)
        async for _ in stream:
            break
        path = f"/{SERVICE}/ServerStream"
        asked, answered = await seen.of(path, "request", "response")
        assert (asked["protocol"], asked["headers"]) == (
            "grpc",
            {"x-note": "kept", "content-type": "application/grpc"},
        )
        assert answered["headers"] == {"content-type": "application/grpc"}
        stream.cancel()
        *_, end = await seen.of(path, "request", "response", "end")
        assert end["cause"] == "caller-left"
        path = f"/{SERVICE}/Slow"

        async def has_ended() -> bool:  # again where a call does not come so far in its time
            with pytest.raises(grpc.aio.AioRpcError):
                await client.unary(EchoRequest(delay_s=60.0), method="Slow", timeout_s=2.0)
            return bool(seen.to(path))

        await eventually(has_ended)
        end, *_ = seen.to(path)
        assert next(event for event in seen.events if event.get("id") == end["id"])["event"] == "request"
        assert end["grpc_code"] in {"DEADLINE_EXCEEDED", None}  # whoever's clock was first


async def test_headers_are_shown_by_name_alone(shop: Standing) -> None:
    async with tapping(shop.web, "?headers=x-plain,content-type") as seen:
        sent = (("X-Plain", "a"), ("X-Other", "b"), ("Authorization", "Bearer c"))
        await request(shop.web.http_port, "GET", invoke("shop", "/bytes?n=1"), headers=sent)
        asked, answered, _ = await seen.of("/bytes", "request", "response", "end")
    assert asked["headers"] == {"x-plain": "a"}
    assert set(answered["headers"]) == {"content-type"}
    refused = await shop.web.admin("/postern/v1/tap?headers=authorization")
    assert (refused.status, b"may hold secrets" in refused.body) == (400, True)


async def test_denied_call_says_by_which_rule_and_by_whom(shop: Standing) -> None:
    target = invoke("shop", "/secret")
    async with tapping(shop.web, "?status=403") as at_caller, tapping(shop.shop, "?status=403") as at_callee:
        out = await shown(at_caller, shop.web.http_port, target, "/secret")
        into = await shown(at_callee, shop.web.http_port, target, "/secret")
    assert (into["cause"], into["made_by"], into["tried"]) == ("denied", "this-proxy", [])
    assert "/secret" in into["decision"]
    assert (out["cause"], out["made_by"]) == ("denied", "peer-proxy")


async def test_filters_leave_out_what_they_do_not_name(shop: Standing) -> None:
    query = "?method=POST&path=/bytes&to=shop&status=2xx"
    async with tapping(shop.web, query) as seen, tapping(shop.web) as all_calls:
        port = shop.web.http_port
        await shown(all_calls, port, invoke("shop", "/healthz"), "/healthz")
        await shown(seen, port, invoke("shop", "/bytes?n=1"), "/bytes", method="POST")
        await request(port, "GET", invoke("shop", "/bytes?n=1"))
        await request(port, "POST", invoke("shop", "/status/500"))
    assert all_calls.to("/healthz")
    assert {(call["verb"], call["path"]) for call in seen.calls} == {("POST", "/bytes")}


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [("?status=9xx", 400, "expected statuses such as 404 or 5xx"), ("?colour=red", 400, "no such filter")],
)
async def test_filter_that_can_not_be_read_is_refused(
    shop: Standing, query: str, status: int, said: str
) -> None:
    answer = await shop.web.admin(f"/postern/v1/tap{query}")
    assert answer.status == status
    assert said in answer.body.decode()


async def test_tap_is_not_part_of_the_apps_own_api(shop: Standing) -> None:
    answer = await request(shop.web.http_port, "GET", "/postern/v1/tap")
    assert answer.status != 200


async def test_reporting_is_as_before_once_the_tap_has_left(shop: Standing) -> None:
    async with tapping(shop.web):
        assert await taps_of(shop.web) == "1.0"

    async def has_left() -> bool:
        return await taps_of(shop.web) == "0.0"

    await eventually(has_left)
    assert (await request(shop.web.http_port, "GET", invoke("shop", "/bytes?n=1"))).status == 200


@pytest.mark.parametrize("engine", ENGINES)
async def test_reader_that_does_not_read_slows_no_call_and_is_told_what_it_missed(
    engine: str, mesh: Mesh, http_app: App
) -> None:
    """Calls without the token are answered at once, so that there are many in little time."""
    flags = ("--engine", engine)
    web = await mesh.sidecar("web", app=http_app, flags=flags, env={"DAPR_API_TOKEN": "sesame"})
    head = f"GET {invoke('shop', '/' + 'x' * 900)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with connect(0, unix=web.admin_socket) as tap, connect(web.http_port) as caller:
        await tap.send_head("GET", "/postern/v1/tap?max-rps=1000000")
        await tap.read_response_head()

        async def is_seen() -> bool:
            return await taps_of(web) == "1.0"

        await eventually(is_seen)
        dropped = 0.0
        made = 0
        async with asyncio.timeout(60.0):
            while not dropped:
                for _ in range(BURST // 10):
                    await caller.send(head)
                    assert (await caller.read_response("GET")).status == 401
                    made += 1
                dropped = await _dropped(web)
        events: list[dict[str, Any]] = []
        text = b""
        is_told = False
        async with asyncio.timeout(60.0):
            while not is_told:
                *lines, text = (text + await tap.reader.read(65_536)).split(b"\n")
                whole = [line for line in lines if line.endswith(b"}") and line.startswith(b"{")]
                fresh = [json.loads(line) for line in whole]
                events += fresh
                is_told = any(event["event"] == "skipped" for event in fresh)
    skipped = next(event for event in events if event["event"] == "skipped")
    assert skipped["reasons"]["queue-full"] > 0
    assert made >= len(events) - 2


async def _dropped(sidecar: Sidecar) -> float:
    lines = (await sidecar.admin("/metrics")).body.decode().splitlines()
    wanted = 'postern_tap_dropped_total{reason="queue-full"}'
    return next((float(line.split()[-1]) for line in lines if line.startswith(wanted)), 0.0)


@pytest.mark.parametrize("engine", ENGINES)
async def test_tap_ends_with_its_sidecar(engine: str, mesh: Mesh, http_app: App) -> None:
    web = await mesh.sidecar("web", app=http_app, flags=("--engine", engine))
    async with connect(0, unix=web.admin_socket) as tap:
        await tap.send_head("GET", "/postern/v1/tap")
        await tap.read_response_head()
        assert await web.end() == 0
        async with asyncio.timeout(10.0):
            await tap.reader.read()
