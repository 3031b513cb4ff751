"""Ports for programs that cannot be asked to take port 0 and say which they got."""

import contextlib
import socket


def free_ports(count: int, *, host: str = "127.0.0.1") -> tuple[int, ...]:
    """Give `count` different TCP ports that were free just now; another process may still take one first."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind((host, 0))
        return tuple(int(listener.getsockname()[1]) for listener in sockets)


def free_port(*, host: str = "127.0.0.1") -> int:
    """Give a TCP port that was free just now."""
    return free_ports(1, host=host)[0]
