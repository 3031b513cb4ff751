"""Calls of all sidecars here as they end, from a tap of each; sidecars that start later are tapped, too."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from nameresolution.host_registry import Entry
from proxy.cli.fleet import ASK_S
from proxy.cli.live.feed import Feed
from proxy.cli.tap import TARGET, refusal
from proxy.wire.http_client import LocalHttpError
from proxy.wire.http_stream import open_stream

Json = dict[str, Any]
_RETRY_S = 2.0  # before a sidecar that did not answer is tapped again


class Taps:
    """Taps what runs here. tell: takes each event, with `app` and `instance`. only: one instance; None: all."""

    def __init__(
        self,
        feed: Feed,
        query: Mapping[str, list[str]],
        tell: Callable[[Json], None],
        *,
        only: str | None = None,
    ) -> None:
        self._feed = feed
        self._target = f"{TARGET}?{urlencode(query, doseq=True)}"
        self._tell = tell
        self._only = only

    async def run(self) -> None:
        """Tap until cancelled."""
        running: dict[str, asyncio.Task[None]] = {}
        news = asyncio.Event()
        stop = self._feed.look(news.set)
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    wanted = {e.instance: e for e in self._feed.listed if self._only in (None, e.instance)}
                    for instance in [name for name, task in running.items() if task.done()]:
                        del running[instance]
                    for instance, entry in wanted.items():
                        if instance not in running:
                            running[instance] = tasks.create_task(self._tap(entry))
                    news.clear()
                    await news.wait()
        finally:
            stop()

    async def _tap(self, entry: Entry) -> None:
        try:
            async with open_stream(f"unix:{entry.admin_socket}", self._target, timeout_s=ASK_S) as stream:
                if stream.status != 200:
                    self._problem(entry, await refusal(stream))
                else:
                    async for line in stream.lines():
                        told = json.loads(line)
                        if isinstance(told, dict):
                            self._tell({**told, "app": entry.app_id, "instance": entry.instance})
        except (LocalHttpError, TimeoutError, ValueError) as error:
            self._problem(entry, str(error) or f"no answer within {ASK_S * 1e3:g} ms")
        await asyncio.sleep(_RETRY_S)

    def _problem(self, entry: Entry, text: str) -> None:
        self._tell({"event": "problem", "app": entry.app_id, "instance": entry.instance, "text": text})
