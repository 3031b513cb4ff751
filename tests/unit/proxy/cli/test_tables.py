"""Tables and data on a terminal: their width, and what foreign text may do."""

import json

import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.cli.tables import Column, format_data, format_table

NAMES = (Column("app id", "id"), Column("port", "port"), Column("empty", "empty"))
RANKED = (
    Column("app id", "id"),
    Column("command", "command", 1),
    Column("created", "created", 2),
    Column("status", "status"),
)
LONG = {
    "id": "cart",
    "command": "python -m http.server 8080",
    "created": "2026-11-28 19:59.49",
    "status": "ok",
}


def test_table_has_upper_case_headers_and_no_blank_columns() -> None:
    rows = [{"id": "cart", "port": 3500, "empty": ""}, {"id": "checkout", "port": 0, "empty": None}]
    assert format_table(NAMES, rows) == ("APP ID    PORT\ncart      3500\ncheckout", ())


def test_table_without_a_terminal_is_whole() -> None:
    text, left_out = format_table(RANKED, [LONG])
    assert "python -m http.server 8080" in text
    assert left_out == ()


def test_narrow_terminal_cuts_long_cells_before_it_loses_columns() -> None:
    text, left_out = format_table(RANKED, [LONG], 60)
    header, row = text.splitlines()
    assert len(header) <= 60
    assert "…" in row
    assert len(row) <= 60
    assert left_out == ()


def test_narrower_terminal_loses_columns_by_rank_and_says_which() -> None:
    text, left_out = format_table(RANKED, [LONG], 36)
    assert left_out == ("created",)
    assert all(len(line) <= 36 for line in text.splitlines())
    text, left_out = format_table(RANKED, [LONG], 16)
    assert left_out == ("command", "created")
    assert text.splitlines() == ["APP ID  STATUS", "cart    ok"]


def test_wide_characters_count_as_two_columns() -> None:
    text, _ = format_table(NAMES[:2], [{"id": "你好", "port": 1}, {"id": "abcd", "port": 2}])
    assert text.splitlines()[1:] == ["你好    1", "abcd    2"]


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_foreign_text_can_neither_break_a_row_nor_reach_the_terminal(cells: list[str]) -> None:
    text, _ = format_table(NAMES, [{"id": cell, "port": 1} for cell in cells], 80)
    lines = text.split("\n")
    assert len(lines) == len(cells) + 1
    assert all(line.isprintable() for line in lines)


@given(st.dictionaries(st.text(), st.text(st.characters(exclude_categories=["Cs"]))))
def test_data_is_printable_and_says_the_same(value: dict[str, str]) -> None:
    as_json, as_yaml = format_data(value, "json"), format_data(value, "yaml")
    assert all(line.isprintable() for line in as_json.split("\n"))
    assert all(line.isprintable() for line in as_yaml.split("\n"))
    assert json.loads(as_json) == value
    assert yaml.safe_load(as_yaml) == value
