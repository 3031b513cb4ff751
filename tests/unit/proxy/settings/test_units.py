"""Go durations and Kubernetes quantities."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings.units import parse_duration_s, parse_quantity


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
    ("text", "units"),
    [
        ("0", 0),
        ("100", 100),
        ("4Mi", 4 * 1024 * 1024),
        ("4Ki", 4096),
        ("1.5Gi", 3 * 512 * 1024 * 1024),
        ("1M", 1_000_000),
        ("1e3", 1000),
        ("1E3", 1000),
        ("2E", 2 * 10**18),
        ("1500m", 2),
        ("1m", 1),
        (".5k", 500),
        ("5.", 5),
        ("-1", -1),
        ("+1", 1),
    ],
)
def test_quantity_as_kubernetes_writes_it_is_read_and_rounded_up(text: str, units: int) -> None:
    assert parse_quantity(text) == units


@pytest.mark.parametrize("text", ["", ".", "Mi", "4MB", "4 Mi", "four", "1e", "1e3Mi", "0x10", "1" * 80])
def test_quantity_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantity such as"):
        parse_quantity(text)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_with_a_value_error(text: str) -> None:
    for parse in (parse_duration_s, parse_quantity):
        try:
            parse(text)
        except ValueError:
            continue
