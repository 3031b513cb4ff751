"""The apps under test as processes: where they listen, and how to start them."""

import json
from dataclasses import dataclass
from typing import Literal

from tests.support.processes import Process, Processes

Protocol = Literal["http", "grpc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A running app."""

    name: str
    protocol: Protocol
    port: int
    process: Process


async def start_http_app(processes: Processes, name: str = "app", *flags: str) -> App:
    """Start `tests.support.http_app`; returns once it listens."""
    return await _start(processes, name, "http", flags)


async def start_grpc_app(processes: Processes, name: str = "app", *flags: str) -> App:
    """Start `tests.support.grpc_app`; returns once it listens."""
    return await _start(processes, name, "grpc", flags)


async def _start(processes: Processes, name: str, protocol: Protocol, flags: tuple[str, ...]) -> App:
    module = f"tests.support.{protocol}_app"
    process = processes.start_python(module, "--name", name, *flags, name=f"{protocol} app {name}")
    found = await process.line(r'^\{"port": ')
    return App(name=name, protocol=protocol, port=int(json.loads(found.string)["port"]), process=process)
