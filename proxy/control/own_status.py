"""Parts of what a sidecar says of itself in `/status`, from the parts that they are about; pure but for what these hold."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from policies.rules.configuration import TracingConfig
from proxy.contract.engine import EngineStats
from proxy.control.app_watch import AppWatch
from proxy.control.identity import Identity
from proxy.settings.values import Settings
from telemetry.tracing import AnyQueue

Json = dict[str, Any]


def identity_status(settings: Settings, identity: Identity | None) -> Json:
    """The certificate. secondsLeft: by the clock that says less, the wall's or the one that nobody can turn."""
    told = identity.status() if identity is not None else {}
    return {
        "mtls": settings.mtls,
        "state": told.get("state", "pending" if settings.mtls else "off"),
        "spiffeId": told.get("spiffe_id", ""),
        "secondsLeft": told.get("seconds_left"),
        "notAfter": told.get("not_after"),
        "serial": told.get("serial"),
        "issuer": told.get("issuer"),
        "issuerNotAfter": told.get("issuer_not_after"),
        "renewals": told.get("renewals", 0),
        "sentry": settings.sentry_address or ("local" if settings.mtls else ""),
        "lastError": told.get("last_error"),
    }


def app_status(settings: Settings, app: AppWatch, *, announced: bool) -> Json:
    """The app's port: who holds it, and whether calls go there."""
    return {
        "port": settings.app_port,
        "host": settings.app_channel_address,
        "protocol": settings.app_protocol,
        "healthy": app.healthy,
        "open": app.is_open,
        "state": app.state,
        "announced": announced,
        "heldBy": str(app.held_by) if app.held_by is not None else None,
        "heldByForeign": app.held_by is not None and app.held_by.is_foreign,
    }


def engine_status(stats: EngineStats) -> Json:
    """What the engine has in hand."""
    return {
        "connections": stats.connections,
        "callsInFlight": stats.calls_in_flight,
        "plansKept": stats.plans_kept,
        "upstreamConnections": stats.upstream_connections,
        "threads": stats.threads,
    }


def exporters_status(
    queues: Iterable[AnyQueue], tracing: TracingConfig, otlp: Mapping[str, str]
) -> list[Json]:
    """Each exporter of spans, and of what the app exports: what waits, what was taken, what was lost and why.

    otlp: `host:port` by the name of the exporter. collector: the same, without what else a URL holds. query: where its traces can be read,
    of Zipkin alone.
    """
    return [
        {
            "name": queue.name,
            "collector": _collector(queue.name, tracing, otlp),
            "query": query_of(tracing.zipkin_endpoint or "") if _is_zipkin(queue.name) else "",
            "queued": queue.queued,
            "exported": queue.exported,
            "dropped": dict(queue.dropped),
        }
        for queue in queues
    ]


def _is_zipkin(name: str) -> bool:
    """Our own exporter of spans or of those of the app, not an installed one with a like name."""
    return name in ("zipkin", "zipkin-app")


def _collector(name: str, tracing: TracingConfig, otlp: Mapping[str, str]) -> str:
    if _is_zipkin(name):
        return collector_of(tracing.zipkin_endpoint or "")
    return otlp.get(name, "")


def query_of(endpoint: str) -> str:
    """The URL below which Zipkin answers queries, without user and password; empty for an endpoint that is not Zipkin's usual one."""
    head, found, _ = endpoint.partition("/api/v2/spans")
    try:
        parts = urlsplit(head)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")) if found else ""


def collector_of(url: str) -> str:
    """`host:port` of a URL, empty where it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "": 4317}.get(parts.scheme, 80)
    except ValueError:
        return ""
    host = parts.hostname or ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}" if host else ""
