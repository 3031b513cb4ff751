"""The order in which a sidecar ends, with parts that write down what they are told."""

import asyncio
from typing import Any, cast

import pytest

from proxy.contract.engine import EngineStats
from proxy.control.shutdown import Shutdown
from proxy.settings.parsing import parse


class Parts:
    """All that is led through the shutdown. `told`: in which order; `in_flight`: calls that none of them waits for."""

    def __init__(self, *, in_flight: int = 0, signalled: bool = False, supervised: bool = False) -> None:
        self.told: list[Any] = []
        self.by_signal = signalled
        self.supervised = supervised
        self.healthy: bool | None = None
        self.local = ("http", "grpc")
        self._in_flight = in_flight

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **named: self.told.append((name, *arguments, *named.values()))

    def stats(self) -> EngineStats:
        return EngineStats(0, self._in_flight, 0, 0)

    async def withdraw(self) -> None:
        self.told.append(("withdraw",))

    async def app_ended(self, within_s: float) -> bool:
        self.told.append(("app_ended", within_s))
        await asyncio.sleep(0)
        self.healthy = False
        return False

    async def drain(self, listeners: tuple[str, ...], within_s: float) -> int:
        self.told.append(("drain", listeners, within_s))
        return self._in_flight


async def leave(parts: Parts, *flags: str, profile: str = "production") -> int:
    settings = parse(["--app-id", "web", "--profile", profile, *flags], {"POSTERN_HOME": "/nowhere"})
    names = ("lifetime", "lines", "health", "announcing", "app", "engine", "listening")
    each = cast("Any", dict.fromkeys(names, parts))
    async with asyncio.timeout(10):
        return await Shutdown(settings=settings, end_streams=parts.end_streams, **each).leave("SIGTERM")


async def test_callers_are_gone_before_the_app_ends_and_outbound_is_last() -> None:
    parts = Parts(supervised=True)
    assert await leave(parts) == 0
    assert parts.told == [
        ("leaving", "SIGTERM"),
        ("leave",),
        ("end_streams",),
        ("withdraw",),
        ("app_ended", 2.0),
        ("drain", ("peer",), 5.0),
        ("drained",),
        ("app_ended", 10.0),
        ("drain", ("http", "grpc"), 5.0),
        ("stopped",),
    ]


async def test_calls_that_were_cut_are_counted_over_all_listeners() -> None:
    parts = Parts(in_flight=2)
    assert await leave(parts, "--dapr-graceful-shutdown-seconds", "3") == 4
    assert parts.told[-1] == ("cut", 4, 3.0)


@pytest.mark.parametrize(("in_flight", "drain_s"), [(0, 0.0), (1, 2.0)])
async def test_daprd_serves_on_for_calls_in_flight_alone(in_flight: int, drain_s: float) -> None:
    parts = Parts(in_flight=in_flight)
    await leave(parts, profile="daprd")
    assert [one for one in parts.told if one[0] == "app_ended"] == [("app_ended", drain_s)]


async def test_blocked_shutdown_goes_on_once_the_app_is_unhealthy() -> None:
    parts = Parts(signalled=True)
    await leave(parts, "--dapr-block-shutdown-duration", "60s")
    begun = [name for name, *_ in parts.told]
    assert begun[:6] == ["leaving", "leave", "delaying", "app_ended", "delayed", "end_streams"]
    assert parts.told[4] == ("delayed", False)
