"""What people are shown in place of keys and of errors' texts."""

import pytest

from telemetry.shown import error_shown


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("Code(500): Internal Server Error", "500 Internal Server Error"),
        ("Code(504): Gateway Timeout (timeout)", "504 Gateway Timeout (timeout)"),
        ("Code(2): UNKNOWN", "UNKNOWN"),
        ("Code(0): no response (connect)", "no response (connect)"),
        ("Code(500)", "Code(500)"),
        ("boom", "boom"),
        ("", ""),
    ],
)
def test_error_reads_as_a_status_or_a_name(error: str, shown: str) -> None:
    assert error_shown(error) == shown
