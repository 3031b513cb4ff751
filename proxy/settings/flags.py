"""The sidecar's flags: one table, and the scan that turns arguments into texts by flag. Pure; knows no meaning of a value.

Flags are written as daprd's users write them: one dash or two, `--flag value` or `--flag=value`; a switch takes its value only after `=`.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

Kind = Literal["value", "many", "switch", "unbuilt", "unbuilt-switch"]


class Flag(Struct, frozen=True):
    """One flag. many: may be repeated, every value counts. unbuilt: accepted, without effect, named in a warning."""

    name: str
    kind: Kind
    shows: str  # the shape of the value in help
    about: str


def _flag(name: str, shows: str, about: str, kind: Kind = "value") -> Flag:
    return Flag(name, kind, shows, about)


_BUILT = (
    _flag(
        "app-id",
        "ID",
        "the name that others call this app by; required, but `postern run` takes the folder's",
    ),
    _flag(
        "app-port",
        "PORT",
        "the app's port; left out or 0: the sidecar only makes outbound calls; with a command of `postern run`, 0 is any free port",
    ),
    _flag("app-protocol", "NAME", "http, https, h2c, grpc or grpcs (http)"),
    _flag("app-channel-address", "HOST", "host of the app (127.0.0.1)"),
    _flag("app-max-concurrency", "N", "calls in flight to the app; -1: no limit"),
    _flag("enable-app-health-check", "", "probe the app", "switch"),
    _flag("app-health-check-path", "PATH", "what to GET of an HTTP app (/healthz)"),
    _flag("app-health-probe-interval", "SECONDS", "pause between probes (5)"),
    _flag("app-health-probe-timeout", "MS", "how long a probe may take (500)"),
    _flag("app-health-threshold", "N", "failures in a row that make the app unhealthy (3)"),
    _flag("dapr-http-port", "PORT", "the HTTP API (3500); 0: any free port"),
    _flag("dapr-grpc-port", "PORT", "the gRPC API (50001); 0: any free port"),
    _flag("dapr-internal-grpc-port", "PORT", "where peers call; empty or 0: derived from app-id and folder"),
    _flag("dapr-public-port", "PORT", "health and metadata for probes from outside; off by default"),
    _flag("metrics-port", "PORT", "Prometheus metrics (9090); 0: any free port"),
    _flag("dapr-listen-addresses", "HOSTS", "comma-separated addresses of the APIs (loopback; all as daprd)"),
    _flag("dapr-internal-grpc-listen-address", "HOST", "address of the peer port (all)"),
    _flag("dapr-public-listen-address", "HOST", "address of the public port (all)"),
    _flag("metrics-listen-address", "HOST", "address of the metrics port (127.0.0.1; all as daprd)"),
    _flag(
        "metrics-tls-cert", "FILE", "serve metrics over TLS with this PEM chain; read again when it changes"
    ),
    _flag("metrics-tls-key", "FILE", "its key"),
    _flag(
        "metrics-token-file",
        "FILE",
        "serve metrics to those who send this bearer token; read again when it changes",
    ),
    _flag("unix-domain-socket", "DIR", "serve the APIs on sockets in this folder instead of on TCP"),
    _flag("max-body-size", "SIZE", "largest request body, as 4Mi (unlimited; 4Mi as daprd)"),
    _flag("read-buffer-size", "SIZE", "largest request head (64Ki; 16Ki as daprd)"),
    _flag("dapr-http-max-request-size", "MB", "deprecated: --max-body-size"),
    _flag("dapr-http-read-buffer-size", "KB", "deprecated: --read-buffer-size"),
    _flag("components-path", "DIR", "deprecated: --resources-path", "many"),
    _flag("app-ssl", "", "deprecated: --app-protocol https or grpcs", "switch"),
    _flag(
        "allowed-origins",
        "ORIGINS",
        "origins of pages that may call (CORS), comma-separated, one * in each; daprd lets others call, too, but not read",
    ),
    _flag(
        "allowed-hosts", "HOSTS", "names that this machine may be called by, comma-separated, one * in each"
    ),
    _flag(
        "dapr-graceful-shutdown-seconds",
        "SECONDS",
        "how long calls in flight may take to finish at shutdown (5); 0: no limit",
    ),
    _flag(
        "dapr-block-shutdown-duration", "DURATION", "serve on this long, unready, before the shutdown starts"
    ),
    _flag("config", "FILE", "Configuration; later files are laid over earlier ones", "many"),
    _flag("resources-path", "DIR", "folder of resources, such as Resiliency", "many"),
    _flag("mode", "NAME", "standalone; kubernetes is refused, as it is not built yet"),
    _flag("enable-mtls", "", "mutual TLS between proxies; on unless the name is daprd", "switch"),
    _flag("sentry-address", "ADDRESS", "the certificate authority; none: a local one is started"),
    _flag("control-plane-trust-domain", "NAME", "trust domain of sentry's own identity (localhost)"),
    _flag("control-plane-namespace", "NAME", "namespace of sentry's own identity (default)"),
    _flag("enable-api-logging", "", "log each call on the APIs", "switch"),
    _flag("log-level", "LEVEL", "debug, info, warn, error or fatal (info)"),
    _flag("log-as-json", "", "one JSON object per line", "switch"),
    _flag("log-file", "FILE", "log there instead of to standard output"),
    _flag(
        "access-log",
        "FILE",
        "append a line for each call there, of the app's and of peers'; -: standard output; otlp: the OTLP collector of logs"
        " (environment: POSTERN_ACCESS_LOG)",
    ),
    _flag(
        "access-log-format",
        "FORMAT",
        "json (all keys; json), keys with commas between, or a template such as '{verb} {path} {status}'"
        " (environment: POSTERN_ACCESS_LOG_FORMAT)",
    ),
    _flag(
        "access-log-headers", "NAMES", "fields of requests in it, comma-separated; none that holds secrets"
    ),
    _flag("access-log-min-status", "STATUS", "leave out answers of apps with a lower HTTP status, as 400"),
    _flag("access-log-slower", "DURATION", "log only calls that take this long or longer"),
    _flag("access-log-sample", "N", "log one call in N, the same ones at both sidecars (1)"),
    _flag("access-log-max-size", "SIZE", "rotate the file at this size (100Mi); 0: never"),
    _flag("access-log-keep", "N", "rotated files to keep (5)"),
    _flag(
        "no-otlp-receiver",
        "",
        "leave OpenTelemetry's services on the API ports to apps that are routed to; else what the app exports there is passed on",
        "switch",
    ),
    _flag("no-response-traceparent", "", "send no traceparent in HTTP responses", "switch"),
    _flag("enable-metrics", "", "serve metrics (true)", "switch"),
    _flag(
        "metrics-compat",
        "",
        "have `dapr_*` metrics count as daprd's do, gaps included: a callee's gRPC calls are not counted, those that a timeout or circuit"
        " breaker ended are `Unknown`, and an app that is not reached is status 0 (true as daprd)",
        "switch",
    ),
    _flag(
        "metrics-resiliency-paths",
        "",
        "give `dapr_resiliency_count`, `_activations_total` and `_cb_state` a label `path`, as circuit breakers are kept for each"
        " method: of gRPC calls the method, of HTTP calls what the label `path` of other metrics has; 2,000 series of each at most",
        "switch",
    ),
    _flag(
        "disable-init-endpoints",
        "NAMES",
        "start-up calls to the app to leave out: config, subscribe; only daprd makes one, GET /dapr/config of an HTTP app",
    ),
    # our own
    _flag(
        "egress",
        "HOSTS",
        "hosts of URLs that the app may call through the sidecar, comma-separated, as api.example.com, *.example.com or host:8443; "
        "any: all of them (as daprd); none: no URL but those of HTTPEndpoints (else)",
    ),
    _flag("profile", "NAME", "dev, production or daprd: which defaults apply"),
    _flag("engine", "NAME", "auto, native or portable (auto)"),
    _flag(
        "threads", "N", "threads of the native engine, at best one per core (1; environment: POSTERN_THREADS)"
    ),
    _flag("max-connections", "N", "connections open at once on each port (10000)"),
    _flag("max-streams", "N", "calls at once on one HTTP/2 connection that we accept (250)"),
    _flag("max-headers", "N", "header fields of one request or response (256)"),
    _flag("head-timeout", "DURATION", "how long a request's head may take to arrive (10s)"),
    _flag("idle-timeout", "DURATION", "a connection without a call is closed after this (3m)"),
    _flag("stall-timeout", "DURATION", "a call whose caller neither sends nor reads is cut after this (5m)"),
    _flag("keepalive-time", "DURATION", "silence on an HTTP/2 connection with calls before a PING (10s)"),
    _flag(
        "keepalive-timeout",
        "DURATION",
        "a PING without an answer for this long ends the connection; apps have twelve times as long (5s)",
    ),
    _flag("connect-timeout", "DURATION", "how long one connection attempt may take (5s)"),
    _flag("replay-buffer-size", "SIZE", "of a request body, kept for another attempt (64Ki; 4Mi as daprd)"),
    _flag(
        "replay-buffer-total",
        "SIZE",
        "the same of all calls together; beyond it, calls are tried once (64Mi)",
    ),
    _flag("namespace", "NAME", "own namespace (environment: NAMESPACE, else default)"),
    _flag("trust-domain", "NAME", "trust domain of our identity (public)"),
    _flag("trust-anchors-file", "FILE", "PEM roots (environment: DAPR_TRUST_ANCHORS)"),
    _flag(
        "insecure-plaintext",
        "",
        "no mutual TLS: peers are not authenticated, and nothing is encrypted",
        "switch",
    ),
    _flag("upstream", "APP[=PORT]", "a local port that leads to one app; no port: any free one", "many"),
    _flag("route", "SERVICE=APP", "which app serves a gRPC service, or a pattern", "many"),
    _flag("grpc-service", "SERVICE", "a gRPC service that our app serves", "many"),
    _flag("no-learn-names", "", "ask no app which gRPC services it serves", "switch"),
    _flag("runtime-path", "DIR", "where this user's sidecars meet (environment: POSTERN_HOME, else by XDG)"),
    _flag(
        "drain",
        "DURATION",
        "how long to keep serving once the announcement is withdrawn (2s; as daprd, none unless calls are in flight)",
    ),
    _flag(
        "keep-open-calls",
        "",
        "calls that are open when the access policy changes go on, even where it denies them now"
        " (environment: POSTERN_KEEP_OPEN_CALLS)",
        "switch",
    ),
    _flag(
        "no-decision-cache",
        "",
        "decide about every call afresh: a breakpoint in the rules stops each; slow"
        " (environment: POSTERN_NO_DECISION_CACHE)",
        "switch",
    ),
    _flag("enable-fault-injection", "", "inject the `faults` of Traffic resources: for tests", "switch"),
    _flag("config-lenient", "", "faults in documents are warnings where that is safe", "switch"),
    _flag(
        "access-policy-mode",
        "MODE",
        "the most that AccessPolicies may be in, whatever their `mode` says: enforce, audit (they tell what they"
        " would deny) or off (enforce)",
    ),
    _flag("host-ip", "IP", "own address for naming (environment: DAPR_HOST_IP)"),
    _flag("run-command", "TEXT", "the app's command, for `postern list`"),
    _flag("run-template", "FILE", "the run file, for `postern list`"),
    _flag("run-template-name", "TEXT", "the name in the run file, for `postern list`"),
    _flag("app-log", "FILE", "where the app's output goes, for `postern list`"),
    _flag("sidecar-log", "FILE", "where the sidecar's output goes, for `postern list`"),
    _flag("cli-pid", "PID", "the command that started us, for `postern stop`"),
    _flag("ready-fd", "FD", "a socket to our supervisor"),
)
_NO_BLOCK = "postern has no such building block"
_NO_PROFILES = "postern has no Go runtime to profile"
# What is accepted for compatibility, and why it has no effect.
_UNBUILT = tuple(
    _flag(name, "VALUE", why, "unbuilt")
    for name, why in {
        "placement-host-address": _NO_BLOCK,
        "scheduler-host-address": _NO_BLOCK,
        "scheduler-job-streams": _NO_BLOCK,
        "actors-service": _NO_BLOCK,
        "reminders-service": _NO_BLOCK,
        "control-plane-address": "resources are read from files, no operator is asked for them",
        "sentry-request-jwt-audiences": "postern asks for certificates alone",
        "profile-port": _NO_PROFILES,
        "profile-listen-address": _NO_PROFILES,
        "hot-reload-reconcile-interval": "files are read again when they change",
        "actors-disseminate-timeout": _NO_BLOCK,
        "app-binding-options-timeout": _NO_BLOCK,
    }.items()
)
_UNBUILT_SWITCHES = (
    _flag("enable-profiling", "", _NO_PROFILES, "unbuilt-switch"),
    _flag("disable-builtin-k8s-secret-store", "", "there are no secret stores", "unbuilt-switch"),
)
FLAGS: dict[str, Flag] = {flag.name: flag for flag in (*_BUILT, *_UNBUILT, *_UNBUILT_SWITCHES)}
_NOTHING = frozenset({"", "-1", "0", "false"})  # how a caller that always passes a flag says "off"


class Given:
    """What the arguments held, as texts by flag, in order. Filled once by `scan`."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self.faults: list[str] = []
        self.strays: list[str] = []  # words that belong to no flag, and why: faults, but not to a daprd

    def add(self, name: str, text: str) -> None:
        """One more value of a flag."""
        self._texts.setdefault(name, []).append(text)

    @property
    def names(self) -> frozenset[str]:
        """The flags that were given."""
        return frozenset(self._texts)

    def last(self, name: str) -> str | None:
        """The value of a flag; the last one counts."""
        return self._texts[name][-1] if name in self._texts else None

    def every(self, name: str) -> tuple[str, ...]:
        """All values of a repeatable flag."""
        return tuple(self._texts.get(name, ()))

    def unbuilt(self) -> tuple[Flag, ...]:
        """Flags that were given, ask for something, and have no effect here."""
        return tuple(
            FLAGS[name]
            for name, texts in self._texts.items()
            if FLAGS[name].kind.startswith("unbuilt") and texts[-1] not in _NOTHING
        )


