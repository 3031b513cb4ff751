"""`postern configurations`: the Configuration files that the sidecars here have read."""

import asyncio
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from policies.errors import DocumentError
from proxy.cli.errors import CliError
from proxy.cli.fleet import ask, entries, nothing_runs, root_of
from proxy.cli.options import Output, OutputFormat, RuntimePath
from proxy.cli.tables import Column, format_age, format_data, format_time, put, put_table, tell

_COLUMNS = (
    Column("name"),
    Column("tracing-enabled", "tracingEnabled"),
    Column("metrics-enabled", "metricsEnabled"),
    Column("age"),
    Column("created"),
    Column("apps", rank=1),
    Column("path", rank=2),
)


def configurations(
    name: Annotated[str | None, typer.Option("--name", "-n", help="the one of this name")] = None,
    output: Output = OutputFormat.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """List the Configurations that sidecars here have read.

    Example: postern configurations
    """
    root = root_of(runtime_path, os.environ)
    apps_by_path: dict[Path, set[str]] = defaultdict(set)
    running = entries(root)
    for found in asyncio.run(ask(running, "/status")):
        policy = (found.answer or {}).get("policy")
        for path in policy.get("files", ()) if isinstance(policy, dict) else ():
            apps_by_path[Path(path)].add(found.entry.app_id)
    rows = [row for path, apps in sorted(apps_by_path.items()) for row in rows_of(path, apps, time.time())]
    if name is not None:
        rows = [row for row in rows if row["name"] == name]
    if output.is_data:
        put(format_data(rows, output.value))
    elif rows:
        shown = [{**row, "apps": ", ".join(apps_by_path[Path(str(row["path"]))])} for row in rows]
        put_table(_COLUMNS, shown, is_wide=output is OutputFormat.WIDE)
    else:
        tell("no sidecar here has read a Configuration" if running else nothing_runs(root))


def rows_of(path: Path, apps: set[str], now: float) -> list[dict[str, object]]:
    """The Configurations in one file. Raises: CliError where it can't be read."""
    from policies.reading.documents import read_documents  # noqa: PLC0415 - brings in YAML

    try:
        documents = read_documents(path, None)
        changed_at = path.stat().st_mtime
    except (DocumentError, OSError) as error:
        raise CliError(str(error)) from error
    return [
        {
            "name": str(_in(document.value, "metadata", "name") or ""),
            "tracingEnabled": str(_in(document.value, "spec", "tracing", "samplingRate") or "0")
            not in ("0", "0.0"),
            "metricsEnabled": _in(document.value, "spec", "metrics", "enabled") is not False
            and _in(document.value, "spec", "metric", "enabled") is not False,
            "age": format_age(now - changed_at),
            "created": format_time(changed_at),
            "apps": sorted(apps),
            "path": str(path),
        }
        for document in documents
        if _in(document.value, "kind") == "Configuration"
    ]


def _in(value: object, *keys: str) -> object:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
