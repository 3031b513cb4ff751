"""`postern explain`: what a running sidecar would do with a request, and what it read to decide. Nothing is sent to any app."""

import asyncio
import json
import os
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from nameresolution.host_registry import Entry
from proxy.cli.completion import app_ids
from proxy.cli.errors import CliError, UsageError
from proxy.cli.fleet import entries, nothing_runs, of_app, root_of
from proxy.cli.invoke import parse_headers
from proxy.cli.options import Output, OutputFormat, RuntimePath
from proxy.cli.tables import format_data, put, terminal_width
from proxy.wire.http_client import request
from telemetry.printable import printable

ASK_S = 2.0
LOOK_UP_S = 4.0  # multicast asks for two seconds before it gives up
POLL_S = 0.05
_LABEL = 12
_WIDTH = 100  # longer lines are hard to read, however wide the terminal
_NOTHING: tuple[object, ...] = (None, False, "", [])

Told = Mapping[str, Any]
_NAMED_BY = {
    "own-port": "the port, which leads to this app alone (--upstream)",
    "proxy": "the URL's host, as to an HTTP proxy",
    "authority": "the authority",
    "header": "the header dapr-app-id",
    "basic": "the URL's user information, dapr-app-id:<app-id>",
    "path": "the path /v1.0/invoke/<app-id>/method/…",
    "service": "the gRPC service",
    "api": "the path, of this sidecar's own API",
}
_EDITS = {
    "set": "set {name}: {data}",
    "add": "add {name}: {data}",
    "list": "add to {name}: {data}",
    "authority": "host: {data}",
    "dapr-path": "the path as below",
    "base": "the path below {data}",
    "caller": "set dapr-caller-* to the proven caller",
    "trace": "set traceparent",
    "deadline": "forward the remaining deadline",
    "grpc-web": "gRPC-Web to gRPC",
    "http-only": "refuse a gRPC answer",
    "baggage": "drop invalid members of baggage",
    "tell-trace": "add traceparent",
    "echo": "repeat {name} of the request",
}


