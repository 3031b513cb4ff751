"""`python -m tests.bench`: measures direct calls, Envoy and postern in one run, prints a table, writes `.bench/latest.json`."""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.bench import envoy, relay, results
from tests.bench.bench import QUICK, THOROUGH, Bench, Pace
from tests.bench.cases import CASES, NATIVE, VARIANTS, Case
from tests.bench.errors import BenchError
from tests.bench.floors import PORTABLE
from tests.bench.results import Row
from tests.bench.tools import require_programs, require_release_engine
from tests.bench.tracing_cost import tracing_costs
from tests.bench.verdicts import verdicts
from tests.support.errors import SupportError
from tests.support.processes import REPOSITORY

OUTPUT: Final = REPOSITORY / ".bench" / "latest.json"
TARGETS: Final = (
    *("direct", "envoy", envoy.ALL_ON, relay.NAME),
    *(PORTABLE, NATIVE, *VARIANTS),
)


async def run(names: Sequence[str], cases: Sequence[Case], pace: Pace, console: Console) -> int:
    """Measure, print, write; the exit code: 0, or 1 when a target or a verdict failed."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        bench = Bench(folder, stack, console)
        targets = await bench.start_targets(names, cases)
        rows = await bench.measure(cases, targets, pace)
        accounts = await bench.accounts(targets)
    results.write(rows, OUTPUT)
    console.print(_machine(pace))
    console.print(_stolen(rows, bench.anew))
    results.print_table(rows, console)
    found = (*verdicts(rows, accounts), *tracing_costs())
    for verdict in found:
        console.print(
            ("holds " if verdict.holds else "FAILS ") + verdict.text, style="" if verdict.holds else "red"
        )
    return 1 if bench.failures or not all(verdict.holds for verdict in found) else 0


def _machine(pace: Pace) -> str:
    cpus, load = os.cpu_count(), os.getloadavg()[0]
    return (
        f"{platform.machine()}, {cpus} CPUs, {platform.system()} {platform.release()}, Python {platform.python_version()}; "
        f"load average {load:.1f}; {pace.rounds} x {pace.window_s:g} s per target after {pace.warm_up_s:g} s of warm-up; medians"
    )


def _stolen(rows: Sequence[Row], anew: int) -> str:
    most = max((row.stolen for row in rows), default=0.0)
    return f"{anew} windows were taken anew, as the machine's host took cores away; at most {most:.1%} of a row's"


def main(arguments: Sequence[str]) -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one window of 1 s each: a smoke test, not a measurement"
    )
    parser.add_argument(
        "--case",
        action="append",
        choices=sorted({name for case in CASES for name in (case.name, case.group) if name}),
        help="only this case, or group of cases",
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
    cases = [case for case in CASES if not options.case or {case.name, case.group} & {*options.case}]
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        require_programs()
        require_release_engine()
        return asyncio.run(run(names, cases, QUICK if options.quick else THOROUGH, console))
    except (BenchError, SupportError) as error:
        console.print(str(error), style="red", markup=False)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