def scan(argv: Sequence[str]) -> Given:
    """Split arguments into texts by flag; what can't be placed is a fault."""
    given = Given()
    rest = iter(argv)
    for word in rest:
        if not word.startswith("-") or word in {"-", "--"}:
            given.strays.append(_stray(word))
            continue
        name, equals, text = word.removeprefix("-").removeprefix("-").partition("=")
        flag = FLAGS.get(name)
        if flag is None:
            given.faults.append(f"--{name}: unknown flag{suggestion(name, FLAGS)}")
        elif flag.kind in {"switch", "unbuilt-switch"}:
            given.add(name, text if equals else "true")
        elif equals:
            given.add(name, text)
        else:
            following = next(rest, None)
            if following is None:
                given.faults.append(f"--{name}: a value is missing, expected {flag.shows}")
            else:
                given.add(name, following)
    return given


def suggestion(word: str, known: Sequence[str] | dict[str, Flag]) -> str:
    """`; did you mean --x?` for the closest of the known flags, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - a word list is compared only when something is wrong

    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean --{close[0]}?" if close else ""


def help_text(program: str) -> str:
    """Usage of the sidecar, one line a flag."""
    shown = [(f"--{flag.name} {flag.shows}".rstrip(), flag.about) for flag in _BUILT]
    if program == "postern run":
        shown.append(("--version", "print the version"))
    else:
        shown.append(
            ("--version | --build-info | --wait", "print, print, or wait until the sidecar is ready")
        )
    lines = [f"usage: {program} --app-id ID [flags]", "", "flags:"]
    lines.extend(f"  {flag:<46} {about}" for flag, about in shown)
    lines.append("")
    lines.append(
        "accepted without effect: " + ", ".join(f"--{f.name}" for f in (*_UNBUILT, *_UNBUILT_SWITCHES))
    )
    return "\n".join(lines) + "\n"


def _stray(word: str) -> str:
    hint = "; a switch takes its value after `=`" if word in {"true", "false"} else ""
    return f"{word!r}: unexpected argument, expected a flag{hint}"
