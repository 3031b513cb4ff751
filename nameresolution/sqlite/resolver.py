"""SQLite as a source of endpoints: our row is kept alive while we are announced, and those of others are read several times a second.

SQLite tells nobody of a change, so the table is looked at again and again, in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nameresolution.errors import DatabaseError
from nameresolution.resolver import (
    NAMESPACE_ATTRIBUTE,
    AppName,
    Endpoint,
    Found,
    Instance,
    Push,
    SourceFailure,
    join_address,
)
from nameresolution.sqlite.database import HostsDatabase, Row
from nameresolution.sqlite.settings import SqliteSettings
from telemetry.hosts import split_address

_LOG = logging.getLogger("postern.nameresolution.sqlite")

SQLITE_SOURCE = "sqlite"
_POLL_S = 0.3  # between two looks: a change is known within `lag_s`
_RETRY_S = 1.0  # after a failure
_T = TypeVar("_T")


class SqliteResolver:
    """Owns the database with its one thread, `_pushed` (each watched name and what was pushed last), and our row while we are announced."""

    source = SQLITE_SOURCE
    lag_s = 0.5

    def __init__(self, settings: SqliteSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._database = HostsDatabase(settings)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._pushed: dict[AppName, Found | None] = {}
        self._row: Row | None = None
        self._renew_at = self._clean_at = 0.0
        self._fault = ""  # as logged last
        self._woken = asyncio.Event()

    async def run(self, push: Push) -> None:
        """Keep our row alive and push every change, until cancelled. Touches no file while nobody is announced or watched."""
        for name in self._pushed:
            self._pushed[name] = None
        try:
            while True:
                if not self._pushed and self._row is None:
                    await self._woken.wait()
                self._woken.clear()
                pause_s = await self._turn(push)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._woken.wait()
        finally:
            self._thread.submit(self._database.close)

    def watch(self, name: AppName) -> None:
        """Look the name up now and watch it."""
        self._pushed[name] = None
        self._woken.set()

    def forget(self, name: AppName) -> None:
        """Stop watching a name."""
        self._pushed.pop(name, None)

    async def announce(self, instance: Instance) -> None:
        """Write our row, now or as soon as the database can be written."""
        self._row = Row(
            registration_id=instance.instance,
            address=join_address(instance.host, instance.port),
            app_id=instance.app_id,
            namespace=instance.namespace,
        )
        self._renew_at = 0.0
        try:
            await self._keep_alive(self._database.register)
        except DatabaseError as error:
            self._tell(f"not announced, trying again: {error}")
        self._woken.set()

    async def withdraw(self) -> None:
        """Delete our row."""
        row, self._row = self._row, None
        if row is None:
            return
        try:
            await self._do(lambda: self._database.remove(row))
        except DatabaseError as error:
            _LOG.warning("our row stays for up to %s s: %s", self._settings.update_s, error)

    async def _turn(self, push: Push) -> float:
        """Do all that is due; seconds until the next turn."""
        try:
            if self._row is not None and self._clock() >= self._renew_at:
                await self._keep_alive(self._renew)
            if self._settings.cleanup_s and self._clock() >= self._clean_at:
                await self._do(self._database.clean)
                self._clean_at = self._clock() + self._settings.cleanup_s
            names = tuple(self._pushed)
            rows = (
                await self._do(lambda: self._database.live({name.app_id for name in names})) if names else ()
            )
        except DatabaseError as error:
            self._tell(str(error))
            failure = SourceFailure(reason=f"{error.where}: {error.problem}", fix=error.fix)
            self._publish(push, dict.fromkeys(self._pushed, failure))
            return _RETRY_S
        if self._fault:
            _LOG.info("%s works again", self._database.where)
            self._fault = ""
        self._publish(push, self._sorted(names, rows))
        return _POLL_S if names else max(0.0, min(self._renew_at - self._clock(), _RETRY_S))

    async def _keep_alive(self, write: Callable[[Row], None]) -> None:
        row = self._row
        assert row is not None
        await self._do(lambda: write(row))
        # Twice in the time after which we would be taken for dead.
        self._renew_at = self._clock() + min(
            self._settings.update_s / 2, self._settings.update_s - self._settings.timeout_s
        )

    def _renew(self, row: Row) -> None:
        """In the thread. A row that is gone is written again: a sidecar need not end for that."""
        if not self._database.renew(row):
            self._database.register(row)
            _LOG.warning(
                "%s: our row was gone, and is there again; does another sidecar advertise %s?",
                self._database.where,
                row.address,
            )

    def _sorted(self, names: tuple[AppName, ...], rows: tuple[Row, ...]) -> dict[AppName, Found]:
        by_app: dict[str, list[Endpoint]] = defaultdict(list)
        for row in rows:
            host, port = split_address(row.address)
            if host and 0 < port < 65536:
                by_app[row.app_id].append(_endpoint(row, host, port))
        return {name: tuple(by_app[name.app_id]) or self._missing(name) for name in names}

    def _missing(self, name: AppName) -> SourceFailure:
        table = f"table {self._settings.table} of {self._database.where}"
        return SourceFailure(reason=f"no live row of {name.app_id} in {table}", missing=True)

    def _publish(self, push: Push, found: dict[AppName, Found]) -> None:
        for name, value in found.items():
            if name in self._pushed and self._pushed[name] != value:
                self._pushed[name] = value
                push(SQLITE_SOURCE, name, value)

    def _tell(self, fault: str) -> None:
        if fault != self._fault:
            _LOG.warning("%s", fault)
        self._fault = fault

    async def _do(self, work: Callable[[], _T]) -> _T:
        """Run in the thread, for as long as the settings allow.

        Raises: DatabaseError.
        """
        limit_s = self._settings.timeout_s + self._settings.busy_s
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limit_s):
                return await loop.run_in_executor(self._thread, work)
        except TimeoutError:
            self._database.interrupt()
            raise DatabaseError(self._database.where, f"no answer within {limit_s:g} s", "") from None


def _endpoint(row: Row, host: str, port: int) -> Endpoint:
    return Endpoint(
        host=host,
        port=port,
        instance=row.registration_id,
        source=SQLITE_SOURCE,
        attributes=((NAMESPACE_ATTRIBUTE, row.namespace),) if row.namespace else (),
    )
