"""`postern logs`: the log files of an app and of its sidecar, from the run that wrote them."""

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from msgspec import Struct

from nameresolution.host_registry import Entry
from proxy.cli.completion import app_ids
from proxy.cli.errors import CliError, UsageError
from proxy.cli.fleet import ask, of_app, root_of
from proxy.cli.listing import extended
from proxy.cli.options import RuntimePath
from proxy.cli.stop import of_instance
from proxy.cli.tables import put
from telemetry.printable import printable

_ASK_S = 1.0
_POLL_S = 0.2
_MAX_LINES = 1_000_000


class LogFile(Struct, frozen=True, kw_only=True):
    """One file; `label` stands before its lines where there are several."""

    label: str
    path: Path


def logs(  # noqa: PLR0917 - the framework passes them by name
    app_id: Annotated[
        str | None, typer.Argument(help="the app, or app.namespace", autocompletion=app_ids)
    ] = None,
    named: Annotated[
        str | None,
        typer.Option("--app-id", "-a", help="the app, as Dapr's command has it", autocompletion=app_ids),
    ] = None,
    app: Annotated[bool, typer.Option("--app", help="the app's own lines alone")] = False,
    sidecar: Annotated[bool, typer.Option("--sidecar", help="the sidecar's lines alone")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="go on with what is written from now on")
    ] = False,
    tail: Annotated[
        int, typer.Option("--tail", min=0, max=_MAX_LINES, help="last N lines of each file")
    ] = _MAX_LINES,
    instance: Annotated[str | None, typer.Option(help="one of several instances, as `stop` takes it")] = None,
    runtime_path: RuntimePath = None,
) -> None:
    """Show what an app and its sidecar have logged into files."""
    asked = app_id or named
    if asked is None or (app_id and named):
        raise UsageError("expected one app", hint="name it alone, or with --app-id")
    if app and sidecar:
        raise UsageError("--app and --sidecar are each alone", hint="leave both out for all lines")
    found = of_app(root_of(runtime_path, os.environ), asked)
    if instance:
        found = (of_instance(found, instance),)
    files = asyncio.run(files_of(found, app=not sidecar, sidecar=not app))
    if not files:
        raise CliError(
            f"{asked} logs to no file, but to the terminal it was started from",
            hint="appLogDestination and daprdLogDestination of a run file choose, and --log-file",
        )
    try:
        for line in lines(files, tail, follow=follow):
            put(line)
            if follow:
                sys.stdout.flush()
    except KeyboardInterrupt:  # the usual end of following
        return


async def files_of(found: Sequence[Entry], *, app: bool, sidecar: bool) -> tuple[LogFile, ...]:
    """The files of these sidecars and their apps, by what each sidecar was told of its run."""
    wanted = [("app", "appLogPath")] * app + [("sidecar", "daprdLogPath")] * sidecar
    several = len(found) > 1
    files = []
    for answered in await ask(found, "/metadata", timeout_s=_ASK_S):
        told = extended(answered)
        name = f" {answered.entry.instance[:8]}" if several else ""
        files += [
            LogFile(label=f"{kind}{name}", path=Path(told[key])) for kind, key in wanted if told.get(key)
        ]
    return tuple(files)


def lines(files: Sequence[LogFile], tail: int, *, follow: bool) -> Iterator[str]:
    """The last lines of each file, then, if following, those of all as they come. Raises: CliError."""
    opened: dict[LogFile, IO[str]] = {}
    labelled = len(files) > 1
    try:
        for file in files:
            try:
                opened[file] = file.path.open(encoding="utf-8", errors="replace")
            except OSError as error:
                raise CliError(f"{file.path}: {error.strerror}") from error
            for line in deque(opened[file], maxlen=tail):
                yield _shown(file, line, labelled=labelled)
        while follow:
            for file in files:
                for line in opened[file]:
                    yield _shown(file, line, labelled=labelled)
                if is_replaced(file.path, opened[file]):
                    opened.pop(file).close()
                    opened[file] = file.path.open(encoding="utf-8", errors="replace")
            time.sleep(_POLL_S)
    finally:
        for stream in opened.values():
            stream.close()


def is_replaced(path: Path, stream: IO[Any]) -> bool:
    """Whether the path leads to another file than the one that is open: a full log was put aside."""
    try:
        return not os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except OSError:
        return False


def _shown(file: LogFile, line: str, *, labelled: bool) -> str:
    text = printable(line.rstrip("\n"))
    return f"{file.label} | {text}" if labelled else text
