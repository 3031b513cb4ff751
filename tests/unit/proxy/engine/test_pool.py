"""Upstream connections: who waits is served or failed, never forgotten; what is no longer true is not used."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest

from proxy.contract.engine import Limits, PeerLeaf, TlsIdentity
from proxy.contract.plan import Cause
from proxy.engine.portable.pool import DialError, Origin, Pool, Waiter
from proxy.wire.streams import UpstreamConnection
from proxy.wire.tls import TlsContexts
from proxy.wire.turns import Rota
from tests.conformance.harness import Recorder

Dial = Callable[[], Awaitable[UpstreamConnection]]
HTTP1 = Origin("app", "127.0.0.1:1", "http1", None, frozenset())
MESH = Origin("app", "127.0.0.1:1", "postern", "mesh", frozenset({"x"}))


class Connection:
    """An upstream connection that takes one call."""

    alpn = "h2"
    has_extended_connect = True

    def __init__(self) -> None:
        self.in_flight = 0
        self.retired = False

    @property
    def capacity(self) -> int:
        return 0 if self.retired else 1 - self.in_flight

    def retire(self) -> None:
        self.retired = True


class Dialled(Pool):
    """A pool whose dials the test finishes, in the order that it likes."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.contexts = TlsContexts()
        self.seen = Recorder()
        self.dials: list[asyncio.Future[UpstreamConnection]] = []
        self.begun = asyncio.Semaphore(0)

        def spawn(dial: Coroutine[None, None, None]) -> object:
            return tasks.create_task(dial)

        super().__init__(Limits(), self.contexts, self.seen, spawn, Rota())

    async def _connect(self, origin: Origin) -> Any:
        made: asyncio.Future[UpstreamConnection] = asyncio.get_running_loop().create_future()
        self.dials.append(made)
        self.begun.release()
        return await made

    async def dialling(self, count: int) -> None:
        """Until so many more dials are under way."""
        async with asyncio.timeout(30.0):
            for _ in range(count):
                await self.begun.acquire()


class Call:
    """A call that waits for its connection."""

    def __init__(self, pool: Pool, origin: Origin = HTTP1) -> None:
        self.connection: Connection | None = None
        self.cause: Cause | None = None
        self.told = asyncio.Event()
        self.cancel = pool.wait(origin, Waiter(self._ready, self._failed))

    def _ready(self, connection: UpstreamConnection) -> None:
        self.connection = cast("Connection", connection)
        self.connection.in_flight += 1
        self.told.set()

    def _failed(self, cause: Cause, detail: str) -> None:
        self.cause = cause
        self.told.set()


def connected() -> UpstreamConnection:
    return cast("UpstreamConnection", Connection())


async def test_failed_dial_fails_one_call_while_another_dial_is_under_way() -> None:
    async with asyncio.TaskGroup() as tasks:
        pool = Dialled(tasks)
        first, second = Call(pool), Call(pool)
        await pool.dialling(2)
        pool.dials[0].set_exception(DialError(Cause.CONNECT, "no"))
        await first.told.wait()
        assert (first.cause, second.told.is_set()) == (Cause.CONNECT, False)
        pool.dials[1].set_result(connected())
        await second.told.wait()
        assert second.connection is not None


async def test_last_dial_that_fails_fails_everybody() -> None:
    async with asyncio.TaskGroup() as tasks:
        pool = Dialled(tasks)
        calls = [Call(pool, MESH) for _ in range(5)]  # one dial serves them all
        await pool.dialling(1)
        pool.dials[0].set_exception(DialError(Cause.TLS_IDENTITY, "no"))
        await calls[-1].told.wait()
        assert {call.cause for call in calls} == {Cause.TLS_IDENTITY}


async def test_waits_given_up_leave_nothing_behind() -> None:
    """While an app takes no connection, callers come and go: those that went must not be kept."""
    async with asyncio.TaskGroup() as tasks:
        pool = Dialled(tasks)
        stays = Call(pool)
        for _ in range(100):
            Call(pool).cancel()
        assert pool.waiting == 1
        await pool.dialling(1)
        pool.dials[0].set_result(connected())
        await stays.told.wait()
        assert pool.waiting == 0
        for dial in pool.dials[1:]:
            dial.set_result(connected())


async def test_given_up_wait_dials_for_nobody() -> None:
    async with asyncio.TaskGroup() as tasks:
        pool = Dialled(tasks)
        Call(pool).cancel()
        await pool.dialling(1)
        connection = Connection()
        pool.dials[0].set_result(cast("UpstreamConnection", connection))
        for _ in range(3):
            await asyncio.sleep(0)
        assert pool.size == 1
        pool.connection_closed(cast("UpstreamConnection", connection), "gone")
        assert (len(pool.dials), pool.size) == (1, 0)


@pytest.mark.parametrize("origin", [MESH, HTTP1], ids=["mesh", "app"])
async def test_connection_begun_under_an_identity_since_replaced_is_not_used(origin: Origin) -> None:
    async with asyncio.TaskGroup() as tasks:
        pool = Dialled(tasks)
        call = Call(pool, origin)
        await pool.dialling(1)
        pool.contexts.identity = TlsIdentity(
            chain_pem=b"",
            key_pem=b"",
            roots_pem=b"",
            ends_at=0.0,
            verify=lambda der, as_server: PeerLeaf("", 0.0),
        )
        old = Connection()
        pool.dials[0].set_result(cast("UpstreamConnection", old))
        if origin is HTTP1:
            await call.told.wait()
            assert (call.connection, old.retired) == (old, False)
            return
        await pool.dialling(1)
        assert old.retired
        pool.dials[1].set_result(connected())
        await call.told.wait()
        assert call.connection is not old
