"""`postern log-level`: from which level on running sidecars write log lines, told or changed, for good or for a while."""

import asyncio
import json
import os
import time
from typing import Annotated
from urllib.parse import urlencode

import typer

from nameresolution.host_registry import Entry
from proxy.cli.completion import app_ids
from proxy.cli.errors import FAILED, PARTLY, CliError, UsageError
from proxy.cli.fleet import ask, of_app, post, root_of
from proxy.cli.options import Output, OutputFormat, RuntimePath
from proxy.cli.tables import Column, Row, format_age, format_data, put, put_table, tell

TARGET = "/postern/v1/log-level"
_ASK_S = 2.0
_COLUMNS = (Column("app"), Column("pid"), Column("level"), Column("configured"), Column("back in"))


def log_level(
    app_id: Annotated[str, typer.Argument(help="the app, or app.namespace", autocompletion=app_ids)],
    level: Annotated[
        str | None, typer.Argument(help="debug, info, warn, error, fatal or reset; none: tell")
    ] = None,
    length: Annotated[str | None, typer.Option("--for", help="revert after this long: 10m")] = None,
    output: Output = OutputFormat.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Tell or change the log level of running sidecars.

    Example: postern log-level cart debug --for 10m
    """
    if length and level is None:
        raise UsageError("--for needs a level")
    found = of_app(root_of(runtime_path, os.environ), app_id)
    failed = 0
    if level is not None:
        failed = sum(not _change(entry, level, length) for entry in found)
        if failed == len(found):
            raise typer.Exit(FAILED)
    rows = []
    for sidecar in asyncio.run(ask(found, TARGET)):
        if sidecar.answer is None:
            tell(f"{sidecar.entry.app_id} ({sidecar.entry.pid}): unresponsive")
        else:
            rows.append({"app": sidecar.entry.app_id, "pid": sidecar.entry.pid, **sidecar.answer})
    if output.is_data:
        put(format_data(rows, output.value))
    elif rows:
        put_table(_COLUMNS, [_for_people(row) for row in rows], is_wide=output is OutputFormat.WIDE)
    if failed or not rows:
        raise typer.Exit(PARTLY if rows else FAILED)


def _change(entry: Entry, level: str, length: str | None) -> bool:
    query = {"level": level, **({"for": length} if length else {})}
    try:
        answer = asyncio.run(post(entry, f"{TARGET}?{urlencode(query)}", timeout_s=_ASK_S))
    except CliError as error:
        tell(str(error))
        return False
    if answer.status == 404:
        tell(f"{entry.app_id}: its sidecar can't change it while it runs; restart it with this version")
        return False
    if answer.status != 200:
        raise UsageError(str(json.loads(answer.body).get("message", "")))
    return True


def _for_people(row: Row) -> Row:
    until = row["until"]
    left = format_age(until - time.time()) if isinstance(until, int | float) else ""
    return {**row, "back in": left}
