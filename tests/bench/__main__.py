"""`python -m tests.bench`: measures direct calls, Envoy and postern in one run, prints a table, writes `.bench/latest.json`."""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.bench import envoy, postern, relay, results
from tests.bench.cases import CASES, Case, Protocol
from tests.bench.errors import BenchError
from tests.bench.load import run_load
from tests.bench.results import Row, Sample
from tests.bench.sink import span_sink
from tests.bench.targets import Target, check_answer
from tests.bench.tools import require_programs
from tests.bench.upstreams import Upstreams, start_upstreams, write_message
from tests.support.errors import SupportError
from tests.support.mesh import Mesh
from tests.support.processes import REPOSITORY, Process, Processes

OUTPUT: Final = REPOSITORY / ".bench" / "latest.json"
TARGETS: Final = (
    *("direct", "envoy", envoy.ALL_ON, relay.NAME),
    *("postern-portable", "postern-native", "postern-native-traced"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long each part of a measurement takes."""

    warm_up_s: float
    window_s: float
    rounds: int


THOROUGH: Final = Pace(warm_up_s=2.0, window_s=5.0, rounds=3)
QUICK: Final = Pace(warm_up_s=0.5, window_s=1.0, rounds=1)


class Bench:
    """One run: starts upstreams and targets, loads them in turn. Everything is started in `processes` or in a mesh."""

    def __init__(self, folder: Path, processes: Processes, stack: AsyncExitStack, console: Console) -> None:
        self._folder = folder
        self._processes = processes
        self._stack = stack
        self._console = console
        self.failures = 0

    async def start_targets(self, names: Sequence[str]) -> list[Target]:
        """Start the named targets; those that can't start are reported, counted in `failures` and left out."""
        upstreams = await start_upstreams(self._processes)
        started = []
        for name in names:
            try:
                started.append(await self._start_target(name, upstreams))
            except (BenchError, SupportError) as error:
                self._fail(f"{name} does not start: {error}")
        return started

    async def _start_target(self, name: str, upstreams: Upstreams) -> Target:
        if name == "direct":
            ports: dict[Protocol, int] = {"grpc": upstreams.grpc_port, "http1": upstreams.http_port}
            return Target(name=name, ports=ports, proxies={"grpc": (), "http1": ()})
        if name == "envoy":
            return await envoy.start_mesh(self._processes, self._folder, upstreams)
        if name == envoy.ALL_ON:
            port = await self._stack.enter_async_context(span_sink())
            return await envoy.start_mesh(self._processes, self._folder, upstreams, sink_port=port)
        if name == relay.NAME:
            return await relay.start(self._processes, self._folder, upstreams)
        kind = name.removeprefix("postern-")
        mesh = await self._stack.enter_async_context(Mesh(self._folder))
        sink_port = await self._stack.enter_async_context(span_sink())
        return await postern.start_mesh(mesh, kind, upstreams, sink_port)

    async def measure(self, case: Case, targets: Sequence[Target], pace: Pace) -> list[Row]:
        """Warm every target, then load them in turn (A B C, A B C), so that a slow minute of the machine falls on all.

        A target that answers wrongly or fails a call is reported, counted and has no row.
        """
        message = write_message(self._folder)
        samples: dict[str, list[Sample]] = {target.name: [] for target in targets}
        for number in range(pace.rounds + 1):
            for target in [t for t in targets if t.name in samples and case.protocol in t.ports]:
                step = f"round {number} of {pace.rounds}" if number else "warm-up"
                self._console.print(f"{case.name}, {step}: {target.name}", style="dim")
                try:
                    if number:
                        samples[target.name].append(await self._sample(case, target, message, pace.window_s))
                    else:
                        await check_answer(target, case)
                        await self._sample(case, target, message, pace.warm_up_s)
                except (BenchError, SupportError) as error:
                    self._fail(f"{target.name}, {case.name}: {error}")
                    del samples[target.name]
        started = [target for target in targets if samples.get(target.name)]
        return [results.summarise(case.name, t.name, samples[t.name], t.startup_s) for t in started]

    def _fail(self, text: str) -> None:
        self.failures += 1
        self._console.print(text, style="red", markup=False)

    async def _sample(self, case: Case, target: Target, message: Path, window_s: float) -> Sample:
        proxies = target.proxies[case.protocol]
        before_s = _cpu_s(proxies)
        load = await run_load(self._processes, case, target.ports[case.protocol], message, window_s)
        used_s = _cpu_s(proxies) - before_s
        return Sample(
            load=load,
            cpu_us_per_call=used_s * 1e6 / load.calls if proxies else None,
            rss_mb=max((proxy.rss_mb() for proxy in proxies), default=None),
        )


def _cpu_s(proxies: Sequence[Process]) -> float:
    return sum(proxy.cpu_s() for proxy in proxies)


async def run(names: Sequence[str], cases: Sequence[Case], pace: Pace, console: Console) -> int:
    """Measure, print, write; the exit code: 0, or 1 when a target or a verdict failed."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        processes = Processes()
        stack.push_async_callback(processes.aclose)
        bench = Bench(folder, processes, stack, console)
        targets = await bench.start_targets(names)
        rows: list[Row] = []
        for case in cases:
            rows += await bench.measure(case, targets, pace)
    results.write(rows, OUTPUT)
    console.print(_machine(pace))
    results.print_table(rows, console)
    verdicts = results.verdicts(rows)
    for verdict in verdicts:
        console.print(
            ("holds " if verdict.holds else "FAILS ") + verdict.text, style="" if verdict.holds else "red"
        )
    return 1 if bench.failures or not all(verdict.holds for verdict in verdicts) else 0


def _machine(pace: Pace) -> str:
    cpus, load = os.cpu_count(), os.getloadavg()[0]
    return (
        f"{platform.machine()}, {cpus} CPUs, {platform.system()} {platform.release()}, Python {platform.python_version()}; "
        f"load average {load:.1f}; {pace.rounds} x {pace.window_s:g} s per target after {pace.warm_up_s:g} s of warm-up; medians"
    )


def main(arguments: Sequence[str]) -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one window of 1 s each: a smoke test, not a measurement"
    )
    parser.add_argument(
        "--case", action="append", choices=[case.name for case in CASES], help="only this case"
    )
    parser.add_argument(
        "--target",
        action="append",
        metavar="NAME",
        help=f"only this one: {', '.join(TARGETS)}",
    )
    options = parser.parse_args(arguments)
    names = tuple(options.target or TARGETS)
    if unknown := [
        name
        for name in names
        if name not in {"direct", "envoy", envoy.ALL_ON, relay.NAME} and not name.startswith("postern-")
    ]:
        parser.error(
            f"unknown target {unknown[0]}: expected direct, envoy, envoy-all-on, bare-h2 or postern-ENGINE"
        )
    cases = [case for case in CASES if not options.case or case.name in options.case]
    console = Console(width=None if sys.stdout.isatty() else 150)
    try:
        require_programs()
        return asyncio.run(run(names, cases, QUICK if options.quick else THOROUGH, console))
    except (BenchError, SupportError) as error:
        console.print(str(error), style="red", markup=False)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
