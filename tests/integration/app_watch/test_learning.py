"""Which services an app serves: asked by server reflection, v1 before v1alpha."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_reflection.v1alpha import reflection as real_reflection

from proxy.control.app_watch import AppWatch
from proxy.settings.parsing import parse
from tests.integration.app_watch.servers import V1, V1ALPHA, Script, grpc_server, listed, reflection

NONE = grpc.StatusCode.UNIMPLEMENTED


class Watch:
    """A watch that runs; `learnt` waits for the next time that services are told."""

    def __init__(self, port: int, *flags: str, profile: str = "dev", protocol: str = "grpc") -> None:
        given = ("--app-id", "web", "--app-port", str(port), "--app-protocol", protocol)
        settings = parse([*given, "--profile", profile, *flags], {"POSTERN_HOME": "/nowhere"})
        self._told: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
        self.watch = AppWatch(settings, self._changed)

    def _changed(self) -> None:
        self._told.put_nowait(self.watch.services)

    async def run(self) -> None:
        await self.watch.run()

    async def opened(self) -> None:
        await self._told.get()
        assert self.watch.is_open

    async def learnt(self) -> tuple[str, ...]:
        while not (services := await self._told.get()):
            pass
        return services


@asynccontextmanager
async def watching(watch: Watch) -> AsyncIterator[Watch]:
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watch.run())
        yield watch
        task.cancel()


async def test_services_of_a_real_server_are_learnt() -> None:
    names = ("shop.Cart", "shop.Order", real_reflection.SERVICE_NAME)

    def register(server: grpc.aio.Server) -> None:
        real_reflection.enable_server_reflection(names, server)

    async with grpc_server(register=register) as port, watching(Watch(port)) as watch:
        assert await watch.learnt() == ("shop.Cart", "shop.Order")


@pytest.mark.parametrize("version", [V1, V1ALPHA])
async def test_either_version_is_understood(version: str) -> None:
    script = Script(listed("b.B", "a.A", version, "grpc.health.v1.Health", "dapr.proto.X"))
    async with grpc_server(reflection(version, script)) as port, watching(Watch(port)) as watch:
        assert await watch.learnt() == ("a.A", "b.B")


async def test_older_version_is_not_asked_where_the_newer_answers() -> None:
    old = Script(listed("old.O"))
    async with (
        grpc_server(reflection(V1, Script(listed("new.N"))), reflection(V1ALPHA, old)) as port,
        watching(Watch(port)) as watch,
    ):
        assert await watch.learnt() == ("new.N",)
        assert old.asked == 0


async def test_app_without_reflection_is_left_alone() -> None:
    async with grpc_server() as port, watching(Watch(port)) as watch:
        while watch.watch.learns:  # noqa: ASYNC110 - nobody is told of it
            await asyncio.sleep(0.01)
        assert watch.watch.services == ()


@pytest.mark.parametrize("first", [b"\x33", b"\x32\x05ab", listed(), listed(V1), grpc.StatusCode.UNAVAILABLE])
async def test_answer_that_names_nobody_is_asked_for_again(first: bytes | grpc.StatusCode) -> None:
    script = Script(first, listed("a.A"))
    async with grpc_server(reflection(V1, script)) as port, watching(Watch(port)) as watch:
        assert await watch.learnt() == ("a.A",)
        assert script.asked == 2


@pytest.mark.parametrize(
    ("flags", "profile", "protocol", "services"),
    [
        (("--grpc-service", "own.S"), "dev", "grpc", ("own.S",)),
        ((), "production", "grpc", ()),
        ((), "dev", "h2c", ()),
    ],
)
async def test_nobody_is_asked_where_learning_has_no_place(
    flags: tuple[str, ...], profile: str, protocol: str, services: tuple[str, ...]
) -> None:
    script = Script(listed("a.A"))
    async with grpc_server(reflection(V1, script)) as port:
        async with watching(Watch(port, *flags, profile=profile, protocol=protocol)) as watch:
            await watch.opened()
        assert (watch.watch.learns, watch.watch.services, script.asked) == (False, services, 0)
