"""`postern list`, `postern status` and `postern endpoints`: what runs here, in which state, and where it would send calls."""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated
from urllib.parse import quote

import typer

from nameresolution.host_registry import Entry
from proxy.cli.completion import app_ids
from proxy.cli.errors import FAILED, CliError
from proxy.cli.fleet import ASK_S, SidecarAnswer, ask, entries, nothing_runs, of_app, root_of
from proxy.cli.options import Output, OutputFormat, RuntimePath
from proxy.cli.state import dumped, put_sections
from proxy.cli.tables import Column, Row, format_age, format_data, format_time, put, put_table, tell

# Dapr's columns in Dapr's order; the ranks say what goes first where a terminal is narrow.
_COLUMNS = (
    Column("app id", "appId"),
    Column("http port", "httpPort"),
    Column("grpc port", "grpcPort"),
    Column("app port", "appPort"),
    Column("command", rank=1),
    Column("age"),
    Column("created", rank=6),
    Column("daprd pid", "daprdPid", rank=3),
    Column("cli pid", "cliPid", rank=4),
    Column("app pid", "appPid", rank=2),
    Column("run template path", "runTemplatePath", rank=7),
    Column("app log path", "appLogPath", rank=8),
    Column("daprd log path", "daprdLogPath", rank=9),
    Column("runtemplatename", "runTemplateName", rank=5),
    Column("status"),
)
_WIDE = (
    Column("namespace"),
    Column("peer port", "peerPort"),
    Column("metrics port", "metricsPort"),
    Column("profile"),
    Column("instance"),
)
_STATUS = (
    Column("app id"),
    Column("namespace", rank=3),
    Column("state"),
    Column("identity"),
    Column("expires in"),
    Column("app"),
    Column("http port", rank=1),
    Column("grpc port", rank=1),
    Column("peer port", rank=4),
    Column("policy", rank=2),
    Column("engine", rank=5),
    Column("version", rank=6),
)
_STATUS_WIDE = (
    Column("app port"),
    Column("app protocol"),
    Column("metrics port"),
    Column("profile"),
    Column("spiffe id"),
    Column("calls"),
    Column("connections"),
    Column("pid"),
    Column("age"),
    Column("instance"),
)
_ENDPOINTS = (
    Column("app"),
    Column("address"),
    Column("source"),
    Column("state"),
    Column("from", rank=1),
    Column("instance", rank=2),
)
_SERVICES = (
    Column("service"),
    Column("app"),
    Column("how"),
    Column("said by", "by"),
    Column("in force"),
    Column("from", rank=1),
)
_COMMAND_WIDTH = 20
LOOK_UP_S = 4.0  # multicast asks for two seconds before it gives up
POLL_S = 0.05
_MOST_BREAKERS = 5  # open ones that a sidecar's notes name


def list_apps(output: Output = OutputFormat.TABLE, runtime_path: RuntimePath = None) -> None:
    """List the apps that run here.

    Example: postern list -o json
    """
    root = root_of(runtime_path, os.environ)
    sidecars, told = asyncio.run(_ask_both(entries(root)))
    rows = [
        listed(sidecar, time.time(), extended(other)) for sidecar, other in zip(sidecars, told, strict=True)
    ]
    if output.is_data:
        put(format_data(rows, output.value))
    elif not rows:
        tell(nothing_runs(root))
    else:
        is_wide = output is OutputFormat.WIDE
        columns = _COLUMNS + (_WIDE if is_wide else ())
        put_table(columns, [_for_people(row, is_wide=is_wide) for row in rows], is_wide=is_wide)


async def _ask_both(found: Sequence[Entry]) -> tuple[tuple[SidecarAnswer, ...], tuple[SidecarAnswer, ...]]:
    async with asyncio.TaskGroup() as tasks:
        status_task = tasks.create_task(ask(found, "/status"))
        metadata_task = tasks.create_task(ask(found, "/metadata"))
    return status_task.result(), metadata_task.result()


