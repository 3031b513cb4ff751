"""`postern policy`: what access policies in files decide, rule by rule, before they are in force. Nothing needs to run."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from policies.errors import DocumentError
from policies.reading.compile_faults import FLAG as FAULTS_FLAG
from policies.rules.access import DENIALS
from policies.rules.faults import FaultRule
from policies.rules.limits import RateRule
from proxy.cli.analyze import sort_files
from proxy.cli.errors import FAILED, CliError, UsageError
from proxy.cli.invoke import parse_headers
from proxy.cli.options import Output, OutputFormat
from proxy.cli.policy.advice import advice, suggest
from proxy.cli.policy.cases import as_header, ask_of, read_cases, recorded
from proxy.cli.policy.judging import App, Ask, Judged, PolicyFiles, read_policies
from proxy.cli.tables import Column, format_data, put, put_table, tell
from telemetry.printable import printable

policy = typer.Typer(
    help="Judge calls by access policies in files; nothing needs to run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MadeT = TypeVar("MadeT")
Paths = Annotated[list[Path], typer.Argument(help="files and folders with Configurations and AccessPolicies")]
AppId = Annotated[str, typer.Option("--app", help="the app that is called, whose policies they are")]
Namespace = Annotated[str, typer.Option("--namespace", help="its namespace")]
TrustDomain = Annotated[str, typer.Option("--trust-domain", help="its trust domain")]
AppProtocol = Annotated[str, typer.Option("--app-protocol", help="as of its sidecar: grpc, or another one")]
_RULES = (
    Column("policy"),
    Column("rule"),
    Column("action"),
    Column("from"),
    Column("to"),
    Column("where", rank=1),
)
_CHANGES = (
    Column("calls"),
    Column("from"),
    Column("call"),
    Column("before"),
    Column("after"),
    Column("by", rank=1),
)


@policy.command()
def explain(  # noqa: PLR0917 - the framework passes them by name
    paths: Paths,
    app: AppId,
    caller: Annotated[str, typer.Option("--from", help="app-id, app.namespace, SPIFFE ID, or anonymous")],
    method: Annotated[str, typer.Option("--method", "-X", help="GET, POST, …")] = "GET",
    path: Annotated[str, typer.Option("--path", help="as sent")] = "/",
    grpc: Annotated[str, typer.Option("--grpc", help="/package.Service/Method, in the place of --path")] = "",
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="'Name: value', repeatable")
    ] = None,
    claims: Annotated[
        str, typer.Option("--claims", help="JSON: of the verified token that it brings, with iss")
    ] = "",
    namespace: Namespace = "default",
    trust_domain: TrustDomain = "public",
    app_protocol: AppProtocol = "http",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Tell whether a call is allowed, by which rule, and the smallest rule that would allow it. 1 if it is denied.

    Example: postern policy explain policy.yaml --app cart --from web --path /items/1
    """
    asked = Ask(
        caller=caller,
        method="POST" if grpc else method,
        path=grpc or path,
        is_grpc=bool(grpc),
        headers=tuple(as_header(name, value) for name, value in parse_headers(header or ())),
        claims=claims,
    )
    files = _read(
        paths, App(app_id=app, namespace=namespace, trust_domain=trust_domain, protocol=app_protocol)
    )
    found = files.judge(asked)
    put(format_data(_data(found), output.value) if output.is_data else "\n".join(_told(found, files)))
    if not found.decision.allowed:
        raise typer.Exit(FAILED)


