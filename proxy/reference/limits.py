"""Every limit in one table, for the reference page: what is bounded, where, and the flag that changes it. A test checks completeness."""

from msgspec import Struct

from nameresolution.cache import Lifetimes
from nameresolution.consul.resolver import MAX_WAITING
from nameresolution.mdns.browser import MAX_INSTANCES
from nameresolution.sqlite.database import MAX_ROWS
from policies.reading.compile_access import MAX_PATTERN_CHARS, MAX_RULES
from policies.reading.documents import MAX_FILE_BYTES
from policies.rules.backoff import EXPONENTIAL_WITHIN_S
from proxy.api.admin import MAX_METADATA, MAX_METADATA_BYTES
from proxy.api.dapr.service import CALLS
from proxy.api.dapr.standard import WATCHES
from proxy.api.otlp.server import CALLS as EXPORTS
from proxy.api.otlp.unpacking import MAX_BYTES as EXPORT_BYTES
from proxy.cli.live.service import MAX_STREAMS
from proxy.cli.live.stream import MAX_WAITING as MAX_UNSENT
from proxy.contract.engine import MAX_PLAN_BYTES, MAX_REPLY_BYTES, Limits
from proxy.contract.gates import MAX_CALLERS
from proxy.contract.recording import MAX_KEY_BYTES
from proxy.control.authorizing.authorizers import MAX_ASKING
from proxy.control.authorizing.kept_answers import MAX_ANSWERS, MAX_BYTES
from proxy.control.authorizing.over_http import MAX_CONNECTIONS
from proxy.control.authorizing.verdicts import MAX_BODY_BYTES, MAX_FIELD_BYTES, MAX_FIELDS
from proxy.control.external import MAX_URLS
from proxy.control.external_hosts import IDLE_S, LOOKUP_S, MAX_LOOKUPS, REFRESH_S
from proxy.control.heard_names import MAX_NAMES, MAX_SERVICES
from proxy.control.sessions import MAX_SESSIONS
from proxy.control.tap_filters import MAX_HEADERS
from proxy.control.tapping import MAX_TAPS, MAX_UNDER_WAY, MAX_UNREAD
from proxy.deciding.bearer import MAX_TOKEN_BYTES
from proxy.settings.parsing import DAPR_BODY_BYTES, DAPR_HEAD_BYTES, HEAD_BYTES, REPLAY_BYTES
from telemetry.dashboard.layout import MAX_NODES
from telemetry.exporting import ExportLimits
from telemetry.log_ring import MAX_CHARS, MAX_FOLLOWERS, MAX_LINES
from telemetry.logs import LINES_PER_S
from telemetry.otlp.reading import SPAN_LIMIT
from telemetry.recent import ROUTES
from telemetry.series import LABEL_CHARS, SERIES_LIMIT
from telemetry.tracing import APP_RING

#: What names that callers make up may take in a process with one thread, all that is kept of them together; tests/soak/test_growth.py.
CALLERS_MIB = 64


class Limit(Struct, frozen=True):
    """One bound. value: as people write it. beyond: what happens there."""

    about: str
    value: str
    beyond: str
    flag: str = ""


#: Fields of an engine's `Limits` -> what is bounded, what happens beyond it, and the flag.
ENGINE = {
    "head_bytes": (
        "a request's or answer's head",
        "431; a connection over HTTP/2 goes on",
        "read-buffer-size",
    ),
    "header_count": ("fields of a head", "431", "max-headers"),
    "head_s": ("time for a head to arrive", "the connection is closed", "head-timeout"),
    "handshake_s": ("time for a TLS handshake", "the connection is closed", ""),
    "idle_s": ("time without a call on a connection", "the connection is closed", "idle-timeout"),
    "rest_s": ("time without a call on an HTTP/2 connection", "the native engine gives back its memory", ""),
    "stall_s": (
        "time in which a caller moves less than the next row's bytes",
        "the call is cut",
        "stall-timeout",
    ),
    "stall_bytes": ("bytes that a caller must move in that time", "the call is cut", ""),
    "ping_s": ("silence on an HTTP/2 connection with calls", "a PING is sent", "keepalive-time"),
    "pong_s": ("time for its answer", "the connection is given up", "keepalive-timeout"),
    "connections": ("connections open on one port", "more are closed at once", "max-connections"),
    "streams": (
        "calls at once on an HTTP/2 connection that we accept",
        "more are refused (RFC 9113 §5.1.2)",
        "max-streams",
    ),
    "window_bytes": ("bytes of one call's body held for a slow reader", "the sender waits", ""),
    "connection_window_bytes": ("the same, of all calls on a connection", "the sender waits", ""),
    "resets_per_s": (
        "resets a second, sustained, that a peer makes us send, beyond what its calls account for",
        "GOAWAY",
        "",
    ),
    "resets_burst": ("the same in a burst", "GOAWAY", ""),
    "control_per_s": (
        "PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA a second, beyond what calls and data account for",
        "reading slows, then GOAWAY",
        "",
    ),
    "control_burst": ("the same in a burst", "reading slows, then GOAWAY", ""),
    "own_app_factor": ("factor on these four limits for the sidecar's own app", "as there", ""),
    "expiry_lead_s": (
        "time before a certificate's end",
        "its connections drain, at most a quarter of what is left of it",
        "",
    ),
    "expiry_skew_s": (
        "time after a certificate's end",
        "its connections are closed with all calls on them",
        "",
    ),
    "replay_bytes": (
        "bytes of requests' bodies kept for another attempt, of all calls",
        "the call is tried once",
        "replay-buffer-total",
    ),
    "continuations": ("CONTINUATION frames of one head", "GOAWAY", ""),
}


