"""`python -m proxy.reference`: writes `proxy/REFERENCE.md` from the tables that the code itself uses.

Holds no facts of its own beyond headings and what no table can hold. What a table lacks is an error here, so that nothing new goes
undocumented.
"""

import sys
from argparse import SUPPRESS
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin

from msgspec import Struct
from msgspec.structs import fields

from policies.reading import own_schema, own_traffic, schema
from policies.reading.effects import COMPONENT, CONFIGURATION, HTTP_ENDPOINT, MIDDLEWARE, RESILIENCY, Effect
from policies.reading.own_effects import ACCESS_POLICY, TRAFFIC
from policies.rules.access import DENIALS
from proxy.cli.run import SHORT
from proxy.cli.runfile import KEYS, PASSED, App, RunFile, Shared
from proxy.contract.plan import Cause
from proxy.control.tap_events import KEYS as KEYS_OF_TAPS
from proxy.errors import ANSWERS, MEANINGS
from proxy.reference import environment
from proxy.reference.diagnosis import check_rows, code_rows
from proxy.reference.limits import Limit, engine_limits, other_limits
from proxy.reference.status_keys import KEYS as KEYS_OF_STATUS
from proxy.settings.flags import FLAGS, Flag
from sentry.config import make_parser
from telemetry import names
from telemetry.line_form import KEYS as KEYS_OF_LINES
from telemetry.logs import KEYS as KEYS_OF_LOGS
from telemetry.metrics import Meters

