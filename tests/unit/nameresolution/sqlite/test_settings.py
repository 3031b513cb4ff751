from __future__ import annotations

import pytest

from nameresolution.errors import ComponentConfigurationError
from nameresolution.sqlite.settings import SqliteSettings, parse_settings


def test_defaults_are_those_of_daprs_component() -> None:
    assert parse_settings({"connectionString": "/x/nr.db"}) == SqliteSettings(
        uri="file:/x/nr.db",
        timeout_s=1.0,
        busy_s=0.8,
        update_s=5,
        cleanup_s=3600,
        table="hosts",
        metadata_table="metadata",
        wal=True,
    )


def test_every_key_is_read_whatever_its_case() -> None:
    found = parse_settings(
        {
            "URL": "file:nr.db?mode=rw&_txlock=immediate",
            "timeoutInSeconds": 2,
            "busytimeout": "100ms",
            "updateInterval": "10s",
            "cleanupInterval": "0",
            "tableName": "h1",
            "metadataTableName": "m_1",
            "disableWAL": "true",
        }
    )
    assert found == SqliteSettings(
        uri="file:nr.db?mode=rw",
        timeout_s=2.0,
        busy_s=0.1,
        update_s=10,
        cleanup_s=0,
        table="h1",
        metadata_table="m_1",
        wal=False,
    )


@pytest.mark.parametrize(
    ("configuration", "problem"),
    [
        ({}, "connectionString: expected the path"),
        ({"connectionString": ":memory:"}, "seen by nobody else"),
        ({"connectionString": "file::memory:?cache=shared"}, "seen by nobody else"),
        ({"connectionString": "x.db?_pragma=busy_timeout(1)"}, "use busyTimeout and disableWAL"),
        ({"connectionString": "x.db?_txlock=deferred"}, "option _txlock is not known"),
        ({"connectionString": "x.db", "timeout": "500ms"}, "timeout: expected at least 1s"),
        ({"connectionString": "x.db", "updateInterval": "2500ms"}, "expected whole seconds"),
        ({"connectionString": "x.db", "timeout": "5s"}, "updateInterval: expected at least 1s more"),
        ({"connectionString": "x.db", "tableName": "hosts; --"}, "tableName: expected letters"),
        ({"connectionString": "x.db", "metadataTableName": ""}, "metadataTableName: expected letters"),
        ({"connectionString": "x.db", "tablename2": "x"}, "tablename2: is unknown"),
    ],
)
def test_fault_names_the_field(configuration: dict[str, object], problem: str) -> None:
    with pytest.raises(ComponentConfigurationError, match=problem):
        parse_settings(configuration)
