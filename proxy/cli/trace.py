"""`postern trace`: which traces there are, and one of them as a tree, put together from what sidecars keep in memory and from Zipkin."""

import asyncio
import os
import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Annotated

import typer

from nameresolution.host_registry import Entry
from proxy.api.traces import MAX_LIMIT, read_filter
from proxy.cli.completion import app_ids
from proxy.cli.errors import CliError, UsageError
from proxy.cli.fleet import entries, nothing_runs, root_of
from proxy.cli.options import RuntimePath
from proxy.cli.output import wants_colour
from proxy.cli.tables import Column, Row, format_data, put, put_table, tell
from proxy.cli.traces import Listing, Source, list_traces, spans_of
from telemetry.shown import error_shown
from telemetry.traces import Json, TraceFilter

_ID = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}")
_LIST = 20
_COLUMNS = (
    Column("trace id", key="trace_id"),
    Column("started", rank=3),
    Column("from"),
    Column("to"),
    Column("operation"),
    Column("status"),
    Column("took"),
    Column("spans", rank=2),
    Column("error", rank=1),
)
_KEPT = "in memory are traces of sampled calls, of calls that failed, and of slow ones (spec.tracing of a Configuration)"


class TraceSource(Enum):
    """Where traces are looked for."""

    ANY = "any"
    MEMORY = "memory"
    ZIPKIN = "zipkin"


class TraceOutput(Enum):
    """How traces are printed."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


def trace(  # noqa: PLR0917 - the framework passes them by name
    trace_id: Annotated[str | None, typer.Argument(help="16 or 32 hex digits; none: the newest")] = None,
    last: Annotated[
        bool, typer.Option("--last", help="the newest trace, of those that the filters let through")
    ] = False,
    is_list: Annotated[bool, typer.Option("--list", help="a line for each trace, newest first")] = False,
    app: Annotated[
        str | None, typer.Option(help="traces with a call from or to this app", autocompletion=app_ids)
    ] = None,
    error: Annotated[bool, typer.Option("--error", help="traces with a call that failed")] = False,
    slower: Annotated[str | None, typer.Option(help="traces that took at least this long: 250ms")] = None,
    since: Annotated[str | None, typer.Option(help="only traces newer than this: 10m")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="at most this many lines")] = _LIST,
    source: Annotated[
        TraceSource,
        typer.Option(help="memory: what sidecars here keep; zipkin: where they export to; any: both"),
    ] = TraceSource.ANY,
    output: Annotated[
        TraceOutput, typer.Option("--output", "-o", help="text, json or yaml")
    ] = TraceOutput.TEXT,
    runtime_path: RuntimePath = None,
) -> None:
    """List traces, or show one as a tree: who called whom, attempts, decisions, and where the time went.

    Example: postern trace --last
    """
    _check(trace_id, is_list=is_list, last=last, is_filtered=bool(app or error or slower or since))
    wanted = _filter(app, slower, since, error=error)
    root = root_of(runtime_path, os.environ)
    found = entries(root)
    if not found:
        raise CliError(nothing_runs(root))
    if is_list:
        _put_list(asyncio.run(list_traces(found, wanted, limit, source.value)), output)
    else:
        chosen = trace_id.lower() if trace_id else _newest(found, wanted, source.value)
        _put_one(found, chosen, source.value, output)


def _check(trace_id: str | None, *, is_list: bool, last: bool, is_filtered: bool) -> None:
    if trace_id and (last or is_list or is_filtered):
        raise UsageError("a trace id can't be combined with --last, --list and filters")
    if last and is_list:
        raise UsageError("--last and --list can't be combined")
    if trace_id and _ID.fullmatch(trace_id.lower()) is None:
        raise UsageError(f"invalid trace id {trace_id!r}", hint="expected 16 or 32 hex digits")


def _filter(app: str | None, slower: str | None, since: str | None, *, error: bool) -> TraceFilter:
    query = {"app": app, "slower-than": slower, "since": since, "error": "1" if error else None}
    try:
        return read_filter({key: [text] for key, text in query.items() if text is not None}, time.time())
    except ValueError as fault:
        raise UsageError(f"--{fault}".replace("--slower-than", "--slower")) from fault


def _newest(found: Sequence[Entry], wanted: TraceFilter, source: Source) -> str:
    listing = asyncio.run(list_traces(found, wanted, 1, source))
    if not listing.traces:
        _tell_problems(listing)
        raise CliError("no trace yet" if wanted == TraceFilter() else "no such trace", hint=_KEPT)
    return str(listing.traces[0]["trace_id"])


def _put_one(found: Sequence[Entry], trace_id: str, source: Source, output: TraceOutput) -> None:
    spans, listing = asyncio.run(spans_of(found, trace_id, source))
    _tell_problems(listing)
    if not spans:
        asked = ", ".join(listing.asked) or "nobody answered"
        raise CliError(f"{trace_id}: this trace is not known here ({asked})", hint=_KEPT)
    if output is not TraceOutput.TEXT:
        put(format_data({"traceId": trace_id, "spans": spans}, output.value))
        return
    from telemetry.tree import render  # noqa: PLC0415 - for people only

    put(render(spans, color=wants_colour(sys.stdout.buffer, os.environ)))


def _put_list(listing: Listing, output: TraceOutput) -> None:
    _tell_problems(listing)
    if output is not TraceOutput.TEXT:
        put(format_data({"sources": list(listing.asked), "traces": list(listing.traces)}, output.value))
        return
    if listing.traces:
        put_table(_COLUMNS, [_row(one) for one in listing.traces])
    else:
        tell(f"no such trace; {_KEPT}")
    more = "; there are more, --limit shows them" if listing.is_cut else ""
    tell(f"from {' and '.join(listing.asked) or 'nowhere'}{more}")


def _tell_problems(listing: Listing) -> None:
    for problem in listing.problems:
        tell(problem)


def _row(one: Json) -> Row:
    root = one["root"]
    started = datetime.fromtimestamp(one["started_us"] / 1e6).astimezone()
    return {
        "trace_id": one["trace_id"],
        "started": f"{started:%H:%M:%S}.{started.microsecond // 1000:03d}",
        "from": root["src"] or "?",
        "to": root["dst"] or "?",
        "operation": _operation(str(root["name"])),
        "status": root["status"] or "-",
        "took": length(one["duration_us"]),
        "spans": one["spans"],
        "error": _failed(one),
    }


def _failed(one: Json) -> str:
    count = one["errors"]
    if not count:
        return ""
    return f"{count} {'error' if count == 1 else 'errors'}: {error_shown(one['error'])}"


def _operation(name: str) -> str:
    """`CallLocal/cart/items` is what Dapr calls `/items` of cart."""
    kind, _, rest = name.partition("/")
    return f"/{rest.partition('/')[2]}" if kind.lower() == "calllocal" else name


def length(took_us: int) -> str:
    """Microseconds in the unit that reads best: `120us`, `3.4ms` or `2.01s`."""
    if took_us < 1_000:
        return f"{took_us}us"
    return f"{took_us / 1_000:.1f}ms" if took_us < 1_000_000 else f"{took_us / 1e6:.2f}s"
