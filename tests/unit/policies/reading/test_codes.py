"""Lists of status codes."""

import pytest

from policies.errors import CodesError
from policies.reading.codes import parse_codes


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("", None),
        (",,", None),
        ("429", {429}),
        ("429,500-504", {429, 500, 501, 502, 503, 504}),
        ("500-500,,599,", {500, 599}),
    ],
)
def test_parse_codes_reads_codes_and_ranges(text: str, codes: set[int] | None) -> None:
    assert parse_codes(text, 100, 599) == codes


@pytest.mark.parametrize(
    "text",
    ["429, 500", "504-500", "99", "600", "500-600", "1-2-3", "5xx", "-500", "500-", "²00", "99999999999"],
)
def test_parse_codes_refuses_anything_else(text: str) -> None:
    with pytest.raises(CodesError):
        parse_codes(text, 100, 599)