Kind: TypeAlias = Any  # an annotation: a type, or what `typing` makes of types
PAGE = Path(__file__).parents[1] / "REFERENCE.md"
_TAP_EVENTS = """Also of `/postern/v1/tap` on the admin socket, a line each; stable. `open` says whose tap it is, with `max_rps` and
`sample`; `skipped` how many calls were left out, and why (`reasons`). A request comes once it is decided what to do about a call, or while
its callee's name is looked up: without a decision and a trace then, which the call's later events have. An answer that a proxy made has no
response, only an end. With a filter of statuses or of time there are no requests."""
_OF_RUN = (
    (
        "`--run-file`",
        "FILE",
        "run the apps of a file; a folder is searched for dapr.yaml, `-` is standard input",
    ),
    ("`--keep-going`", "switch", "a failing app does not stop the others"),
    ("`--exit-on-failure`", "switch", "a failing app stops the others; the default"),
)
_HEAD = """# Reference

Made from the code by `make reference`; don't edit it. A default is in parentheses.
"""
_RUNTIME_ROOT = """The sidecars and commands of one user meet in one folder, the *runtime root*: `--runtime-path`, else `$POSTERN_HOME`,
else `$XDG_RUNTIME_DIR/postern`, else `$XDG_STATE_HOME/postern`, else `~/.local/state/postern`. It has mode 0700 and holds the registry of
what runs (`run/`), the keys and certificates of the local sentry (`sentry/`), and `endpoints.yaml` if you write one. `postern list` and
the other commands see what runs under the root that they look in, and name it if they find nothing.
"""
_LOGS = """A sidecar logs to standard output, or to `--log-file`. `postern run` shows the logs of app and sidecar in its terminal. Under
`postern run -f` they are also written to `<appDirPath>/.dapr/logs/<app-id>_app_<time>.log` and `…_daprd_<time>.log`; `appLogDestination`
and `daprdLogDestination` choose `console`, `file` or `fileAndConsole`, and `postern list -o wide` shows the paths. The local sentry that
`postern run` starts logs to `sentry/sentry.log` in the runtime root, and what it signed to `sentry/audit.jsonl`. `postern logs` reads these
files with those that were put aside when full (`….log.1` to `.5`), and of a sidecar without a file its latest lines, from memory.

A line is one event, in logfmt (`time="…" level=info msg="…"`, then the other keys by name), or with `--log-as-json` one object of JSON with
the same keys. No value starts a new line. Of one kind, the same `msg` of one `scope`, ten lines a second are written; the next one says how
many were left out. `--log-level` says from which level on; `postern log-level APP debug --for 10m` changes it while the sidecar runs, and
`reset` goes back.

"""
_ACCESS_LOG = """`--access-log` gets a line for each call that a sidecar carried, of its app and of peers, once it has ended. Without other
words it is an object of JSON with all keys below; `--access-log-format` names those that are wanted (`time,verb,path,status`), or is a
template, `'{verb} {path} {status} {header:user-agent}'`, in which values stand bare, `-` where there is none, and braces are written
twice. Fields of requests are there where `--access-log-headers` or the template names them, but never `authorization`, cookies and
tokens. No query and no body is ever told.

`--access-log-min-status` keeps failures alone (gRPC's too, and all that a proxy ended), `--access-log-slower` slow calls, and
`--access-log-sample` one in so many, by the trace's id, so that both sidecars have the same ones; what an access policy denied is always
there. The file has mode 0600, and is put aside at `--access-log-max-size`; one that others move or truncate is fine. Lines are written
every 0.2 s and at the end; what finds no room is counted in `postern_reports_lost_total{kind="line"}`.
"""
_RETRIES = """A retry policy retries two kinds of failure. A response fails by its code: an HTTP status below 200 or above 399, or a gRPC
status other than OK; `matching` narrows these down, separately for each protocol. An attempt without a response fails whatever `matching`
says, as in Dapr: no connection, a connection that broke, a timeout of an attempt. So with `timeout: 500ms`, `maxRetries: 3` and
`gRPCStatusCodes: "14"` a callee that never answers is tried four times, with the pauses between; the callee's own DEADLINE_EXCEEDED (4)
is final.

A call that the callee's proxy denies (403 or PERMISSION_DENIED with `postern-error: denied`) has been decided, and nothing has failed: it
is retried only by a policy that names that status in `matching`, and counts as a failure neither for a circuit breaker nor for outlier
detection. Under
the name `daprd`, and where the callee's sidecar is a daprd, it is a failure like any other, as in Dapr.

Nothing is retried once the response head has reached the caller, after the caller has hung up or its deadline has passed, for an HTTP body
of unknown length, for a body larger than the replay buffer, or beyond the opening of a gRPC stream declared by `dapr-stream`.

`DefaultAppRetryPolicy` or `DefaultRetryPolicy` apply to apps without an entry, round the built-in retry (three retries, a second apart, of
what certainly did not reach the app), which each of their attempts has anew: with `maxRetries: 1` a callee that accepts no connection is
tried eight times, one that answers with a failure twice. An entry in `targets.apps`, also an empty one, turns the built-in retry off.

An answer may ask for another pause, but under the name `daprd`: `Retry-After` of a 429 or 503, in seconds or as a date, makes it at least
so long; `grpc-retry-pushback-ms` takes its place, and rules a retry out where it is negative or not a number. One that asks for more than
30 s goes to the caller, and ends the retries. A retry whose pause would end after the call's deadline is not waited for. Retries of gRPC
calls say in `grpc-previous-rpc-attempts` how many attempts may have reached an app before.

Retries by a written policy take from one budget for each callee: for each call of the last 10 s a fifth of a retry, and 10 retries a second
besides, so that a callee in trouble is not asked many times as often as before; `retryBudget` of a Traffic sets another. Where it is empty,
the failure at hand is the answer. The built-in retry is not charged, nor are attempts at other endpoints that nobody processed; under the
name `daprd` there is no budget unless a Traffic has one. Request bodies that are kept for another attempt take 64 MiB in all; past that a
body is sent once.

Why a failure was a call's last is on its span at the caller (`postern.not_retried`) and in the access log (`not_retried`):
`not-covered`: no policy speaks of it; `no-attempts-left`; `budget`; `body-not-kept`: larger than the replay buffer, or that is full;
`streaming`: a body of unknown length; `deadline`: passed, or before the pause would end; `pushback`: the answer asked for no other attempt;
`time-of-the-rule-over`: 15 minutes of an exponential policy; `response-begun`; `denied`: see above. `postern explain` tells what would not
be retried.

A call's time is what its caller gives it, a policy's timeout, or what is left of either, the least of them: `grpc-timeout` of gRPC; of HTTP
`postern-timeout` (milliseconds, or as `grpc-timeout` has it), `postern-deadline` (a moment in epoch milliseconds) and Envoy's
`x-envoy-expected-rq-timeout-ms`. The callee's proxy and its app are told what is left, in `grpc-timeout` or `postern-timeout`, which is how
long and not until when, so that clocks need not agree. It can only shorten a call, so it is taken from every caller. It does not leave
the mesh: HTTPEndpoints and URLs are not told. A malformed value counts as none; WebSockets have no end.
"""
_MIDDLEWARE = """A handler whose component is missing or can't be used is refused when it is loaded, never passed over. `opa`, `sentinel`
and `wasm` are not built. Settings of `middleware.http.` types:
"""
_EXTERNAL = """A name of an HTTPEndpoint goes before an app of that name in every HTTP form; gRPC calls apps alone. `targets.apps` of a
Resiliency has the name, or the URL as the app wrote it. What else holds for calls that leave the mesh, by name or by URL:

- HTTP/1.1, over TLS 1.2 or 1.3 for https. Chain, dates and host name are verified; the system's roots are those of OpenSSL
  (`SSL_CERT_FILE`, `SSL_CERT_DIR`), read once.
- They go through the HTTP proxy that `HTTPS_PROXY` or `HTTP_PROXY` of the sidecar's own environment names, by Go's rules (`NO_PROXY`):
  to https, and for WebSockets to http as well, in a tunnel (`CONNECT`), in which the server of https still proves its name; otherwise
  to http as requests for whole URLs. The name is the
  proxy's to look up then, and where it leads is the proxy's to judge: only an address that the URL spells out is checked here. A
  proxy that is the sidecar itself is passed over.
- No `dapr-*` and `postern-*` header and no hop-by-hop header is sent, `traceparent` is. Neither `APP_API_TOKEN` nor the API's token is.
- Redirects are the app's to follow (daprd follows up to ten of an HTTPEndpoint's).
- A request's path can't lead out of the base path: `..`, `%2e%2e`, `..%2f` and the like are resolved before it is put behind.
- Without a policy a request that no address took is tried twice more; one that may have arrived only where that is safe.
- A name that is looked up here may not lead to link-local addresses, metadata services of clouds, multicast or the sidecar's own
  ports. An address that the resource or `--egress` itself spells out may be link-local.
- All addresses of a host are balanced. The resolver is asked again every 30 s while calls go there.
"""
_SIGNALS = """SIGTERM and SIGINT shut a sidecar down gracefully: it withdraws its announcement, keeps serving for `--drain`, gives calls
in flight `--dapr-graceful-shutdown-seconds` to finish, and exits. A second signal ends it at once. SIGHUP makes it reload its
Configurations and resources, as it does by itself where their files change, and makes `postern run` have all its sidecars do so. The exit
code is 0, 1 if calls were cut or something failed, 2 for flags that can't be used, 128 plus the signal's number after a second signal.
"""
_CALLERS = """Apps are told who calls in `dapr-caller-app-id` and `dapr-caller-namespace`, by the certificate alone: what else came under
these names is dropped. Under the name `daprd` without mutual TLS they are told what the caller's sidecar says, which nothing proves;
access rules never go by it. On Dapr's surface an app that calls itself is told of no caller and no callee, as daprds have it; named in
any other way, it is told its own name.

Between postern's sidecars HTTP stays HTTP: fields whose names are gRPC's, `*-bin` and `grpc-*`, reach an HTTP app as they were sent, and
mean nothing to a proxy. Where a daprd is at one end, an HTTP app gets no `*-bin` and finds `grpc-*` as `dapr-grpc-*`; an app that is
called by `OnInvoke` gets `*-bin` as binary metadata, and `grpc-*` as `dapr-grpc-*`, too.
"""


