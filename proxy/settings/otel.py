"""OpenTelemetry's variables: where spans, metrics and logs go that no Configuration sends elsewhere; under which name, in which batches.

Source: OpenTelemetry's environment variable specification and OTLP exporter configuration, as daprd reads them.
"""

import re
import ssl
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from msgspec.structs import replace

from proxy.settings.access_log import OTLP
from proxy.settings.otel_sdk import SDK_VARIABLES, is_disabled, pushes_metrics, sampler_rate
from proxy.settings.readers import FlagReader
from proxy.settings.values import OtelSettings, Profile
from telemetry.exporting import ExportLimits
from telemetry.otlp.target import SERVICES, OtlpTarget, Signal
from telemetry.otlp.temporality import Temporality

_PREFIX: Final = "OTEL_EXPORTER_OTLP_"
_PER_SIGNAL: Final = ("ENDPOINT", "PROTOCOL", "INSECURE", "HEADERS", "TIMEOUT", "CERTIFICATE", "COMPRESSION")
_OF_CLIENT: Final = ("CLIENT_CERTIFICATE", "CLIENT_KEY")
OTEL_VARIABLES: Final = frozenset(
    {
        *(
            f"{_PREFIX}{part}{which}"
            for part in ("", "TRACES_", "METRICS_", "LOGS_")
            for which in (*_PER_SIGNAL, *_OF_CLIENT)
        ),
        *SDK_VARIABLES,
        "OTEL_TRACES_EXPORTER",
        "OTEL_LOGS_EXPORTER",
        "OTEL_EXPORTER_ZIPKIN_ENDPOINT",
        "OTEL_SERVICE_NAME",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_METRIC_EXPORT_INTERVAL",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        *(
            f"OTEL_{kind}_{which}"
            for kind in ("BSP", "BLRP")
            for which in ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")
        ),
    }
)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_ANY_LIMIT: Final = 1_000_000
_ZIPKIN: Final = "http://localhost:9411/api/v2/spans"
_OURS: Final = frozenset({"otlp", "zipkin", "console", "none"})


def otel_settings(read: FlagReader, profile: Profile) -> OtelSettings:
    """What the variables say; faults are noted in `read`."""
    said = _said(read, profile)
    if not is_disabled(read, profile):
        return said
    return replace(
        said,
        is_disabled=True,
        traces=None,
        zipkin="",
        to_stdout=False,
        exporters=(),
        metrics=None,
        app_metrics=None,
        app_logs=None,
        named=frozenset(),
        exports_log=False,
    )


