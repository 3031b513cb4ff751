from __future__ import annotations

import pytest

from nameresolution.interfaces import InterfaceFilter


@pytest.mark.parametrize(
    ("include", "exclude", "allowed"),
    [
        ((), (), True),
        (("eth*",), (), True),
        (("wlan*",), (), False),
        (("10.0.0.0/8",), (), True),
        (("192.168.0.0/16",), (), False),
        (("wlan*", "10.0.0.0/8"), (), True),
        ((), ("eth0",), False),
        (("eth*",), ("10.0.0.0/24",), False),
        (("eth*",), ("docker*", "fd00::/8"), True),
    ],
)
def test_filter_matches_by_name_or_network(
    include: tuple[str, ...], exclude: tuple[str, ...], allowed: bool
) -> None:
    assert InterfaceFilter(include=include, exclude=exclude).allows("eth0", "10.0.0.5") is allowed
