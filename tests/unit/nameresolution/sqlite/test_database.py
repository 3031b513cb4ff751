"""The tables, over real files. What Dapr's own component makes of them is in tests/integration/nameresolution/test_sqlite.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from nameresolution.errors import DatabaseError
from nameresolution.sqlite.database import HostsDatabase, Row
from nameresolution.sqlite.settings import SqliteSettings

CART = Row(registration_id="a1", address="10.0.0.1:5", app_id="cart", namespace="shop")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nr.db"


@pytest.fixture
def database(path: Path) -> Iterator[HostsDatabase]:
    opened = HostsDatabase(SqliteSettings(uri=f"file:{path}", busy_s=0.01))
    yield opened
    opened.close()


def execute(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def test_row_is_registered_renewed_read_and_removed(database: HostsDatabase, path: Path) -> None:
    database.register(CART)
    assert database.live({"cart", "web"}) == (CART,)
    assert database.live({"web"}) == ()
    execute(path, "UPDATE hosts SET last_update = last_update - 5")
    assert database.live({"cart"}) == ()
    assert database.renew(CART)
    assert database.live({"cart"}) == (CART,)
    database.remove(CART)
    assert database.live({"cart"}) == ()
    assert not database.renew(CART)


def test_another_at_the_same_address_takes_the_row(database: HostsDatabase) -> None:
    database.register(CART)
    later = replace(CART, registration_id="a2", app_id="web")
    database.register(later)
    assert database.live({"cart", "web"}) == (later,)
    assert not database.renew(CART)


def test_tables_are_made_once_and_of_the_level_that_is_noted(database: HostsDatabase, path: Path) -> None:
    database.register(CART)
    other = HostsDatabase(SqliteSettings(uri=f"file:{path}"))
    assert other.live({"cart"}) == (CART,)
    other.close()
    assert execute(path, "SELECT value FROM metadata WHERE key = 'nr-migrations'") == [("1",)]
    assert execute(path, "PRAGMA journal_mode") == [("wal",)]
    indexes = execute(path, "SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'hosts%'")
    assert sorted(indexes) == [("hosts_address_idx",), ("hosts_last_update_idx",)]


def test_cleaning_deletes_the_old_rows_alone_and_once_an_interval(
    database: HostsDatabase, path: Path
) -> None:
    database.register(CART)
    database.register(replace(CART, registration_id="old", address="10.0.0.2:5"))
    execute(path, "UPDATE hosts SET last_update = last_update - 3601 WHERE registration_id = 'old'")
    database.clean()
    assert execute(path, "SELECT registration_id FROM hosts") == [("a1",)]
    execute(path, "UPDATE hosts SET last_update = 0")
    database.clean()
    assert execute(path, "SELECT registration_id FROM hosts") == [("a1",)]  # cleaned too recently
    execute(path, "UPDATE metadata SET value = '2020-01-01 00:00:00' WHERE key = 'nr-last-cleanup'")
    database.clean()
    assert execute(path, "SELECT registration_id FROM hosts") == []


def test_folder_that_is_missing_is_named_and_may_appear_later(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    database = HostsDatabase(SqliteSettings(uri=f"file:{folder}/nr.db"))
    with pytest.raises(DatabaseError, match=f"unable to open database file; make the folder {folder}"):
        database.register(CART)
    folder.mkdir()
    database.register(CART)
    assert database.live({"cart"}) == (CART,)
    database.close()


def test_lock_of_another_is_waited_for_and_named(database: HostsDatabase, path: Path) -> None:
    database.register(CART)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseError, match="database is locked; another process holds its lock"):
            database.renew(CART)
        other.rollback()
    assert database.renew(CART)


def test_file_that_was_replaced_is_left_for_the_new_one(database: HostsDatabase, path: Path) -> None:
    database.register(CART)
    for part in path.parent.iterdir():
        part.unlink()
    assert database.live({"cart"}) == ()
    assert path.exists()
    assert not database.renew(CART)


def test_file_that_is_no_database_is_named(database: HostsDatabase, path: Path) -> None:
    path.write_bytes(b"endpoints: " * 100)
    with pytest.raises(DatabaseError, match="file is not a database"):
        database.live({"cart"})


def test_interrupt_before_and_after_opening_is_harmless(database: HostsDatabase) -> None:
    database.interrupt()
    database.register(CART)
    database.interrupt()
    assert database.renew(CART)


def test_level_that_is_no_number_is_none(database: HostsDatabase, path: Path) -> None:
    database.live(["cart"])
    database.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE metadata SET value = '\u00b2'")
    with pytest.raises(DatabaseError, match="already exists"):
        database.live(["cart"])
