from __future__ import annotations

import errno

import pytest

from nameresolution.mdns_sockets import InterfaceFilter, describe


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


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EADDRINUSE, "another program holds UDP port 5353"),
        (errno.ENOBUFS, "igmp_max_memberships"),
        (errno.EPERM, "firewall"),
        (errno.ENETUNREACH, "ENETUNREACH"),
    ],
)
def test_describe_says_what_is_behind_an_error(number: int, words: str) -> None:
    assert words in describe(OSError(number, "text"))
