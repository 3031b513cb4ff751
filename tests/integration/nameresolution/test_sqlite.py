"""Several processes that meet in one SQLite file, postern's and Dapr's."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.nameresolution.dapr_resolver import RESOLVERS, dapr_resolver
from tests.integration.nameresolution.hosts import Node, node

needs_dapr = pytest.mark.skipif(
    RESOLVERS.reason_missing() is not None, reason=str(RESOLVERS.reason_missing())
)


def settings(path: Path, **more: object) -> dict[str, Any]:
    """The configuration of the component, with a short life of rows."""
    return {"connectionString": str(path), "updateInterval": "2s", **more}


def delete(path: Path) -> None:
    """The database, with the files that SQLite keeps beside it."""
    for part in path.parent.glob(f"{path.name}*"):
        part.unlink()


@asynccontextmanager
async def nodes(path: Path, count: int, **more: object) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(node(None, path.parent, "sqlite", settings(path, **more)))
            for _ in range(count)
        ]


async def test_processes_find_each_other_and_one_that_crashed_expires(tmp_path: Path) -> None:
    async with nodes(tmp_path / "nr.db", 3) as (one, two, caller):
        await one.do("announce cart 127.0.0.1 4001 i1")
        await two.do("announce cart ::1 4002 i2")
        await caller.find("cart", "127.0.0.1:4001", "[::1]:4002")
        two.process.kill()
        await caller.expect_endpoints("127.0.0.1:4001")
        await one.do("withdraw")
        await caller.expect_endpoints()
        await one.do("announce cart 127.0.0.1 4001 i1")
        await caller.expect_endpoints("127.0.0.1:4001")


async def test_namespace_that_is_named_is_heeded(tmp_path: Path) -> None:
    path = tmp_path / "nr.db"
    async with nodes(path, 2) as (one, caller):
        await one.do("announce cart 127.0.0.1 4001 i1")
        await caller.find("cart", "127.0.0.1:4001")
        await caller.send("identify abc")  # with mutual TLS, which proves a namespace
        await caller.send("want cart.shop")
        tried = await caller.expect(lambda words: words.get("namespace") == "shop")
        assert tried["endpoints"] == []
        assert "ignored because it is in namespace 'default', not 'shop'" in tried["tried"][0]


async def test_row_of_a_live_sidecar_that_was_deleted_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "nr.db"
    async with nodes(path, 2) as (one, caller):
        await one.do("announce cart 127.0.0.1 4001 i1")
        await caller.find("cart", "127.0.0.1:4001")
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM hosts")
        await caller.expect_endpoints()
        await caller.expect_endpoints("127.0.0.1:4001")


async def test_locked_file_keeps_what_was_known_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "nr.db"
    # Rows that outlive a node without the processor. The nodes lock the file, too: what is asked for may not be what comes first.
    more = {"disableWAL": True, "busyTimeout": "50ms", "updateInterval": "60s"}
    async with nodes(path, 2, **more) as (one, caller):
        await one.do("announce cart 127.0.0.1 4001 i1")
        await caller.find("cart", "127.0.0.1:4001")
        with closing(sqlite3.connect(path, timeout=20.0, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            stale = await caller.expect(
                lambda words: (
                    bool(words.get("stale"))
                    and "database is locked (fix: another process holds its lock" in words["tried"][0]
                )
            )
            assert stale["endpoints"] == ["127.0.0.1:4001"]
            connection.execute("ROLLBACK")
        await caller.expect(lambda words: words.get("stale") is False and bool(words["endpoints"]))


async def test_folder_that_is_missing_is_named_and_used_once_it_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    async with node(None, tmp_path, "sqlite", settings(folder / "nr.db")) as one:
        await one.do("announce cart 127.0.0.1 4001 i1")
        missing = await one.look_up("cart")
        assert missing["endpoints"] == []
        assert f"(fix: make the folder {folder})" in missing["tried"][0]
        folder.mkdir()
        await one.expect(lambda words: "done" not in words and bool(words.get("endpoints")))


async def test_file_that_was_deleted_is_made_again_by_all(tmp_path: Path) -> None:
    path = tmp_path / "nr.db"
    async with nodes(path, 2) as (one, caller):
        await one.do("announce cart 127.0.0.1 4001 i1")
        await caller.find("cart", "127.0.0.1:4001")
        delete(path)
        await caller.expect_endpoints()
        await caller.expect_endpoints("127.0.0.1:4001")


@needs_dapr
@pytest.mark.parametrize("first", ["dapr", "postern"])
async def test_dapr_and_postern_find_each_other_whoever_made_the_tables(tmp_path: Path, first: str) -> None:
    path = tmp_path / "nr.db"
    async with nodes(path, 1) as (ours,):
        if first == "postern":
            await ours.do("announce Cart-A 127.0.0.1 4001 i1")
        async with dapr_resolver("sqlite", settings(path), "pay", 4002) as theirs:
            if first == "dapr":
                await ours.do("announce Cart-A 127.0.0.1 4001 i1")
            assert await theirs.resolve("Cart-A") == "127.0.0.1:4001"
            await ours.find("pay", "127.0.0.1:4002")
            await ours.do("withdraw")
            assert await theirs.resolve("Cart-A") == "no host found with the given ID"
            await theirs.close()
            await ours.expect_endpoints()


@needs_dapr
async def test_dapr_that_crashed_expires(tmp_path: Path) -> None:
    path = tmp_path / "nr.db"
    async with nodes(path, 1) as (ours,), dapr_resolver("sqlite", settings(path), "pay", 4002) as theirs:
        await ours.find("pay", "127.0.0.1:4002")
        theirs.process.kill()
        await ours.expect_endpoints()
