"""The start-up call that daprd makes to an HTTP app: once, when the app is healthy for the first time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.api.server import LocalHttp, LocalRequest
from proxy.control.app_watch import AppWatch
from proxy.control.not_ready import reasons
from proxy.settings.parsing import parse
from proxy.settings.values import Profile
from proxy.wire.http_client import LocalResponse

PROBES = ("--enable-app-health-check", "--app-health-check-path", "/up", "--app-health-probe-interval", "1")


@asynccontextmanager
async def asked(
    *flags: str, profile: Profile = "daprd", is_up: bool = True, status: int = 404
) -> AsyncIterator[asyncio.Queue[LocalRequest]]:
    """Every request that an app gets whose health is `is_up`, and that knows no configuration."""
    requests: asyncio.Queue[LocalRequest] = asyncio.Queue()

    async def answer(request: LocalRequest) -> LocalResponse:
        requests.put_nowait(request)
        return LocalResponse((200 if is_up else 503) if request.target == "/up" else status)

    server = LocalHttp(answer)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(server.run())]
        port = (await server.serve("127.0.0.1:0")).rpartition(":")[2]
        arguments = ["--app-id", "web", "--app-port", port, *flags]
        env = {"POSTERN_HOME": "/nowhere", "APP_API_TOKEN": "secret"}
        watch = AppWatch(parse(arguments, env, profile_hint=profile), lambda: None)
        running.append(tasks.create_task(watch.run()))
        yield requests
        for task in running:
            task.cancel()


async def test_app_is_asked_once_with_its_id_and_token() -> None:
    async with asked() as requests:
        request = await requests.get()
        assert (request.method, request.target) == ("GET", "/dapr/config")
        wanted = {b"dapr-app-id": b"web", b"content-type": b"application/json", b"dapr-api-token": b"secret"}
        assert wanted.items() <= dict(request.headers).items()


@pytest.mark.parametrize("flags", [(), PROBES])
async def test_answer_is_waited_for_where_no_health_is_probed(flags: tuple[str, ...]) -> None:
    """As daprd, which asks on its way to readiness then, and beside it otherwise."""
    release, told = asyncio.Event(), asyncio.Queue[bool]()

    async def answer(request: LocalRequest) -> LocalResponse:
        if request.target == "/dapr/config":
            await release.wait()
        return LocalResponse(200)

    server = LocalHttp(answer)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(server.run())]
        port = (await server.serve("127.0.0.1:0")).rpartition(":")[2]
        settings = parse(
            ["--app-id", "web", "--app-port", port, *flags],
            {"POSTERN_HOME": "/nowhere"},
            profile_hint="daprd",
        )
        watch = AppWatch(settings, lambda: told.put_nowait(watch.awaits_config))
        running.append(tasks.create_task(watch.run()))
        assert await told.get() is (not flags)  # it is open
        if not flags:
            assert reasons(["app"], settings, {}, watch) == [
                f"app: it has not answered GET 127.0.0.1:{port}/dapr/config yet; --disable-init-endpoints config starts without"
            ]
        release.set()
        assert await told.get() is False
        for task in running:
            task.cancel()


async def test_app_is_asked_after_its_first_good_probe() -> None:
    async with asked(*PROBES) as requests:
        assert [(await requests.get()).target for _ in range(3)] == ["/up", "/dapr/config", "/up"]


async def test_app_that_is_not_healthy_is_not_asked() -> None:
    async with asked(*PROBES, is_up=False) as requests:
        assert [(await requests.get()).target for _ in range(2)] == ["/up", "/up"]


@pytest.mark.parametrize(
    ("flags", "profile"),
    [
        (("--disable-init-endpoints", "config"), "daprd"),
        (("--disable-init-endpoints", "config,subscribe"), "daprd"),
        ((), "dev"),
        ((), "production"),
        (("--app-protocol", "grpc"), "daprd"),
    ],
)
def test_app_is_asked_by_daprd_alone_and_not_where_the_flag_says_so(
    flags: tuple[str, ...], profile: Profile
) -> None:
    arguments = ["--app-id", "web", "--app-port", "1", *flags]
    assert not parse(arguments, {"POSTERN_HOME": "/nowhere"}, profile_hint=profile).asks_config
    assert parse(arguments[:4], {"POSTERN_HOME": "/nowhere"}, profile_hint="daprd").asks_config
