"""The sidecars that run on this host for this user, and their answers to questions, asked in parallel."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from nameresolution.errors import RuntimeRootError
from nameresolution.host_registry import Entry, HostRegistry
from nameresolution.runtime_root import choose
from proxy.cli.errors import CliError
from proxy.wire.http_client import LocalResponse, request

ASK_S = 0.3  # local sockets answer in milliseconds, and a hung sidecar must not hold up the others


class SidecarAnswer(Struct, frozen=True, kw_only=True):
    """One sidecar: its registry entry, and what it said; None when it said nothing in time."""

    entry: Entry
    answer: Mapping[str, object] | None


def root_of(explicit: str | None, env: Mapping[str, str]) -> Path:
    """The runtime root that commands look into; not made if absent. Raises: CliError."""
    try:
        return choose(explicit, env)
    except RuntimeRootError as error:
        raise CliError(str(error)) from error


def entries(root: Path) -> tuple[Entry, ...]:
    """The registered sidecars, oldest of an app first."""
    return HostRegistry(root).entries()


def nothing_runs(root: Path) -> str:
    """What to say where no sidecar runs: where we looked, and how to look elsewhere."""
    return f"no sidecar runs in {root}; POSTERN_HOME or --runtime-path chooses another runtime root"


def of_app(root: Path, app_id: str) -> tuple[Entry, ...]:
    """The sidecars of one app: `app` or `app.namespace`. Raises: CliError if there is none."""
    name, dot, namespace = app_id.partition(".")
    found = tuple(e for e in entries(root) if e.app_id == name and (not dot or e.namespace == namespace))
    if not found:
        others = sorted({entry.app_id for entry in entries(root)})
        hint = f"running: {', '.join(others)}" if others else nothing_runs(root)
        raise CliError(f"{app_id}: no such app runs here", hint=hint)
    return found


async def ask(listed: Sequence[Entry], target: str, *, timeout_s: float = ASK_S) -> tuple[SidecarAnswer, ...]:
    """GET `target` of every sidecar's admin socket, in parallel; in the order of `listed`."""
    answers: dict[str, Mapping[str, object] | None] = {}

    async def one(entry: Entry) -> None:
        answers[entry.instance] = await _answer(entry, target, timeout_s)

    async with asyncio.TaskGroup() as tasks:
        for entry in listed:
            tasks.create_task(one(entry))
    return tuple(SidecarAnswer(entry=entry, answer=answers[entry.instance]) for entry in listed)


async def _answer(entry: Entry, target: str, timeout_s: float) -> Mapping[str, object] | None:
    if not entry.admin_socket:
        return None
    try:
        response = await request(f"unix:{entry.admin_socket}", "GET", target, timeout_s=timeout_s)
        content = json.loads(response.body) if response.status == 200 else None
    except (OSError, TimeoutError, ValueError):
        return None
    return content if isinstance(content, dict) else None


async def post(entry: Entry, target: str, *, timeout_s: float) -> LocalResponse:
    """POST to one sidecar's admin socket. Raises: CliError."""
    try:
        return await request(f"unix:{entry.admin_socket}", "POST", target, timeout_s=timeout_s)
    except (OSError, TimeoutError, ValueError) as error:
        raise CliError(f"{entry.app_id}: sidecar {entry.pid} does not answer: {error}") from error
