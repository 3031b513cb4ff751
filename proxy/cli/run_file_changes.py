"""What a new start by a sidecar's run file would change: settings, the app's command, its environment; and what is wrong with the file."""

import os
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nameresolution.host_registry import Entry
from policies.errors import DocumentError
from policies.reading.construct import Place
from policies.reading.documents import Document
from proxy.cli.config import run_file_lines
from proxy.cli.config_changes import setting_changes
from proxy.cli.errors import CliError
from proxy.cli.launch import EXPANDED, AppSpec
from proxy.cli.redaction import REMOVED, redact_text
from proxy.cli.run import FILE_PASSES
from proxy.cli.runfile import load, specs_of
from proxy.settings.origins import effective

Json = dict[str, Any]


def run_file_changes(
    entry: Entry, app_pid: int, in_force: Sequence[Mapping[str, Any]]
) -> tuple[list[Json], list[Json]]:
    """Changes, each with its kind (flag, command, env), before and after, and faults of the file. Blocks on the disk.

    app_pid: the app's process, 0 if there is none. in_force: the sidecar's settings, as it tells them.
    """
    if not entry.run_template:
        return [], []
    path = Path(entry.run_template)
    try:
        document, specs = _specs(path)
    except DocumentError as error:
        return [], [_fault(each.path, each.line, each.field, each.problem) for each in error.faults]
    except CliError as error:
        return [], [_fault(path, 0, "", str(error))]
    index = next((number for number, one in enumerate(specs) if one.app_id == entry.app_id), None)
    if index is None:
        problem = f"the app {entry.app_id}, which runs, is no longer in the file: a new start is without it"
        return [], [_fault(path, 0, "apps", problem)]
    spec, lines = specs[index], run_file_lines(entry)
    passed = {row["name"] for row in in_force if row["by"] in FILE_PASSES}  # by `run -f` itself
    rows = [
        row
        for row in effective(spec.settings, {})
        if (row["name"] in lines or row["name"] not in passed)
        and not (spec.chosen_port and row["name"] == "app-port")
    ]
    found = [{**one, "kind": "flag"} for one in setting_changes(in_force, rows)]
    command = " ".join(spec.command)
    if command != entry.command:
        shown = {"before": redact_text(entry.command), "after": redact_text(command)}
        found.append({"name": "command", **shown, "kind": "command"})
    found += env_changes(spec.env, _environment(app_pid), _environment(entry.cli_pid))
    lines = {**_lines(document, index, spec), **lines}
    return [{**one, "by": lines.get(one["name"], str(path))} for one in found], []


def _lines(document: Document, index: int, spec: AppSpec) -> dict[str, str]:
    """Where the file says the command and variables: `file:line`, by their names in changes."""
    app: Place = ("apps", index)
    places: dict[str, list[Place]] = {"command": [(*app, "command")]}
    places |= {f"env.{name}": [(*app, "env", name), ("common", "env", name)] for name in spec.env}
    return {
        name: f"{document.path}:{document.line_of(spot)}"
        for name, spots in places.items()
        for spot in [next((each for each in spots if document.has(each)), None)]
        if spot is not None
    }


def _specs(path: Path) -> tuple[Document, tuple[AppSpec, ...]]:
    with tempfile.TemporaryDirectory(prefix="postern-diff-") as root:  # reading flags makes a runtime root
        document, run_file = load(path, lenient=True)
        return document, specs_of(
            *(document, run_file, path.parent),
            flags=(),
            env={**os.environ, "POSTERN_HOME": root},
            chance=random.Random(0),  # noqa: S311 - free ports, which nobody listens on here
        )


def _fault(path: Path, line: int, field: str, problem: str) -> Json:
    return {"path": str(path), "line": line, "field": field, "problem": problem}


def _environment(pid: int) -> Mapping[str, str] | None:
    """What a process was started with; None where that can't be told, as of one that ended, and on macOS."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes() if pid else b""
    except OSError:
        return None
    pairs = (item.partition("=") for item in os.fsdecode(data).split("\0") if item)
    return {name: text for name, _, text in pairs} or None


def env_changes(
    written: Mapping[str, str], app: Mapping[str, str] | None, command: Mapping[str, str] | None
) -> list[Json]:
    """Variables that the app would have anew, no longer or with another value, without values, as any may be a secret.

    written: `env` of the file.
    command: the environment of `postern run`, which the app has, too: what is from there, or from postern, is not the file's.
    """
    if app is None:
        return []
    shown = {True: REMOVED, False: None}
    changed = [
        name
        for name, text in written.items()
        if name not in _OWN and "${" not in text and app.get(name) != text
    ]
    gone = [
        name
        for name in (app if command is not None else ())
        if name not in written and name not in (command or {}) and not _is_own(name)
    ]
    return [
        {"name": f"env.{name}", "before": shown[name in app], "after": shown[name in written], "kind": "env"}
        for name in (*changed, *gone)
    ]


_OWN = frozenset(
    {
        *EXPANDED,
        "PORT",
        "PYTHONUNBUFFERED",
        "LC_CTYPE",  # which Python itself sets where the locale is C (PEP 538)
        "no_proxy",
        "NO_PROXY",
        "APP_ID",
        "APP_PROTOCOL",
        "APP_CHANNEL_ADDRESS",
    }
)


def _is_own(name: str) -> bool:
    """Whether postern gives it to apps itself."""
    return name in _OWN or name.endswith("_ADDR")