def _said(read: FlagReader, profile: Profile) -> OtelSettings:
    resource = _pairs(read, "OTEL_RESOURCE_ATTRIBUTES", read.env.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    named = _named(read, profile, variable="OTEL_TRACES_EXPORTER")
    is_otlp = not named or "otlp" in named
    exports_log = "otlp" in _named(read, profile, variable="OTEL_LOGS_EXPORTER")
    sends_logs = exports_log or read.or_env("access-log", "POSTERN_ACCESS_LOG", "") == OTLP
    metrics = _target(read, profile, "metrics")
    logs = _target(read, profile, "logs", default="http://localhost" if sends_logs else "")
    own: dict[Signal, str] = {
        "metrics": read.env.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", ""),
        "logs": read.env.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", ""),
    }
    named_signals = frozenset(signal for signal, endpoint in own.items() if endpoint.strip())
    return OtelSettings(
        traces=_target(read, profile, "traces", default="http://localhost" if named else "")
        if is_otlp
        else None,
        zipkin=_zipkin(read) if "zipkin" in named else "",
        to_stdout="console" in named,
        exporters=tuple(name for name in named if name not in _OURS),
        # Not by the common endpoint alone: many a collector takes traces and no metrics.
        metrics=metrics if "metrics" in named_signals and pushes_metrics(read, profile) else None,
        metrics_every_s=_whole(read, 60_000, variable="OTEL_METRIC_EXPORT_INTERVAL") / 1000,
        metrics_temporality=_temporality(read, variable="OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"),
        app_metrics=metrics,
        app_logs=logs,
        named=named_signals,
        exports_log=exports_log,
        service_name=read.env.get("OTEL_SERVICE_NAME", "") or dict(resource).get("service.name", ""),
        resource=tuple(pair for pair in resource if pair[0] != "service.name"),
        limits=(limits := _limits(read)),
        log_limits=_log_limits(read, limits),
        sampling_rate=sampler_rate(read, profile),
    )


def _named(read: FlagReader, profile: Profile, *, variable: str) -> tuple[str, ...]:
    """The exporters that it names, each once. As daprd has it, which does not know the variable, there are none."""
    text = "" if profile == "daprd" else read.env.get(variable, "")
    return tuple(dict.fromkeys(filter(None, (name.strip() for name in text.split(",")))))


def _temporality(read: FlagReader, *, variable: str) -> Temporality:
    """`lowmemory` is delta for counters and histograms, and there are no others here that it is about."""
    text = read.env.get(variable, "").strip().lower()
    if text not in ("", "cumulative", "delta", "lowmemory"):
        read.fault(variable, repr(text), "cumulative, delta or lowmemory")
    return "delta" if text in ("delta", "lowmemory") else "cumulative"


def _zipkin(read: FlagReader) -> str:
    endpoint = read.env.get("OTEL_EXPORTER_ZIPKIN_ENDPOINT", "").strip() or _ZIPKIN
    try:
        parts = urlsplit(endpoint)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        read.fault(
            "OTEL_EXPORTER_ZIPKIN_ENDPOINT", "an unusable URL", f"one such as {_ZIPKIN}"
        )  # it may hold a password
        return ""
    return endpoint


def _target(read: FlagReader, profile: Profile, signal: Signal, default: str = "") -> OtlpTarget | None:
    variable, endpoint = _told(read, signal, variable="OTEL_EXPORTER_OTLP_ENDPOINT")
    endpoint = endpoint or default
    if not endpoint:
        return None
    scheme, found, rest = endpoint.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        host, port, path = parts.hostname or "", parts.port or 0, parts.path
    except ValueError:
        host, port, path = "", 0, ""
    if not host or (found and scheme.lower() not in ("http", "https")):
        read.fault(variable, "an unusable address", "http://host:port, https://host:port or host:port")
        return None
    protocol: Literal["grpc", "http"] = "grpc"
    word = _told(read, signal, variable="OTEL_EXPORTER_OTLP_PROTOCOL")[1]
    if word.startswith("http"):
        protocol = "http"
    return OtlpTarget(
        host=host,
        port=port,
        protocol=protocol,
        path=_path(path, is_whole=variable != "OTEL_EXPORTER_OTLP_ENDPOINT", signal=signal),
        is_json=word == "http/json",
        is_secure=_is_secure(read, profile, signal, scheme),
        is_compressed=_told(read, signal, variable="OTEL_EXPORTER_OTLP_COMPRESSION")[1] != "none",
        headers=_headers(read, signal),
        timeout_s=_timeout_s(read, signal),
        certificate_pem=_certificate(read, signal),
        client=_client(read, signal),
    )


def _told(read: FlagReader, signal: Signal, *, variable: str) -> tuple[str, str]:
    """The variable that counts, the signal's own before the common one, and what it holds."""
    own = variable.replace(_PREFIX, f"{_PREFIX}{signal.upper()}_")
    text = read.env.get(own, "").strip()
    return (own, text) if text else (variable, read.env.get(variable, "").strip())


def _path(path: str, *, is_whole: bool, signal: Signal) -> str:
    """A signal's own endpoint is the URL as it is, the common one what `/v1/traces` is below."""
    below = path.rstrip("/")
    if not below:
        return ""
    return path if is_whole else f"{below}/v1/{signal}"


def _is_secure(read: FlagReader, profile: Profile, signal: Signal, scheme: str) -> bool:
    """As daprd, which ignores the scheme, by the variable alone; else, where that is unset, by the scheme, as OpenTelemetry has it."""
    insecure = _told(read, signal, variable="OTEL_EXPORTER_OTLP_INSECURE")[1]
    if insecure or profile == "daprd":
        return insecure != "true"
    return scheme.lower() != "http"


def _headers(read: FlagReader, signal: Signal) -> tuple[tuple[str, str], ...]:
    variable, text = _told(read, signal, variable="OTEL_EXPORTER_OTLP_HEADERS")
    headers = _pairs(read, variable, text)
    for name, value in headers:
        if _HEADER_NAME.fullmatch(name) is None or _HEADER_VALUE.fullmatch(value) is None:
            read.fault(
                variable, "a header that HTTP can't carry", "name=value,name=value"
            )  # values may be keys
            return ()
    return headers


def _pairs(read: FlagReader, variable: str, text: str) -> tuple[tuple[str, str], ...]:
    """`k=v,k=v`, values percent-decoded (W3C Baggage without properties)."""
    pairs = []
    for member in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = member.partition("=")
        if not equals or not name.strip():
            read.fault(variable, "a part without name or `=`", "name=value,name=value")
            return ()
        pairs.append((name.strip(), unquote(value.strip())))
    return tuple(pairs)


def _timeout_s(read: FlagReader, signal: Signal) -> float:
    variable, _ = _told(read, signal, variable="OTEL_EXPORTER_OTLP_TIMEOUT")
    return _whole(read, 10_000, variable=variable) / 1000


def _certificate(read: FlagReader, signal: Signal) -> bytes:
    variable, path = _told(read, signal, variable="OTEL_EXPORTER_OTLP_CERTIFICATE")
    if not path:
        return b""
    try:
        pem = Path(path).read_bytes()
    except OSError as error:
        read.fault(variable, f"{path}: {error.strerror}", "a file of PEM certificates")
        return b""
    if b"BEGIN CERTIFICATE" not in pem or not pem.isascii():
        read.fault(variable, f"{path}: no certificate", "a file of PEM certificates")
        return b""
    return pem


def _client(read: FlagReader, signal: Signal) -> tuple[str, str] | None:
    """The files of the certificate that a collector is shown."""
    of_certificate, certificate = _told(read, signal, variable="OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")
    of_key, key = _told(read, signal, variable="OTEL_EXPORTER_OTLP_CLIENT_KEY")
    if not certificate and not key:
        return None
    if not certificate or not key:
        absent, present = (of_key, of_certificate) if certificate else (of_certificate, of_key)
        read.fault(absent, "nothing", f"a file beside that of {present}")
        return None
    from telemetry.otlp.senders import load_client  # noqa: PLC0415 - with what it imports it would slow every start

    try:
        load_client(ssl.create_default_context(), certificate, key)
    except (OSError, ValueError) as error:
        read.fault(of_certificate, f"{certificate} with {key}: {error}", "a certificate and its key, in PEM")
        return None
    return certificate, key


def otel_warnings(read: FlagReader, profile: Profile) -> list[str]:
    """Client certificates that no collector is shown; one line each."""
    is_shown: dict[str, bool] = {}
    for signal in SERVICES.values():
        variable, path = _told(read, signal, variable="OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")
        scheme, _, rest = _told(read, signal, variable="OTEL_EXPORTER_OTLP_ENDPOINT")[1].rpartition("://")
        if path:
            is_over_tls = bool(rest) and _is_secure(read, profile, signal, scheme)
            is_shown[variable] = is_shown.get(variable, False) or is_over_tls
    return [
        f"{variable} has no effect: no collector that a variable names is reached over TLS"
        for variable, is_so in is_shown.items()
        if not is_so
    ]


def _limits(read: FlagReader) -> ExportLimits:
    usual = ExportLimits()
    queue = _whole(read, usual.queue, variable="OTEL_BSP_MAX_QUEUE_SIZE")
    batch = _whole(read, usual.batch, variable="OTEL_BSP_MAX_EXPORT_BATCH_SIZE")
    flush_ms = _whole(read, round(usual.flush_s * 1000), variable="OTEL_BSP_SCHEDULE_DELAY")
    export_ms = _whole(read, round(usual.export_s * 1000), variable="OTEL_BSP_EXPORT_TIMEOUT")
    return _limited(usual, queue, batch, flush_ms, export_ms)


def _log_limits(read: FlagReader, usual: ExportLimits) -> ExportLimits:
    """Those of log records; what is not said is as of spans."""
    queue = _whole(read, usual.queue, variable="OTEL_BLRP_MAX_QUEUE_SIZE")
    batch = _whole(read, usual.batch, variable="OTEL_BLRP_MAX_EXPORT_BATCH_SIZE")
    flush_ms = _whole(read, round(usual.flush_s * 1000), variable="OTEL_BLRP_SCHEDULE_DELAY")
    export_ms = _whole(read, round(usual.export_s * 1000), variable="OTEL_BLRP_EXPORT_TIMEOUT")
    return _limited(usual, queue, batch, flush_ms, export_ms)


def _limited(usual: ExportLimits, queue: int, batch: int, flush_ms: int, export_ms: int) -> ExportLimits:
    return replace(
        usual, queue=queue, batch=min(queue, batch), flush_s=flush_ms / 1000, export_s=export_ms / 1000
    )


def _whole(read: FlagReader, default: int, *, variable: str) -> int:
    """A whole number from 1 on."""
    text = read.env.get(variable, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= _ANY_LIMIT:
        read.fault(variable, repr(text), f"a whole number from 1 to {_ANY_LIMIT}")
        return default
    return int(text)
