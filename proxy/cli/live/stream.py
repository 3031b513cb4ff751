"""One page's stream of server-sent events: the newest picture, calls and log lines, each bounded.

What the page does not take in time is dropped and counted: of pictures the older one, of calls and lines the oldest.
Source: HTML Living Standard §9.2 (server-sent events).
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

from proxy.cli.live.feed import Feed

Json = dict[str, Any]
Source = Callable[[], Coroutine[object, object, None]]
MAX_WAITING = 1_000  # calls, or pieces of logs
_PAUSE_S = 0.2  # between two pieces: faster than anybody reads
_QUIET_S = 3.0  # without news a comment goes out, so that a page that is gone is found


class Mailbox:
    """What one page has not been sent yet. Mutable state: events that wait, how many were dropped, and whether a picture is new."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._calls: deque[Json] = deque()
        self._logs: deque[Json] = deque()
        self._dropped = {"calls": 0, "logs": 0}
        self._has_picture = False

    def picture(self) -> None:
        """There is a new one."""
        self._has_picture = True
        self.news.set()

    def call(self, event: Json) -> None:
        """An event of a tap."""
        self._put("calls", self._calls, event)

    def log(self, event: Json) -> None:
        """An event of a log."""
        self._put("logs", self._logs, event)

    def take(self, picture: Json | None) -> bytes:
        """All that waits, as events."""
        self.news.clear()
        pieces = []
        if self._has_picture and picture is not None:
            self._has_picture = False
            pieces.append(_event("mesh", picture))
        for name, waiting in (("calls", self._calls), ("logs", self._logs)):
            if waiting:
                pieces.append(_event(name, {"events": list(waiting), "dropped": self._dropped[name]}))
                waiting.clear()
                self._dropped[name] = 0
        return b"".join(pieces)

    def _put(self, name: str, waiting: deque[Json], event: Json) -> None:
        if len(waiting) >= MAX_WAITING:
            waiting.popleft()
            self._dropped[name] += 1
        waiting.append(event)
        self.news.set()


def _event(name: str, told: Json) -> bytes:
    # ASCII: JSON's escapes leave no line break that would end the event
    return f"event: {name}\ndata: {json.dumps(told, separators=(',', ':'))}\n\n".encode("ascii")


async def events(
    feed: Feed,
    mailbox: Mailbox,
    tasks: asyncio.TaskGroup,
    sources: Iterable[Source],
) -> AsyncGenerator[bytes]:
    """The stream, until it is closed: pictures, and what `sources`, which run in `tasks`, put into the mailbox meanwhile."""
    stop = feed.look(mailbox.picture)
    running = [tasks.create_task(source()) for source in sources]
    if feed.picture is not None:
        mailbox.picture()
    try:
        yield b": open\n\n"
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_QUIET_S):
                    await mailbox.news.wait()
            yield mailbox.take(feed.picture) or b": quiet\n\n"
            await asyncio.sleep(_PAUSE_S)
    finally:
        stop()
        for task in running:
            task.cancel()
