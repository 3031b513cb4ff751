"""`postern tap`: the calls of all sidecars here, or of one app's, one line each as they end."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from nameresolution.host_registry import Entry
from proxy.cli.completion import app_ids
from proxy.cli.errors import CliError, UsageError
from proxy.cli.fleet import ASK_S, entries, nothing_runs, of_app, root_of
from proxy.cli.options import RuntimePath
from proxy.cli.tables import put, tell
from proxy.control.tap_filters import MAX_RPS, parse_filter
from proxy.wire.http_client import LocalHttpError
from proxy.wire.http_stream import LineStream, open_stream
from telemetry.printable import printable

TARGET = "/postern/v1/tap"
Told = Mapping[str, Any]


class TapOutput(Enum):
    """How a call is printed."""

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
    status: Annotated[list[str] | None, typer.Option(help="of HTTP: 404, 5xx, or several: 404,5xx")] = None,
    grpc_status: Annotated[list[str] | None, typer.Option(help="of gRPC: Unavailable, NOT_FOUND, 14")] = None,
    slower_than: Annotated[str | None, typer.Option(help="calls that took at least this long: 250ms")] = None,
    max_rps: Annotated[float, typer.Option(help="calls a second at most, of each sidecar")] = MAX_RPS,
    output: Annotated[
        TapOutput, typer.Option("--output", "-o", help="line, wide or json (one object a line)")
    ] = TapOutput.LINE,
    runtime_path: RuntimePath = None,
) -> None:
    """Show calls live, a line for each as it ends, until Ctrl-C.

    A stream shows once it is over. A call between two apps here shows
    twice: `out` from the caller's sidecar, `in` at the callee's. Nothing of headers, queries and bodies is shown. Filters of one kind
    are alternatives, filters of several kinds must all be met.

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
        asyncio.run(tap_all(_chosen(root, app_id), f"{TARGET}?{urlencode(query, doseq=True)}", output))
    except* KeyboardInterrupt:  # the usual end
        pass
    except* (
        BrokenPipeError
    ):  # as in `postern tap | head`: there is nobody to print for, nor what is left at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _chosen(root: Path, app_id: str | None) -> tuple[Entry, ...]:
    found = of_app(root, app_id) if app_id else entries(root)
    if not found:
        raise CliError(nothing_runs(root))
    return found


async def tap_all(found: Sequence[Entry], target: str, output: TapOutput) -> None:
    """Print what all of them tell, until each has ended. Raises: CliError, where none answers."""
    several = len(found) > 1
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
                    _show(json.loads(line), output, entry if several else None)
        except (LocalHttpError, TimeoutError, ValueError) as error:
            reason = str(error) or f"no answer within {ASK_S * 1e3:g} ms"
            if entry in tapped:
                tell(f"{name}: its sidecar has ended")
            else:
                problems.append(f"{name}: unresponsive: {reason}")

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(one(entry)) for entry in found]
        await asyncio.wait(running, timeout=2 * ASK_S)
        for problem in problems:
            tell(problem)
        if tapped and sys.stderr.isatty():
            tell(f"tapping {', '.join(sorted({entry.app_id for entry in tapped}))}; Ctrl-C ends it")
    if not tapped:
        raise CliError("no sidecar could be tapped")


async def refusal(stream: LineStream) -> str:
    """Why a sidecar opened no tap. Raises: LocalHttpError, TimeoutError, ValueError."""
    if stream.status == 404:
        return "its sidecar can't be tapped; restart it with this version"
    async with asyncio.timeout(ASK_S):
        told = json.loads(await stream.rest())
    return str(told.get("message", "")) if isinstance(told, dict) else "it refuses"


def _show(told: Told, output: TapOutput, entry: Entry | None) -> None:
    if output is TapOutput.JSON:
        put(json.dumps(told))
    elif told["event"] == "call":
        for line in render(told, is_wide=output is TapOutput.WIDE):
            put(line)
    elif told["event"] == "skipped":
        who = f"{entry.app_id}: " if entry is not None else ""
        tell(f"{who}{skipped(told)}")
    sys.stdout.flush()


def skipped(told: Told) -> str:
    """What a tap left out, for people."""
    words = {"max-rps": "beyond --max-rps", "queue-full": "not read in time"}
    parts = [f"{count} {words.get(why, why)}" for why, count in told["reasons"].items() if count]
    return f"… {told['calls']} more, not shown: {', '.join(parts)}"


def render(told: Told, *, is_wide: bool) -> Iterator[str]:
    """One call for people: a line, and with `is_wide` a line for each thing that it is made of."""
    at = datetime.fromisoformat(str(told["time"])).replace(tzinfo=UTC).astimezone()
    way = {"outbound": "out", "inbound": "in "}[told["direction"]]
    who = f"{_name(told, 'src')} → {_name(told, 'dst')}"
    code = told["grpc_code"] if told["protocol"] == "grpc" else told["status"]
    verb = "" if told["protocol"] == "grpc" else f"{told['verb']} "
    parts = [
        f"{at:%H:%M:%S}.{at.microsecond // 1000:03d} {way} {who:<24}",
        f"{code or '-'!s:<4}",
        f"{_length(told['duration_us']):>8}",
        f"{verb}{told['path'] or '(path hidden)'}",
        *_notes(told),
    ]
    yield printable("  ".join(parts))
    if is_wide:
        yield from (f"    {label:<9} {printable(text)}" for label, text in _details(told))


def _notes(told: Told) -> Iterator[str]:
    if told["cause"]:
        by = "this proxy" if told["made_by"] == "this-proxy" else "the callee's proxy"
        yield f"[{told['cause']}, by {by}]"
    if told["attempts"] > 1:
        yield f"[{told['attempts']} attempts]"
    if told["mtls"] is False:
        yield "[no mTLS]"


def _details(told: Told) -> Iterator[tuple[str, str]]:
    if told["peer"] or told["mtls"] is not None:
        role = "caller" if told["direction"] == "inbound" else "callee"
        state = {True: "mutual TLS", False: "no mutual TLS", None: "not reached"}[told["mtls"]]
        yield "identity", f"{role} {told['peer'] or 'not proven'}, {state}"
    if told["decision"]:
        yield "access", f"{'denied' if told['cause'] == 'denied' else 'allowed'}: {told['decision']}"
    if told["policies"]:
        yield "policies", ", ".join(told["policies"])
    for number, tried in enumerate(told["tried"], told["attempts"] - len(told["tried"]) + 1):
        yield f"attempt {number}", _attempt(tried)
    yield (
        "time",
        ", ".join(f"{part} {_length(took)}" for part, took in told["timings_us"].items()),
    )
    yield "bytes", f"{told['bytes_in']} sent, {told['bytes_out']} received"
    yield "trace", f"{told['trace_id']}{'' if told['sampled'] else ' (not sampled)'}"


def _attempt(tried: Told) -> str:
    code = tried["grpc_code"] or tried["status"] or ""
    result = " ".join(str(part) for part in (tried["cause"], code, tried["detail"]) if part)
    return f"{tried['endpoint'] or 'no endpoint'}  {result}  {_length(tried['took_us'])}"


def _name(told: Told, end: str) -> str:
    app, namespace = told[end], told[f"{end}_namespace"]
    if not app:
        return "?"
    return app if namespace in ("", "default") else f"{app}.{namespace}"


def _length(took_us: int) -> str:
    if took_us < 1_000:
        return f"{took_us}us"
    return f"{took_us / 1_000:.1f}ms" if took_us < 1_000_000 else f"{took_us / 1e6:.2f}s"
