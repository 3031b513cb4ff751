"""Loads a port, by h2load or by the generator of our own, and reads what it says into numbers."""

import asyncio
import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from tests.bench.cases import Case
from tests.bench.errors import LoadError
from tests.support.processes import Process, Processes

_GRACE_S: Final = 20.0
_WHOLE_S: Final = 120.0  # for a window that ends after so many calls
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How much load: by time, or so many `calls` where that is given; `first`: the number of the first (`Case.paths`)."""

    seconds: float
    calls: int | None = None
    first: int = 0


async def run_load(processes: Processes, case: Case, port: int, message: Path, window: Window) -> Load:
    """Load a port. Raises LoadError when a call fails or comes back without its body."""
    if case.is_own:
        return await _run_own(processes, case, port, window)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log = Path(folder) / "calls.tsv"
        amount = (
            ["-D", f"{round(window.seconds * 1000)}ms"] if window.calls is None else ["-n", str(window.calls)]
        )
        target = f"http://127.0.0.1:{port}{case.path}"
        command = ["h2load", *amount, f"--log-file={log}", *case.load_flags(message), target]
        process = await asyncio.to_thread(processes.start, command, name="h2load")
        code = await process.ended(timeout_s=_GRACE_S + (_WHOLE_S if window.calls else window.seconds))
        if code:
            raise LoadError(f"h2load ended with code {code}: {process.tail}")
        latencies_us = await asyncio.to_thread(_latencies_us, log)
    return summarise(process.output, latencies_us, case)


async def _run_own(processes: Processes, case: Case, port: int, window: Window) -> Load:
    amount = ("--calls", str(window.calls or case.connections))
    paths = ("--paths", str(case.paths), "--first", str(window.first))
    process = await _start_caller(processes, case, port, (*amount, *paths))
    code = await process.ended(timeout_s=_WHOLE_S + _GRACE_S)
    if code:
        raise LoadError(process.tail)
    return msgspec.json.decode(process.output, type=Load)


async def hold_idle(processes: Processes, case: Case, port: int) -> Process:
    """Open the case's idle connections, make one call on each, and hold them until the process is ended."""
    idle = Case(
        name="idle", protocol=case.idle_protocol, connections=case.idle, callee=f"bench-{case.idle_protocol}"
    )
    process = await _start_caller(processes, idle, port, ("--each", "1", "--hold"))
    await process.line(r"^\{", timeout_s=_WHOLE_S)
    return process


async def _start_caller(processes: Processes, case: Case, port: int, flags: tuple[str, ...]) -> Process:
    sizes = ("--connections", str(case.connections), "--streams", str(case.streams))
    names = (flag for app_id in case.app_ids for flag in ("--app-id", app_id))
    arguments = ("--port", str(port), "--protocol", case.protocol, *sizes, *names, *flags)
    return await asyncio.to_thread(processes.start_python, "tests.bench.caller", *arguments, name="caller")


def summarise(output: str, latencies_us: Sequence[int], case: Case) -> Load:
    """The numbers of a window. gRPC errors have status 200 and no body, so the bytes of the bodies are counted too. Raises LoadError."""
    finished, requests, data = _FINISHED.search(output), _REQUESTS.search(output), _DATA.search(output)
    if not (finished and requests and data):
        raise LoadError(f"h2load said something else: {output[-500:]}")
    calls, failures = int(requests[1]), sum(int(requests[index]) for index in (2, 3, 4))
    if failures or not calls or len(latencies_us) < calls * 0.9:
        raise LoadError(f"{calls} calls succeeded, {failures} failed, {len(latencies_us)} were logged")
    if int(data[1]) < calls * case.answer_bytes:
        raise LoadError(f"{calls} calls brought {data[1]} bytes instead of {case.answer_bytes} each")
    seconds = float(finished[1]) * _SECONDS[finished[2]]
    return replace(summarise_latencies(latencies_us, seconds), calls=calls, calls_per_s=calls / seconds)


def summarise_latencies(latencies_us: Sequence[int], seconds: float) -> Load:
    """The numbers of a window from each call's latency."""
    ordered = sorted(latencies_us)
    return Load(
        calls=len(ordered),
        calls_per_s=len(ordered) / seconds,
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
