"""`postern stop`: ends apps in order, and fails loudly when there is nothing to end or it does not end."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nameresolution.host_registry import Entry
from proxy.cli.errors import FAILED, PARTLY, CliError, UsageError
from proxy.cli.fleet import entries, of_app, post, root_of
from proxy.cli.options import RuntimePath
from proxy.cli.tables import tell

ASK_S = 2.0
POLL_S = 0.1


def stop(
    app_ids: Annotated[list[str] | None, typer.Argument(help="apps to stop")] = None,
    app_id: Annotated[list[str] | None, typer.Option("--app-id", "-a", help="an app to stop")] = None,
    run_file: Annotated[
        str | None, typer.Option("--run-file", "-f", help="stop all apps of this run file")
    ] = None,
    timeout: Annotated[float, typer.Option(help="seconds to wait for the end")] = 30.0,
    runtime_path: RuntimePath = None,
) -> None:
    """Stop apps with their sidecars, in order."""
    root = root_of(runtime_path, os.environ)
    names = [*(app_ids or ()), *(app_id or ())]
    if bool(names) == bool(run_file):
        raise UsageError("expected app-ids, or --run-file, and not both")
    if run_file:
        failed = asyncio.run(_stop_run(root, run_file, timeout))
        total = 1
    else:
        failed, total = asyncio.run(_stop_apps(root, names, timeout)), len(names)
    if failed:
        raise typer.Exit(PARTLY if failed < total else FAILED)


async def _stop_run(root: Path, run_file: str, timeout_s: float) -> int:
    """End every run of a run file through its command; returns 1 if that failed."""
    from proxy.cli.runfile import find  # noqa: PLC0415 - YAML for run files only

    template = str(find(run_file)[0])
    mine = [entry for entry in entries(root) if entry.run_template == template]
    if not mine:
        raise CliError(f"{template}: nothing of it runs here")
    for pid in sorted({entry.cli_pid for entry in mine if entry.cli_pid}):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return _report(template, await _gone(root, mine, timeout_s), timeout_s)


async def _stop_apps(root: Path, names: Sequence[str], timeout_s: float) -> int:
    """Returns how many failed."""
    failures: list[str] = []

    async def one(name: str) -> None:
        try:
            found = of_app(root, name)
            shared = _shared_commands(root)
            for entry in found:
                await _end(entry, shared)
            if _report(name, await _gone(root, found, timeout_s), timeout_s):
                failures.append(name)
        except CliError as error:
            tell(f"✗ {error}")
            failures.append(name)

    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(one(name))
    return len(failures)


def _shared_commands(root: Path) -> frozenset[int]:
    """Pids of commands that run several apps."""
    pids = [entry.cli_pid for entry in entries(root)]
    return frozenset(pid for pid in pids if pids.count(pid) > 1)


async def _end(entry: Entry, shared: frozenset[int]) -> None:
    """Ask the command that runs it alone; else the sidecar, whose command then ends the app."""
    if entry.cli_pid and entry.cli_pid not in shared:
        with contextlib.suppress(ProcessLookupError):
            os.kill(entry.cli_pid, signal.SIGTERM)
            return
    response = await post(entry, "/shutdown", timeout_s=ASK_S)
    if response.status >= 300:
        raise CliError(f"{entry.app_id}: sidecar {entry.pid} refused to stop: {response.status}")


async def _gone(root: Path, asked: Sequence[Entry], timeout_s: float) -> tuple[Entry, ...]:
    """Wait until they have left the registry; those that have not in time."""
    wanted = {entry.instance for entry in asked}
    left = asked
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while left := tuple(  # noqa: ASYNC110 - a crash frees an entry without telling
                entry for entry in entries(root) if entry.instance in wanted
            ):
                await asyncio.sleep(POLL_S)
    return tuple(left)


def _report(name: str, left: Sequence[Entry], timeout_s: float) -> int:
    if left:
        pids = ", ".join(str(entry.pid) for entry in left)
        tell(f"✗ {name}: still there after {timeout_s:g} s (process {pids}); kill it if it must go now")
        return 1
    tell(f"✓ {name}: stopped")
    return 0
