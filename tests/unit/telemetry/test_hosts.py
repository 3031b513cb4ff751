"""Whose a Host and an Origin are."""

import pytest

from telemetry.hosts import is_own_origin, split_address, split_authority


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("cart", ("cart", "")),
        ("cart:80", ("cart", "80")),
        ("cart:", ("cart", "")),
        ("", ("", "")),
        (":80", ("", "80")),
        ("[::1]:3500", ("::1", "3500")),
        ("[::1]", ("::1", "")),
        ("[fe80::1%25eth0]:1", ("fe80::1%25eth0", "1")),
        ("[::1", ("::1", "")),
        ("a:b:c", ("a:b", "c")),
    ],
)
def test_authority_splits_into_host_and_port(authority: str, expected: tuple[str, str]) -> None:
    assert split_authority(authority) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("[::1]:80", ("::1", 80)),
        ("::1:80", ("::1", 80)),
        ("unix:/run/x", ("", 0)),
        ("host", ("", 0)),
        (":80", ("", 0)),
        ("h:123456", ("", 0)),
        ("h:٣", ("", 0)),
    ],
)
def test_split_address_forms(address: str, expected: tuple[str, int]) -> None:
    assert split_address(address) == expected


@pytest.mark.parametrize(
    ("origin", "authority", "expected"),
    [
        ("http://localhost:3500", "localhost:3500", True),
        ("http://localhost", "localhost:80", True),
        ("http://cart.localhost:3500", "cart.localhost:3500", True),
        ("https://localhost:3500", "localhost:3500", False),
        ("http://localhost:3501", "localhost:3500", False),
        ("http://localhost", "localhost:3500", False),
        ("http://127.0.0.1:3500", "localhost:3500", False),
        ("null", "localhost:3500", False),
        ("", "", False),
    ],
)
def test_own_origin_is_scheme_host_and_port(origin: str, authority: str, expected: bool) -> None:
    assert is_own_origin(origin, authority) is expected
