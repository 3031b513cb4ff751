"""Options that several commands share."""

from enum import Enum
from typing import Annotated

import typer


class OutputFormat(Enum):
    """How data is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"

    @property
    def is_data(self) -> bool:
        """For scripts, not for people."""
        return self in (OutputFormat.JSON, OutputFormat.YAML)


Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="table, wide, json or yaml")]
RuntimePath = Annotated[
    str | None, typer.Option("--runtime-path", help="where this user's sidecars meet", envvar="POSTERN_HOME")
]