def explain(  # noqa: PLR0917 - the framework passes them by name
    method: Annotated[str, typer.Argument(help="GET, POST, …; of gRPC always POST")],
    url: Annotated[str, typer.Argument(help="/v1.0/invoke/cart/method/x, or http://cart.localhost:3500/x")],
    caller: Annotated[
        str | None,
        typer.Option("--from", help="the app that asks; none: the only one here", autocompletion=app_ids),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="'Name: value', repeatable")
    ] = None,
    grpc: Annotated[bool, typer.Option("--grpc", help="as a gRPC call")] = False,
    output: Output = OutputFormat.TABLE,
    runtime_path: RuntimePath = None,
) -> None:
    """Tell what a sidecar would do with a request, and why.

    Example: postern explain --from web GET /v1.0/invoke/cart/method/items
    """
    headers = [f"{name}: {text}" for name, text in parse_headers(header or ())]
    root = root_of(runtime_path, os.environ)
    entry = choose_caller(entries(root), caller, root)
    asked = {"method": method.upper(), "url": url, "header": headers, **({"grpc": "1"} if grpc else {})}
    try:
        told, at_callee = asyncio.run(_both(entry, asked, root))
        text = (
            format_data({"caller": told, "callee": at_callee}, output.value)
            if output.is_data
            else render(told, at_callee, min(terminal_width() or 80, _WIDTH))
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CliError(
            f"{entry.app_id}: this command does not understand the answer of its sidecar",
            hint="restart it with this version",
        ) from error
    put(text)


def choose_caller(running: Sequence[Entry], caller: str | None, root: Path) -> Entry:
    """The sidecar to ask. Raises: CliError, where it is not named and several apps run."""
    if caller:
        return of_app(root, caller)[0]
    if not running:
        raise CliError(nothing_runs(root))
    names = sorted({f"{entry.app_id}.{entry.namespace}" for entry in running})
    if len(names) > 1:
        raise UsageError("several apps run here", hint=f"say which one asks with --from: {', '.join(names)}")
    return running[0]


async def _both(entry: Entry, asked: Mapping[str, object], root: Path) -> tuple[Told, Told | None]:
    """What the caller's sidecar says, and the callee's where it runs here; a name that is being looked up is waited for."""
    told = await _ask(entry, asked)
    until = time.monotonic() + LOOK_UP_S
    while told["verdict"] == "held" and told["held"]["forS"] > 0 and time.monotonic() < until:
        await asyncio.sleep(POLL_S)
        told = await _ask(entry, asked)
    if told["verdict"] != "forwarded" or not told["routes"][0]["cluster"].startswith("peer:"):
        return told, None
    callee, sends = told["callee"], told["sends"]
    for other in entries(root):
        if (other.app_id, other.namespace) == (callee["appId"], callee["namespace"]):
            passed = {"method": sends["method"], "url": sends["target"], "header": sends["headers"]}
            is_grpc = {"grpc": "1"} if sends["grpc"] else {}
            return told, await _ask(other, {**passed, "peer": told["spiffeId"], **is_grpc})
    return told, None


async def _ask(entry: Entry, asked: Mapping[str, object]) -> Told:
    target = f"/explain?{urlencode(asked, doseq=True)}"
    try:
        response = await request(f"unix:{entry.admin_socket}", "GET", target, timeout_s=ASK_S)
        content = json.loads(response.body)
    except (OSError, TimeoutError, ValueError) as error:
        raise CliError(f"{entry.app_id}: sidecar {entry.pid} does not answer: {error}") from error
    if response.status == 404:
        raise CliError(f"{entry.app_id}: its sidecar can't explain", hint="restart it with this version")
    if response.status != 200 or not isinstance(content, dict):
        raise UsageError(content.get("message", "") if isinstance(content, dict) else "no answer")
    return content


def render(told: Told, at_callee: Told | None, width: int) -> str:
    """For people: a verdict, then a labelled line for each thing that it comes from."""
    lines: list[str] = []
    for number, text in enumerate(_verdict(told, at_callee)):
        indent = "  " if number else ""
        lines += textwrap.wrap(printable(text), max(width, 40), initial_indent=indent, subsequent_indent="  ")
    lines.append("")
    for label, text in (*_rows(told), *(_callee_rows(at_callee) if at_callee else ())):
        lines += textwrap.wrap(
            printable(text),
            max(width, 40),
            initial_indent=f"{label:<{_LABEL}} ",
            subsequent_indent=" " * (_LABEL + 1),
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _verdict(told: Told, at_callee: Told | None) -> Iterator[str]:
    asked, callee = told["request"], told["callee"]
    to = f" → {'.'.join(filter(None, (callee['appId'], callee['namespace'])))}" if callee else ""
    refusing = next((one for one in (told, at_callee) if one and one.get("answer")), None)
    if refusing is None:
        mark, said = "✓", "would be carried"
    else:
        answer = refusing["answer"]
        who = "here" if refusing is told else f"by the sidecar of {refusing['appId']}"
        code = f"gRPC {answer['grpcCode']}" if asked["protocol"] == "grpc" else answer["status"]
        mark, said = "✗", f"would be answered {who}: {code} ({answer['cause']})"
        if answer["status"] < 400:
            mark = "✓"
    yield (f"{mark} {told['appId']}.{told['namespace']}{to}: {said}")
    if refusing is not None and refusing["answer"]["message"]:
        yield refusing["answer"]["message"]


def _rows(told: Told) -> Iterator[tuple[str, str]]:
    asked = told["request"]
    yield (
        "request",
        f"{asked['method']} {asked['path']} ({asked['protocol']}) on the listener {asked['listener']}",
    )
    if told["verdict"] == "held" and told["held"]["forS"]:
        yield "waits", f"up to {told['held']['forS']:g} s for {told['held']['key']}, then is answered so"
    is_own = any(route["cluster"] == "local-api" for route in told.get("routes", ()))
    yield "named by", _NAMED_BY.get("api" if is_own else told["namedBy"] or "", "nothing")
    if told["access"]:
        yield "access", told["access"] + (f" read as {told['readAs']}" if told["readAs"] else "")
    elif told["verdict"] == "forwarded":
        leaves = told["routes"][0]["cluster"].startswith(("http-endpoint:", "url:"))
        yield "access", "none: the call leaves the mesh" if leaves else "decided by the callee's sidecar"
    trace = told.get("trace")
    goes_on = f"{trace['traceId']}, {'' if trace['sampled'] else 'not '}recorded" if trace else ""
    yield "trace", f"goes on with {goes_on}" if trace else "begins here"
    yield from _plan_rows(told)
    yield from _read_rows(told)


def _plan_rows(told: Told) -> Iterator[tuple[str, str]]:
    for route in told.get("routes", ()):
        share = f", weight {route['weight']}" if len(told["routes"]) > 1 else ""
        yield "route", f"{route['cluster']}{share}"
        if route["expect"]:
            yield "identity", f"expected: {' or '.join(route['expect'])}"
        if route["endpoints"]:
            yield "endpoints", ", ".join(map(_endpoint, route["endpoints"]))
        yield "edits", _all_edits(route["edits"])
    if "timeouts" not in told:
        return
    yield "sends", f"{told['sends']['method']} {told['sends']['target']}"
    times = told["timeouts"]
    yield (
        "timeouts",
        f"connect {_seconds(times['connectS'])}, attempt {_seconds(times['attemptS'])}, call {_seconds(times['totalS'])}",
    )
    for policy in told["retries"]:
        yield "retries", _retry(policy)
    if hedge := told.get("hedge"):
        yield (
            "hedging",
            f"up to {hedge['attempts']} attempts at once, each {hedge['delay_s']:g} s after the one before",
        )
    yield from (("not retried", f"{one['what']} ({one['why']})") for one in told["notRetried"])
    if told.get("budget"):
        yield "budget", _budget(told["budget"])
    of_attempts = [f"{gate} (each attempt)" for route in told["routes"] for gate in route["gates"]]
    yield "gates", ", ".join([*told["gates"], *of_attempts]) or "none"
    yield from _asks(told.get("authorizers", ()))
    if told.get("breaker"):
        yield "breaker", _breaker(told["breaker"])
    if told["replyEdits"]:
        yield "answer", _all_edits(told["replyEdits"])
    upper = [f"body of the {what}" for what, is_upper in told["upperCase"].items() if is_upper]
    yield from (("upper case", text) for text in upper)


def _budget(found: Told) -> str:
    if "ratio" not in found:
        return f"retries of calls to {found['target']} while more than half of {found['max_tokens']:g} tokens are left"
    free = f"{found['min_per_s']:g} a second besides"
    return (
        f"retries of {found['ratio']:g} of the calls to {found['target']} in {found['ttl_s']:g} s, and {free}"
    )


def _asks(authorizers: Sequence[str]) -> Iterator[tuple[str, str]]:
    if authorizers:
        yield "asks", f"authorizer {', then '.join(authorizers)}: only what it lets pass goes on"


def _breaker(found: Told) -> str:
    asked = f"of {found['method']} at {found['target']}"
    if "state" not in found:
        return f"{asked}: closed, not asked so far"
    counters = ", ".join(f"{name} {count}" for name, count in found["counters"].items())
    left = f" for {found['probesInS']:g} s more" if found["state"] == "open" else ""
    return f"{found['policy']} {asked}: {found['state']}{left}; {counters}"


def _callee_rows(told: Told) -> Iterator[tuple[str, str]]:
    yield f"at {told['appId']}", "what its sidecar, which runs here, would do:"
    yield "caller", told["request"]["peer"] or "not proven: no mutual TLS"
    read_as = f" read as {told['readAs']}" if told["readAs"] else ""
    yield "access", f"{'denied' if told.get('answer') else 'allowed'}: {told['access'] or '-'}{read_as}"
    yield from _plan_rows(told)
    yield from _read_rows(told)


def _read_rows(told: Told) -> Iterator[tuple[str, str]]:
    """What was met, then what was looked for in vain."""
    met = [read for read in told["read"] if read["value"] not in _NOTHING]
    yield "read", "; ".join(f"{_facet(read)} = {_value(read['value'])}" for read in met)
    missed = [_facet(read) for read in told["read"] if read["value"] in _NOTHING]
    if missed:
        yield "not met", "; ".join(missed)


def _facet(read: Told) -> str:
    name = f" {read['name']}" if "name" in read else ""
    table = f" in {read['table']}" if "table" in read else ""
    return f"{read['facet']}{name}{table}"


def _value(found: object) -> str:
    if isinstance(found, list):
        return " ".join(map(str, found))
    return "yes" if found is True else str(found)


def _endpoint(end: Told) -> str:
    why = f", as {end['ejectedAs']}" if end.get("ejectedAs") else ""
    ejected = f", ejected for {end['ejectedForS']:g} s{why}" if end["ejectedForS"] else ""
    return f"{end['address']} ({end['source']}{ejected})"


def _all_edits(edits: Sequence[Told]) -> str:
    """What is removed in one clause, then the others."""
    removed = {"remove": "{name}", "remove-prefix": "{name}*", "hop-by-hop": "hop-by-hop fields"}
    names = [removed[edit["op"]].format(**edit) for edit in edits if edit["op"] in removed]
    others = [_edit(edit) for edit in edits if edit["op"] not in removed]
    return "; ".join([f"remove {', '.join(names)}", *others] if names else others) or "none"


def _edit(edit: Told) -> str:
    return _EDITS.get(str(edit["op"]), "{op} {name} {data}").format(**edit)


def _seconds(length_s: float | None) -> str:
    return "unlimited" if length_s is None else f"{length_s:g} s"


def _retry(policy: Told) -> str:
    most = "without limit" if policy["attempts"] is None else f"up to {policy['attempts']} attempts"
    codes = [
        f"{kind} {'any failure' if told is None else ' '.join(map(str, told))}"
        for kind, told in (("HTTP", policy["httpCodes"]), ("gRPC", policy["grpcCodes"]))
        if told is None or told
    ]
    pauses = (
        f", pauses like {', '.join(f'{s:g} s' for s in policy['pausesS'])}" if any(policy["pausesS"]) else ""
    )
    within = f", begun within {policy['withinS']:g} s" if policy["withinS"] is not None else ""
    return f"{most} on {', '.join([*policy['on'], *codes])}{pauses}{within}"
