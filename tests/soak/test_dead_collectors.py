"""A collector that is dead, in each way that one can be, costs its spans and nothing else: not memory without end, not time of calls.

The short form runs with all tests. Times are compared with those of a sidecar whose collector lives, called in turn with the other.
"""

import asyncio
import re
import socket
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

import pytest

from tests.integration.mesh.standing import eventually, invoke
from tests.integration.telemetry.collector import collecting
from tests.support.apps import App
from tests.support.engines import ENGINES
from tests.support.http_client import Connection, connect, request
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_port

Dead = Literal["closed", "silent", "failing"]
_TRACED: Final = """
kind: Configuration
spec:
  tracing: {samplingRate: "1", zipkin: {endpointAddress: "http://127.0.0.1:%d/api/v2/spans"}}
"""
_QUEUE: Final = {"OTEL_BSP_MAX_QUEUE_SIZE": "256", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "64"}
_FAILED: Final = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
_CALLERS: Final = 4
_GROWN_MB: Final = (
    16.0  # from the middle to the end: the spans in memory, 4,096 of a few KB in the portable engine
)
_SLOWER: Final = 2.0  # times the median: calls that waited for a collector would take seconds


@asynccontextmanager
async def dead(kind: Dead) -> AsyncIterator[int]:
    """The port of a collector that nobody listens on, that never answers, or that answers 500."""
    if kind == "failing":
        async with collecting([_FAILED] * 1_000_000) as collector:
            yield collector.port
    elif kind == "silent":
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield silent.getsockname()[1]
    else:
        yield free_port()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["closed", "silent", "failing"])
@pytest.mark.parametrize(
    "rounds", [150, pytest.param(25_000, marks=[pytest.mark.soak, pytest.mark.timeout(1_800)])]
)
@pytest.mark.timeout(240)
async def test_dead_collector_costs_its_spans_alone(
    kind: Dead, rounds: int, engine: str, mesh: Mesh, http_app: App
) -> None:
    async with dead(kind) as port, collecting() as living:
        flags = ("--engine", engine, "--config")
        await mesh.sidecar("shop", app=http_app, flags=flags[:2])
        configs = [
            mesh.write(f"{name}.yaml", _TRACED % of) for name, of in (("lost", port), ("kept", living.port))
        ]
        lost = await mesh.sidecar("lost", flags=(*flags, str(configs[0])), env=_QUEUE)
        kept = await mesh.sidecar("kept", flags=(*flags, str(configs[1])), env=_QUEUE)
        await _times(rounds // 10, lost, kept)
        first = await _times(rounds, lost, kept)
        middle_mb = lost.process.rss_mb()
        second = await _times(rounds, lost, kept)
        grown_mb = lost.process.rss_mb() - middle_mb
        assert grown_mb < _GROWN_MB
        ours, theirs = (statistics.median(one + other) for one, other in zip(first, second, strict=True))
        assert ours < theirs * _SLOWER, f"{ours * 1e3:.2f} ms beside {theirs * 1e3:.2f} ms"
        made = _CALLERS * (rounds // 10 + 2 * rounds)

        async def all_are_counted() -> bool:
            dropped, queued = await _spans(lost)
            return dropped > 0 and dropped + queued == made

        await eventually(all_are_counted, within_s=60.0)


async def _times(rounds: int, *sidecars: Sidecar) -> list[list[float]]:
    """Seconds of each call, by sidecar: some callers, each of which calls them in turn."""
    taken: list[list[float]] = [[] for _ in sidecars]

    async def call() -> None:
        async with connect(sidecars[0].http_port) as first, connect(sidecars[1].http_port) as second:
            for _ in range(rounds):
                for connection, into in zip((first, second), taken, strict=True):
                    into.append(await _timed(connection))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CALLERS):
            tasks.create_task(call())
    return taken


async def _timed(connection: Connection) -> float:
    began = time.perf_counter()
    await connection.send_head("GET", invoke("shop", "/echo"), [])
    answer = await connection.read_response("GET")
    assert answer.status == 200
    return time.perf_counter() - began


async def _spans(sidecar: Sidecar) -> tuple[float, float]:
    """How many were dropped, and how many wait."""
    text = (await request(sidecar.metrics_port, "GET", "/metrics")).body.decode()
    return (
        sum(
            float(found)
            for found in re.findall(r"^postern_spans_dropped_total\{.*\} (\S+)$", text, re.MULTILINE)
        ),
        sum(
            float(found)
            for found in re.findall(r"^postern_span_queue_length\{.*\} (\S+)$", text, re.MULTILINE)
        ),
    )
