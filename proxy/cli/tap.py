"""`postern tap`: the calls of all sidecars here, or of one app's, as they begin, are answered and end."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer

from nameresolution.host_registry import Entry
from proxy.cli.completion import app_ids
from proxy.cli.errors import CliError, UsageError
from proxy.cli.fleet import ASK_S, entries, nothing_runs, of_app, root_of
from proxy.cli.options import RuntimePath
from proxy.cli.tables import put, tell
from proxy.cli.tap_lines import EVENTS, Printer, Told, skipped
from proxy.control.tap_filters import MAX_RPS, parse_filter
from proxy.wire.http_client import LocalHttpError
from proxy.wire.http_stream import LineStream, open_stream
from telemetry.standard_files import discard

TARGET = "/postern/v1/tap"


class TapOutput(Enum):
    """How an event is printed."""

    LINE = "line"
    WIDE = "wide"
    JSON = "json"


def tap(  # noqa: PLR0917 - the framework passes them by name
    app_id: Annotated[
        str | None, typer.Argument(help="the sidecars of this app; none: all", autocompletion=app_ids)
    ] = None,
    caller: Annotated[
        list[str] | None, typer.Option("--from", help="calls of this app", autocompletion=app_ids)
    ] = None,
    callee: Annotated[
        list[str] | None, typer.Option("--to", help="calls to this app", autocompletion=app_ids)
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="GET, POST, …; of gRPC the method's name or path")
    ] = None,
    path: Annotated[str | None, typer.Option(help="paths that begin with this")] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(help="of HTTP: 404, 5xx, or several: 404,5xx; requests are not shown then"),
    ] = None,
    grpc_status: Annotated[
        list[str] | None,
        typer.Option(help="of gRPC: Unavailable, NOT_FOUND, 14; requests are not shown then"),
    ] = None,
    slower_than: Annotated[
        str | None,
        typer.Option(
            "--slower-than",
            "--slower",
            help="calls that took at least this long: 250ms; requests are not shown then",
        ),
    ] = None,
    ends: Annotated[bool, typer.Option("--ends", help="one line for each call, at its end")] = False,
    headers: Annotated[
        list[str] | None,
        typer.Option(
            help="values of these headers or metadata, comma-separated; none that may hold a secret"
        ),
    ] = None,
    sample: Annotated[
        float | None, typer.Option(help="this share of calls: 0.1; both sidecars of a call choose alike")
    ] = None,
    max_rps: Annotated[float, typer.Option(help="calls a second at most, of each sidecar")] = MAX_RPS,
    output: Annotated[
        TapOutput, typer.Option("--output", "-o", help="line, wide or json (one object an event)")
    ] = TapOutput.LINE,
    runtime_path: RuntimePath = None,
) -> None:
    """Show calls live until Ctrl-C: `req` when one is let through, `rsp` when its answer begins, `end` when it is over.

    Lines of one call share an id. Calls under way when the tap begins are listed first. An answer that ends within 200 ms has no `rsp`
    line, but with `-o json`. A call between two apps here shows twice: `out` from the caller's sidecar, `in` at the callee's. Nothing of
    queries and bodies is shown, and of headers only those named by `--headers`. Filters of one kind are alternatives, filters of several
    kinds must all be met.

    Example: postern tap --to cart --slower-than 250ms -o wide
    """
    asked = {
        "from": caller,
        "to": callee,
        "method": method,
        "path": path,
        "status": status,
        "grpc-status": grpc_status,
        "slower-than": slower_than,
        "max-rps": f"{max_rps:g}",
        "sample": None if sample is None else f"{sample:g}",
        "headers": headers,
        "ends": "true" if ends else None,
    }
    query = {
        key: found if isinstance(found, list) else [str(found)]
        for key, found in asked.items()
        if found is not None
    }
    try:
        parse_filter(query)
    except ValueError as error:
        raise UsageError(f"--{error}") from error
    root = root_of(runtime_path, os.environ)
    try:
        target = f"{TARGET}?{urlencode(query, doseq=True)}"
        asyncio.run(tap_all(_chosen(root, app_id), target, output, is_ends=ends))
    except* KeyboardInterrupt:  # the usual end
        pass
    except* (
        BrokenPipeError
    ):  # as in `postern tap | head`: there is nobody to print for, nor what is left at the exit
        discard(sys.stdout)


def _chosen(root: Path, app_id: str | None) -> tuple[Entry, ...]:
    found = of_app(root, app_id) if app_id else entries(root)
    if not found:
        raise CliError(nothing_runs(root))
    return found


async def tap_all(found: Sequence[Entry], target: str, output: TapOutput, *, is_ends: bool = False) -> None:
    """Print what all of them tell, until each has ended. is_ends: no other events are asked for. Raises: CliError, where none answers."""
    several = len(found) > 1
    printer = Printer(_put, is_wide=output is TapOutput.WIDE, is_ends=is_ends)
    tapped: list[Entry] = []
    problems: list[str] = []

    async def one(entry: Entry) -> None:
        name = f"{entry.app_id} ({entry.pid})"
        try:
            async with open_stream(f"unix:{entry.admin_socket}", target, timeout_s=ASK_S) as stream:
                if stream.status != 200:
                    problems.append(f"{name}: {await refusal(stream)}")
                    return
                tapped.append(entry)
                async for line in stream.lines():
                    told = json.loads(line)
                    if output is TapOutput.JSON:
                        _put(json.dumps(told))  # in ASCII: nothing that a terminal obeys
                    else:
                        _show(told, printer, entry.app_id if several else "")
        except (LocalHttpError, TimeoutError, ValueError) as error:
            reason = str(error) or f"no answer within {ASK_S * 1e3:g} ms"
            if entry in tapped:
                tell(f"{name}: its sidecar has ended")
            else:
                problems.append(f"{name}: unresponsive: {reason}")

    async with asyncio.TaskGroup() as tasks:
        printing = tasks.create_task(printer.run())
        running = [tasks.create_task(one(entry)) for entry in found]
        await asyncio.wait(running, timeout=2 * ASK_S)
        for problem in problems:
            tell(problem)
        if tapped and sys.stderr.isatty():
            tell(f"tapping {', '.join(sorted({entry.app_id for entry in tapped}))}; Ctrl-C ends it")
        await asyncio.wait(running)
        printing.cancel()
        printer.flush()
    if not tapped:
        raise CliError("no sidecar could be tapped")


async def refusal(stream: LineStream) -> str:
    """Why a sidecar opened no tap. Raises: LocalHttpError, TimeoutError, ValueError."""
    if stream.status == 404:
        return "its sidecar can't be tapped; restart it with this version"
    async with asyncio.timeout(ASK_S):
        told = json.loads(await stream.rest())
    return str(told.get("message", "")) if isinstance(told, dict) else "it refuses"


def _show(told: Told, printer: Printer, app_id: str) -> None:
    """For people. app_id: whose it is, where they can't know."""
    if told["event"] in EVENTS:
        printer.show(told)
    elif told["event"] == "skipped":
        tell(f"{app_id}: {skipped(told)}" if app_id else skipped(told))


def _put(line: str) -> None:
    put(line)
    sys.stdout.flush()
