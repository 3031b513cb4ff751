"""Tables, JSON and YAML on standard output; pure but for the printing. Whatever comes from elsewhere is made printable here."""

import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from telemetry.printable import printable, printable_lines

Row = Mapping[str, object]
_GAP = "  "
_LEAST_WIDTH = 12  # a column is not cut below this, nor below its header
_UNPRINTABLE = re.compile(r"[^\x00-\x1f\x20-\x7e]")  # JSON escapes the control characters itself


class Column(Struct, frozen=True):
    """One column. key: in a row, where that is not the title. rank: on a terminal that is too narrow, the highest are left out first."""

    title: str
    key: str = ""
    rank: int = 0


def terminal_width() -> int | None:
    """Columns of the terminal that data goes to; None for pipes and files, which have no width."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def format_table(
    columns: Sequence[Column], rows: Sequence[Row], width: int | None = None
) -> tuple[str, tuple[str, ...]]:
    """Upper-case headers, no borders, and the titles of columns that did not fit `width`.

    A column that is blank in every row is dropped. Where the table is too wide, long cells are cut, then columns left out by rank.
    """
    cells = {column: [_cell(row.get(column.key or column.title)) for row in rows] for column in columns}
    shown = [column for column in columns if any(cells[column])]
    left_out: list[Column] = []
    if width is not None:
        optional = sorted((column for column in shown if column.rank), key=lambda column: -column.rank)
        while optional and _least(shown, cells) > width:
            left_out.append(optional.pop(0))
            shown.remove(left_out[-1])
    widths = [_natural(column, cells) for column in shown]
    if width is not None:
        _shrink(widths, [_floor(column, cells) for column in shown], width)
    lines = [[column.title.upper() for column in shown]]
    lines += [[cells[column][number] for column in shown] for number in range(len(rows))]
    text = "\n".join(
        _GAP.join(_pad(cell, size) for cell, size in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return text, tuple(column.title for column in columns if column in left_out)


def _natural(column: Column, cells: Mapping[Column, Sequence[str]]) -> int:
    return max(len(column.title), *(_length(cell) for cell in cells[column]))


def _floor(column: Column, cells: Mapping[Column, Sequence[str]]) -> int:
    return min(_natural(column, cells), max(len(column.title), _LEAST_WIDTH))


def _least(columns: Sequence[Column], cells: Mapping[Column, Sequence[str]]) -> int:
    return sum(_floor(column, cells) for column in columns) + len(_GAP) * (len(columns) - 1)


def _shrink(widths: list[int], floors: Sequence[int], width: int) -> None:
    """Narrow the widest columns until the table fits, none below its floor."""
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    while over > 0:
        spare = [(size, number) for number, size in enumerate(widths) if size > floors[number]]
        if not spare:
            return
        widths[max(spare)[1]] -= 1
        over -= 1


def _pad(cell: str, width: int) -> str:
    if _length(cell) <= width:
        return cell + " " * (width - _length(cell))
    kept = ""
    for char in cell:
        if _length(kept + char) > width - 1:
            break
        kept += char
    return kept + "…" + " " * (width - 1 - _length(kept))


def _length(text: str) -> int:
    """Columns that a text takes in a terminal (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None or value == 0 else printable(value)


def put_table(columns: Sequence[Column], rows: Sequence[Row], *, is_wide: bool = False) -> None:
    """Print a table, cut to the terminal unless everything was asked for."""
    text, left_out = format_table(columns, rows, None if is_wide else terminal_width())
    put(text)
    if left_out:
        tell(f"not shown, as the terminal is too narrow: {', '.join(left_out)}; -o wide shows all")


def format_data(value: object, form: str) -> str:
    """For scripts, `json` or `yaml`: keys as documented, two spaces."""
    if form == "json":
        return _UNPRINTABLE.sub(_escape, json.dumps(value, indent=2, ensure_ascii=False))
    import yaml  # noqa: PLC0415 - rarely asked for

    text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    if printable_lines(text) != text:
        text = yaml.safe_dump(value, sort_keys=False)
    return text.rstrip()


def _escape(match: re.Match[str]) -> str:
    """JSON's own escape of a character that a terminal would obey, or that would reorder a line (RFC 8259 §7)."""
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]


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
    """Data, to standard output; what is in it has been made printable."""
    sys.stdout.write(text + "\n")


def tell(text: str) -> None:
    """One line of status, to standard error."""
    sys.stderr.write(printable(text) + "\n")


def tell_error(command: str, error: Exception) -> None:
    """Why a command failed, to standard error; a message may have several lines."""
    sys.stderr.write(printable_lines(f"{command}: {error}") + "\n")