@policy.command("test")
def run_cases(
    paths: Annotated[list[Path], typer.Argument(help="files of cases: app, files, and cases with expect")],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Try the cases of files. 1 if one is not decided as it expects.

    Example: postern policy test cases.yaml
    """
    rows: list[dict[str, Any]] = []
    for path in paths:
        document, made = _or_error(lambda path=path: read_cases(path))  # type: ignore[misc]
        app = App(
            app_id=made.app,
            namespace=made.namespace,
            trust_domain=made.trust_domain,
            protocol=made.protocol,
            profile=made.profile,
        )
        files = _read([path.parent / name for name in made.files], app)
        for number, case in enumerate(made.cases):
            found = files.judge(ask_of(case))
            where = f"{path}:{document.line_of(('cases', number))}"
            asks = list(found.decision.authorizers)
            is_met = found.verdict == case.expect and case.asks in (None, asks)
            rows.append(
                {"where": where, "name": case.name, "passed": is_met, "expected": case.expect, **_data(found)}
            )
            if not is_met and not output.is_data:
                name = f"{case.name}: " if case.name else ""
                asked = "" if case.asks is None else _asking(case.asks or ["nobody"])
                put(printable(f"{where}: {name}expected {case.expect}{asked}, {_by(found)}{_asking(asks)}"))
    failed = sum(not row["passed"] for row in rows)
    if output.is_data:
        put(format_data(rows, output.value))
    tell(f"{len(rows)} cases, {failed} not as expected" if failed else f"{len(rows)} cases, all as expected")
    if failed:
        raise typer.Exit(FAILED)


@policy.command("list")
def list_rules(
    paths: Paths,
    app: AppId,
    namespace: Namespace = "default",
    trust_domain: TrustDomain = "public",
    output: Output = OutputFormat.TABLE,
) -> None:
    """List the rules of AccessPolicies that are for an app, in the order in which they are asked.

    Example: postern policy list policies --app cart
    """
    files = _read(paths, App(app_id=app, namespace=namespace, trust_domain=trust_domain))
    rows = files.rules()
    if output.is_data:
        put(format_data(rows, output.value))
    elif rows:
        put_table(_RULES, rows, is_wide=output is OutputFormat.WIDE)
    else:
        tell(f"no AccessPolicy here is for {app}")


@policy.command()
def diff(  # noqa: PLR0917 - the framework passes them by name
    old: Annotated[Path, typer.Argument(help="file or folder of policies, as they are")],
    new: Annotated[Path, typer.Argument(help="the same, as they will be")],
    app: AppId,
    calls: Annotated[Path, typer.Option("--calls", help="the access log of the app's sidecar, in JSON")],
    namespace: Namespace = "default",
    trust_domain: TrustDomain = "public",
    app_protocol: AppProtocol = "http",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show which recorded calls new policies would decide otherwise. 1 if there are any. Logs hold no headers: conditions on them fail.

    Example: postern policy diff old.yaml new.yaml --app cart --calls access.log
    """
    whose = App(app_id=app, namespace=namespace, trust_domain=trust_domain, protocol=app_protocol)
    before, after = _read([old], whose), _read([new], whose)
    recordings = recorded(calls, app)
    rows = []
    for ask, count in recordings.most_common():
        was, will = before.judge(ask), after.judge(ask)
        if (was.verdict, was.decision.authorizers) != (will.verdict, will.decision.authorizers):
            rows.append(
                {
                    "calls": count,
                    "from": ask.caller,
                    "call": _call(ask),
                    "before": f"{was.verdict}{_asking(was.decision.authorizers)}",
                    "after": f"{will.verdict}{_asking(will.decision.authorizers)}",
                    "by": _by(will),
                }
            )
    if output.is_data:
        put(format_data(rows, output.value))
    elif rows:
        put_table(_CHANGES, rows, is_wide=output is OutputFormat.WIDE)
    tell(f"{len(rows)} of {len(recordings)} kinds of calls to {app} would be decided otherwise")
    if rows:
        raise typer.Exit(FAILED)


@policy.command("suggest")
def suggest_rules(
    app: AppId,
    calls: Annotated[Path, typer.Option("--calls", help="the access log of the app's sidecar, in JSON")],
    namespace: Namespace = "default",
    trust_domain: TrustDomain = "public",
) -> None:
    """Print an AccessPolicy, to be audited first, that allows the calls of an access log that were not denied.

    Example: postern policy suggest --app cart --calls access.log
    """
    whose = App(app_id=app, namespace=namespace, trust_domain=trust_domain)
    found = recorded(calls, app, is_answered=True)
    if not found:
        raise CliError(
            f"{calls} has no calls to {app}", hint="expected JSON lines of its sidecar's --access-log"
        )
    put(format_data(suggest(found, whose), "yaml"))


def _read(paths: Sequence[Path], app: App) -> PolicyFiles:
    def read() -> PolicyFiles:
        files = sort_files(paths)
        if not files.configurations and not files.resources and not files.findings:
            named = ", ".join(map(str, paths))
            raise UsageError(f"no policy in {named}", hint="expected a Configuration or an AccessPolicy")
        if files.findings:
            raise DocumentError([finding.fault for finding in files.findings])
        return read_policies(files.configurations, files.resources, app, os.environ)

    return _or_error(read)


def _or_error(read: Callable[[], MadeT]) -> MadeT:
    try:
        return read()
    except DocumentError as error:
        raise CliError(str(error)) from error


def _call(ask: Ask) -> str:
    return f"gRPC {ask.path}" if ask.is_grpc else f"{ask.method} {ask.path}"


def _by(found: Judged) -> str:
    """The verdict and what it rests on."""
    decision = found.decision
    said = "allowed" if decision.allowed else "denied"
    if decision.rule:
        at = f" ({found.where})" if found.where else ""
        return f"{said} by rule {decision.rule} of {decision.policy}{at}"
    if decision.allowed:
        return f"{said}: {_ALLOWED.get(decision.reason, decision.reason)}"
    return f"{said}: {DENIALS[decision.reason]}"


def _asking(asks: Sequence[str]) -> str:
    return f", asking {', '.join(asks)}" if asks else ""


_ALLOWED = {
    "self": "an app may call itself unless a rule denies it",
    "own-namespace": "without a policy the profile admits callers of the app's own namespace",
    "no-rule": "no rule is about the call, and the default is allow",
    "default-app": "no operation of the caller's entry fits, and its defaultAction is allow",
    "default-global": "no entry decides, and the policy's defaultAction is allow",
    "no-policy": "no policy is in force",
    "no-id": "the caller proves no identity, and the policy's defaultAction is allow",
}


def _told(found: Judged, files: PolicyFiles) -> list[str]:
    ask = found.ask
    lines = [f"{_call(ask)} from {ask.caller} to {files.app.app_id}: {_by(found)}"]
    if found.reading and found.reading != ask.path:
        lines.append(f"the path is denied as an app may read it: {found.reading}")
    if found.by_access_control is not None:
        said = "allows" if found.by_access_control.allowed else "denies"
        lines.append(f"spec.accessControl alone {said} it (reason={found.by_access_control.reason})")
    if found.decision.authorizers:
        named = ", then ".join(found.decision.authorizers)
        lines.append(f"asks authorizer {named}: only what it lets pass reaches the app")
    if found.decision.would_ask:
        lines.append(f"audited policies would ask authorizer {', '.join(found.decision.would_ask)}")
    if found.decision.would_deny:
        lines.append(f"audited policies would deny it: {found.decision.would_deny}")
    lines += [f"limited by the rate {_rate(rate)}" for rate in found.rates]
    lines += [f"with {FAULTS_FLAG}: {_fault(fault, is_grpc=ask.is_grpc)}" for fault in found.faults]
    lines += advice(found, files)
    return [printable(line) for line in lines]


def _rate(rate: RateRule) -> str:
    of = "all callers together" if rate.is_shared else "each caller"
    return f"{rate.name}: {rate.requests} calls in {rate.per_s:g} s by {of}, {rate.burst} at once"


def _fault(fault: FaultRule, *, is_grpc: bool) -> str:
    """What it does, and to how many."""
    s_or_to = (
        f"{fault.least_s:g}" if fault.least_s == fault.most_s else f"{fault.least_s:g} to {fault.most_s:g}"
    )
    does = {
        "delay": f"delays the call by {s_or_to} s",
        "abort": f"answers with code {fault.code}" if is_grpc else f"answers with status {fault.status}",
        "unavailable": "accepts no connection",
        "reset": "breaks the connection off before the answer",
        "reset-late": "breaks the connection off behind the answer's head",
        "truncate": f"breaks the answer off behind {fault.bytes} bytes",
        "bandwidth": f"slows the answer's body down to {fault.bytes} bytes a second",
    }[fault.kind]
    times = "" if fault.times is None else f", {fault.times} times at most"
    return f"the fault {fault.name} {does}, in {100 * fault.share:g} % of attempts{times}"


def _data(found: Judged) -> dict[str, Any]:
    decision = found.decision
    return {
        "from": found.ask.caller,
        "call": _call(found.ask),
        "verdict": found.verdict,
        "reason": decision.reason,
        "policy": decision.policy,
        "rule": decision.rule,
        "where": found.where,
        "readAs": found.reading,
        "asks": list(decision.authorizers),
        "wouldDeny": decision.would_deny,
        "wouldAsk": list(decision.would_ask),
        "rates": [rate.name for rate in found.rates],
        "faults": [fault.name for fault in found.faults],
    }
