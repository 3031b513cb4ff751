"""`postern resolve`: one name looked up afresh by a running sidecar; what each source said and when, and where a call would go."""

import asyncio
import json
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from nameresolution.host_registry import Entry
from proxy.cli.completion import app_ids
from proxy.cli.errors import FAILED, CliError, UsageError
from proxy.cli.fleet import entries, nothing_runs, of_app, root_of
from proxy.cli.options import Output, OutputFormat, RuntimePath
from proxy.cli.tables import format_age, format_data, put, terminal_width
from proxy.wire.http_client import request
from telemetry.printable import printable

_ASK_S = 6.0  # the sidecar waits three seconds for its sources
_WATCH_S = 1.0
_WIDTH = 120

Told = Mapping[str, Any]


def resolve(
    name: Annotated[
        str, typer.Argument(help="app-id, app.namespace, or a gRPC service", autocompletion=app_ids)
    ],
    caller: Annotated[
        str | None,
        typer.Option(
            "--from", help="the app whose sidecar looks; none: any other app here", autocompletion=app_ids
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="look again and again, and print what changes")
    ] = False,
    output: Output = OutputFormat.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Look a name up afresh: what each source says, how long it took, where a call would go; 1 if nowhere.

    Example: postern resolve cart --from web
    """
    root = root_of(runtime_path, os.environ)
    entry = of_app(root, caller)[0] if caller else _any_caller(root, name)
    found = asyncio.run(_watch(entry, name, output) if watch else _once(entry, name, output))
    if not found:
        raise typer.Exit(FAILED)


def _any_caller(root: Path, name: str) -> Entry:
    """A sidecar of another app where there is one, as it is others who look a name up. Raises: CliError."""
    running = entries(root)
    if not running:
        raise CliError(nothing_runs(root))
    return next((entry for entry in running if entry.app_id != name.partition(".")[0]), running[0])


async def _once(entry: Entry, name: str, output: OutputFormat) -> bool:
    told = await _ask(entry, name)
    _print(told, output)
    return bool(told["endpoints"])


async def _watch(entry: Entry, name: str, output: OutputFormat) -> bool:
    """Until interrupted: prints at first, and whenever something other than times has changed."""
    before = None
    while True:
        told = await _ask(entry, name)
        if (facts := _facts(told)) != before:
            if before is not None and not output.is_data:
                put("")
            before = facts
            _print(told, output)
            sys.stdout.flush()  # into a pipe, too, each change is told at once
        await asyncio.sleep(_WATCH_S)


def _facts(told: Told) -> object:
    return (
        [(each["source"], each["endpoints"], each["problem"]) for each in told["sources"]],
        sorted((each["address"], each["why"].partition("(")[0]) for each in told["endpoints"]),
    )


async def _ask(entry: Entry, name: str) -> Told:
    target = f"/resolve?app={quote(name, safe='')}"
    try:
        response = await request(f"unix:{entry.admin_socket}", "GET", target, timeout_s=_ASK_S)
        content = json.loads(response.body)
    except (OSError, TimeoutError, ValueError) as error:
        raise CliError(f"{entry.app_id}: sidecar {entry.pid} does not answer: {error}") from error
    if response.status == 404:
        raise CliError(
            f"{entry.app_id}: its sidecar can't resolve names for others", hint="restart it with this version"
        )
    if response.status != 200 or not isinstance(content, dict):
        raise UsageError(content.get("message", "") if isinstance(content, dict) else "no answer")
    return content


def _print(told: Told, output: OutputFormat) -> None:
    if output.is_data:
        put(format_data(told, output.value))
    else:
        put("\n".join(render(told, min(terminal_width() or _WIDTH, _WIDTH))))


def render(told: Told, width: int) -> Iterator[str]:
    """For people: the verdict, the sources in order of precedence, then the endpoints in the order in which calls prefer them."""
    found = told["endpoints"]
    if found:
        stale = "; stale: a source has failed since" if told["stale"] else ""
        yield printable(f"✓ {told['name']}: {told['by']} calls {found[0]['address']}{stale}")
    else:
        near = f"; did you mean {' or '.join(map(repr, told['near']))}?" if told["near"] else ""
        yield printable(f"✗ {told['name']}: {told['by']} finds nobody{near}")
    yield ""
    yield "sources"
    label = max((len(each["source"]) for each in told["sources"]), default=0)
    for source in told["sources"]:
        yield from _source(source, label, width)
    if found:
        yield ""
        yield "endpoints"
        size = max(len(each["address"]) for each in found)
        for end in found:
            text = f"{end['verdict']:<9}  {end['why']} ({end['source']})"
            yield from _wrapped(f"{printable(end['address']):<{size}}  ", text, width)


def _source(source: Told, label: int, width: int) -> Iterator[str]:
    took = "-" if source["tookMs"] is None else f"{source['tookMs']:.1f} ms"
    first = f"{printable(source['source']):<{label}}  {took:>9}  "
    kept = f" (last heard {format_age(source['keptForS'])} ago)" if source["keptForS"] is not None else ""
    lines = [
        f"{end['address']} is ignored {end['ignored']}" if end["ignored"] else str(end["address"])
        for end in source["endpoints"]
    ] or [source["problem"] or "nobody"]
    lines[-1] += kept
    for number, text in enumerate(lines):
        yield from _wrapped(first if number == 0 else " " * len(first), text, width)
    if source["fix"]:
        yield from _wrapped(" " * len(first) + "→ ", source["fix"], width)


def _wrapped(head: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        printable(text),
        max(width, len(head) + 30),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
        break_long_words=False,
    )
