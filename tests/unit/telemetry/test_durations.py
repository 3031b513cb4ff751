"""Go durations."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.durations import parse_duration_s, parse_lifetime


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("5s", 5.0),
        ("500ms", 0.5),
        ("1m30s", 90.0),
        ("1h2m3.5s", 3723.5),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("-3s", -3.0),
        ("+3s", 3.0),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("7ns", 7e-9),
    ],
)
def test_duration_as_go_writes_it_is_read(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "5 s", "5sec", "1m 30s", "--5s", ".s", "1d", "٣s", "9" * 80 + "s"]
)
def test_duration_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration such as"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("24h", 86400), ("1h30m", 5400), ("1.5s", 1.5), ("250ms", 0.25), ("0", 0)]
)
def test_lifetime_is_read_as_go_does(text: str, seconds: float) -> None:
    assert parse_lifetime(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "h", "1h 30m", "-1h", "-1ns", "1x", "9" * 400 + "h"])
def test_lifetime_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_lifetime(text)


@given(st.text(max_size=30))
def test_any_text_is_a_duration_or_refused_with_a_value_error(text: str) -> None:
    for parse in (parse_duration_s, parse_lifetime):
        try:
            parse(text)
        except ValueError:
            continue
