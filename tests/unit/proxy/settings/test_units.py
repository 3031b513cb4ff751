"""Kubernetes quantities, and durations as Go prints them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings.units import go_duration, parse_quantity


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
def test_any_text_is_a_quantity_or_refused_with_a_value_error(text: str) -> None:
    try:
        parse_quantity(text)
    except ValueError:
        return


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.5, "500ms"),
        (2, "2s"),
        (1.5, "1.5s"),
        (60, "1m0s"),
        (90.25, "1m30.25s"),
        (3600, "1h0m0s"),
        (90061, "25h1m1s"),
    ],
)
def test_duration_is_printed_as_go_does(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text
