"""Is the app there, and is it well: probes of real HTTP and gRPC servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from proxy.api.server import LocalHttp, LocalRequest
from proxy.control.app_watch import AppWatch
from proxy.settings.parsing import parse
from proxy.settings.values import AppHealth, Settings
from proxy.wire.http_client import LocalResponse
from sentry.issuer import dump_key
from tests.integration.app_watch.servers import Script, grpc_server, health, tls_server
from tests.support.ports import free_port
from tests.unit.sentry.forge import KEY, Forgery

FAST = AppHealth(path="/up", interval_s=0.001, timeout_s=2.0, threshold=3)
LEAF = Forgery(dns=("localhost",)).sign().public_bytes(Encoding.PEM)
OK = b""
DOWN = grpc.StatusCode.UNAVAILABLE


def settings_of(port: int, protocol: str = "http", probes: AppHealth | None = FAST) -> Settings:
    flags = ("--app-id", "web", "--app-port", str(port), "--app-protocol", protocol)
    made = parse([*flags, "--profile", "production"], {"POSTERN_HOME": "/nowhere"})
    return replace(made, app_health=probes)


@asynccontextmanager
async def watching(
    settings: Settings, script: Script | None = None, probed: list[str] | None = None
) -> AsyncIterator[asyncio.Queue[Any]]:
    """Each change as (open, healthy, questions asked until then). probed: takes the status of each probe."""
    changes: asyncio.Queue[Any] = asyncio.Queue()

    def changed() -> None:
        changes.put_nowait((watch.is_open, watch.healthy, script.asked if script else 0))

    told = probed if probed is not None else []
    watch = AppWatch(settings, changed, probed=lambda status, took_ms: told.append(f"{status} {took_ms > 0}"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watch.run())
        yield changes
        task.cancel()


@asynccontextmanager
async def http_app(script: Script, address: str = "127.0.0.1:0") -> AsyncIterator[int]:
    """An app that answers `/up` with the script's statuses."""

    async def answer(request: LocalRequest) -> LocalResponse:
        assert (request.method, request.target) == ("GET", "/up")
        status = script.next()
        if callable(status):
            status = await status()
        where = ((b"location", b"/elsewhere"),) if status == 302 else ()
        return LocalResponse(status, where, b"" if status == 204 else b"so it is")

    server = LocalHttp(answer)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(server.run())
        yield int((await server.serve(address)).rpartition(":")[2])
        task.cancel()


async def turns(changes: asyncio.Queue[Any], count: int) -> list[tuple[bool, int]]:
    """The first turns of health, and how many probes it took to each; the opening is left out."""
    assert (await changes.get())[:2] == (True, False)
    return [(await changes.get())[1:] for _ in range(count)]


@pytest.mark.parametrize("good", [200, 204, 299])
async def test_one_good_probe_makes_the_app_healthy(good: int) -> None:
    script = Script(500, 503, good)
    async with http_app(script) as port, watching(settings_of(port), script) as changes:
        assert await turns(changes, 1) == [(True, 3)]


@pytest.mark.parametrize("bad", [302, 404, 500])
async def test_only_failures_in_a_row_make_it_unhealthy(bad: int) -> None:
    script = Script(200, bad, bad, 200, bad, bad, bad, 200)
    async with http_app(script) as port, watching(settings_of(port), script) as changes:
        assert await turns(changes, 3) == [(True, 1), (False, 7), (True, 8)]


@asynccontextmanager
async def h2c_app(script: Script) -> AsyncIterator[int]:
    """An app that speaks HTTP/2 by prior knowledge alone, and answers `/up` with the script's statuses."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        peer.initiate_connection()
        with suppress(ConnectionError):
            while True:
                writer.write(peer.data_to_send())
                data = await reader.read(65_536)
                if not data:
                    break
                for event in peer.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        assert (b":path", b"/up") in event.headers
                        peer.send_headers(event.stream_id, [(":status", str(script.next()))], end_stream=True)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_app_of_http2_alone_is_probed_by_http2() -> None:
    script = Script(503, 204, 500, 404, 302, 200)
    async with h2c_app(script) as port, watching(settings_of(port, "h2c"), script) as changes:
        assert await turns(changes, 3) == [(True, 2), (False, 5), (True, 6)]


async def test_each_probe_is_told_with_its_status() -> None:
    script, probed = Script(503, 200), list[str]()
    async with http_app(script) as port, watching(settings_of(port), script, probed) as changes:
        await turns(changes, 1)
    assert probed[:2] == ["503 True", "200 True"]


async def test_probe_that_takes_too_long_is_a_failure() -> None:
    script = Script(200, asyncio.Event().wait)
    probes = replace(FAST, timeout_s=0.5, threshold=2)
    async with (
        http_app(script) as port,
        watching(settings_of(port, probes=probes), script) as changes,
    ):
        assert [turn[0] for turn in await turns(changes, 2)] == [True, False]


async def test_app_that_goes_away_is_unhealthy_and_healthy_when_it_is_back() -> None:
    async with http_app(Script(200)) as port:
        settings = settings_of(port)
    async with watching(settings) as changes:
        async with http_app(Script(200), f"127.0.0.1:{port}"):
            assert (await changes.get())[:2] == (True, False)
            assert (await changes.get())[:2] == (True, True)
        assert (await changes.get())[:2] == (True, False)
        async with http_app(Script(200), f"127.0.0.1:{port}"):
            assert (await changes.get())[:2] == (True, True)


async def test_grpc_app_is_asked_for_its_health() -> None:
    script = Script(OK, DOWN, DOWN, OK, DOWN, DOWN, DOWN, OK)
    async with (
        grpc_server(health(script)) as port,
        watching(settings_of(port, "grpc"), script) as changes,
    ):
        assert await turns(changes, 3) == [(True, 1), (False, 7), (True, 8)]


async def test_grpc_app_without_a_health_check_stays_unhealthy() -> None:
    script = Script(grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNIMPLEMENTED, OK)
    async with (
        grpc_server(health(script)) as port,
        watching(settings_of(port, "grpc"), script) as changes,
    ):
        assert await turns(changes, 1) == [(True, 3)]


async def test_grpc_probe_that_takes_too_long_is_a_failure() -> None:
    async def never() -> bytes:
        await asyncio.Event().wait()
        return OK

    script = Script(OK, never)
    probes = replace(FAST, timeout_s=1.0, threshold=1)
    async with (
        grpc_server(health(script)) as port,
        watching(settings_of(port, "grpc", probes), script) as changes,
    ):
        assert [turn[0] for turn in await turns(changes, 2)] == [True, False]


async def test_app_behind_tls_is_probed_through_it(tmp_path: Path) -> None:
    context = tls_server(tmp_path, LEAF, dump_key(KEY))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with watching(settings_of(port, "https")) as changes:
            assert [turn[0] for turn in await turns(changes, 1)] == [True]


async def test_grpc_app_behind_tls_is_probed_through_it() -> None:
    credentials = grpc.ssl_server_credentials([(dump_key(KEY), LEAF)])
    script = Script(OK)
    async with (
        grpc_server(health(script), credentials=credentials) as port,
        watching(settings_of(port, "grpcs"), script) as changes,
    ):
        assert await turns(changes, 1) == [(True, 1)]


async def test_app_that_is_not_there_yet_is_waited_for() -> None:
    port = free_port()
    async with watching(settings_of(port, probes=None)) as changes:
        assert changes.empty()
        async with http_app(Script(200), f"127.0.0.1:{port}"):
            assert (await changes.get())[:2] == (True, None)
