from __future__ import annotations

import pytest

from nameresolution.addresses import HostAddresses, advertised_address, choose
from nameresolution.errors import AnnouncementError

ROUTED = HostAddresses(routed=("10.0.0.5",), interfaces=("127.0.0.1", "10.0.0.5"))


@pytest.mark.parametrize(
    ("env", "listen", "expected"),
    [
        ({}, "0.0.0.0", "10.0.0.5"),
        ({}, "", "10.0.0.5"),
        ({}, "[::]", "10.0.0.5"),
        ({"DAPR_HOST_IP": "192.0.2.9"}, "0.0.0.0", "192.0.2.9"),
        ({"DAPR_HOST_IP": " "}, "0.0.0.0", "10.0.0.5"),
        ({"DAPR_HOST_IP": "192.0.2.9"}, "127.0.0.1", "127.0.0.1"),
        ({}, "localhost", "127.0.0.1"),
        ({}, "[::1]", "::1"),
        ({}, "10.0.0.77", "10.0.0.77"),
        ({"DAPR_HOST_IP": "192.0.2.9"}, "10.0.0.77", "192.0.2.9"),
    ],
)
def test_advertised_address_follows_its_order(env: dict[str, str], listen: str, expected: str) -> None:
    assert advertised_address(env, listen, lambda: ROUTED) == expected


def test_advertised_address_refuses_a_host_name_in_the_variable() -> None:
    with pytest.raises(AnnouncementError, match="DAPR_HOST_IP"):
        advertised_address({"DAPR_HOST_IP": "box"}, "", lambda: ROUTED)


@pytest.mark.parametrize(
    ("interfaces", "expected"),
    [
        (("127.0.0.1", "169.254.1.1", "fd00::1", "10.0.0.1", "2606:4700::1", "8.8.8.8"), "8.8.8.8"),
        (("169.254.1.1", "fd00::1", "10.0.0.1", "2606:4700::1"), "2606:4700::1"),
        (("169.254.1.1", "fd00::1", "100.64.0.1"), "100.64.0.1"),
        (("169.254.1.1", "fd00::1"), "fd00::1"),
        (("127.0.0.1", "169.254.1.1"), "169.254.1.1"),
        (("127.0.0.1", "::1", "192.0.0.2"), "127.0.0.1"),
        ((), "127.0.0.1"),
    ],
)
def test_choose_takes_the_address_that_reaches_farthest(interfaces: tuple[str, ...], expected: str) -> None:
    assert choose(HostAddresses(interfaces=interfaces)) == expected


def test_choose_prefers_the_default_route_but_not_an_ignored_network() -> None:
    assert choose(HostAddresses(routed=("10.0.0.1",), interfaces=("8.8.8.8",))) == "10.0.0.1"
    assert choose(HostAddresses(routed=("192.0.0.2",), interfaces=("10.0.0.2",))) == "10.0.0.2"
