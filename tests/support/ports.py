"""Ports for programs that cannot be asked to take port 0 and say which they got."""

import contextlib
import secrets
import socket
from typing import Final

# Below those that Linux gives to port 0 and to callers (32768 and up): a test beside this one takes one of them at any moment.
# Drawn where no seed reaches: pytest-randomly gives all parallel workers the same.
FIRST: Final = 20_000
LAST: Final = 31_999
_TRIES: Final = 100


def free_ports(count: int, *, host: str = "127.0.0.1") -> tuple[int, ...]:
    """Give `count` different TCP ports that were free just now. Raises OSError where hardly any is free."""
    with contextlib.ExitStack() as stack:
        return tuple(_bind(stack.enter_context(socket.socket()), host) for _ in range(count))


def free_port(*, host: str = "127.0.0.1") -> int:
    """Give a TCP port that was free just now."""
    return free_ports(1, host=host)[0]


def _bind(listener: socket.socket, host: str) -> int:
    for _ in range(_TRIES):
        port = FIRST + secrets.randbelow(LAST - FIRST + 1)
        with contextlib.suppress(OSError):
            listener.bind((host, port))
            return port
    raise OSError(f"no port between {FIRST} and {LAST} is free on {host}")
