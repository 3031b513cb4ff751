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
from proxy.wire.http_client import LocalHttpError, LocalResponse, request

ASK_S = 0.3  # local sockets answer in milliseconds, and a hung sidecar must not hold up the others
_OLDER = "its sidecar is of an older version, which does not tell this: restart it with this one"


class SidecarAnswer(Struct, frozen=True, kw_only=True):
    """One sidecar: its registry entry, and what it said; None when it said nothing that can be used, and `problem` says why."""

    entry: Entry
    answer: Mapping[str, object] | None
    problem: str = ""


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


async def ask(
    listed: Sequence[Entry], target: str, *, timeout_s: float = ASK_S, method: str = "GET"
) -> tuple[SidecarAnswer, ...]:
    """GET (or POST) `target` of every sidecar's admin socket, in parallel; in the order of `listed`."""
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(_ask_one(entry, method, target, timeout_s)) for entry in listed]
    return tuple(task.result() for task in asked)


async def _ask_one(entry: Entry, method: str, target: str, timeout_s: float) -> SidecarAnswer:
    content: object = None
    try:
        response = await request(f"unix:{entry.admin_socket}", method, target, timeout_s=timeout_s)
        content = json.loads(response.body) if response.status != 404 else None
    except (OSError, TimeoutError, ValueError) as error:
        return SidecarAnswer(entry=entry, answer=None, problem=unanswered(error, timeout_s))
    if response.status == 200 and isinstance(content, dict):
        return SidecarAnswer(entry=entry, answer=content)
    message = content.get("message") if isinstance(content, dict) else None
    problem = _OLDER if response.status == 404 else str(message or f"its sidecar answered {response.status}")
    return SidecarAnswer(entry=entry, answer=None, problem=problem)


def unanswered(error: Exception, timeout_s: float) -> str:
    """Why there is no answer; never empty, as texts of some errors are."""
    if isinstance(error, LocalHttpError):
        reason = error.reason or "the connection broke off"
    elif isinstance(error, TimeoutError):
        reason = f"not within {timeout_s:g} s"
    else:
        reason = str(error) or type(error).__name__
    return f"its sidecar does not answer: {reason}"


async def post(entry: Entry, target: str, *, timeout_s: float) -> LocalResponse:
    """POST to one sidecar's admin socket. Raises: CliError."""
    try:
        return await request(f"unix:{entry.admin_socket}", "POST", target, timeout_s=timeout_s)
    except (OSError, TimeoutError, ValueError) as error:
        raise CliError(f"{entry.app_id} ({entry.pid}): {unanswered(error, timeout_s)}") from error
