"""Spans in memory -> what is told of each trace: a summary for lists, and its spans with what only we know of them. Pure.

Each sidecar summarises its own spans; summaries of one trace from several sidecars are merged into one.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from telemetry import names
from telemetry.spans import Detail, Span
from telemetry.split import attempt_told, timings_us

Json = dict[str, Any]
_STATUS_KEYS = (names.RPC_RESPONSE_STATUS_CODE, names.HTTP_RESPONSE_STATUS_CODE)


class TraceFilter(Struct, frozen=True, kw_only=True):
    """Which traces are wanted. app: one that made or took a call in it. since_us: begun then or later, epoch microseconds."""

    app: str = ""
    is_error: bool = False
    slower_us: int = 0
    since_us: int = 0

    def lets_through(self, summary: Mapping[str, Any]) -> bool:
        """Whether a summary is of a trace that is wanted."""
        return (
            (not self.app or self.app in summary["apps"])
            and (not self.is_error or summary["errors"] > 0)
            and summary["duration_us"] >= self.slower_us
            and summary["started_us"] >= self.since_us
        )


def summarise(spans: Iterable[Span]) -> list[Json]:
    """A summary of each trace that the spans are of, newest first.

    trace_id; started_us (epoch) and duration_us, over all its spans; spans and errors: how many; error: text of the first span that failed;
    sampled: whether it was, else it was kept for its end; apps: all that made or took a call; root: the span that has no parent, else the
    first that is known, with span_id, parent_id (empty: none), kind, name, src, dst, status (HTTP's or gRPC's), started_us, duration_us.
    """
    found: dict[int, Json] = {}
    for span in spans:
        one = _alone(span)
        other = found.get(span.context.trace_id)
        found[span.context.trace_id] = one if other is None else merged(other, one)
    return newest_first(found.values())


def newest_first(summaries: Iterable[Json]) -> list[Json]:
    """Summaries by start."""
    return sorted(summaries, key=lambda one: -int(one["started_us"]))


def merged(one: Json, other: Json) -> Json:
    """The summary of a trace of which two parts are known."""
    first, second = (one, other) if one["started_us"] <= other["started_us"] else (other, one)
    ended_us = max(part["started_us"] + part["duration_us"] for part in (one, other))
    return {
        "trace_id": one["trace_id"],
        "started_us": first["started_us"],
        "duration_us": ended_us - first["started_us"],
        "spans": one["spans"] + other["spans"],
        "errors": one["errors"] + other["errors"],
        "error": first["error"] or second["error"],
        "sampled": one["sampled"] or other["sampled"],
        "apps": sorted({*one["apps"], *other["apps"]}),
        "root": min(first["root"], second["root"], key=_rank),
    }


def _rank(root: Mapping[str, Any]) -> tuple[bool, int, bool]:
    return bool(root["parent_id"]), root["started_us"], root["kind"] != "CLIENT"


def _alone(span: Span) -> Json:
    context = span.context
    root = {
        "span_id": f"{context.span_id:016x}",
        "parent_id": f"{context.parent_id:016x}" if context.parent_id else "",
        "kind": span.kind,
        "name": span.name,
        **_ends(span.kind, span.service, span.remote_service),
        "status": _status(span.attributes),
        "started_us": span.start_ns // 1_000,
        "duration_us": max(1, (span.end_ns - span.start_ns) // 1_000),
    }
    return _of_root(f"{context.trace_id:032x}", root, error=span.error, sampled=context.sampled)


def summarise_told(span: Mapping[str, Any]) -> Json:
    """The summary of a span alone that is told as Zipkin JSON v2. Raises: KeyError, TypeError, ValueError where it is none."""
    tags = span.get("tags") or {}
    kind = str(span.get("kind") or "")
    ends = (
        str((span.get(end) or {}).get("serviceName") or "") for end in ("localEndpoint", "remoteEndpoint")
    )
    root = {
        "span_id": str(span["id"]),
        "parent_id": str(span.get("parentId") or ""),
        "kind": kind,
        "name": str(span.get("name") or ""),
        **_ends(kind, *ends),
        "status": _status(tags.items()),
        "started_us": int(span["timestamp"]),
        "duration_us": int(span.get("duration") or 1),
    }
    is_sampled = names.SAMPLING_PROMOTED not in tags
    return _of_root(str(span["traceId"]).zfill(32), root, error=tags.get("error"), sampled=is_sampled)


def _of_root(trace_id: str, root: Json, *, error: str | None, sampled: bool) -> Json:
    return {
        "trace_id": trace_id,
        "started_us": root["started_us"],
        "duration_us": root["duration_us"],
        "spans": 1,
        "errors": int(error is not None),
        "error": error or "",
        "sampled": sampled,
        "apps": sorted({root["src"], root["dst"]} - {""}),
        "root": root,
    }


def _ends(kind: str, service: str, remote: str) -> dict[str, str]:
    is_called = kind in ("SERVER", "CONSUMER")
    return {"src": remote, "dst": service} if is_called else {"src": service, "dst": remote}


def _status(attributes: Iterable[tuple[str, str]]) -> str:
    return next((value for key, value in attributes if key in _STATUS_KEYS), "")


def told(span: Span) -> Json:
    """A span as Zipkin JSON v2, and below `postern` what only we know of its call: see `_told_detail`."""
    shown = span.as_dict()
    if span.detail is not None:
        shown["postern"] = _told_detail(span.detail, span.start_ns)
    return shown


def _told_detail(detail: Detail, started_ns: int) -> Json:
    """cause: why a proxy answered in the app's place, made_by says which: `this-proxy` or `peer-proxy`; None: the app answered.

    timings_us and tried: as a tap tells them. peer: the other side's SPIFFE id, empty without mutual TLS.
    """
    is_ours = detail.cause not in (None, names.STATUS_CAUSE)
    code = detail.grpc_code
    return {
        "status": detail.status,
        "grpc_code": None if code is None else names.grpc_code_name(code),
        "cause": detail.cause if is_ours else detail.said,
        "made_by": "this-proxy" if is_ours else "peer-proxy" if detail.said is not None else None,
        "decision": detail.decision,
        "peer": detail.peer_id,
        "policies": [f"{name}/{kind}" for name, _, kind, _ in detail.policies],
        "bytes_in": detail.bytes_in,
        "bytes_out": detail.bytes_out,
        "timings_us": timings_us(
            started_ns,
            detail.ended_ns,
            detail.tried,
            resolve_ns=detail.resolve_ns,
            queue_ns=detail.queue_ns,
            authorize_ns=detail.authorize_ns,
        ),
        "tried": [attempt_told(one, started_ns) for one in detail.tried],
    }
