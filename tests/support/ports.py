"""Ports for programs that cannot be asked to take port 0 and say which they got."""

import contextlib
import itertools
import os
import secrets
import socket
from collections.abc import Iterator
from typing import Final

# Below those that Linux gives to port 0 and to callers (32768 and up): a test beside this one takes one of them at any moment.
FIRST: Final = 20_000
LAST: Final = 31_999
_TRIES: Final = 100


def own_ports() -> range:
    """Those of this pytest-xdist worker: no two of them give out the same port."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    each = (LAST + 1 - FIRST) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return range(FIRST + worker * each, FIRST + (worker + 1) * each)


def _in_turn(ports: range) -> Iterator[int]:
    """One after the other, so that a port that nobody listens on yet is not given out again at once."""
    # Drawn where no seed reaches: pytest-randomly gives the same to whoever runs another suite beside this one.
    first = secrets.randbelow(len(ports))
    return itertools.cycle((*ports[first:], *ports[:first]))


_PORTS: Final = _in_turn(own_ports())


def free_ports(count: int, *, host: str = "127.0.0.1") -> tuple[int, ...]:
    """Give `count` TCP ports that were free just now, none of them given lately. Raises OSError where hardly any is free."""
    with contextlib.ExitStack() as stack:
        return tuple(_bind(stack.enter_context(socket.socket()), host) for _ in range(count))


def free_port(*, host: str = "127.0.0.1") -> int:
    """Give a TCP port that was free just now."""
    return free_ports(1, host=host)[0]


def _bind(listener: socket.socket, host: str) -> int:
    for port in itertools.islice(_PORTS, _TRIES):
        with contextlib.suppress(OSError):
            listener.bind((host, port))
            return port
    raise OSError(f"no port between {FIRST} and {LAST} is free on {host}")
