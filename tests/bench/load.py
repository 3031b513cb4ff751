"""Runs h2load for a bounded time and reads its per-request log into numbers."""

import asyncio
import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.cases import Case
from tests.bench.errors import LoadError
from tests.support.processes import Processes

_GRACE_S: Final = 20.0
_FINISHED: Final = re.compile(r"finished in ([\d.]+)(us|ms|s),")
_REQUESTS: Final = re.compile(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
_DATA: Final = re.compile(r"\((\d+)\) data$", re.MULTILINE)
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One window of load; latencies in milliseconds."""

    calls: int
    calls_per_s: float
    mean_ms: float
    p50_ms: float
    p99_ms: float


async def run_load(processes: Processes, case: Case, port: int, message: Path, window_s: float) -> Load:
    """Load a port for `window_s`. Raises LoadError when a call fails or comes back without its body."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log = Path(folder) / "calls.tsv"
        duration = f"{round(window_s * 1000)}ms"
        target = f"http://127.0.0.1:{port}{case.path}"
        command = ["h2load", "-D", duration, f"--log-file={log}", *case.load_flags(message), target]
        process = await asyncio.to_thread(processes.start, command, name="h2load")
        code = await process.ended(timeout_s=window_s + _GRACE_S)
        if code:
            raise LoadError(f"h2load ended with code {code}: {process.tail}")
        latencies_us = await asyncio.to_thread(_latencies_us, log)
    return summarise(process.output, latencies_us, case)


def summarise(output: str, latencies_us: Sequence[int], case: Case) -> Load:
    """The numbers of a window. gRPC errors have status 200 and no body, so the bytes of the bodies are counted too. Raises LoadError."""
    finished, requests, data = _FINISHED.search(output), _REQUESTS.search(output), _DATA.search(output)
    if not (finished and requests and data):
        raise LoadError(f"h2load said something else: {output[-500:]}")
    calls, failures = int(requests[1]), sum(int(requests[index]) for index in (2, 3, 4))
    if failures or not calls or len(latencies_us) < calls * 0.9:
        raise LoadError(f"{calls} calls succeeded, {failures} failed, {len(latencies_us)} were logged")
    if int(data[1]) < calls * len(case.answer):
        raise LoadError(f"{calls} calls brought {data[1]} bytes instead of {len(case.answer)} each")
    ordered = sorted(latencies_us)
    return Load(
        calls=calls,
        calls_per_s=calls / (float(finished[1]) * _SECONDS[finished[2]]),
        mean_ms=sum(ordered) / len(ordered) / 1000,
        p50_ms=percentile(ordered, 0.50) / 1000,
        p99_ms=percentile(ordered, 0.99) / 1000,
    )


def percentile(ordered: Sequence[int], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (nearest rank)."""
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)])


def _latencies_us(log: Path) -> list[int]:
    """The third column, microseconds until the end of the response, of calls that had a 2xx status."""
    with log.open() as lines:
        rows = (line.split("\t") for line in lines)
        return [int(row[2]) for row in rows if row[1].startswith("2")]
