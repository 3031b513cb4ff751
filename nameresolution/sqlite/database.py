"""The database in which sidecars meet: the tables that Dapr's component makes, and what is written to and read from them.

Everything here blocks, and belongs to one thread at a time. Times in the table are unix seconds, by SQLite's clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from nameresolution.errors import DatabaseError
from nameresolution.sqlite.settings import SqliteSettings

MAX_ROWS = (
    4096  # read at once, of all watched names together: a table with more is not of one host's sidecars
)
_NOW = "CAST(strftime('%s', 'now') AS INTEGER)"  # unixepoch() is younger than the SQLite of some systems
_LEVEL = 1  # of the schema


class Row(Struct, frozen=True, kw_only=True):
    """One sidecar. `namespace` is "" in the rows of a daprd."""

    registration_id: str
    address: str
    app_id: str
    namespace: str = ""


class HostsDatabase:
    """Owns the connection: opened when needed, dropped after every failure, and when the file is another than the one opened."""

    def __init__(self, settings: SqliteSettings) -> None:
        self._settings = settings
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[str, int, int] | None = None  # path, device and inode
        table = settings.table
        self._renew = f"UPDATE {table} SET last_update = {_NOW} WHERE registration_id = ? AND address = ?"  # noqa: S608 - a checked identifier
        self._register = (
            f"REPLACE INTO {table} (registration_id, address, app_id, namespace, last_update)"  # noqa: S608 - a checked identifier
            f" VALUES (?, ?, ?, ?, {_NOW})"
        )
        self._remove = f"DELETE FROM {table} WHERE registration_id = ? AND address = ?"  # noqa: S608 - a checked identifier
        self._live = (
            f"SELECT registration_id, address, app_id, namespace FROM {table}"  # noqa: S608 - a checked identifier
            f" WHERE {_NOW} - last_update < ? AND app_id IN (SELECT value FROM json_each(?))"
            " AND 'text' = typeof(registration_id) AND 'text' = typeof(address) AND 'text' = typeof(namespace)"  # SQLite checks none
            f" LIMIT {MAX_ROWS}"
        )

    @property
    def where(self) -> str:
        """What to call the database in messages."""
        return self._settings.uri.partition("?")[0].removeprefix("file:")

    def register(self, row: Row) -> None:
        """Write our row, in place of any other at the same address.

        Raises: DatabaseError.
        """
        with self._open() as connection:
            connection.execute(self._register, (row.registration_id, row.address, row.app_id, row.namespace))

    def renew(self, row: Row) -> bool:
        """Say that we live; False if our row is gone.

        Raises: DatabaseError.
        """
        with self._open() as connection:
            return connection.execute(self._renew, (row.registration_id, row.address)).rowcount > 0

    def remove(self, row: Row) -> None:
        """Delete our row, if it is there.

        Raises: DatabaseError.
        """
        with self._open() as connection:
            connection.execute(self._remove, (row.registration_id, row.address))

    def live(self, app_ids: Iterable[str]) -> tuple[Row, ...]:
        """The rows of these app-ids that were renewed lately.

        Raises: DatabaseError.
        """
        with self._open() as connection:
            found = connection.execute(self._live, (self._settings.update_s, json.dumps(sorted(app_ids))))
            return tuple(
                Row(registration_id=one[0], address=one[1], app_id=one[2], namespace=one[3]) for one in found
            )

    def clean(self) -> None:
        """Delete rows whose owners are long gone, unless a sidecar did within the interval.

        The note of when is Dapr's, and keeps its sidecars from cleaning: theirs deletes the rows of those that live.

        Raises: DatabaseError.
        """
        every_s = self._settings.cleanup_s
        noted = (
            f"INSERT INTO {self._settings.metadata_table} (key, value) VALUES ('nr-last-cleanup', CURRENT_TIMESTAMP)"  # noqa: S608 - a checked identifier
            " ON CONFLICT (key) DO UPDATE SET value = CURRENT_TIMESTAMP"
            f" WHERE {_NOW} - CAST(strftime('%s', value) AS INTEGER) >= ?"
        )
        dead = f"DELETE FROM {self._settings.table} WHERE {_NOW} - last_update > ?"  # noqa: S608 - a checked identifier
        with self._open() as connection:
            if connection.execute(noted, (every_s,)).rowcount > 0:
                connection.execute(dead, (max(every_s, self._settings.update_s),))

    def interrupt(self) -> None:
        """Have what another thread is at end soon."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.interrupt()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._connection is not None and not self._is_same_file():
                self.close()
            if self._connection is None:
                self._connection = self._connect()
            yield self._connection
        except sqlite3.Error as error:
            self.close()
            raise DatabaseError(self.where, str(error), self._advice(error)) from error

    def _connect(self) -> sqlite3.Connection:
        settings = self._settings
        connection = sqlite3.connect(
            settings.uri, uri=True, timeout=settings.busy_s, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = lambda data: data.decode("utf-8", "replace")  # one bad row hides no others
        try:
            connection.execute(f"PRAGMA journal_mode = {'WAL' if settings.wal else 'DELETE'}").fetchall()
            _migrate(connection, settings)
            path = str(connection.execute("PRAGMA database_list").fetchone()[2])
            facts = os.stat(path)
        except (sqlite3.Error, OSError) as error:
            connection.close()
            raise (
                error if isinstance(error, sqlite3.Error) else sqlite3.OperationalError(str(error))
            ) from error
        self._file = (path, facts.st_dev, facts.st_ino)
        return connection

    def _is_same_file(self) -> bool:
        """Whether the path still leads to the file that is open: others would meet in the new one."""
        assert self._file is not None
        path, device, inode = self._file
        try:
            facts = os.stat(path)
        except OSError:
            return False
        return (facts.st_dev, facts.st_ino) == (device, inode)

    def _advice(self, error: sqlite3.Error) -> str:
        folder = Path(self.where).absolute().parent
        if "unable to open" in str(error) and not folder.is_dir():
            return f"make the folder {folder}"
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return "another process holds its lock: end that, or raise busyTimeout"
        return ""


def _migrate(connection: sqlite3.Connection, settings: SqliteSettings) -> None:
    """Make the tables that are missing, as Dapr's component does, one process at a time."""
    key = "nr-migrations"
    level_of = f"SELECT value FROM {settings.metadata_table} WHERE key = '{key}'"  # noqa: S608 - a checked identifier
    with contextlib.suppress(sqlite3.OperationalError):
        if _level(connection.execute(level_of).fetchone()) >= _LEVEL:
            return  # without a lock that others would have to wait for
    connection.execute("BEGIN EXCLUSIVE TRANSACTION")
    try:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {settings.metadata_table}"
            " (key text NOT NULL PRIMARY KEY, value text NOT NULL)"
        )
        if _level(connection.execute(level_of).fetchone()) < _LEVEL:
            table = settings.table
            connection.execute(
                f"CREATE TABLE {table} (registration_id TEXT NOT NULL PRIMARY KEY, address TEXT NOT NULL,"
                " app_id TEXT NOT NULL, namespace TEXT NOT NULL, last_update INTEGER NOT NULL)"
            )
            connection.execute(f"CREATE UNIQUE INDEX {table}_address_idx ON {table} (address)")
            connection.execute(f"CREATE INDEX {table}_last_update_idx ON {table} (last_update)")
            connection.execute(
                f"REPLACE INTO {settings.metadata_table} (key, value) VALUES ('{key}', '{_LEVEL}')"  # noqa: S608 - a checked identifier
            )
        connection.execute("COMMIT TRANSACTION")
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK TRANSACTION")
        raise


def _level(row: tuple[object] | None) -> int:
    level = row[0] if row is not None else None
    return (
        int(level)
        if isinstance(level, str) and level.isascii() and level.isdigit() and len(level) < 10
        else 0
    )
