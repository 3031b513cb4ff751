"""`postern invoke`: calls an app through a sidecar, as that sidecar's own app would: resolved, authenticated, judged by policy."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from nameresolution.host_registry import Entry
from proxy.cli.completion import app_ids
from proxy.cli.errors import CliError, UsageError
from proxy.cli.fleet import entries, nothing_runs, of_app, root_of
from proxy.cli.options import RuntimePath
from proxy.cli.tables import put, tell
from proxy.wire.http_client import LocalResponse, request
from telemetry.printable import printable

_MARK = "postern-error"
SAFE_PATH = "/%:@!$&'()*+,;=~?"


def invoke(  # noqa: PLR0917 - the framework passes them by name
    app_id: Annotated[
        str, typer.Option("--app-id", "-a", help="the callee: app or app.namespace", autocompletion=app_ids)
    ],
    method: Annotated[str, typer.Option("--method", "-m", help="path of the call, with a query if need be")],
    data: Annotated[str | None, typer.Option("--data", "-d", help="body")] = None,
    data_file: Annotated[
        str | None, typer.Option("--data-file", "-f", help="file with the body; -: standard input")
    ] = None,
    verb: Annotated[str, typer.Option("--verb", "-v", help="HTTP verb")] = "POST",
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="'Name: value', repeatable")
    ] = None,
    caller: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="call as this app; none: as the callee itself, else as any that may",
            autocompletion=app_ids,
        ),
    ] = None,
    include: Annotated[bool, typer.Option("--include", "-i", help="print status and headers too")] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="seconds for the whole call")] = 30.0,
    unix_domain_socket: Annotated[
        Path | None, typer.Option("--unix-domain-socket", "-u", help="folder of the caller's API sockets")
    ] = None,
    runtime_path: RuntimePath = None,
) -> None:
    """Call a method of an app through a sidecar.

    Example: postern invoke -a cart -m items --verb GET --from web
    """
    if data is not None and data_file is not None:
        raise UsageError("--data can't be combined with --data-file")
    body = data.encode() if data is not None else read_body(data_file)
    headers = [*parse_headers(header or ()), *_token(os.environ)]
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("content-type", "application/json"))
    root = root_of(runtime_path, os.environ)
    target = f"/v1.0/invoke/{quote(app_id, safe='.')}/method/{quote(method.lstrip('/'), safe=SAFE_PATH)}"
    began = time.monotonic()
    first, *others = choose_callers(entries(root), app_id, caller, root)

    def call(entry: Entry) -> LocalResponse:
        address = address_of(entry, unix_domain_socket)
        send = request(address, verb.upper(), target, headers=headers, body=body, timeout_s=timeout)
        return asyncio.run(_answer(send, address, timeout))

    entry, response = first, call(first)
    while cause_of(response) == "denied" and others:  # it never reached the app: another caller may try
        entry = others.pop(0)
        response = call(entry)
    _show(app_id, entry, response, time.monotonic() - began, include=include)
    code = exit_code(response.status)
    if code:
        raise typer.Exit(code)


async def _answer(send: Awaitable[LocalResponse], address: str, timeout_s: float) -> LocalResponse:
    try:
        return await send
    except TimeoutError as error:
        message = f"no answer from the sidecar on {address} within {timeout_s:g} s"
        raise CliError(message, hint="see --timeout") from error
    except (OSError, ValueError) as error:
        raise CliError(f"the sidecar on {address} can't be called: {error}") from error


def choose_callers(
    running: Sequence[Entry], callee: str, caller: str | None, root: Path
) -> tuple[Entry, ...]:
    """The sidecars to call through, in the order to try: the one asked for alone, else the callee's own, then one of each other app.

    Raises: CliError.
    """
    if caller:
        return of_app(root, caller)[:1]
    if not running:
        raise CliError(nothing_runs(root))
    name, _, namespace = callee.partition(".")
    first: dict[tuple[str, str], Entry] = {}
    for entry in running:
        first.setdefault((entry.app_id, entry.namespace), entry)
    ranked = sorted(first.items(), key=lambda item: item[0] != (name, namespace or item[0][1]))
    return tuple(entry for _, entry in ranked)


def address_of(entry: Entry, sockets: Path | None) -> str:
    """Where the caller's HTTP API is."""
    if sockets is not None:
        return f"unix:{sockets / f'dapr-{entry.app_id}-http.socket'}"
    if not entry.http_port:
        raise CliError(
            f"{entry.app_id}: its API is on a unix socket", hint="name the folder with --unix-domain-socket"
        )
    return f"127.0.0.1:{entry.http_port}"


def parse_headers(texts: Sequence[str]) -> list[tuple[str, str]]:
    """`Name: value` texts as pairs. Raises: UsageError."""
    pairs = []
    for text in texts:
        name, colon, content = text.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"--header {text!r}", hint="expected 'Name: value'")
        pairs.append((name.strip(), content.strip()))
    return pairs


def read_body(source: str | None) -> bytes:
    """The body from a file or standard input. Raises: CliError."""
    if source is None:
        return b""
    if source == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise CliError(f"--data-file {source}: {error.strerror}") from error


def _token(env: Mapping[str, str]) -> list[tuple[str, str]]:
    token = env.get("DAPR_API_TOKEN")
    return [("dapr-api-token", token)] if token else []


def _show(app_id: str, caller: Entry, response: LocalResponse, seconds: float, *, include: bool) -> None:
    status = f"{response.status} {_phrase(response.status)}".rstrip()
    if include:
        put(f"HTTP/1.1 {status}")
        for name, content in response.headers:
            put(printable(f"{_text(name)}: {_text(content)}"))
        put("")
    if response.body:
        sys.stdout.flush()
        sys.stdout.buffer.write(response.body)
        if not response.body.endswith(b"\n") and sys.stdout.isatty():
            sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()
    tell(outcome(app_id, caller.app_id, response, status, f"{seconds * 1000:.0f} ms"))


def cause_of(response: LocalResponse) -> str | None:
    """Why a proxy answered in the app's place; None for the app's own answer."""
    return _header(response, _MARK)


def trace_of(response: LocalResponse) -> str:
    """The id of the call's trace, by the head of the answer, or of a proxy's by its body; empty where neither tells."""
    parent = _header(response, "traceparent")
    if parent and parent.count("-") >= 3:
        return parent.split("-")[1]
    try:
        details = json.loads(response.body)["details"] if cause_of(response) else ()
        return str(next((one["requestId"] for one in details if "requestId" in one), ""))
    except (KeyError, TypeError, ValueError):
        return ""


def _header(response: LocalResponse, wanted: str) -> str | None:
    return next((_text(content) for name, content in response.headers if _text(name).lower() == wanted), None)


def outcome(app_id: str, caller: str, response: LocalResponse, status: str, took: str) -> str:
    """One line on how the call went. An answer marked `postern-error` is a proxy's, not the app's."""
    trace_id = trace_of(response)
    took += f", trace {trace_id}" if trace_id else ""
    cause = cause_of(response)
    if cause is not None:
        hint = "; --from chooses another caller" if cause == "denied" else ""
        return f"✗ {app_id} did not answer {caller}: {status} ({cause}) from the mesh in {took}{hint}"
    return f"{'✓' if response.status < 400 else '✗'} {app_id} answered {status} to {caller} in {took}"


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def exit_code(status: int) -> int:
    """0 for what went well, 4 and 5 for the classes of failures."""
    return status // 100 if status >= 400 else 0
