"""Traces of all sidecars here, put together: a list of them, and the spans of one; from what sidecars keep in memory, and from Zipkin."""

import asyncio
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlencode

from msgspec import Struct

from nameresolution.host_registry import Entry
from proxy.api.traces import MAX_LIMIT
from proxy.cli.fleet import ASK_S, SidecarAnswer, ask
from proxy.wire.web_client import WebClient
from telemetry.traces import Json, TraceFilter, merged, newest_first, summarise_told
from telemetry.web_proxies import WebProxies

TARGET = "/postern/v1/traces"
TRACE_S = 1.0  # the answer may hold many spans
ZIPKIN_S = 3.0
_ZIPKIN_BYTES = 32 << 20
_LOOKBACK_S = 86_400.0  # of Zipkin, where no time is asked for
Source = Literal["any", "memory", "zipkin"]
SpanJson = dict[str, object]


class Listing(Struct, frozen=True, kw_only=True):
    """Summaries as `telemetry.traces.summarise` has them, newest first.

    asked: the sources that answered, in words; problems: why others did not. is_cut: there are more than were asked for.
    """

    traces: Sequence[Json]
    asked: Sequence[str]
    problems: Sequence[str]
    is_cut: bool = False


async def list_traces(
    found: Sequence[Entry], wanted: TraceFilter, limit: int, source: Source = "any"
) -> Listing:
    """The newest traces that are wanted, `MAX_LIMIT` at most."""
    sources = await _Sources.of(found, source)
    known: dict[str, Json] = {}
    if source != "zipkin":
        known = await _from_memory(sources, wanted, limit)
    for url in sources.zipkins:
        for spans in await _zipkin_traces(sources, url, wanted, limit):
            _add_larger(known, spans)
    chosen = [one for one in newest_first(known.values()) if wanted.lets_through(one)]
    return Listing(
        traces=chosen[:limit], asked=sources.asked, problems=sources.problems, is_cut=len(chosen) > limit
    )


async def spans_of(
    found: Sequence[Entry], trace_id: str, source: Source = "any"
) -> tuple[list[SpanJson], Listing]:
    """The spans of one trace, each once, by start; those from memory say more. With which sources were asked."""
    sources = await _Sources.of(found, source)
    answers: Sequence[SidecarAnswer] = ()
    if source != "zipkin":
        answers = await ask(found, f"/trace?id={trace_id}", timeout_s=TRACE_S)
        sources.heard(answers)
    told = [_spans(sidecar.answer) for sidecar in answers]
    for url in sources.zipkins:
        content = await sources.ask_zipkin(url, f"/api/v2/trace/{trace_id}")
        told.append(content if isinstance(content, list) else [])
    return merge(told), Listing(traces=(), asked=sources.asked, problems=sources.problems)


def merge(told: Iterable[Sequence[object]]) -> list[SpanJson]:
    """All spans, each once as the first tells it, by start."""
    spans: dict[tuple[object, object, object], SpanJson] = {}
    for listed in told:
        for span in listed:
            if isinstance(span, dict):
                spans.setdefault((span.get("traceId"), span.get("id"), span.get("kind")), span)
    return sorted(spans.values(), key=_start)


def _start(span: SpanJson) -> int:
    start = span.get("timestamp")
    return start if isinstance(start, int) else 0


def _spans(answer: Mapping[str, object] | None) -> Sequence[object]:
    listed = (answer or {}).get("spans")
    return listed if isinstance(listed, list) else ()


