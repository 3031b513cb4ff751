"""`postern logs`: what apps and their sidecars have logged, of several in the order of time, and what they log from now on."""

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Annotated

import typer

from nameresolution.host_registry import Entry
from proxy.cli.completion import app_ids
from proxy.cli.errors import FAILED, PARTLY, CliError, UsageError
from proxy.cli.fleet import of_app, root_of
from proxy.cli.log_lines import Line, chosen, dated, merged
from proxy.cli.log_sources import Kind, Opened, Source, sources_of
from proxy.cli.options import RuntimePath
from proxy.cli.output import Console
from proxy.cli.stop import of_instance
from proxy.cli.tables import put, tell
from telemetry.durations import parse_duration_s
from telemetry.printable import printable
from telemetry.standard_files import discard

_MAX_LINES = 1_000_000
_EXPECTED_SINCE = "expected a length such as 10m, or a time such as 2026-01-31T12:00:00Z"
_SHORT = 8  # of an instance's id, in labels


def logs(  # noqa: PLR0917 - the framework passes them by name
    app_ids_: Annotated[
        list[str] | None,
        typer.Argument(metavar="APP...", help="apps, or app.namespace", autocompletion=app_ids),
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
        int, typer.Option("--tail", min=0, max=_MAX_LINES, help="last N lines of each log")
    ] = _MAX_LINES,
    since: Annotated[
        str | None, typer.Option("--since", help="no older lines: 10m, or a time as 2026-01-31T12:00:00Z")
    ] = None,
    instance: Annotated[str | None, typer.Option(help="one of several instances, as `stop` takes it")] = None,
    runtime_path: RuntimePath = None,
) -> None:
    """Show what apps and their sidecars have logged, in the order of time.

    Files of `postern run -f` and of --log-file are read, with those that were put aside when full; a sidecar without a file tells its
    latest lines from memory. What can't be read is noted; 3 if only a part is shown, 1 if nothing.
    A line that says no time counts as old as the one before it.

    Example: postern logs cart checkout --since 10m -f
    """
    asked = [*(app_ids_ or ()), *([named] if named else ())]
    if not asked:
        raise UsageError("expected an app", hint="name one or several, as in `postern logs cart checkout`")
    if app and sidecar:
        raise UsageError("--app and --sidecar are each alone", hint="leave both out for all lines")
    oldest = None if since is None else moment(since, time.time())
    root = root_of(runtime_path, os.environ)
    found = [entry for name in dict.fromkeys(asked) for entry in of_app(root, name)]
    if instance:
        found = [of_instance(found, instance)]
    kinds: tuple[Kind, ...] = ("app",) if app else ("sidecar",) if sidecar else ("app", "sidecar")
    code = 0
    try:
        code = asyncio.run(_show(found, kinds, tail, oldest, follow=follow))
    except* KeyboardInterrupt:  # the usual end of following
        pass
    except* BrokenPipeError:  # as in `postern logs cart | head`
        discard(sys.stdout)
    if code:
        raise typer.Exit(code)


def moment(text: str, now: float) -> float:
    """The epoch seconds of `--since`: a length before now, or a time, of this host's zone where it names none. Raises: UsageError."""
    try:
        found = now - parse_duration_s(text)
    except ValueError:
        try:
            found = datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError, OSError):
            raise UsageError(f"--since {text}: {_EXPECTED_SINCE}") from None
    if found > now:
        raise UsageError(f"--since {text}: is in the future ({_EXPECTED_SINCE})")
    return found


async def _show(
    found: Sequence[Entry], kinds: Sequence[Kind], tail: int, oldest: float | None, *, follow: bool
) -> int:
    """Show what can be shown, note what can't, and return the exit code."""
    where = await sources_of(found, kinds)
    for entry in where.unkept:
        tell(
            f"{entry.app_id}: what its app writes is kept nowhere, and goes where the app was started; "
            "`postern run -f` keeps it in files (appLogDestination)"
        )
    for problem in where.problems:
        tell(problem)
    if not where.sources:
        raise CliError("no lines to show" if where.problems else "no lines are kept")
    every = [Opened(source) for source in where.sources]
    try:
        async with asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(_read(each, goes_on=follow)) for each in every]
        histories = [history for task in reading if (history := task.result())]
        if not histories:
            return FAILED
        opened = [each for each, _, _ in histories]
        shown = _Shown([each.source for each in opened])
        read = [
            chosen(dated(lines, number, otherwise), since=oldest, tail=tail)
            for number, (_, lines, otherwise) in enumerate(histories)
        ]
        for line in merged(read):
            shown.line(line)
        if oldest is not None and not follow and not any(read):
            tell("no line is as new as --since asks for")
        if follow:
            await _follow_all(opened, shown)
        return PARTLY if where.problems or len(opened) < len(every) else 0
    finally:
        for each in every:
            each.close()


async def _read(opened: Opened, *, goes_on: bool) -> tuple[Opened, list[str], float] | None:
    """The history of one source; None, with a note, where it can't be read."""
    try:
        return opened, *await opened.history(goes_on=goes_on)
    except CliError as error:
        tell(str(error))
        return None


async def _follow_all(opened: Sequence[Opened], shown: "_Shown") -> None:
    sys.stdout.flush()
    async with asyncio.TaskGroup() as tasks:
        for number, each in enumerate(opened):
            tasks.create_task(_follow(each, number, shown))


async def _follow(opened: Opened, number: int, shown: "_Shown") -> None:
    entry = opened.source.entry
    news: AsyncGenerator[str] = opened.news()
    try:
        async with aclosing(news):
            async for text in news:
                shown.line(Line(at=0.0, number=number, text=text))
                sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (OSError, TimeoutError):
        tell(f"{entry.app_id}: its sidecar has ended")


class _Shown:
    """Prints lines, each behind whose it is where there are several sources."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._labels = labels_of(sources)
        width = max(map(len, self._labels))
        out = sys.stdout.buffer
        self._console = Console(out, out, os.environ, width=width)

    def line(self, line: Line) -> None:
        """One line of one of them. Raises: BrokenPipeError."""
        text = printable(line.text)
        if not self._labels[line.number]:
            put(text)
            return
        sys.stdout.flush()
        kind = self._sources[line.number].kind
        self._console.line(self._labels[line.number], kind, text.encode("utf-8", "replace"))
        if self._console.broken:
            raise BrokenPipeError


def labels_of(sources: Sequence[Source]) -> list[str]:
    """What stands before the lines of each: its app where there are several, else its kind, and the instance where an app has several."""
    apps = {source.entry.app_id for source in sources}
    each = {source.entry.instance: source.entry.app_id for source in sources}
    instances = Counter(each.values())
    several = len(sources) > 1
    labels = []
    for source in sources:
        app_id = source.entry.app_id
        name = app_id if len(apps) > 1 else source.kind if several else ""
        mark = source.entry.instance[:_SHORT] if instances[app_id] > 1 else ""
        labels.append(" ".join(filter(None, (name, mark))))
    return labels
