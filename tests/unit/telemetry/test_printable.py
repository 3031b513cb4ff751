"""What is printed of foreign text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.printable import printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cart", "cart"),
        ("Straße 你好 ✓", "Straße 你好 ✓"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[2J\x9b31m\x7f", "\\x1b[2J\\x9b31m\\x7f"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\udc80", "\\udc80"),
        (7, "7"),
    ],
)
def test_unprintable_characters_become_escapes(text: object, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_printable_text_is_one_line_that_no_terminal_obeys(text: str) -> None:
    assert printable(text).isprintable()


def test_lines_of_our_own_stay() -> None:
    assert printable_lines("a\nb\x1b") == "a\nb\\x1b"
