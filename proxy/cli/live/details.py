"""What the page asks for once: all of one sidecar, one edge's routes, the traces in memory, one trace."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nameresolution.host_registry import Entry
from proxy.cli.config import shown
from proxy.cli.fleet import ASK_S, SidecarAnswer, ask
from proxy.cli.listing import endpoint_rows, extended, notes
from proxy.cli.traces import list_traces, spans_of
from telemetry.dashboard.waterfall import waterfall
from telemetry.traces import TraceFilter

Json = dict[str, Any]
POLICIES = "/postern/v1/policies"
MAX_TRACES = 100


async def sidecar(entry: Entry) -> Json:
    """All of one sidecar; `answers` is False, and the rest missing, where it does not answer in time."""
    async with asyncio.TaskGroup() as tasks:
        status, endpoints, policies, metadata = (
            tasks.create_task(ask([entry], target))
            for target in ("/status", "/endpoints", POLICIES, "/metadata")
        )
        config = tasks.create_task(shown([entry]))
    about = {"instance": entry.instance, "app": entry.app_id, "namespace": entry.namespace, "pid": entry.pid}
    (told,) = status.result()
    if told.answer is None:
        return {**about, "answers": False, "withinMs": round(ASK_S * 1e3)}
    (known,), (decided,), (ran,) = endpoints.result(), policies.result(), metadata.result()
    (settings,) = config.result()
    return {
        **about,
        "answers": True,
        "status": told.answer,
        "notes": notes([told]),
        "endpoints": _with_loads(known),
        "policies": decided.answer,
        "run": {key: text for key, text in extended(ran).items() if not key.startswith("dapr")},
        "resiliencies": (ran.answer or {}).get("resiliencies") or [],
        "settings": settings["settings"],
        "configuration": settings["configuration"],
    }


def _with_loads(known: SidecarAnswer) -> list[Json]:
    """Each endpoint with its load and health in the engine."""
    loads: dict[tuple[str, str], Mapping[str, object]] = {}
    for app, told in (known.answer or {}).items():
        listed = told.get("loads") if isinstance(told, dict) else None
        for load in listed if isinstance(listed, list) else ():
            loads[app, str(load.get("address"))] = load
    return [
        {**row, "load": loads.get((str(row["app"]), str(row.get("address"))))} for row in endpoint_rows(known)
    ]


async def traces(listed: Sequence[Entry], wanted: TraceFilter) -> Json:
    """Traces in memory, the newest first, and why some may be missing."""
    listing = await list_traces(listed, wanted, MAX_TRACES, "memory")
    return {"traces": listing.traces, "isCut": listing.is_cut, "problems": listing.problems}


async def trace(listed: Sequence[Entry], trace_id: str) -> Json:
    """One trace as a waterfall, why spans may be missing, and where Zipkin shows it."""
    async with asyncio.TaskGroup() as tasks:
        spans = tasks.create_task(spans_of(listed, trace_id, "memory"))
        statuses = tasks.create_task(ask(listed, "/status"))
    found, listing = spans.result()
    base = zipkin_of(one.answer or {} for one in statuses.result())
    return {
        "traceId": trace_id,
        **waterfall(found),
        "problems": listing.problems,
        "zipkin": f"{base}/zipkin/traces/{trace_id}" if base else "",
    }


def zipkin_of(statuses: Iterable[Mapping[str, object]]) -> str:
    """The address of Zipkin's pages; empty where no sidecar exports to one over HTTP."""
    for status in statuses:
        exporters = status.get("exporters")
        for one in exporters if isinstance(exporters, list) else ():
            url = str(one.get("query") or "") if isinstance(one, dict) else ""
            if url.startswith(("http://", "https://")):
                return url
    return ""
