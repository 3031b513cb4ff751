"""Options that several commands share."""

from enum import Enum
from typing import Annotated

import typer


class OutputFormat(Enum):
    """How data is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"


Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="table, wide or json")]
RuntimePath = Annotated[
    str | None, typer.Option("--runtime-path", help="where this user's sidecars meet", envvar="POSTERN_HOME")
]
