"""Waits until a sidecar is ready, as `--wait` and `postern wait` do. Blocking; for commands, not for the sidecar."""

import contextlib
import json
import socket
import time
from collections.abc import Callable

WAIT_S = 60.0
_PAUSE_S = 0.1
_ASK_S = 1.0
_MOST_BYTES = 1 << 20
_REQUEST = "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def wait_ready(host: str, port: int, within_s: float) -> bool:
    """Poll until the outbound side answers 2xx, which waits for no app; False when it did not in time."""

    def ask(ask_s: float) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host, port), timeout=ask_s) as connection,
        ):
            return _get(connection, "/v1.0/healthz/outbound", 16).startswith(b"HTTP/1.1 2")
        return False

    return _poll(ask, within_s)


def wait_all_ready(admin_socket: str, within_s: float) -> list[str] | None:
    """Poll until the sidecar of an admin socket, and its app, are ready: None then, else why they were not at last."""
    why = [f"no answer on {admin_socket}"]

    def ask(ask_s: float) -> bool:
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ask_s)
            connection.connect(admin_socket)
            _, _, body = _get(connection, "/status", _MOST_BYTES).partition(b"\r\n\r\n")
            status = json.loads(body)
            why[:] = [str(reason) for reason in status["notReady"]]
            return bool(status["ready"])
        return False

    return None if _poll(ask, within_s) else why


def _poll(ask: Callable[[float], bool], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while True:
        if ask(min(_ASK_S, max(until - time.monotonic(), 0.05))):
            return True
        if time.monotonic() + _PAUSE_S >= until:
            return False
        time.sleep(_PAUSE_S)


def _get(connection: socket.socket, path: str, most: int) -> bytes:
    connection.sendall(_REQUEST.format(path=path).encode())
    answer = b""
    while len(answer) < most and (some := connection.recv(65_536)):
        answer += some
    return answer
