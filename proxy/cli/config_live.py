"""`postern config diff` and `reload`: documents and run files as they are now, against what running sidecars have in force."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from msgspec import to_builtins

from nameresolution.host_registry import Entry
from proxy.cli.completion import app_ids
from proxy.cli.config import show
from proxy.cli.config import shown as settings_shown
from proxy.cli.errors import FAILED, PARTLY, CliError
from proxy.cli.fleet import SidecarAnswer, ask, entries, nothing_runs, of_app, root_of
from proxy.cli.listing import app_pid_of
from proxy.cli.options import Output, OutputFormat, RuntimePath
from proxy.cli.tables import format_data, put, tell
from telemetry.printable import printable

config = typer.Typer(
    help="Show settings of running sidecars, what changed since, and have them read their files again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
config.command()(show)

CONFIG, RELOAD = "/postern/v1/config", "/postern/v1/reload"
_ASK_S = 5.0  # documents are read by another process, beside calls, in half a second as a rule
_RELOAD_S = 10.0
_PUT_IN_FORCE = frozenset(
    {"reloaded", "unchanged"}
)  # what there is is in force, by this command or since the files changed

Told = dict[str, Any]


@config.command()
def diff(
    app_id: Annotated[str | None, typer.Argument(help="one app; none: all", autocompletion=app_ids)] = None,
    output: Output = OutputFormat.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Show what differs between the files as they are now and what sidecars have in force.

    Exit code 1 if anything does, or if files have faults; 3 if a sidecar does not answer.
    Changed Configurations and resources are put in force by themselves, unless they have faults, which stand here; settings of a run file
    need a restart of the app's sidecar.

    Example: postern config diff cart
    """
    found = _asked(app_id, runtime_path)
    told = asyncio.run(_compare(found))
    _put(told, output.value if output.is_data else None)
    if any(one["problem"] for one in told):
        raise typer.Exit(PARTLY)
    if any(one["changes"] or one["faults"] or one["settings"] for one in told):
        raise typer.Exit(FAILED)