_POLICIES = """Read from `--resources-path` beside Dapr's kinds; all policies for an app add up. A call is denied if a rule denies it, else
allowed if one allows it, else it has the default. Where the app has a Configuration with `spec.accessControl` too, both must allow; an app
may call itself unless a rule denies it. Any fault keeps the policies that were in force, `--config-lenient` or not.
"""
_TRAFFIC = """Read from `--resources-path` beside Dapr's kinds, for what these have no place for. `targets.apps` names apps by app-id, or as
`app-id.namespace`, and HTTPEndpoints by their name; an entry holds however a call spells the app, and `targets.default` for every app
without one, and for URLs. An entry stands by itself: what it leaves out has its own default, not that of `targets.default`. One that a
later resource repeats takes the place of the earlier one, with a warning. Any fault keeps what was in force, `--config-lenient` or not.
"""


def page() -> str:
    """The whole page."""
    parts = [
        _HEAD,
        "## Flags of `postern run` and `postern sidecar`",
        table(("flag", "value", "what it does"), map(_flag_row, _built())),
        "Accepted without effect, and named in a warning: "
        + ", ".join(f"`--{flag.name}`" for flag in FLAGS.values() if flag.kind.startswith("unbuilt"))
        + ".\n",
        "`postern run` has these as well:",
        table(("flag", "value", "what it does"), _OF_RUN),
        "Short forms there: " + ", ".join(f"`{short}` for `{long}`" for short, long in SHORT.items()) + ".",
        "## Flags of `postern sentry`",
        table(("flag", "value", "what it does"), sentry_rows()),
        "## Environment variables",
        "Read:",
        table(("variable", "what it does"), _named(environment.READ)),
        "Set by `postern run` for the app:",
        table(("variable", "what it holds"), _named(environment.SET)),
        "## Keys of a run file",
        table(("key", "where", "what it does"), run_file_rows()),
        "## Fields of a Configuration",
        table(("field", "what it does here"), effect_rows(schema.Configuration, CONFIGURATION)),
        "## Fields of a Resiliency",
        table(("field", "what it does here"), effect_rows(schema.Resiliency, RESILIENCY)),
        "### What is retried",
        _RETRIES,
        "## Fields of an AccessPolicy",
        _POLICIES,
        table(("field", "what it does here"), effect_rows(own_schema.AccessPolicy, ACCESS_POLICY)),
        "## Fields of a Traffic",
        _TRAFFIC,
        table(("field", "what it does here"), effect_rows(own_traffic.Traffic, TRAFFIC)),
        "## Fields of a Component",
        table(("field", "what it does here"), effect_rows(schema.Component, COMPONENT)),
        _MIDDLEWARE,
        table(("type", "setting", "what it does"), middleware_rows()),
        "## Fields of an HTTPEndpoint",
        table(("field", "what it does here"), effect_rows(schema.HttpEndpoint, HTTP_ENDPOINT)),
        _EXTERNAL,
        "## Errors",
        "What postern answers itself carries the header `postern-error` (metadata on gRPC) and, over HTTP, a JSON body with"
        " `errorCode`, `message` and, in `details`, the trace's id. On Dapr's paths the `errorCode` is `ERR_DIRECT_INVOKE`, and the codes"
        " are those in the last two columns; a request there without the API's token gets 401 `invalid api token` in plain text.",
        table(
            ("postern-error", "meaning", "errorCode", "HTTP", "gRPC", "HTTP, Dapr's", "gRPC, Dapr's"),
            _error_rows(),
        ),
        "`InvokeService` answers its callers with INTERNAL where postern itself refuses or fails a call, as Dapr does, but UNKNOWN for"
        " circuit breakers, DEADLINE_EXCEEDED for timeouts and RESOURCE_EXHAUSTED for what is too large; `postern-error` among the"
        " trailers tells the cause.",
        "### Why a call was denied",
        "The callee's proxy logs `access denied` with the caller, the path and its `reason`:",
        table(("reason", "meaning"), ((f"`{reason}`", text) for reason, text in DENIALS.items())),
        "### What an app is told of a call",
        _CALLERS,
        "## What `postern check` looks at",
        "Ids are stable. A warning keeps nothing from working; a failure makes the exit code 1.",
        table(("id", "group", "what is well", "otherwise"), check_rows()),
        "## What `postern analyze` finds",
        "Codes are stable, messages are not. `--level` says which severity makes the exit code 1.",
        table(("code", "severity", "meaning"), code_rows()),
        "## Keys of `postern status -o json`",
        "Also of `/postern/v1/dump` on the admin socket; stable. Of several sidecars it is a list. No secret is in it. `-o wide` shows the"
        " same in tables.",
        table(("key", "what it holds"), _named(KEYS_OF_STATUS)),
        "## Events of `postern tap -o json`",
        _TAP_EVENTS,
        table(
            ("key", "events", "what it says"), ((f"`{key}`", *about) for key, about in KEYS_OF_TAPS.items())
        ),
        "## Metrics",
        "Of a sidecar, and `process_*` beside them; a series is there from its first use on. Sentry's are in"
        " [its README](../sentry/README.md#metrics), alert rules and a board in [examples/monitoring](../examples/monitoring).",
        table(("metric", "type", "labels", "what it counts"), metric_rows()),
        "## Limits",
        table(("limit", "value", "beyond it", "flag"), map(_limit_row, (*engine_limits(), *other_limits()))),
        "## The runtime root",
        _RUNTIME_ROOT,
        "## Logs",
        _LOGS,
        table(("key", "what it says"), ((f"`{key}`", about) for key, about in KEYS_OF_LOGS.items())),
        "### The access log",
        _ACCESS_LOG,
        table(("key", "what it says"), ((f"`{key}`", about) for key, about in KEYS_OF_LINES.items())),
        "## Signals and exit codes",
        _SIGNALS,
    ]
    return "\n".join(parts).replace("\n\n\n", "\n\n")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    body = "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
    return f"\n{body}"