def engine_limits() -> tuple[Limit, ...]:
    """The engine's limits with their defaults. Raises KeyError for a field that `ENGINE` lacks."""
    default = Limits()
    if lacking := set(Limits.__struct_fields__) - set(ENGINE):
        raise KeyError(f"{', '.join(sorted(lacking))}: say in proxy/reference/limits.py what is bounded")
    return tuple(
        Limit(about, _shown(name, getattr(default, name)), beyond, flag)
        for name in Limits.__struct_fields__
        for about, beyond, flag in [ENGINE[name]]
    )


def other_limits() -> tuple[Limit, ...]:
    """The limits outside the engine."""
    export = ExportLimits()
    return (
        Limit(
            "a request's body",
            f"none; {_bytes(DAPR_BODY_BYTES)} as daprd",
            "413 or RESOURCE_EXHAUSTED",
            "max-body-size",
        ),
        Limit(
            "a message of Dapr's gRPC API or of OnInvoke, either way",
            _bytes(DAPR_BODY_BYTES),
            "RESOURCE_EXHAUSTED",
            "max-body-size",
        ),
        Limit("calls of InvokeService at once", f"{CALLS:,}", "RESOURCE_EXHAUSTED"),
        Limit(
            "spans that the app exports, in one request", _bytes(EXPORT_BYTES), "413 or RESOURCE_EXHAUSTED"
        ),
        Limit("the same, requests at once", str(EXPORTS), "503 or UNAVAILABLE"),
        Limit(
            "the same, waiting for a collector",
            f"{export.queue:,} spans and {_bytes(export.queue_bytes)}",
            "the oldest are dropped and counted",
        ),
        Limit(
            "the same, in memory",
            f"{APP_RING:,} spans, {_bytes(SPAN_LIMIT)} each",
            "the oldest are forgotten",
        ),
        Limit("calls of grpc.health.v1.Health/Watch at once", str(WATCHES), "RESOURCE_EXHAUSTED"),
        Limit(
            "a request's head",
            f"{_bytes(HEAD_BYTES)}; {_bytes(DAPR_HEAD_BYTES)} as daprd",
            "431",
            "read-buffer-size",
        ),
        Limit(
            "bytes of a request's body kept for another attempt",
            f"{_bytes(REPLAY_BYTES)}; 4 MiB as daprd, or the body's limit where that is lower",
            "the call is tried once",
            "replay-buffer-size",
        ),
        Limit(
            "callers that a `ratelimit` remembers",
            f"{MAX_CALLERS:,} to {2 * MAX_CALLERS:,}",
            "the oldest begin afresh",
        ),
        Limit("sessions of one `oauth2` component", f"{MAX_SESSIONS:,}, twelve hours", "the oldest ends"),
        Limit("a token that `bearer` reads", _bytes(MAX_TOKEN_BYTES), "401"),
        Limit(
            "questions to one external authorizer under way", f"{MAX_ASKING:,}", "as where it gives no answer"
        ),
        Limit("connections to one over HTTP", f"{MAX_CONNECTIONS}", "further questions wait"),
        Limit(
            "answers of one that are kept (`cache`)",
            f"{MAX_ANSWERS:,}, {_bytes(MAX_BYTES)}",
            "the one unused for longest goes",
        ),
        Limit(
            "fields of its answer, and the body of a refusal",
            f"{MAX_FIELDS} of {_bytes(MAX_FIELD_BYTES)}, {_bytes(MAX_BODY_BYTES)}",
            "as where it gives no answer; the body is cut",
        ),
        Limit("calls to the app at once", "none", "calls wait, then 503", "app-max-concurrency"),
        Limit(
            "time of one connection attempt",
            "5 s",
            "the next address, then 502 or UNAVAILABLE",
            "connect-timeout",
        ),
        Limit(
            "time of the retries of one call with an exponential policy",
            f"{EXPONENTIAL_WITHIN_S / 60:g} min",
            "the last failure is the answer",
        ),
        Limit("an app-id or authority as a key of kept decisions", f"{MAX_KEY_BYTES} B", "it names nobody"),
        Limit(
            "decisions kept on how to carry calls, for each thread",
            f"{_bytes(MAX_PLAN_BYTES)}, some 2,000",
            "kept afresh",
        ),
        Limit(
            "decisions kept to refuse calls, for each thread",
            _bytes(MAX_REPLY_BYTES),
            "these are kept afresh",
        ),
        Limit("operations of all access policies", f"{MAX_RULES:,}", "the file is refused"),
        Limit("an operation's path", f"{MAX_PATTERN_CHARS:,} characters", "the file is refused"),
        Limit("a policy file", _bytes(MAX_FILE_BYTES), "the file is refused"),
        Limit("instances of one app-id by multicast", f"{MAX_INSTANCES:,}", "more are ignored"),
        Limit("rows read of a SQLite table at once", f"{MAX_ROWS:,}", "more are left out"),
        Limit("apps followed in Consul at once", str(MAX_WAITING), "they take turns, of 2 s"),
        Limit(
            "hosts of URLs called",
            f"{MAX_URLS}, each for {IDLE_S / 60:g} min after its last call",
            "the one called longest ago is looked up and connected to again",
        ),
        Limit(
            "time to look a host outside of the mesh up",
            f"{LOOKUP_S:g} s, {MAX_LOOKUPS} at once, again after {REFRESH_S:g} s",
            "503; addresses that are known stay in use",
        ),
        Limit("metadata keys that an app sets", str(MAX_METADATA), "400 or INVALID_ARGUMENT"),
        Limit("a metadata value", _bytes(MAX_METADATA_BYTES), "400 or INVALID_ARGUMENT"),
        Limit("taps of one sidecar at once", str(MAX_TAPS), "429"),
        Limit(
            "lines of its own log in a sidecar's memory",
            f"{MAX_LINES:,}, {_bytes(MAX_CHARS)}",
            "the oldest are forgotten",
        ),
        Limit("readers of that log at once (`postern logs -f`)", str(MAX_FOLLOWERS), "429"),
        Limit(
            "events that wait for the reader of a tap",
            f"{MAX_UNREAD:,}",
            "left out, told in the stream and counted in `postern_tap_dropped_total`",
        ),
        Limit(
            "calls under way that a sidecar's taps know",
            f"{MAX_UNDER_WAY:,}",
            "the one that began first is told by its end alone",
        ),
        Limit("headers that one tap shows", str(MAX_HEADERS), "400"),
        Limit("pages that look at one dashboard at once", str(MAX_STREAMS), "429"),
        Limit(
            "calls or log events that wait for a dashboard's page",
            f"{MAX_UNSENT:,}",
            "the oldest are left out and counted",
        ),
        Limit("apps that a dashboard draws", str(MAX_NODES), "the table has them all"),
        Limit("routes that `edges`, `stat` and `top` tell apart", str(ROUTES), "counted as `other`"),
        Limit(
            "label sets of one metric",
            f"{SERIES_LIMIT:,}",
            "counted as `other`, and in `postern_series_folded_total`",
        ),
        Limit(
            "memory for names that callers make up: decisions, labels, app-ids, all in all",
            f"{CALLERS_MIB} MiB, and 48 for each thread beyond the first",
            "the above, each by itself",
        ),
        Limit("a label's value", f"{LABEL_CHARS:,} characters; a path, 256", "`other`"),
        Limit("app-ids watched", f"{Lifetimes().max_names:,}", "the one wanted longest ago is forgotten"),
        Limit(
            "names heard of for error messages, and gRPC services",
            f"{MAX_NAMES:,} and {MAX_SERVICES:,}",
            "the first heard is forgotten",
        ),
        Limit(
            "spans waiting for one exporter", f"{export.queue:,}", "counted in `postern_spans_dropped_total`"
        ),
        Limit("log lines a second of one kind", str(LINES_PER_S), "dropped, and counted in a later line"),
    )


def _shown(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return _bytes(int(value))
    if name.endswith("_per_s"):
        return f"{value:,}/s"
    if name.endswith("_s"):
        return f"{value / 60:g} min" if value >= 60 and value % 60 == 0 else f"{value:g} s"
    return f"{value:,}"


def _bytes(count: int) -> str:
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count % size == 0:
            return f"{count // size} {unit}"
    return f"{count:,} B"