def extended(sidecar: SidecarAnswer) -> Mapping[str, str]:
    """What was told to a sidecar about its run, from its `/metadata`."""
    return {
        key: text for key, text in _part(sidecar.answer or {}, "extended").items() if isinstance(text, str)
    }


def app_pid_of(sidecar: SidecarAnswer) -> int:
    """The process of a sidecar's app, as far as the sidecar was told; 0: unknown."""
    return _number(extended(sidecar).get("appPID")) or sidecar.entry.app_pid


def _for_people(row: Row, *, is_wide: bool) -> Row:
    command = str(row.get("command") or "")
    state = row.get("status")
    return {
        **row,
        "command": command if is_wide else command[:_COMMAND_WIDTH],
        "status": "" if state == "running" else state,
    }


def listed(sidecar: SidecarAnswer, now: float, told: Mapping[str, str]) -> Row:
    """One sidecar as `postern list -o json` has it; the keys are those of `dapr list`, and a few more."""
    entry, answer = sidecar.entry, sidecar.answer or {}
    state = "unresponsive" if sidecar.answer is None else str(answer.get("shutdown") or "serving")
    return {
        "appId": entry.app_id,
        "namespace": entry.namespace,
        "httpPort": entry.http_port,
        "grpcPort": entry.grpc_port,
        "appPort": entry.app_port,
        "peerPort": entry.peer_port,
        "metricsPort": entry.metrics_port,
        "metricsEnabled": entry.metrics_port > 0,
        "command": told.get("appCommand", entry.command),
        "age": format_age(now - entry.started_at),
        "created": format_time(entry.started_at),
        # None where it is not known: a script that ends process 0 would end its own group.
        "daprdPid": entry.pid or None,
        "cliPid": _number(told.get("cliPID")) or entry.cli_pid or None,
        "appPid": _number(told.get("appPID")) or entry.app_pid or None,
        "maxRequestBodySize": answer.get("maxRequestBodySize", 0),
        "httpReadBufferSize": answer.get("httpReadBufferSize", 0),
        "runTemplatePath": told.get("runTemplatePath", entry.run_template),
        "appLogPath": told.get("appLogPath", ""),
        "daprdLogPath": told.get("daprdLogPath", ""),
        "runTemplateName": told.get("runTemplateName", ""),
        "profile": entry.profile,
        "appState": entry.app_state,
        "instance": entry.instance,
        "status": "running" if state == "serving" else state,
    }


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 0


