"""Waits for ports of processes that don't say themselves when they are ready. Blocking; call from a thread inside a loop."""

import contextlib
import socket
import time
from typing import Final

from tests.support.errors import ProcessEndedError
from tests.support.processes import Process

HEALTH: Final = "/v1.0/healthz"
OUTBOUND_HEALTH: Final = "/v1.0/healthz/outbound"
_ASK: Final = "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
_PAUSE_S: Final = 0.002


def wait_status(port: int, path: str, status: int, process: Process, *, timeout_s: float = 60.0) -> None:
    """Ask a port over and over until it answers a GET with `status`. Raises NotReadyError, ProcessEndedError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if _answers(port, path, status):
            return
        if not process.is_running:
            raise ProcessEndedError(process.name, process.code, process.tail)
        time.sleep(_PAUSE_S)
    raise process.not_ready(f"answer {status} at {path}", timeout_s)


def _answers(port: int, path: str, status: int) -> bool:
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=5.0) as connection,
    ):
        connection.sendall(_ASK.format(path=path, port=port).encode())
        return connection.recv(64).startswith(f"HTTP/1.1 {status} ".encode())
    return False