def sentry_rows() -> Iterator[tuple[str, str, str]]:
    """A row for each flag of the certificate authority."""
    for action in make_parser()._actions:
        about = "accepted without effect" if action.help == SUPPRESS else str(action.help)
        value = "" if action.nargs == 0 else str(action.metavar or "VALUE")
        shown = about.replace("%(default)s", str(action.default))
        yield ", ".join(f"`{name}`" for name in action.option_strings), value or "switch", shown


def _built() -> Iterator[Flag]:
    return (flag for flag in FLAGS.values() if not flag.kind.startswith("unbuilt"))


def _flag_row(flag: Flag) -> tuple[str, str, str]:
    shows = flag.shows + (", repeatable" if flag.kind == "many" else "")
    return f"`--{flag.name}`", shows or "switch", flag.about


def _named(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((f"`{name}`", about) for name, about in variables.items())


def run_file_rows() -> Iterator[tuple[str, str, str]]:
    """A row for each key of a run file. Raises: KeyError for one that neither becomes a flag nor is in `KEYS`."""
    shared = set(Shared.__struct_fields__)
    for model, where in ((RunFile, "file"), (Shared, "`common` and apps"), (App, "apps")):
        for field in fields(model):
            if model is App and field.name in shared:
                continue
            flag = PASSED.get(field.name)
            does = KEYS[field.name] if flag is None else f"`--{flag}`"
            if flag is not None and FLAGS[flag].kind.startswith("unbuilt"):
                does += ": no effect"
            yield f"`{field.encode_name}`", where, does


def effect_rows(model: type[Struct], effects: Mapping[str, Effect]) -> Iterator[tuple[str, str]]:
    """A row for each field of a kind. Raises: KeyError for a field that `effects` lacks."""
    told = set[str]()
    for path in field_paths(model):
        known = covering(path, effects)
        if known not in told:
            told.add(known)
            effect = effects[known]
            does = (
                effect.does if effect.has_effect else f"no effect{': ' if effect.does else ''}{effect.does}"
            )
            yield f"`{known}`", does


def middleware_rows() -> Iterator[tuple[str, str, str]]:
    """A row for each setting of each type of middleware."""
    for kind, settings in MIDDLEWARE.items():
        for name, does in settings.items():
            yield f"`{kind}`", f"`{name}`", does


def covering(path: str, effects: Mapping[str, Effect]) -> str:
    """The entry for a field: its own, or one without effect that stands for all below it. Raises: KeyError."""
    parts = path.split(".")
    for length in range(1, len(parts)):
        above = ".".join(parts[:length])
        if above in effects and not effects[above].has_effect:
            return above
    if path not in effects:
        raise KeyError(f"{path}: say what it does in policies/reading/effects.py")
    return path


def field_paths(kind: Kind, path: str = "") -> Iterator[str]:
    """Every field below a schema's type, as `policies.reading.effects` writes it; itself where it holds none."""
    origin: Kind = get_origin(kind)
    arguments: tuple[Kind, ...] = get_args(kind)
    below = list[tuple[str, Kind]]()
    if isinstance(kind, type) and issubclass(kind, Struct):
        below = [(field.encode_name, field.type) for field in fields(kind)]
    elif origin is dict:
        below = [("*", arguments[1])]
    elif origin is list and not _is_plain(arguments[0]):
        members = get_args(arguments[0]) or (arguments[0],)
        below = [("*", member) for member in members if not _is_plain(member)]
        if len(below) < len(members):
            yield path
    elif origin in (Union, UnionType):
        member = next((each for each in arguments if not _is_plain(each)), None)
        if member is not None:
            yield from field_paths(member, path)
            return
    if not below:
        yield path
    for name, inner in below:
        yield from field_paths(inner, f"{path}.{name}" if path else name)


def _is_plain(kind: Kind) -> bool:
    return isinstance(kind, type) and not issubclass(kind, Struct)


def _error_rows() -> Iterator[tuple[str, ...]]:
    for cause in Cause:
        answer = ANSWERS[cause]
        yield (
            f"`{cause.value}`",
            MEANINGS[cause],
            f"`{answer.code}`",
            str(answer.status),
            names.GRPC_CODES[answer.grpc],
            str(answer.dapr_status),
            names.GRPC_CODES[answer.dapr_grpc],
        )


def metric_rows() -> Iterator[tuple[str, ...]]:
    """A row for each metric of a sidecar."""
    for family in Meters("app").families():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        yield f"`{family.name}`", type(family).__name__.lower(), labels, family.help.removesuffix(".")


def _limit_row(limit: Limit) -> tuple[str, ...]:
    return limit.about, limit.value, limit.beyond, f"`--{limit.flag}`" if limit.flag else ""


def main(write: Callable[[str], object] = sys.stdout.write) -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    write(f"{PAGE} is written\n")
    return 0
