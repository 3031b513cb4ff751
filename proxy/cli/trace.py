"""`postern trace`: one trace as a tree, put together from the spans that all sidecars here keep in memory."""

import asyncio
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.errors import CliError, UsageError
from proxy.cli.fleet import SidecarAnswer, ask, entries, nothing_runs, root_of
from proxy.cli.options import RuntimePath
from proxy.cli.output import wants_colour
from proxy.cli.tables import format_data, put

ASK_S = 1.0  # the answer may hold many spans
_ID = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}")

SpanJson = dict[str, object]


def trace(
    trace_id: Annotated[str | None, typer.Argument(help="16 or 32 hex digits; none: the newest")] = None,
    last: Annotated[bool, typer.Option("--last", help="the newest trace")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="text, json or yaml")] = "text",
    runtime_path: RuntimePath = None,
) -> None:
    """Show a trace as a tree."""
    if trace_id and last:
        raise UsageError("a trace id can't be combined with --last")
    if output not in {"text", "json", "yaml"}:
        raise UsageError(f"--output {output!r}", hint="expected text, json or yaml")
    if trace_id and _ID.fullmatch(trace_id.lower()) is None:
        raise UsageError(f"invalid trace id {trace_id!r}", hint="expected 16 or 32 hex digits")
    root = root_of(runtime_path, os.environ)
    found, spans = asyncio.run(collect(root, trace_id.lower() if trace_id else None))
    if output != "text":
        put(format_data({"traceId": found, "spans": spans}, output))
        return
    from telemetry.tree import render  # noqa: PLC0415 - for people only

    put(render(spans, color=wants_colour(sys.stdout.buffer, os.environ)))


async def collect(root: Path, trace_id: str | None) -> tuple[str, list[SpanJson]]:
    """The spans of one trace from every sidecar; without an id, of the newest one. Raises: CliError."""
    listed = entries(root)
    if not listed:
        raise CliError(nothing_runs(root))
    if trace_id is None:
        trace_id = newest(await ask(listed, "/trace?last=1", timeout_s=ASK_S))
        if trace_id is None:
            raise CliError(
                "no trace yet", hint="make a call, or raise the sampling rate in the Configuration"
            )
    spans = merge(await ask(listed, f"/trace?id={trace_id}", timeout_s=ASK_S))
    if not spans:
        raise CliError(f"{trace_id}: no sidecar here remembers this trace")
    return trace_id, spans


def newest(answers: Sequence[SidecarAnswer]) -> str | None:
    """The id of the trace whose first span began last."""
    starts: dict[str, int] = {}
    for span in merge(answers):
        name, start = span.get("traceId"), span.get("timestamp")
        if isinstance(name, str) and isinstance(start, int):
            starts[name] = min(start, starts.get(name, start))
    return max(starts, key=lambda name: starts[name]) if starts else None


def merge(answers: Sequence[SidecarAnswer]) -> list[SpanJson]:
    """All spans in the answers, each once, by start."""
    spans: dict[tuple[object, object, object], SpanJson] = {}
    for sidecar in answers:
        listed = (sidecar.answer or {}).get("spans")
        for span in listed if isinstance(listed, list) else ():
            if isinstance(span, dict):
                spans.setdefault((span.get("traceId"), span.get("id"), span.get("kind")), span)
    return sorted(spans.values(), key=_start)


def _start(span: SpanJson) -> int:
    start = span.get("timestamp")
    return start if isinstance(start, int) else 0