@config.command()
def reload(
    app_id: Annotated[str | None, typer.Argument(help="one app; none: all", autocompletion=app_ids)] = None,
    output: Output = OutputFormat.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Have sidecars read their Configurations and resources now, and show what changed.

    Files that changed are in force by themselves soon: then this shows what changed with the latest generation. Exit code 1 if files have
    faults, with which the old ones stay in force; 3 if a sidecar does not answer.

    Example: postern config reload cart
    """
    found = _asked(app_id, runtime_path)
    told = asyncio.run(_reload(found))
    _put(told, output.value if output.is_data else None)
    if any(one["problem"] for one in told):
        raise typer.Exit(PARTLY)
    if any(one["faults"] for one in told):
        raise typer.Exit(FAILED)


def _asked(app_id: str | None, runtime_path: str | None) -> tuple[Entry, ...]:
    root = root_of(runtime_path, os.environ)
    found = of_app(root, app_id) if app_id else entries(root)
    if not found:
        raise CliError(nothing_runs(root))
    return found


async def _compare(found: Sequence[Entry]) -> list[Told]:
    from proxy.cli.run_file_changes import run_file_changes  # noqa: PLC0415 - YAML: rarely needed

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ask(found, CONFIG, timeout_s=_ASK_S))
        showing = tasks.create_task(settings_shown(found))
        describing = tasks.create_task(ask(found, "/metadata", timeout_s=_ASK_S))
    told = []
    for each, shown, run in zip(asking.result(), showing.result(), describing.result(), strict=True):
        one = await asyncio.to_thread(_told, each)
        if each.answer is not None:
            settings, faults = await asyncio.to_thread(
                run_file_changes, each.entry, app_pid_of(run), shown["settings"]
            )
            one["settings"], one["faults"] = settings, [*one["faults"], *faults]
        told.append(one)
    return told


async def _reload(found: Sequence[Entry]) -> list[Told]:
    answers = await ask(found, RELOAD, timeout_s=_RELOAD_S, method="POST")
    return [await asyncio.to_thread(_told, each) for each in answers]


def _told(answered: SidecarAnswer) -> Told:
    """What came of it, and what changed: in force with this, since the generation before, or on the disk alone. Blocks on it."""
    from proxy.cli.config_changes import changes  # noqa: PLC0415 - YAML: rarely needed

    entry, answer = answered.entry, cast("Mapping[str, Any]", answered.answer or {})
    one: Told = {
        "appId": entry.app_id,
        "namespace": entry.namespace,
        "instance": entry.instance,
        "result": answer.get("result", ""),
        "generation": answer.get("generation"),
        "since": answer.get("since"),
        "changes": [],
        "settings": [],
        "faults": answer.get("faults", []),
        "warnings": answer.get("warnings", []),
        "problem": answered.problem,
    }
    if answered.answer is None:
        return one
    in_force, before = (
        {each["path"]: each["text"] for each in answer.get(key, ())} for key in ("inForce", "before")
    )
    if one["result"] not in _PUT_IN_FORCE:
        on_disk = _texts(answer.get("configurations", ()), answer.get("folders", ()))
        one["changes"] = to_builtins(changes(in_force, on_disk))
    elif one["generation"] != 1:
        one["changes"] = to_builtins(changes(before, in_force))
    return one


def _texts(configurations: Sequence[str], folders: Sequence[str]) -> dict[str, str]:
    """The files as they are; what can't be read is a fault that the sidecar tells."""
    from policies.errors import DocumentError  # noqa: PLC0415 - YAML: rarely needed
    from policies.reading.documents import read_text  # noqa: PLC0415 - as above
    from policies.reloading.loading import resource_files  # noqa: PLC0415 - as above

    try:
        files = [*map(Path, configurations), *resource_files(tuple(map(Path, folders)))[0]]
    except DocumentError:
        files = [*map(Path, configurations)]
    texts = {}
    for path in files:
        try:
            texts[str(path)] = read_text(path)
        except DocumentError:
            continue
    return texts


_MARKS = {(True, False): "-", (False, True): "+"}


def _put(told: Sequence[Told], form: str | None) -> None:
    if form is not None:
        put(format_data(list(told), form))
        return
    for one in told:
        lines = [*map(_change, one["changes"]), *map(_setting, one["settings"]), *map(_fault, one["faults"])]
        name = f"{one['appId']}.{one['namespace']}"
        tell(f"{name}: {_said(one, has_changed=bool(lines))}")
        if len(told) > 1 and lines:
            put(name)
        for line in lines:
            put(printable(line))


def _said(one: Told, *, has_changed: bool) -> str:
    """What came of it, in a line."""
    if one["problem"]:
        return str(one["problem"])
    if one["result"] == "refused":
        return "the files have faults, and what was in force stays so"
    generation = one["generation"]
    if one["result"] == "reloaded":
        return f"read again, {_WHAT_CHANGED[bool(one['changes'])]} (generation {generation})"
    if one["result"] == "unchanged" and generation == 1:
        return "read again, nothing changed since it started (generation 1)"
    if one["result"] == "unchanged":
        what = "with these changes against" if one["changes"] else "with no other value than in"
        return f"already in force since generation {generation} ({_clock(one['since'])}), {what} generation {generation - 1}"
    if one["faults"] and not one["changes"]:
        return "the run file has faults"
    if one["settings"]:
        return "settings of the run file differ, and take effect when the app is started anew"
    return "the files differ from what is in force" if has_changed else "no difference"


_WHAT_CHANGED = {True: "what changed is in force now", False: "no value changed"}


def _clock(epoch_s: float) -> str:
    """The local time of day, with the date where that is another one."""
    then, now = datetime.fromtimestamp(epoch_s).astimezone(), datetime.now().astimezone()
    return f"{then:%H:%M:%S}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M:%S}"


def _fault(fault: Mapping[str, Any]) -> str:
    """As compilers write it, so that editors find the place."""
    line = f":{fault['line']}" if fault["line"] else ""
    field = f"{fault['field']}: " if fault["field"] else ""
    return f"{fault['path']}{line}: {field}{fault['problem']}"


def _change(change: Mapping[str, Any]) -> str:
    before, after = change["before"], change["after"]
    mark = "~" if change["isSecret"] else _MARKS.get((before is not None, after is not None), "~")
    where = f"{mark} {change['path']}:{change['line']}: {change['resource']}: {change['field']}:"
    if change["isSecret"]:
        return f"{where} another value, which is not shown"
    if mark == "~":
        return f"{where} {_value(before)} -> {_value(after)}"
    return f"{where} {_value(after if mark == '+' else before)}"


def _setting(change: Mapping[str, Any]) -> str:
    before, after = change["before"], change["after"]
    if change["kind"] == "env":
        return f"{_MARKS.get((before is not None, after is not None), '~')} {change['by']}: {change['name']}: a value that is not shown"
    mark = "--" if change["kind"] == "flag" else ""
    return f"~ {change['by']}: {mark}{change['name']}: {_value(before)} -> {_value(after)}"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
