"""The dashboard's server: the page's files, the data it asks for, and its stream of events, for those alone who have the link."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from proxy.api.server import LocalHttp, LocalRequest
from proxy.api.traces import read_filter
from proxy.cli.live import details, loglines
from proxy.cli.live.calls import Taps
from proxy.cli.live.feed import Feed
from proxy.cli.live.stream import Mailbox, Source, events
from proxy.control.tap_filters import parse_filter
from proxy.settings.version import VERSION
from proxy.wire.http_client import LocalResponse, LocalStream
from proxy.wire.target import BadTargetError, clean, parse
from telemetry.dashboard.assets import Asset
from telemetry.dashboard.graph import route_views
from telemetry.dashboard.guard import HEADERS, Refusal, refusal

Json = dict[str, Any]
Query = Mapping[str, list[str]]
MAX_STREAMS = 16  # pages that look at once; each may tap every sidecar
_BODY_BYTES = 4_096  # nothing here takes a body
_TRACE_ID = re.compile(r"[0-9a-f]{1,32}")
_TAP_KEYS = ("from", "to", "method", "path", "status", "grpc-status", "slower-than", "max-rps")
_WORDS: Mapping[Refusal, tuple[int, str]] = {
    "host": (421, "this is the dashboard of another host name: open the link that postern dashboard printed"),
    "origin": (403, "pages of other sites may not ask"),
    "token": (
        401,
        "open the link that postern dashboard printed: its token is missing here, or of another run",
    ),
}


class Service:
    """Answers the page. Mutable state: how many streams are open. Owns the feed; `run` owns every task."""

    def __init__(self, feed: Feed, assets: Mapping[str, Asset], token: str) -> None:
        self._feed = feed
        self._assets = assets
        self._token = token
        self._streams = 0
        self._tasks: asyncio.TaskGroup | None = None
        self._server = LocalHttp(self.answer, body_bytes=_BODY_BYTES)
        self._pages: dict[str, Callable[[Query], Awaitable[LocalResponse]]] = {
            "/api/about": self._about,
            "/api/sidecar": self._sidecar,
            "/api/edge": self._edge,
            "/api/traces": self._traces,
            "/api/trace": self._trace,
        }

    async def run(self, address: str, ready: Callable[[str], None]) -> None:
        """Serve until cancelled; `ready` is told the address. Raises: ListenError."""
        bound = await self._server.serve(address, name="dashboard")
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._server.run())
                tasks.create_task(self._feed.run())
                ready(bound)
        finally:
            self._server.close()

    async def answer(self, request: LocalRequest) -> LocalResponse | LocalStream:
        """One request."""
        try:
            target = parse(request.target.encode("latin-1"))
        except BadTargetError:
            return _error(400, "the target is invalid")
        path, query = clean(target.path), parse_qs(target.query.decode("latin-1"), keep_blank_values=True)
        asset = self._assets.get(path)
        why = refusal(request.authority, request.headers, token=None if asset else self._token)
        if why is not None:
            return _error(*_WORDS[why])
        if request.method not in ("GET", "HEAD"):
            return _error(405, "only GET is answered here", ((b"allow", b"GET, HEAD"),))
        if asset is not None:
            return LocalResponse(200, (*HEADERS, (b"content-type", asset.kind)), asset.body)
        if path == "/api/events" and request.method == "GET":
            return await self._events(query)
        page = self._pages.get(path)
        return _error(404, "no such page") if page is None else await page(query)

    async def _events(self, query: Query) -> LocalResponse | LocalStream:
        if self._streams >= MAX_STREAMS:
            return _error(429, f"{MAX_STREAMS} pages look already: close one")
        assert self._tasks is not None
        mailbox = Mailbox()
        sources: list[Source] = []
        if "tap" in query:
            wanted = {key: query[key] for key in _TAP_KEYS if any(query.get(key, ()))}
            try:
                parse_filter(wanted)
            except ValueError as error:
                return _error(400, str(error))
            taps = Taps(self._feed, wanted, mailbox.call, only=_one(query, "instance") or None)
            sources.append(taps.run)
        if "log" in query:
            entry = await self._feed.find(_one(query, "log"))
            if entry is None:
                return _gone()
            sources.append(partial(loglines.follow, entry, mailbox.log))
        return LocalStream(
            self._counted(mailbox, self._tasks, sources),
            (*HEADERS, (b"content-type", b"text/event-stream")),
        )

    async def _counted(
        self, mailbox: Mailbox, tasks: asyncio.TaskGroup, sources: Sequence[Source]
    ) -> AsyncGenerator[bytes]:
        self._streams += 1
        try:
            async with contextlib.aclosing(events(self._feed, mailbox, tasks, sources)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._streams -= 1

    async def _about(self, query: Query) -> LocalResponse:
        return _json({"version": VERSION, "root": str(self._feed.root)})

    async def _sidecar(self, query: Query) -> LocalResponse:
        entry = await self._feed.find(_one(query, "instance"))
        return _gone() if entry is None else _json(await details.sidecar(entry))

    async def _edge(self, query: Query) -> LocalResponse:
        mesh = self._feed.mesh
        routes = route_views(mesh.routes if mesh else (), _one(query, "src"), _one(query, "dst"))
        return _json({"routes": routes})

    async def _traces(self, query: Query) -> LocalResponse:
        try:
            wanted = read_filter({key: texts for key, texts in query.items() if any(texts)}, time.time())
        except ValueError as error:
            return _error(400, str(error))
        return _json(await details.traces(await self._feed.sidecars(), wanted))

    async def _trace(self, query: Query) -> LocalResponse:
        trace_id = _one(query, "id").lower()
        if not _TRACE_ID.fullmatch(trace_id):
            return _error(400, "a trace id has up to 32 hex digits")
        return _json(await details.trace(await self._feed.sidecars(), trace_id))


def _one(query: Query, key: str) -> str:
    return query.get(key, [""])[0]


def _gone() -> LocalResponse:
    return _error(404, "this sidecar does not run any more")


def _json(told: Json, status: int = 200) -> LocalResponse:
    body = json.dumps(told, separators=(",", ":")).encode("ascii")
    return LocalResponse(status, (*HEADERS, (b"content-type", b"application/json")), body)


def _error(status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> LocalResponse:
    told = _json({"error": text}, status)
    return LocalResponse(status, (*told.headers, *headers), told.body)
