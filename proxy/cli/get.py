"""`postern get`: Configurations and resources that sidecars have in force, who has each, and from which file."""

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from proxy.cli.completion import app_ids
from proxy.cli.config_live import CONFIG
from proxy.cli.errors import PARTLY, UsageError
from proxy.cli.fleet import SidecarAnswer, ask, entries, nothing_runs, of_app, root_of
from proxy.cli.options import RuntimePath
from proxy.cli.redaction import redact
from proxy.cli.tables import Column, format_data, put, put_table, tell
from telemetry.printable import printable

_ASK_S = 5.0  # each reads its documents, too
_COLUMNS = (
    Column("kind"),
    Column("name"),
    Column("namespace", rank=2),
    Column("apps"),
    Column("scopes", rank=1),
    Column("file"),
)


class What(Enum):
    """Kinds, as they are asked for."""

    CONFIGURATIONS = "configurations"
    RESILIENCY = "resiliency"
    ACCESSPOLICIES = "accesspolicies"
    TRAFFIC = "traffic"
    HTTPENDPOINTS = "httpendpoints"
    COMPONENTS = "components"
    ALL = "all"


_KINDS: Final[Mapping[What, str]] = {
    What.CONFIGURATIONS: "Configuration",
    What.RESILIENCY: "Resiliency",
    What.ACCESSPOLICIES: "AccessPolicy",
    What.TRAFFIC: "Traffic",
    What.HTTPENDPOINTS: "HTTPEndpoint",
    What.COMPONENTS: "Component",
}


class GetOutput(Enum):
    """How they are printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def _kinds(incomplete: str) -> list[str]:
    return [each.value for each in What if each.value.startswith(incomplete)]


def get(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help=", ".join(each.value for each in What), autocompletion=_kinds),
    ],
    name: Annotated[str | None, typer.Argument(help="the one of this name")] = None,
    app_id: Annotated[
        str | None, typer.Option("--app-id", "-a", help="of this app's sidecar alone", autocompletion=app_ids)
    ] = None,
    output: Annotated[
        GetOutput, typer.Option("--output", "-o", help="table, wide, json, yaml or name")
    ] = GetOutput.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Show the Configurations and resources that sidecars have in force: which apps have each, and the file that it is from.

    As they were when they were loaded: `postern config diff` shows how the files differ now. Secrets are left out. With scopes that do not
    name an app, its sidecar reads a resource without going by it: it is not among the apps then.

    Example: postern get resiliency -o yaml
    """
    try:
        what = What(kind)
    except ValueError as error:
        raise UsageError(f"{kind}: no such kind; expected {', '.join(_kinds(''))}") from error
    root = root_of(runtime_path, os.environ)
    running = of_app(root, app_id) if app_id else entries(root)
    answers = asyncio.run(ask(running, CONFIG, timeout_s=_ASK_S))
    in_force = resources_of(answers, what)
    rows = [row for row in in_force if name in (None, row["name"])]
    if output in (GetOutput.JSON, GetOutput.YAML):
        put(format_data(rows, output.value))
    elif output is GetOutput.NAME:
        for row in rows:
            put(printable(f"{str(row['kind']).lower()}/{row['name']}"))
    elif rows:
        shown = [
            {**row, "apps": ", ".join(row["apps"]), "scopes": ", ".join(row["scopes"]), "file": _place(row)}
            for row in rows
        ]
        put_table(_COLUMNS, shown, is_wide=output is GetOutput.WIDE)
    elif in_force:
        noun = "resource" if what is What.ALL else what.value
        named = ", ".join(sorted({str(row["name"]) or "one without a name" for row in in_force}))
        tell(printable(f"no {noun} named {name}; in force: {named}"))
    elif running:
        tell(f"no sidecar here has {'any resource' if what is What.ALL else what.value} in force")
    else:
        tell(nothing_runs(root))
    silent = [each for each in answers if each.answer is None]
    for each in silent:
        tell(f"{each.entry.app_id} ({each.entry.pid}): {each.problem}")
    if silent:
        raise typer.Exit(PARTLY)


def _place(row: Mapping[str, Any]) -> str:
    path = Path(row["path"])
    here = Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{row['line']}"


def resources_of(answers: Sequence[SidecarAnswer], what: What) -> list[dict[str, Any]]:
    """Each document once, by kind, name and file, with the apps that go by it; one whose text differs between sidecars, once for each."""
    found: dict[tuple[str, str, str, int, str], dict[str, Any]] = {}
    for answered in answers:
        told = answered.answer or {}
        configurations = set(_texts(told, "configurations"))
        in_force = told.get("inForce")
        for each in in_force if isinstance(in_force, list) else ():
            for row in _documents(
                each["path"], each["text"], is_configuration=each["path"] in configurations
            ):
                if what is not What.ALL and row["kind"] != _KINDS[what]:
                    continue
                key = (row["kind"], row["name"], row["path"], row["line"], repr(row["document"]))
                kept = found.setdefault(key, {**row, "apps": []})
                if not row["scopes"] or answered.entry.app_id in row["scopes"]:
                    kept["apps"] = sorted({*kept["apps"], answered.entry.app_id})
    return [found[key] for key in sorted(found)]


def _texts(told: Mapping[str, object], key: str) -> list[str]:
    value = told.get(key)
    return [str(one) for one in value] if isinstance(value, list) else []


def _documents(path: str, text: str, *, is_configuration: bool) -> Iterator[dict[str, Any]]:
    """Those of a file that have an effect: a Configuration only where it was named as one."""
    from policies.errors import DocumentError  # noqa: PLC0415 - YAML: rarely needed
    from policies.reading.documents import parse_documents  # noqa: PLC0415 - as above

    try:
        documents = parse_documents(Path(path), text, None)
    except DocumentError:
        return  # it was read with variables that we do not have
    for document in documents:
        value = redact(document.value)
        if not isinstance(value, dict):
            continue
        kind = str(value.get("kind") or ("Configuration" if is_configuration else ""))
        if kind not in _KINDS.values() or (kind == "Configuration") != is_configuration:
            continue
        metadata = value.get("metadata")
        about = metadata if isinstance(metadata, dict) else {}
        scopes = value.get("scopes")
        yield {
            "kind": kind,
            "name": str(about.get("name") or ""),
            "namespace": str(about.get("namespace") or ""),
            "scopes": [str(one) for one in scopes] if isinstance(scopes, list) else [],
            "path": path,
            "line": document.line,
            "document": value,
        }
