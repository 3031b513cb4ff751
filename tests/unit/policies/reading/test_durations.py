"""Durations."""

import pytest

from policies.errors import DurationError
from policies.reading.durations import is_bare, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 0.005),
        ("0", 0.0),
        ("-5", -0.005),
        ("300ms", 0.3),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1h30m", 5400.0),
        ("1m0.5s", 60.5),
        ("-2s", -2.0),
        ("7us", 7e-6),
        ("7µs", 7e-6),
        ("9ns", 9e-9),
    ],
)
def test_parse_duration_reads_go_syntax_and_bare_milliseconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", " 5s", "5 s", "5x", "s", "1d", "1.5", "5S", "--5s", "9" * 400, "9" * 30 + "h", "\u0665s", "1e3s"],
)
def test_parse_duration_refuses_anything_else(text: str) -> None:
    with pytest.raises(DurationError, match="duration"):
        parse_duration(text)


def test_is_bare_is_true_of_numbers_without_unit_but_zero() -> None:
    assert [is_bare(text) for text in ("5", "-5", "0", "5s", "", "x")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