def status(
    app_id: Annotated[str | None, typer.Argument(help="one app; none: all", autocompletion=app_ids)] = None,
    output: Output = OutputFormat.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Show how each sidecar is; 1 if one is not ready. With `-o wide` or `-o json` all that it knows: its certificate, the policies in
    force for each target and where they are written, circuit breakers, endpoints, budgets of retries, limits, exporters.

    Example: postern status cart -o wide
    """
    root = root_of(runtime_path, os.environ)
    found = of_app(root, app_id) if app_id else entries(root)
    is_wide = output is OutputFormat.WIDE
    sidecars = asyncio.run(dumped(found) if is_wide or output.is_data else ask(found, "/status"))
    if output.is_data:
        put(format_data([s.answer or _unresponsive(s.entry) for s in sidecars], output.value))
    elif not sidecars:
        tell(nothing_runs(root))
    else:
        columns = _STATUS + (_STATUS_WIDE if is_wide else ())
        put_table(columns, [_status_row(sidecar, time.time()) for sidecar in sidecars], is_wide=is_wide)
        services = merged([row for sidecar in sidecars for row in service_rows(sidecar)]) if is_wide else []
        if services:
            put("")
            put_table(_SERVICES, services, is_wide=True)
        if is_wide:
            put_sections(sidecars)
        for line in notes(sidecars):
            tell(line)
    if any(sidecar.answer is None or not sidecar.answer.get("ready") for sidecar in sidecars):
        raise typer.Exit(FAILED)


def _unresponsive(entry: Entry) -> Row:
    return {
        "appId": entry.app_id,
        "namespace": entry.namespace,
        "instance": entry.instance,
        "pid": entry.pid,
        "ready": False,
        "unresponsive": True,
    }


def _status_row(sidecar: SidecarAnswer, now: float) -> Row:
    entry, answer = sidecar.entry, sidecar.answer
    row: dict[str, object] = {
        "app id": entry.app_id,
        "namespace": entry.namespace,
        "http port": entry.http_port,
        "grpc port": entry.grpc_port,
        "peer port": entry.peer_port,
        "app port": entry.app_port,
        "metrics port": entry.metrics_port,
        "profile": entry.profile,
        "pid": entry.pid,
        "age": format_age(now - entry.started_at),
        "instance": entry.instance,
        "state": "unresponsive",
    }
    if answer is None:
        return row
    identity, app, policy = _part(answer, "identity"), _part(answer, "app"), _part(answer, "policy")
    left = identity.get("secondsLeft")
    serving = answer.get("shutdown") or "serving"
    row |= {
        "state": serving if serving != "serving" else "ready" if answer.get("ready") else "not ready",
        "identity": identity.get("state"),
        "expires in": format_age(left)
        if isinstance(left, int | float) and not isinstance(left, bool)
        else None,
        "app": {True: "healthy", False: "unhealthy"}.get(bool(app.get("healthy")))
        if app.get("healthy") is not None
        else None,
        "policy": "faulty" if policy.get("lastError") else policy.get("generation"),
        "engine": answer.get("engine"),
        "version": answer.get("version"),
        "app protocol": app.get("protocol") if entry.app_port else None,
        "spiffe id": identity.get("spiffeId"),
        "calls": _part(answer, "engineStats").get("callsInFlight"),
        "connections": _part(answer, "engineStats").get("connections"),
    }
    return row


def notes(sidecars: Iterable[SidecarAnswer]) -> list[str]:
    """Notes that deserve a line of their own below the table; a note that several apps share is printed once."""
    told: dict[str, list[str]] = {}
    for sidecar in sidecars:
        for text in _notes_of(sidecar):
            told.setdefault(text, []).append(sidecar.entry.app_id)
    return [f"{', '.join(dict.fromkeys(apps))}: {text}" for text, apps in told.items()]


def _notes_of(sidecar: SidecarAnswer) -> list[str]:
    if sidecar.answer is None:
        return [f"process {sidecar.entry.pid} does not answer on {sidecar.entry.admin_socket}"]
    found: list[str] = []
    for part in ("identity", "policy"):
        error = _part(sidecar.answer, part).get("lastError")
        if error:
            found.extend(f"{part}: {line}" for line in str(error).split("\n"))
    missing = sidecar.answer.get("notReady")
    if isinstance(missing, list) and missing:
        found.append(f"not ready: {', '.join(map(str, missing))}")
    app = _part(sidecar.answer, "app")
    if app.get("heldByForeign"):
        found.append(
            f"port {app.get('port')} is held by {app.get('heldBy')}, which is not the app that was started here"
        )
    if sidecar.answer.get("engineNotice"):
        found.append(str(sidecar.answer["engineNotice"]))
    found.extend(_open_breakers(sidecar.answer))
    warnings = _part(sidecar.answer, "policy").get("warnings")
    if isinstance(warnings, list):
        found.extend(f"policy: {warning}" for warning in warnings)
    return found


def _open_breakers(answer: Mapping[str, object]) -> list[str]:
    told = answer.get("circuitBreakers")
    return [
        f"circuit breaker {one.get('policy')} is open: no calls of {one.get('method')} go to {one.get('target')}"
        for one in (told if isinstance(told, list) else [])
        if isinstance(one, dict) and one.get("state") == "open"
    ][:_MOST_BREAKERS]


def _part(answer: Mapping[str, object], key: str) -> Mapping[str, object]:
    part = answer.get(key)
    return part if isinstance(part, dict) else {}


def endpoints(
    app_id: Annotated[
        str | None,
        typer.Argument(
            help="the callee, or a gRPC service; none: all that are known", autocompletion=app_ids
        ),
    ] = None,
    caller: Annotated[
        str | None, typer.Option("--from", help="ask this app's sidecar only", autocompletion=app_ids)
    ] = None,
    output: Output = OutputFormat.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Show where sidecars would send calls for an app or a gRPC service.

    Example: postern endpoints cart --from web
    """
    root = root_of(runtime_path, os.environ)
    asked = of_app(root, caller) if caller else entries(root)
    if not asked:
        raise CliError(nothing_runs(root))
    answers = asyncio.run(looked_up(asked, app_id) if app_id else ask(asked, "/endpoints"))
    rows = [row for sidecar in answers for row in endpoint_rows(sidecar)]
    if output.is_data:
        put(format_data(rows, output.value))
    elif rows:
        put_table(_ENDPOINTS, merged(rows), is_wide=output is OutputFormat.WIDE)
    if not rows:
        if app_id:
            raise CliError(f"{app_id}: no endpoint was found", hint=why_nothing(answers))
        raise CliError("no endpoint is known yet", hint="name the app to look it up")


async def looked_up(
    asked: Sequence[Entry], app_id: str, *, timeout_s: float = ASK_S
) -> tuple[SidecarAnswer, ...]:
    """Ask until every sidecar has looked for the app, or has had the time."""
    target = f"/endpoints?app={quote(app_id, safe='')}"
    answers = await ask(asked, target, timeout_s=timeout_s)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK_UP_S):
            while any(sidecar.answer == {} for sidecar in answers):
                await asyncio.sleep(POLL_S)
                answers = await ask(asked, target, timeout_s=timeout_s)
    return answers


