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
from proxy.cli.completion import app_ids, instances
from proxy.cli.errors import FAILED, PARTLY, CliError, UsageError
from proxy.cli.fleet import entries, of_app, post, root_of
from proxy.cli.options import RuntimePath
from proxy.cli.tables import tell

ASK_S = 2.0
POLL_S = 0.1
_SHORT = 8  # digits of an instance id that people are shown


def stop(  # noqa: PLR0917 - the framework passes them by name
    app_ids: Annotated[list[str] | None, typer.Argument(help="apps to stop", autocompletion=app_ids)] = None,
    app_id: Annotated[
        list[str] | None, typer.Option("--app-id", "-a", help="an app to stop", autocompletion=app_ids)
    ] = None,
    run_file: Annotated[
        str | None, typer.Option("--run-file", "-f", help="stop all apps of this run file")
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option(
            help="one instance: the beginning of its id, as `postern list -o wide` shows it, or its daprd pid",
            autocompletion=instances,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="seconds to wait for the end")] = 30.0,
    runtime_path: RuntimePath = None,
) -> None:
    """Stop apps with their sidecars, in order.

    Example: postern stop cart web
    """
    root = root_of(runtime_path, os.environ)
    names = [*(app_ids or ()), *(app_id or ())]
    if bool(names or instance) == bool(run_file):
        raise UsageError("expected one of app-ids, --instance and --run-file")
    if len(names) > 1 and instance:
        raise UsageError("--instance can't be combined with several apps")
    if instance:
        failed, total = asyncio.run(_stop_instance(root, names, instance, timeout)), 1
    elif run_file:
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
        raise CliError(f"{template}: none of its apps is running here")
    for pid in sorted({entry.cli_pid for entry in mine}):
        _terminate(pid)
    return _report(template, await _gone(root, mine, timeout_s), timeout_s)


async def _stop_instance(root: Path, names: Sequence[str], instance: str, timeout_s: float) -> int:
    """End one sidecar with its app; returns 1 if that failed."""
    entry = of_instance(of_app(root, names[0]) if names else entries(root), instance)
    await _end(entry, _shared_commands(root))
    name = f"{entry.app_id} (instance {entry.instance[:_SHORT]})"
    return _report(name, await _gone(root, (entry,), timeout_s), timeout_s)


def of_instance(running: Sequence[Entry], instance: str) -> Entry:
    """The one sidecar whose instance id starts with this, or whose process id it is. Raises: CliError if there is none, or several."""
    found = [entry for entry in running if entry.instance.startswith(instance) or str(entry.pid) == instance]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{entry.instance[:_SHORT]} ({entry.app_id}, process {entry.pid})" for entry in running)
    problem = "several instances have ids that start with this" if found else "no such instance runs here"
    raise CliError(f"{instance}: {problem}", hint=f"running: {shown or 'none'}")


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
    if entry.cli_pid not in shared and _terminate(entry.cli_pid):
        return
    response = await post(entry, "/shutdown", timeout_s=ASK_S)
    if response.status >= 300:
        raise CliError(f"{entry.app_id}: sidecar {entry.pid} refused to stop: {response.status}")


def _terminate(pid: int) -> bool:
    """TERM to one process; False where there is none. 0 and negative numbers would be groups, 1 the system's first process."""
    if pid <= 1:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True


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
