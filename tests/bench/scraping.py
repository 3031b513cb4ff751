"""Reads what processes say of themselves: a sidecar's metrics, a process's memory."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.http_client import request
from tests.support.mesh import Sidecar
from tests.support.processes import Process

_SERIES: Final = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_SCRAPE_S: Final = 1.0
_RESET_PEAK: Final = "5"  # proc(5), clear_refs


@dataclass(frozen=True, slots=True)
class Metrics:
    """One scrape: name, labels as text, and value of each series."""

    series: Sequence[tuple[str, str, float]]

    def total(self, name: str, label: str = "") -> float:
        """The sum of a metric's series whose labels hold a text such as `kind="span"`; 0 without any."""
        return sum(value for found, labels, value in self.series if found == name and label in labels)


async def scrape(sidecar: Sidecar) -> Metrics:
    """Ask a sidecar for its metrics."""
    body = (await request(sidecar.metrics_port, "GET", "/metrics")).body.decode()
    return Metrics([(name, labels, float(value)) for name, labels, value in _SERIES.findall(body)])


@asynccontextmanager
async def scraped(sidecars: Sequence[Sidecar]) -> AsyncIterator[None]:
    """Ask them for their metrics every second meanwhile, as the densest of scrapers do."""

    async def ask() -> None:
        while True:
            for sidecar in sidecars:
                await request(sidecar.metrics_port, "GET", "/metrics")
            await asyncio.sleep(_SCRAPE_S)

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ask())
        try:
            yield
        finally:
            asking.cancel()


def reset_peak(process: Process) -> None:
    """Have the process's peak memory begin anew. Of one that holds keys only root may; else its start is part of the peak."""
    with suppress(PermissionError):
        Path(f"/proc/{process.pid}/clear_refs").write_text(_RESET_PEAK)


def peak_mb(process: Process) -> float:
    """The most that was resident since `reset_peak`, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(found[1]) / 1024 if found else process.rss_mb()
