"""Binding the ports of a sidecar."""

import asyncio
import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxy.api.server import LocalHttp
from proxy.contract.engine import Engine, ListenerSpec
from proxy.control import listening as listening_module
from proxy.control.listening import Listening
from proxy.errors import ListenError
from proxy.settings.parsing import parse

TAKEN = os.strerror(errno.EADDRINUSE)


class Busy:
    """An engine whose ports are taken at first."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked: list[str] = []

    async def listen(self, spec: ListenerSpec) -> str:
        """See Engine."""
        self.asked.append(spec.address)
        self.failures -= 1
        if self.failures >= 0:
            raise ListenError(spec.name, spec.address, TAKEN)
        return spec.address


async def bound(root: Path, engine: Busy, profile: str) -> Listening:
    """What `engine` let a sidecar bind."""
    flags = ("--dapr-http-port=7001", "--dapr-grpc-port=7002", "--dapr-internal-grpc-port=7003")
    others = ("--enable-metrics=false", f"--profile={profile}", "--dapr-listen-addresses=127.0.0.1")
    settings = parse(["--app-id", "web", *flags, *others], {"POSTERN_HOME": str(root)})
    authorizers = SimpleNamespace(authorize=None)
    control: Any = SimpleNamespace(
        decide_outbound=None, decide_inbound=None, for_pages=None, authorizers=authorizers
    )
    found = Listening(settings, cast("Engine", engine), control, has_metrics=False)
    unused = cast("LocalHttp", None)
    async with asyncio.timeout(20.0):
        await found.bind(unused, unused)
    return found


async def test_port_that_is_taken_is_waited_for_as_daprd_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Busy(failures=3)
    found = await bound(tmp_path, engine, "daprd")
    assert (found.ports["http"], found.ports["grpc"], found.ports["peer"]) == (7001, 7002, 7003)
    assert engine.asked[:4] == ["127.0.0.1:7001"] * 4
    assert [record.message for record in caplog.records].count("a port is taken: waiting for it") == 1


async def test_port_that_stays_taken_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening_module, "_PATIENCE_S", 0.0)
    with pytest.raises(ListenError, match="--dapr-http-port moves it"):
        await bound(tmp_path, Busy(failures=9), "daprd")


async def test_other_profiles_wait_for_no_port(tmp_path: Path) -> None:
    engine = Busy(failures=1)
    with pytest.raises(ListenError):
        await bound(tmp_path, engine, "production")
    assert engine.asked == ["127.0.0.1:7001"]
