"""Tables, JSON and YAML on standard output; pure but for the printing. Shape: spec/cli.md A1."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime

Row = Mapping[str, object]


def format_table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Upper-case headers, no borders; a column that is blank in every row is dropped."""
    shown = [column for column in columns if any(_cell(row.get(column)) for row in rows)]
    cells = [
        [column.upper() for column in shown],
        *([_cell(row.get(column)) for column in shown] for row in rows),
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(shown))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None or value == 0 else str(value)


def format_data(value: object, form: str) -> str:
    """For scripts, `json` or `yaml`: keys as documented, two spaces."""
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    import yaml  # noqa: PLC0415 - rarely asked for

    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False).rstrip()


def format_age(seconds: float) -> str:
    """Whole seconds, minutes, hours or days."""
    whole = max(int(seconds), 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def format_time(epoch_s: float) -> str:
    """`YYYY-MM-DD HH:MM.SS`, local time, as Dapr's users know it."""
    return datetime.fromtimestamp(epoch_s).astimezone().strftime("%Y-%m-%d %H:%M.%S")


def put(text: str) -> None:
    """Data, to standard output."""
    sys.stdout.write(text + "\n")


def tell(text: str) -> None:
    """Status, to standard error."""
    sys.stderr.write(text + "\n")