class _Sources:
    """Whom to ask, and who answered. Mutable state: `asked` and `problems`, in words."""

    def __init__(self, found: Sequence[Entry], zipkins: Sequence[str]) -> None:
        self.found = found
        self.zipkins = zipkins
        self.asked: list[str] = []
        self.problems: list[str] = []
        self._web = WebClient(WebProxies.of(os.environ))

    @classmethod
    async def of(cls, found: Sequence[Entry], source: Source) -> "_Sources":
        """With the Zipkins that the sidecars export to."""
        if source == "memory":
            return cls(found, ())
        urls: dict[str, None] = {}
        for sidecar in await ask(found, "/status", timeout_s=ASK_S):
            exporters = (sidecar.answer or {}).get("exporters")
            for one in exporters if isinstance(exporters, list) else ():
                if isinstance(one, dict) and one.get("query"):
                    urls[str(one["query"])] = None
        made = cls(found, tuple(urls))
        if source == "zipkin" and not urls:
            made.problems.append(
                "no sidecar here exports to Zipkin (spec.tracing.zipkin of its Configuration)"
            )
        return made

    def heard(self, answers: Sequence[SidecarAnswer]) -> None:
        """Note which sidecars answered."""
        count = sum(1 for one in answers if one.answer is not None)
        if count:
            self.asked.append(f"memory of {count} {'sidecar' if count == 1 else 'sidecars'}")
        for one in answers:
            if one.answer is None:
                self.problems.append(
                    f"{one.entry.app_id} ({one.entry.pid}): unresponsive: its spans are missing"
                )

    async def ask_zipkin(self, url: str, target: str) -> object:
        """What Zipkin answers; None where it does not, or knows nothing of it."""
        where = f"Zipkin at {url}"
        try:
            async with asyncio.timeout(ZIPKIN_S):
                answer = await self._web.fetch(
                    f"{url}{target}", timeout_s=ZIPKIN_S, limit_bytes=_ZIPKIN_BYTES
                )
                content: object = json.loads(answer.body)
        except (OSError, TimeoutError, ValueError) as error:
            if "status 404" in str(error):
                self.asked.append(where)
            else:
                self.problems.append(f"{where}: {str(error) or f'no answer within {ZIPKIN_S:g} s'}")
            return None
        self.asked.append(where)
        return content


async def _from_memory(sources: _Sources, wanted: TraceFilter, limit: int) -> dict[str, Json]:
    """Summaries by id. Asked twice: who has a trace like that, then all of them for their parts of those traces.

    A sidecar judges by its own part, so only one condition is left to it: the rest may hold for another's part.
    """
    now_us = time.time() * 1e6
    conditions: dict[str, object] = {}
    if wanted.is_error:
        conditions["error"] = 1
    elif wanted.slower_us:
        conditions["slower-than"] = f"{wanted.slower_us}us"
    elif wanted.app:
        conditions["app"] = wanted.app
    is_last = sum((wanted.is_error, bool(wanted.slower_us), bool(wanted.app))) <= 1
    # A part may begin later than its trace, so this leaves out too little rather than too much.
    since = {"since": f"{max(now_us - wanted.since_us, 0):.0f}us"} if wanted.since_us else {}
    asked = {**conditions, **since, "limit": min(limit + 1, MAX_LIMIT) if is_last else MAX_LIMIT}
    answers = await ask(sources.found, f"{TARGET}?{urlencode(asked)}", timeout_s=TRACE_S)
    sources.heard(answers)
    known = _by_id(answers)
    if not known or len(sources.found) == 1:
        return known
    newest = [one["trace_id"] for one in newest_first(known.values())[:MAX_LIMIT]]
    query = urlencode({"id": ",".join(newest), "limit": MAX_LIMIT})
    return _by_id(await ask(sources.found, f"{TARGET}?{query}", timeout_s=TRACE_S))


def _by_id(answers: Sequence[SidecarAnswer]) -> dict[str, Json]:
    known: dict[str, Json] = {}
    for sidecar in answers:
        listed = (sidecar.answer or {}).get("traces")
        for one in listed if isinstance(listed, list) else ():
            other = known.get(one["trace_id"])
            known[one["trace_id"]] = one if other is None else merged(other, one)
    return known


async def _zipkin_traces(
    sources: _Sources, url: str, wanted: TraceFilter, limit: int
) -> Sequence[Sequence[Any]]:
    now_ms = int(time.time() * 1e3)
    lookback_ms = now_ms - wanted.since_us // 1_000 if wanted.since_us else int(_LOOKBACK_S * 1e3)
    asked: dict[str, object] = {"limit": limit + 1, "endTs": now_ms, "lookback": lookback_ms}
    if wanted.app:
        asked["serviceName"] = wanted.app.lower()
    if wanted.slower_us:
        asked["minDuration"] = wanted.slower_us
    if wanted.is_error:
        asked["annotationQuery"] = "error"
    content = await sources.ask_zipkin(url, f"/api/v2/traces?{urlencode(asked)}")
    return [spans for spans in content if isinstance(spans, list)] if isinstance(content, list) else ()


def _add_larger(known: dict[str, Json], spans: Sequence[Any]) -> None:
    """Take Zipkin's view of a trace where it knows of more spans than memory does."""
    parts = []
    for span in spans:
        try:
            parts.append(summarise_told(span))
        except (AttributeError, KeyError, TypeError, ValueError):
            continue  # spans of others may lack what ours have
    if not parts:
        return
    whole = parts[0]
    for part in parts[1:]:
        whole = merged(whole, part)
    other = known.get(whole["trace_id"])
    if other is None or other["spans"] < whole["spans"]:
        known[whole["trace_id"]] = whole
