"""`postern wait`: blocks until a sidecar is ready, for scripts and start-up hooks. No framework: it runs before every app."""

import sys
import time
from collections.abc import Mapping, Sequence

from msgspec import Struct

from proxy.api.readiness import WAIT_S, wait_all_ready, wait_ready
from proxy.cli.errors import FAILED, MISUSED, UsageError
from telemetry.durations import parse_duration_s
from telemetry.printable import printable

USAGE = "usage: postern wait [APP-ID] [--port PORT] [--timeout 60s] [--runtime-path DIR]\n"
ABOUT = """
Waits until the sidecar of APP-ID and its app are ready, as `postern status` has it. Without an APP-ID, until the sidecar on --port,
$DAPR_HTTP_PORT or 3500 can call out: that is for the app itself, which it does not wait for.
Exit codes: 0 it is ready, 1 it was not in time, 2 used wrongly.
"""
_POLL_S = 0.1
FLAGS = {
    "--port": "port",
    "--dapr-http-port": "port",
    "--timeout": "timeout",
    "--runtime-path": "root",
    "-a": "app_id",
    "--app-id": "app_id",
}


class Waited(Struct, frozen=True, kw_only=True):
    """What to wait for: an app's sidecar, or the one on a port."""

    app_id: str | None
    port: int | None
    timeout_s: float
    root: str | None


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """The whole command; returns the exit code."""
    if {"--help", "-h"} & set(argv):
        sys.stdout.write(USAGE + ABOUT)
        return 0
    try:
        waited = read(argv)
    except UsageError as error:
        sys.stderr.write(f"postern wait: {printable(error)}\n{USAGE}")
        return MISUSED
    why = _wait_app(waited, env) if waited.app_id and not waited.port else _wait_port(waited, env)
    if why is None:
        return 0
    sys.stderr.write(f"postern wait: {printable(why)}\n")
    return FAILED


def _wait_port(waited: Waited, env: Mapping[str, str]) -> str | None:
    port = waited.port or _default_port(env)
    if wait_ready("127.0.0.1", port, waited.timeout_s):
        return None
    return f"port {port}: no ready sidecar within {waited.timeout_s:g} s; see `postern status`"


def _wait_app(waited: Waited, env: Mapping[str, str]) -> str | None:
    until = time.monotonic() + waited.timeout_s
    admin_socket = _admin_socket_of(waited, env, until)
    if admin_socket is None:
        return f"{waited.app_id}: no sidecar of it was started within {waited.timeout_s:g} s; `postern list` shows those that run"
    why = wait_all_ready(admin_socket, max(until - time.monotonic(), 0.0))
    return (
        None if why is None else f"{waited.app_id}: not ready within {waited.timeout_s:g} s: {'; '.join(why)}"
    )


def read(argv: Sequence[str]) -> Waited:
    """The arguments. Raises: UsageError."""
    texts: dict[str, str] = {}
    rest = iter(argv)
    for word in rest:
        name, equals, text = word.partition("=")
        if name in FLAGS:
            value = text if equals else next(rest, None)
            if value is None:
                raise UsageError(f"{name}: a value is missing")
            texts[FLAGS[name]] = value
        elif word.startswith("-") or "app_id" in texts:
            raise UsageError(f"unexpected argument {word!r}")
        else:
            texts["app_id"] = word
    port = texts.get("port")
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise UsageError(f"--port: {port!r}, expected a port number")
    return Waited(
        app_id=texts.get("app_id"),
        port=int(port) if port else None,
        timeout_s=_seconds(texts.get("timeout")),
        root=texts.get("root"),
    )


def _seconds(text: str | None) -> float:
    if text is None:
        return WAIT_S
    try:
        return parse_duration_s(f"{text}s" if text.replace(".", "", 1).isdigit() else text)
    except ValueError as error:
        raise UsageError(f"--timeout: {text!r}, expected {error}") from error


def _default_port(env: Mapping[str, str]) -> int:
    given = env.get("DAPR_HTTP_PORT", "")
    return int(given) if given.isascii() and given.isdigit() else 3500


def _admin_socket_of(waited: Waited, env: Mapping[str, str], until: float) -> str | None:
    """Poll the host's registry until the app's sidecar is in it."""
    from nameresolution.host_registry import HostRegistry  # noqa: PLC0415 - not needed when a port is given
    from nameresolution.runtime_root import choose  # noqa: PLC0415

    registry = HostRegistry(choose(waited.root, env))
    while True:
        sockets = [e.admin_socket for e in registry.entries() if e.app_id == waited.app_id and e.admin_socket]
        if sockets:
            return sockets[-1]
        if time.monotonic() + _POLL_S >= until:
            return None
        time.sleep(_POLL_S)
