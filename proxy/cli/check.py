"""`postern check`: whether this host, its network, the authority and what runs are as they should be; a line each, and what to do."""

import asyncio
import os
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from policies.errors import DocumentError
from proxy.cli.checks.findings import Finding, State
from proxy.cli.completion import app_ids
from proxy.cli.errors import FAILED, CliError, UsageError
from proxy.cli.fleet import root_of
from proxy.cli.options import RuntimePath
from proxy.cli.tables import format_data, put, tell, terminal_width
from telemetry.durations import parse_duration_s
from telemetry.printable import printable

if TYPE_CHECKING:
    from proxy.cli.checks.looking import Scope

_MARKS: Final[Mapping[State, str]] = {"ok": "✓", "warning": "‼", "failed": "✗"}
_COLOURS: Final[Mapping[State, str]] = {"ok": "32", "warning": "33", "failed": "31"}
_WIDTH: Final = 120  # longer lines are hard to read, however wide the terminal
_AGAIN_S: Final = 1.0


class CheckOutput(Enum):
    """How findings are printed."""

    TEXT = "text"
    SHORT = "short"
    JSON = "json"


def check(  # noqa: PLR0917 - the framework passes them by name
    app_id: Annotated[
        str | None, typer.Argument(help="with --proxy: which app", autocompletion=app_ids)
    ] = None,
    pre: Annotated[
        bool, typer.Option("--pre", help="this host and its network, before anything runs")
    ] = False,
    proxy: Annotated[
        bool, typer.Option("--proxy", help="what the sidecar of APP, or each one, sees itself")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="repeat until nothing fails")] = False,
    timeout: Annotated[str, typer.Option("--timeout", help="how long --wait repeats")] = "60s",
    config: Annotated[
        list[Path] | None,
        typer.Option("--config", help="a Configuration whose trace collector is tried, too"),
    ] = None,
    output: Annotated[
        CheckOutput, typer.Option("--output", "-o", help="text, short or json")
    ] = CheckOutput.TEXT,
    runtime_path: RuntimePath = None,
) -> None:
    """Check that everything calls need is in order; 1 if something fails.

    Example: postern check --proxy cart
    """
    if pre and proxy:
        raise UsageError("--pre and --proxy are two different checks", hint="give one of them")
    if app_id and not proxy:
        raise UsageError(
            f"unexpected {app_id!r}", hint=f"`postern check {app_id} --proxy` checks one sidecar"
        )
    try:
        within_s = parse_duration_s(timeout) if wait else 0.0
    except ValueError as error:
        raise UsageError(f"--timeout: {timeout!r}, expected {error}") from error
    from proxy.cli.checks.looking import Scope  # noqa: PLC0415 - certificates and TLS: other commands do without
    from proxy.cli.checks.network import configured_collectors  # noqa: PLC0415 - as above

    try:
        collectors = configured_collectors(config or ())
    except DocumentError as error:
        raise CliError(str(error)) from error
    root = root_of(runtime_path, os.environ)
    scope = Scope(root=root, app_id=app_id, pre=pre, proxy=proxy, collectors=collectors)
    found = asyncio.run(_repeat(scope, within_s))
    _print(found, output)
    if any(finding.state == "failed" for finding in found):
        raise typer.Exit(FAILED)


async def _repeat(scope: "Scope", within_s: float) -> tuple[Finding, ...]:
    """Look once, and again until nothing fails or the time is over."""
    from proxy.cli.checks.looking import look  # noqa: PLC0415 - as above

    until = time.monotonic() + within_s
    told = ""
    while True:
        found = await look(scope)
        failing = sorted({finding.id for finding in found if finding.state == "failed"})
        if not failing or time.monotonic() + _AGAIN_S >= until:
            return found
        if told != (told := ", ".join(failing)):
            tell(f"waiting for: {told}")
        await asyncio.sleep(_AGAIN_S)


def _print(found: Sequence[Finding], output: CheckOutput) -> None:
    is_well = not any(finding.state == "failed" for finding in found)
    if output is CheckOutput.JSON:
        rows = [
            {"id": each.id, "group": each.group, "state": each.state, "text": each.text, "hint": each.hint}
            for each in found
        ]
        put(format_data({"ok": is_well, "checks": rows}, "json"))
        return
    is_coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = min(terminal_width() or _WIDTH, _WIDTH)
    shown = [each for each in found if output is CheckOutput.TEXT or each.state != "ok"]
    text = "\n".join(render(shown, width, is_coloured=is_coloured))
    if text:
        put(text)
    counts = {state: sum(1 for each in found if each.state == state) for state in _MARKS}
    put(("\n" if text else "") + summary(counts))


def render(found: Sequence[Finding], width: int, *, is_coloured: bool) -> Iterator[str]:
    """A heading for each group, a line for each finding, and below those that are not well what to do."""
    group = ""
    for each in found:
        if each.group != group:
            if group:
                yield ""
            group = each.group
            yield group
        mark = _MARKS[each.state]
        shown = f"\x1b[{_COLOURS[each.state]}m{mark}\x1b[0m" if is_coloured else mark
        tail = "" if each.state == "ok" else f" [{each.id}]"
        lines = textwrap.wrap(
            printable(each.text + tail), max(width - 2, 40), break_on_hyphens=False, break_long_words=False
        )
        yield f"{shown} {lines[0]}"
        yield from (f"  {line}" for line in lines[1:])
        if each.hint:
            yield from textwrap.wrap(
                printable(each.hint),
                max(width, 40),
                initial_indent="    → ",
                subsequent_indent="      ",
                break_on_hyphens=False,
                break_long_words=False,
            )


def summary(counts: Mapping[State, int]) -> str:
    """The last line: how many checks failed, and how many warn."""
    failed, warnings = counts["failed"], counts["warning"]
    told = [f"{failed} {'check' if failed == 1 else 'checks'} failed"] if failed else []
    told += [f"{warnings} {'warning' if warnings == 1 else 'warnings'}"] if warnings else []
    return ", ".join(told) if failed else ", ".join(["no failures", *told])
