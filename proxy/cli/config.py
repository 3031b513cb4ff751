"""`postern config show`: the settings of running sidecars, and what decided each: a flag, a file's line, a variable or the default."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from nameresolution.host_registry import Entry
from proxy.cli.completion import app_ids
from proxy.cli.errors import CliError
from proxy.cli.fleet import ask, entries, nothing_runs, of_app, root_of
from proxy.cli.options import Output, OutputFormat, RuntimePath
from proxy.cli.redaction import redact
from proxy.cli.tables import Column, format_data, put, put_table, tell

_ASK_S = 2.0
_SETTINGS = (Column("setting", "name"), Column("value"), Column("source", "from"))
_FIELDS = (Column("field", "name"), Column("value"), Column("source", "from"))


def show(
    app_id: Annotated[str | None, typer.Argument(help="one app; none: all", autocompletion=app_ids)] = None,
    output: Output = OutputFormat.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Show each setting with its source; of secrets only whether they are set. `-o wide` shows defaults too.

    Example: postern config show cart
    """
    root = root_of(runtime_path, os.environ)
    listed = of_app(root, app_id) if app_id else entries(root)
    if not listed:
        raise CliError(nothing_runs(root))
    told = asyncio.run(shown(listed))
    if output.is_data:
        put(format_data(told, output.value))
        return
    for number, each in enumerate(told):
        if number:
            put("")
        _print(each, is_wide=output is OutputFormat.WIDE)


async def shown(listed: Sequence[Entry]) -> list[dict[str, Any]]:
    """The settings and the fields of the Configuration of each sidecar; a sidecar that does not answer has none, and says so."""
    answers = await ask(listed, "/settings", timeout_s=_ASK_S)
    found = []
    for each in answers:
        entry, answer = each.entry, each.answer or {}
        settings = answer.get("settings")
        rows = [row for row in settings if isinstance(row, dict)] if isinstance(settings, list) else []
        lines = await asyncio.to_thread(run_file_lines, entry)
        files = [str(path) for row in rows if row.get("name") == "config" for path in row.get("value") or ()]
        found.append(
            {
                "appId": entry.app_id,
                "namespace": entry.namespace,
                "instance": entry.instance,
                "answers": each.answer is not None,
                "settings": [_with_file(row, lines) for row in rows],
                "configuration": await asyncio.to_thread(configuration_fields, files),
            }
        )
    return found


def _with_file(row: Mapping[str, Any], lines: Mapping[str, str]) -> dict[str, Any]:
    """A flag that a run file's key gave is from there."""
    at = lines.get(str(row.get("name")))
    if at and row.get("source") == "flag":
        return {**row, "source": "run file", "by": at}
    return dict(row)


def run_file_lines(entry: Entry) -> dict[str, str]:
    """By flag: where the run file of a sidecar says it, as `file:line (key)`; nothing where the file can't be read now. Blocks."""
    if not entry.run_template:
        return {}
    from policies.errors import DocumentError  # noqa: PLC0415 - YAML: rarely needed
    from proxy.cli.runfile import PASSED, App, load  # noqa: PLC0415 - as above

    try:
        document, run_file = load(Path(entry.run_template), lenient=True)
    except DocumentError:
        return {}
    ids = [app.app_id or Path(app.app_dir_path).name for app in run_file.apps]
    if entry.app_id not in ids:
        return {}
    own = ("apps", ids.index(entry.app_id))
    keys = {
        **PASSED,
        "app_id": "app-id",
        "app_port": "app-port",
        "config_file_path": "config",
        "resources_paths": "resources-path",
        "resources_path": "resources-path",
        "routes": "route",
        "upstreams": "upstream",
        "grpc_services": "grpc-service",
        "unix_domain_socket": "unix-domain-socket",
    }
    written = dict(zip(App.__struct_fields__, App.__struct_encode_fields__, strict=True))
    found: dict[str, str] = {}
    for name, flag in keys.items():
        for place in (own, ("common",)):
            spot = (*place, written[name])
            if flag not in found and document.has(spot):
                found[flag] = f"{document.path}:{document.line_of(spot)} ({written[name]})"
    return found


def configuration_fields(files: Sequence[str]) -> list[dict[str, Any]]:
    """Each field that Configurations hold, the later file's first where two have it, without secrets. Blocks on the disk."""
    if not files:
        return []
    from policies.errors import DocumentError  # noqa: PLC0415 - YAML: rarely needed
    from policies.reading.documents import read_documents  # noqa: PLC0415 - as above
    from proxy.cli.config_changes import leaves  # noqa: PLC0415 - as above

    found: dict[str, dict[str, Any]] = {}
    for path in files:
        try:
            documents = read_documents(Path(path), None)
        except DocumentError as error:
            fault = error.faults[0]
            found[path] = {
                "name": path,
                "value": None,
                "source": "config",
                "by": f"{fault.path}:{fault.line}: {fault.problem}",
            }
            continue
        for document in documents[:1]:
            clean = redact(document.value)
            for place, value in leaves(clean.get("spec") if isinstance(clean, dict) else None, ("spec",)):
                name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(
                    "."
                )
                found[name] = {
                    "name": name,
                    "value": value,
                    "source": "config",
                    "by": f"{path}:{document.line_of(place)}",
                }
    return list(found.values())


def _print(told: Mapping[str, Any], *, is_wide: bool) -> None:
    put(f"{told['appId']}.{told['namespace']}")
    if not told["answers"] or not told["settings"]:
        tell(
            f"{told['appId']}: its sidecar does not tell its settings; restart it with this version if it answers otherwise"
        )
        return
    rows = [_for_people(row) for row in told["settings"] if is_wide or row["source"] != "default"]
    put_table(_SETTINGS, rows, is_wide=is_wide)
    if not is_wide:
        tell(f"{len(told['settings']) - len(rows)} more are defaults: -o wide shows them")
    if told["configuration"]:
        put("")
        put_table(_FIELDS, [_for_people(row) for row in told["configuration"]], is_wide=is_wide)


def _for_people(row: Mapping[str, Any]) -> dict[str, Any]:
    value = row["value"]
    text = ", ".join(map(str, value)) if isinstance(value, list) else value
    shown = (
        {True: "yes", False: "no", None: "-", "": "-"}.get(text, text)
        if isinstance(text, str | bool | None)
        else str(text)
    )
    by = row["by"] if row["source"] in {"run file", "config"} else f"{row['source']} {row['by']}"
    return {"name": row["name"], "value": shown, "from": "default" if row["source"] == "default" else by}
