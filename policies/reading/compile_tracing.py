"""`spec.tracing` of a Configuration -> TracingConfig; every fault at once."""

import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from urllib.parse import urlsplit

from policies.reading import schema
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.findings import Findings
from policies.reading.sampling_rules import APP, compile_rate, compile_rules
from policies.reading.shown_urls import shown_url
from policies.rules.configuration import (
    CONVENTIONS,
    DEFAULT_SAMPLING_RATE,
    DEFAULT_SLOW_S,
    Conventions,
    OtelConfig,
    TracingConfig,
)

_TRACING: Place = ("spec", "tracing")
_HEADERS = ("w3c", "b3")
_BAGGAGE_KEY = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # a token (W3C Baggage §3.3.1)
_MAX_KEYS = 16
_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", re.ASCII)
_STRICT = {"strict": True, "lenient": False}


def compile_tracing(document: Document, tracing: schema.Tracing, findings: Findings) -> TracingConfig:
    """The values of `spec.tracing` of one document; its faults go to `findings`."""
    rate, is_given = DEFAULT_SAMPLING_RATE, False
    if tracing.sampling_rate:
        written = compile_rate(document, (*_TRACING, "samplingRate"), tracing.sampling_rate, findings)
        rate, is_given = (rate, False) if written is None else (written, True)
    zipkin = tracing.zipkin.endpoint_address if tracing.zipkin is not None else ""
    if zipkin and not _is_http_url(zipkin):
        problem = (
            f"`{shown_url(zipkin)}` is not a URL (expected one such as http://localhost:9411/api/v2/spans)"
        )
        findings.fault(document, (*_TRACING, "zipkin", "endpointAddress"), problem)
    slow_s = findings.duration(document, (*_TRACING, "tail", "latency"), tracing.tail.latency)
    accepted = _accepted(document, tracing.accept, findings)
    return TracingConfig(
        is_b3_read="b3" in accepted,
        conventions=_conventions(document, tracing.conventions, findings),
        captures_query=tracing.capture_query,
        is_baggage_strict=_is_strict(document, tracing.baggage, findings),
        baggage_allowed=None
        if tracing.baggage_allowed is None
        else _keys(document, "baggageAllowed", tracing.baggage_allowed, findings),
        rules=compile_rules(document, tracing.rules, findings),
        force_from=_forced_by(document, tracing.force_from, findings),
        baggage_attributes=_keys(document, "baggageAttributes", tracing.baggage_attributes, findings),
        tail_callable=_tail_callable(document, tracing.tail.callable, findings),
        slow_s=DEFAULT_SLOW_S if slow_s is None else slow_s,
        sampling_rate=rate,
        is_rate_given=is_given,
        stdout=tracing.stdout,
        zipkin_endpoint=zipkin or None,
        otel=_otel(document, tracing.otel, findings),
    )


def _tail_callable(document: Document, written: str, findings: Findings) -> str:
    if written and _CALLABLE.fullmatch(written) is None:
        problem = f"`{written}` is not a callable's name (expected package.module:function)"
        findings.fault(document, (*_TRACING, "tail", "callable"), problem)
    elif written and not _is_installed(package := re.split("[.:]", written)[0]):
        problem = (
            f"`{written}` can't be imported: module {package} was not found, and postern ignores PYTHONPATH "
            "(install the package beside it: `pipx inject postern …`)"
        )
        findings.fault(document, (*_TRACING, "tail", "callable"), problem)
    return written


def _is_installed(package: str) -> bool:
    """Whether there is such a package or module; none of its code runs, and so what is within it is not known."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # one that was made by hand, such as __main__
        return package in sys.modules


def _accepted(document: Document, written: Sequence[str], findings: Findings) -> frozenset[str]:
    for number, name in enumerate(written):
        if name not in _HEADERS:
            findings.fault(
                document, (*_TRACING, "accept", number), f"`{name}` is unknown (expected w3c or b3)"
            )
    if "w3c" not in written:
        problem = "lacks w3c, which is always read and written (expected [w3c] or [w3c, b3])"
        findings.fault(document, (*_TRACING, "accept"), problem)
    return frozenset(written)


def _conventions(document: Document, written: str, findings: Findings) -> Conventions:
    for known in CONVENTIONS:
        if written == known:
            return known
    problem = f"`{written}` is unknown (expected dapr, otel or both)"
    findings.fault(document, (*_TRACING, "conventions"), problem)
    return "both"


def _is_strict(document: Document, written: str, findings: Findings) -> bool | None:
    if written and written not in _STRICT:
        problem = f"`{written}` is unknown (expected strict or lenient)"
        findings.fault(document, (*_TRACING, "baggage"), problem)
    return _STRICT.get(written)


def _forced_by(document: Document, written: Sequence[str], findings: Findings) -> tuple[str, ...]:
    for number, app in enumerate(written):
        if APP.fullmatch(app) is None:
            problem = f"`{app}` is not an app (expected an app-id, or app-id.namespace)"
            findings.fault(document, (*_TRACING, "forceFrom", number), problem)
    return tuple(written)


def _keys(document: Document, name: str, written: Sequence[str], findings: Findings) -> tuple[str, ...]:
    """Keys of baggage, each once."""
    for number, key in enumerate(written):
        if _BAGGAGE_KEY.fullmatch(key) is None:
            problem = f"`{key}` is not a key of baggage (expected a token of at most 64 characters)"
            findings.fault(document, (*_TRACING, name, number), problem)
    if len(written) > _MAX_KEYS:
        findings.fault(document, (*_TRACING, name), f"has {len(written)} keys (expected at most {_MAX_KEYS})")
    return tuple(dict.fromkeys(written))


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port  # a bad port raises only when it is asked for
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _otel(document: Document, otel: schema.Otel | None, findings: Findings) -> OtelConfig | None:
    if otel is None or not otel.endpoint_address:
        return None
    place: Place = (*_TRACING, "otel")
    if "://" in otel.endpoint_address:
        problem = "has a scheme (expected host:port)"
        findings.fault(document, (*place, "endpointAddress"), problem, is_lenient=True)
    if not otel.protocol:
        problem = "has no protocol, and exports nothing without (expected grpc or http)"
        findings.fault(document, place, problem, is_lenient=True)
    elif otel.protocol not in {"grpc", "http"}:
        findings.fault(
            document, (*place, "protocol"), f"`{otel.protocol}` is unknown (expected grpc or http)"
        )
    headers: list[tuple[str, str]] = []
    for number, header in enumerate(otel.headers):
        if isinstance(header, schema.OtelHeader):
            headers.append((header.name, header.value))
            continue
        name, equals, value = header.partition("=")
        if not equals or not name:
            problem = "is not a header (expected key=value)"
            findings.fault(document, (*place, "headers", number), problem, is_lenient=True)
            continue
        headers.append((name, value))
    timeout_s = findings.duration(document, (*place, "timeout"), otel.timeout)
    if otel.protocol not in {"grpc", "http"}:
        return None
    return OtelConfig(
        endpoint=otel.endpoint_address.rpartition("://")[2],
        protocol=otel.protocol,
        is_secure=otel.is_secure,
        headers=tuple(headers),
        timeout_s=timeout_s,
    )
