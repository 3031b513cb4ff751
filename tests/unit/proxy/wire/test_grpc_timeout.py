"""The value of `grpc-timeout`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.grpc_timeout import format_grpc_timeout, parse_grpc_timeout


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"3S", 3.0),
        (b"250m", 0.25),
        (b"5u", 5e-6),
        (b"7n", 7e-9),
        (b"0S", 0.0),
    ],
)
def test_parse_grpc_timeout_reads_every_unit(data: bytes, wanted: float) -> None:
    found = parse_grpc_timeout(data)
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize(
    "data", [b"", b"S", b"5", b"-1S", b"+1S", b"1.5S", b"123456789S", b"1s", b" 1S", b"1_0S", b"\xb2S"]
)
def test_parse_grpc_timeout_malformed_is_none(data: bytes) -> None:
    assert parse_grpc_timeout(data) is None


@given(st.floats(min_value=1e-9, max_value=3e11))
def test_format_grpc_timeout_is_read_back_and_never_longer(left_s: float) -> None:
    data = format_grpc_timeout(left_s)
    back = parse_grpc_timeout(data)
    assert back is not None
    assert 0 < back <= left_s * (1 + 1e-9) or data == b"1n"
    assert back >= left_s * 0.999 - 1e-9 or left_s > 3.5e11 or back >= left_s - 3600


def test_format_grpc_timeout_of_nothing_left_is_not_zero() -> None:
    assert format_grpc_timeout(0.0) == b"1n"
    assert format_grpc_timeout(-5.0) == b"1n"


@given(st.floats(min_value=1e-9, max_value=1e8, allow_nan=False))
def test_timeout_round_trips_and_is_never_zero(left_s: float) -> None:
    written = format_grpc_timeout(left_s)
    read = parse_grpc_timeout(written)
    assert read is not None
    assert read > 0
    assert read <= left_s * 1.000001 or read == 1e-9
    assert len(written) <= 9
