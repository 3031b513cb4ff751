"""What `component: sqlite` can be told, and its checks; pure. The keys are those of Dapr's component.

Source: https://docs.dapr.io/reference/components-reference/supported-name-resolution/nr-sqlite/
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode

from msgspec import Struct

from nameresolution.fields import Fields

COMPONENT = "sqlite"
_KEYS = (
    "busyTimeout",
    "cleanupInterval",
    "connectionString",
    "disableWAL",
    "metadataTableName",
    "tableName",
    "timeout",
    "updateInterval",
)
_ALIASES = {
    "url": "connectionString",
    "timeoutInSeconds": "timeout",
    "cleanupIntervalInSeconds": "cleanupInterval",
}
_IDENTIFIER = re.compile(r"[A-Za-z0-9_]+")


class SqliteSettings(Struct, frozen=True, kw_only=True):
    """Durations are in seconds. A row counts as live while it is younger than `update_s`; `cleanup_s` of 0: dead rows are left.

    `uri` is SQLite's (https://www.sqlite.org/uri.html).
    """

    uri: str
    timeout_s: float = 1.0
    busy_s: float = 0.8
    update_s: int = 5
    cleanup_s: int = 3600
    table: str = "hosts"
    metadata_table: str = "metadata"
    wal: bool = True


def parse_settings(configuration: object) -> SqliteSettings:
    """The settings in a configuration.

    Raises: ComponentConfigurationError.
    """
    fields = Fields(COMPONENT, configuration, _KEYS, aliases=_ALIASES)
    timeout_s = fields.seconds("timeout", 1.0)
    if timeout_s < 1.0:
        raise fields.fault("timeout", "expected at least 1s")
    update_s = fields.seconds("updateInterval", 5.0)
    if update_s != int(update_s):
        raise fields.fault("updateInterval", "expected whole seconds, as the table holds nothing finer")
    if update_s - timeout_s < 1.0:
        raise fields.fault(
            "updateInterval", f"expected at least 1s more than timeout, which is {timeout_s:g}s"
        )
    return SqliteSettings(
        uri=_uri(fields),
        timeout_s=timeout_s,
        busy_s=fields.seconds("busyTimeout", 0.8),
        update_s=int(update_s),
        cleanup_s=int(fields.seconds("cleanupInterval", 3600.0)),
        table=_identifier(fields, "tableName", "hosts"),
        metadata_table=_identifier(fields, "metadataTableName", "metadata"),
        wal=not fields.switch("disableWAL"),
    )


def _uri(fields: Fields) -> str:
    given = fields.text("connectionString")
    if not given:
        raise fields.fault(
            "connectionString", "expected the path of a database, such as /home/me/.dapr/nr.db"
        )
    path, _, query = given.partition("?")
    path = path[5:] if path.lower().startswith("file:") else path
    if path.lower().startswith(":memory:") or not path:
        raise fields.fault(
            "connectionString", "a database in memory is seen by nobody else, expected the path of a file"
        )
    options = parse_qsl(query)
    for name, value in options:
        if name == "_txlock" and value.lower() == "immediate":
            continue
        if name.startswith("_"):
            problem = f"option {name} is not known here, use busyTimeout and disableWAL"
            raise fields.fault("connectionString", problem)
    kept = urlencode([(name, value) for name, value in options if not name.startswith("_")])
    return f"file:{path}?{kept}" if kept else f"file:{path}"


def _identifier(fields: Fields, field: str, default: str) -> str:
    name = fields.text(field, default)
    if _IDENTIFIER.fullmatch(name) is None:
        raise fields.fault(field, f"expected letters, digits and underscores, got {name!r}")
    return name
