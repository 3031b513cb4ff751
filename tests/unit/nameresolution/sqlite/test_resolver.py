"""The resolver over real files: what is pushed, and how long our row lives."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from nameresolution.resolver import AppName, Found, Instance, SourceFailure
from nameresolution.sqlite.resolver import SQLITE_SOURCE, SqliteResolver
from nameresolution.sqlite.settings import SqliteSettings

CART = AppName("cart", "shop")
INSTANCE = Instance(app_id="cart", namespace="shop", host="10.0.0.1", port=5000, instance="a1")
WAIT_S = 20.0


class Told:
    """What a resolver pushed."""

    def __init__(self) -> None:
        self._news: asyncio.Queue[tuple[str, AppName, Found]] = asyncio.Queue()

    def push(self, source: str, name: AppName, found: Found) -> None:
        self._news.put_nowait((source, name, found))

    async def addresses(self) -> list[str]:
        """Those of the next set of endpoints, which may be pushed after some failures."""
        async with asyncio.timeout(WAIT_S):
            while True:
                source, _, found = await self._news.get()
                assert source == SQLITE_SOURCE
                if not isinstance(found, SourceFailure):
                    return [end.address for end in found]

    async def failure(self, *, missing: bool) -> SourceFailure:
        """The next failure of a kind."""
        async with asyncio.timeout(WAIT_S):
            while True:
                _, _, found = await self._news.get()
                if isinstance(found, SourceFailure) and found.missing == missing:
                    return found


@asynccontextmanager
async def running(path: Path, *, update_s: int = 5) -> AsyncIterator[tuple[SqliteResolver, Told]]:
    resolver, told = SqliteResolver(SqliteSettings(uri=f"file:{path}", update_s=update_s)), Told()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(resolver.run(told.push))
        yield resolver, told
        task.cancel()


async def test_announced_instance_is_found_and_gone_once_it_is_withdrawn(tmp_path: Path) -> None:
    async with running(tmp_path / "nr.db") as (ours, _), running(tmp_path / "nr.db") as (other, told):
        other.watch(CART)
        assert "no live row of cart in table hosts" in (await told.failure(missing=True)).reason
        await ours.announce(INSTANCE)
        assert await told.addresses() == ["10.0.0.1:5000"]
        await ours.withdraw()
        await told.failure(missing=True)
        await ours.withdraw()  # nothing is left to take back


async def test_name_is_pushed_again_to_who_asks_again(tmp_path: Path) -> None:
    async with running(tmp_path / "nr.db") as (resolver, told):
        await resolver.announce(INSTANCE)
        for _ in range(2):
            resolver.watch(CART)
            assert await told.addresses() == ["10.0.0.1:5000"]
        resolver.forget(CART)
        resolver.forget(CART)


async def test_row_that_somebody_deleted_is_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "nr.db"
    async with running(path, update_s=2) as (resolver, told):
        await resolver.announce(INSTANCE)
        resolver.watch(CART)
        assert await told.addresses() == ["10.0.0.1:5000"]
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM hosts")
        await told.failure(missing=True)
        assert await told.addresses() == ["10.0.0.1:5000"]
    assert "our row was gone, and is there again" in caplog.text


async def test_database_that_can_not_be_opened_is_told_and_found_once_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = tmp_path / "later"
    async with running(folder / "nr.db") as (resolver, told):
        resolver.watch(CART)
        failure = await told.failure(missing=False)
        assert str(folder / "nr.db") in failure.reason
        await resolver.announce(INSTANCE)
        assert "not announced, trying again" in caplog.text
        folder.mkdir()
        assert await told.addresses() == ["10.0.0.1:5000"]
    assert "works again" in caplog.text


@pytest.mark.parametrize("address", ["'nowhere'", "X'ff3a3830'", "CAST(X'3aff' AS TEXT)"])
async def test_rows_that_are_no_address_are_passed_over(tmp_path: Path, address: str) -> None:
    path = tmp_path / "nr.db"
    async with running(path) as (resolver, told):
        await resolver.announce(INSTANCE)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "INSERT INTO hosts (registration_id, address, app_id, namespace, last_update) "
                f"SELECT 'b', {address}, app_id, namespace, last_update + 60 FROM hosts"
            )
        resolver.watch(CART)
        assert await told.addresses() == ["10.0.0.1:5000"]
