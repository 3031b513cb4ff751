"""`postern validate`: whether Configurations, resources and run files would be taken by a sidecar. For CI; `analyze` also lints them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.analyze import AnalyzeOutput, finding_row, look, no_documents, sort_files
from proxy.cli.errors import FAILED
from proxy.cli.tables import format_data, put, tell
from telemetry.printable import printable


def validate(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="files and folders; none: the working directory")
    ] = None,
    output: Annotated[
        AnalyzeOutput, typer.Option("--output", "-o", help="text or json")
    ] = AnalyzeOutput.TEXT,
) -> None:
    """Check that sidecars would load Configurations, AccessPolicies, Traffics, Resiliencies, HTTPEndpoints, Components and run files.

    Prints each fault as file:line: field: problem; 1 if there is one, 2 where there is nothing to check. `postern analyze` tells what is
    valid but questionable, too.

    Example: postern validate dapr.yaml resources
    """
    files = sort_files(paths or [Path()])
    checked = files.checked
    if not checked:
        raise no_documents(paths)
    faults = [finding_row(each) for each in look(files, os.environ) if each.severity == "error"]
    if output is AnalyzeOutput.JSON:
        keys = ("path", "line", "field", "message")
        put(
            format_data(
                {"files": checked, "faults": [{key: row[key] for key in keys} for row in faults]}, "json"
            )
        )
    else:
        for row in faults:
            line = f":{row['line']}" if row["line"] else ""
            field = f"{row['field']}: " if row["field"] else ""
            put(printable(f"{row['path']}{line}: {field}{row['message']}"))
        count = f"{len(faults)} fault{'s' * (len(faults) != 1)}" if faults else "valid"
        tell(f"{checked} file{'s' * (checked != 1)}: {count}")
    if faults:
        raise typer.Exit(FAILED)
