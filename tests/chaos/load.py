"""A steady load that does not wait for answers, and what came of it: calls begin at a rate, however long earlier ones take."""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from tests.support.http_client import Connection, connect

MAX_OPEN: Final = 400  # calls under way; more than that fails the test rather than the machine
ANSWER_S: Final = 30.0
Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Call:
    """One call. began: seconds since the load began. status 0: no answer came, and `error` says why; else it is what
    `postern-error` says."""

    began: float
    took: float
    status: int
    text: str
    error: str = ""


@dataclass(slots=True)
class Load:
    """What a load came to so far. `calls` are in the order of their ends."""

    started: float
    calls: list[Call] = field(default_factory=list)

    @property
    def now(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.started

    def failures(self) -> list[Call]:
        """Calls that were not answered well."""
        return [call for call in self.calls if call.status != 200]

    def between(self, begin: float, end: float = math.inf) -> list[Call]:
        """Calls that began within these seconds."""
        return [call for call in self.calls if begin <= call.began < end]


def percentile(calls: Iterable[Call], share: float) -> float:
    """The duration that this share of calls does not exceed, in seconds."""
    took = sorted(call.took for call in calls)
    return took[min(len(took) - 1, math.ceil(share * len(took)) - 1)]


@asynccontextmanager
async def steady(
    port: int,
    target: str,
    *,
    per_s: float,
    method: str = "GET",
    headers: Headers = (),
    unix: str | None = None,
) -> AsyncIterator[Load]:
    """Calls to a sidecar's HTTP port or unix socket while inside; at the end, those under way are waited for."""
    load = Load(time.monotonic())
    over = asyncio.Event()
    idle: list[Connection] = []
    async with AsyncExitStack() as opened, asyncio.TaskGroup() as tasks:

        async def call() -> None:
            began = load.now
            try:
                connection = (
                    idle.pop() if idle else await opened.enter_async_context(connect(port, unix=unix))
                )
                async with asyncio.timeout(ANSWER_S):
                    answer = await connection.request(method, target, headers=headers)
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                load.calls.append(Call(began, load.now - began, 0, "", repr(error)))
                return
            idle.append(connection)
            text, cause = answer.body.decode("latin-1"), answer.get("postern-error")
            load.calls.append(Call(began, load.now - began, answer.status, text, cause))

        async def pace() -> None:
            for number in itertools.count(1):
                if over.is_set():
                    return
                under_way = number - 1 - len(load.calls)
                assert under_way < MAX_OPEN, f"{under_way} calls are under way"
                tasks.create_task(call())
                pause = number / per_s - load.now
                await asyncio.sleep(max(0.0, pause))

        pacing = tasks.create_task(pace())
        try:
            yield load
        finally:
            over.set()
            await pacing
