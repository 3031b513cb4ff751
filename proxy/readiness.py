"""Waits until a sidecar's outbound side is ready, as `--wait` and `postern wait` do. Blocking; for commands, not for the sidecar."""

import contextlib
import socket
import time

WAIT_S = 60.0
_PAUSE_S = 0.1
_ASK_S = 1.0
_REQUEST = "GET /v1.0/healthz/outbound HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"


def wait_ready(host: str, port: int, within_s: float) -> bool:
    """Poll until the sidecar answers 2xx; False when it did not in time."""
    until = time.monotonic() + within_s
    while True:
        if _is_ready(host, port, min(_ASK_S, max(until - time.monotonic(), 0.05))):
            return True
        if time.monotonic() + _PAUSE_S >= until:
            return False
        time.sleep(_PAUSE_S)


def _is_ready(host: str, port: int, within_s: float) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=within_s) as connection:
        connection.sendall(_REQUEST.format(port=port).encode())
        head = connection.recv(16)
        return head.startswith(b"HTTP/1.1 2")
    return False
