from __future__ import annotations

import errno

import pytest

from nameresolution.mdns.sockets import describe


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
