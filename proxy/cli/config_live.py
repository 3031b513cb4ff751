"""`postern config diff` and `reload`: documents and run files as they are now, against what running sidecars have in force."""

import asyncio
import json
import os
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import to_builtins

from nameresolution.host_registry import Entry
from proxy.cli.completion import app_ids
from proxy.cli.config import run_file_lines, show
from proxy.cli.config import shown as settings_shown
from proxy.cli.errors import FAILED, CliError
from proxy.cli.fleet import ask, entries, nothing_runs, of_app, post, root_of
from proxy.cli.options import Output, OutputFormat, RuntimePath
from proxy.cli.run import FILE_PASSES
from proxy.cli.tables import format_data, put, tell
from telemetry.printable import printable

config = typer.Typer(
    help="Show settings of running sidecars, what changed since, and have them read their files again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
config.command()(show)

CONFIG, RELOAD = "/postern/v1/config", "/postern/v1/reload"
_ASK_S = 30.0  # documents are read by another process, beside calls

Told = dict[str, Any]


@config.command()
def diff(
    app_id: Annotated[str | None, typer.Argument(help="one app; none: all", autocompletion=app_ids)] = None,
    output: Output = OutputFormat.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Show what differs between the files as they are now and what sidecars have in force; 1 if anything does, or if files have faults.

    Changed Configurations and resources are put in force by themselves, unless they have faults, which stand here; settings of a run file
    need a restart of the app's sidecar.

    Example: postern config diff cart
    """
    found = _asked(app_id, runtime_path)
    told = asyncio.run(_compare(found))
    _put(told, output.value if output.is_data else None)
    if any(one["problem"] or one["changes"] or one["faults"] or one["settings"] for one in told):
        raise typer.Exit(FAILED)


@config.command()
def reload(
    app_id: Annotated[str | None, typer.Argument(help="one app; none: all", autocompletion=app_ids)] = None,
    output: Output = OutputFormat.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Have sidecars read their Configurations and resources now, and show what changed; 1 if one has faults, and keeps the old ones.

    Example: postern config reload cart
    """
    found = _asked(app_id, runtime_path)
    told = asyncio.run(_reload(found))
    _put(told, output.value if output.is_data else None)
    if any(one["problem"] or one["faults"] for one in told):
        raise typer.Exit(FAILED)


def _asked(app_id: str | None, runtime_path: str | None) -> tuple[Entry, ...]:
    root = root_of(runtime_path, os.environ)
    found = of_app(root, app_id) if app_id else entries(root)
    if not found:
        raise CliError(nothing_runs(root))
    return found


async def _compare(found: Sequence[Entry]) -> list[Told]:
    compared = [each.answer for each in await ask(found, CONFIG, timeout_s=_ASK_S)]
    settings = await settings_shown(found)
    told = []
    for entry, answer, shown in zip(found, compared, settings, strict=True):
        one = await asyncio.to_thread(_told, entry, answer, answer)
        one["settings"] = await asyncio.to_thread(_run_file_changes, entry, shown["settings"])
        told.append(one)
    return told


async def _reload(found: Sequence[Entry]) -> list[Told]:
    before = [each.answer for each in await ask(found, CONFIG, timeout_s=_ASK_S)]
    told = []
    for entry, answer in zip(found, before, strict=True):
        response = await post(entry, RELOAD, timeout_s=_ASK_S)
        outcome = json.loads(response.body) if response.status == 200 else None
        one = await asyncio.to_thread(_told, entry, answer, outcome)
        if response.status not in (200, 404):
            one["problem"] = str(json.loads(response.body).get("message", ""))
        told.append(one)
    return told


def _told(entry: Entry, in_force: Mapping[str, Any] | None, outcome: Mapping[str, Any] | None) -> Told:
    """What changed between the documents in force and those on the disk. Blocks on it."""
    from proxy.cli.config_changes import changes  # noqa: PLC0415 - YAML: rarely needed

    one: Told = {
        "appId": entry.app_id,
        "namespace": entry.namespace,
        "instance": entry.instance,
        "result": (outcome or {}).get("result", ""),
        "generation": (outcome or {}).get("generation"),
        "changes": [],
        "settings": [],
        "faults": (outcome or {}).get("faults", []),
        "warnings": (outcome or {}).get("warnings", []),
        "problem": "",
    }
    if in_force is None or outcome is None:
        one["problem"] = "its sidecar does not answer, or is of an older version: restart it with this one"
        return one
    was = {each["path"]: each["text"] for each in in_force["inForce"]}
    now = _texts(in_force["configurations"], in_force["folders"])
    one["changes"] = to_builtins(changes(was, now))
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


def _run_file_changes(entry: Entry, in_force: Sequence[Mapping[str, Any]]) -> list[Told]:
    """Settings that the run file of a sidecar would give another value now. Blocks on the disk."""
    if not entry.run_template:
        return []
    from policies.errors import DocumentError  # noqa: PLC0415 - YAML: rarely needed
    from proxy.cli.config_changes import setting_changes  # noqa: PLC0415 - as above
    from proxy.cli.runfile import load, specs_of  # noqa: PLC0415 - as above
    from proxy.settings.origins import effective  # noqa: PLC0415 - as above

    path = Path(entry.run_template)
    with tempfile.TemporaryDirectory(prefix="postern-diff-") as root:  # reading flags makes a runtime root
        try:
            document, run_file = load(path, lenient=True)
            specs = specs_of(
                document,
                run_file,
                path.parent,
                flags=(),
                env={**os.environ, "POSTERN_HOME": root},
                chance=random.Random(0),  # noqa: S311 - free ports, which nobody listens on here
            )
        except (DocumentError, CliError) as error:
            return [{"name": str(path), "before": None, "after": None, "by": str(error)}]
    spec = next((one for one in specs if one.app_id == entry.app_id), None)
    if spec is None:
        return [{"name": "app-id", "before": entry.app_id, "after": None, "by": f"{path} has no such app"}]
    lines = run_file_lines(entry)
    passed = {row["name"] for row in in_force if row["by"] in FILE_PASSES}  # by `run -f` itself
    rows = [
        row
        for row in effective(spec.settings, {})
        if (row["name"] in lines or row["name"] not in passed)
        and not (spec.chosen_port and row["name"] == "app-port")
    ]
    return [{**one, "by": lines.get(one["name"], str(path))} for one in setting_changes(in_force, rows)]


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
    if one["result"] == "reloaded":
        what = "what changed is in force now" if has_changed else "nothing changed"
        return f"read again, {what} (generation {one['generation']})"
    if one["settings"]:
        return "settings of the run file differ, and take effect when the app is started anew"
    return "the files differ from what is in force" if has_changed else "no difference"


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
    return f"~ {change['by']}: --{change['name']}: {_value(change['before'])} -> {_value(change['after'])}"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