def why_nothing(sidecars: Iterable[SidecarAnswer]) -> str:
    """Which names may have been meant, as far as the sidecars know, then what was tried; each once."""
    told = [_part(sidecar.answer, name) for sidecar in sidecars if sidecar.answer for name in sidecar.answer]
    near, tried = _texts(told, "near"), _texts(told, "tried")
    meant = f"did you mean {' or '.join(map(repr, near))}? tried: " if near else ""
    return meant + "; ".join(tried)


def _texts(parts: Iterable[Mapping[str, object]], key: str) -> list[str]:
    """The texts that lists under a key hold, each once."""
    lists = [part.get(key) for part in parts]
    return list(dict.fromkeys(str(text) for texts in lists if isinstance(texts, list) for text in texts))


def service_rows(sidecar: SidecarAnswer) -> list[Row]:
    """Which app serves which gRPC service, as one sidecar has it."""
    told = (sidecar.answer or {}).get("services")
    return [
        {
            **{key: row.get(key) for key in ("service", "app", "how", "by")},
            "in force": "yes" if row.get("inForce") else "no",
            "from": sidecar.entry.app_id,
        }
        for row in (told if isinstance(told, list) else ())
        if isinstance(row, dict)
    ]


def endpoint_rows(sidecar: SidecarAnswer) -> list[Row]:
    """The endpoints in one sidecar's answer, flat: one row an address."""
    rows: list[Row] = []
    for name in sidecar.answer or {}:
        known = _part(sidecar.answer or {}, name)
        ends = known.get("endpoints")
        for end in ends if isinstance(ends, list) else ():
            if isinstance(end, dict):
                state = "stale" if known.get("stale") else "fresh"
                rows.append({"from": sidecar.entry.app_id, "app": name, **end, "state": state})
    return rows


def merged(rows: Sequence[Row]) -> list[Row]:
    """Rows that say the same of an address as one, with all who say so in `from`."""
    callers: dict[tuple[tuple[str, object], ...], list[str]] = {}
    for row in rows:
        facts = tuple((key, value) for key, value in row.items() if key != "from")
        callers.setdefault(facts, []).append(str(row["from"]))
    return [{**dict(facts), "from": ", ".join(dict.fromkeys(names))} for facts, names in callers.items()]
