"""A mesh of real processes: one sentry, as many sidecars as a test asks for, in a runtime root of their own.

The root lies in a short folder of its own under the system's temporary one (unix socket paths end at 108 bytes), so that meshes never meet.
Those of one test after the other may share a sentry; of those that run at the same time only one, as sidecars with the same trust anchors
find each other.
"""

import asyncio
import json
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.support.apps import App, start_grpc_app, start_http_app
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.processes import Process, Processes, read_line
from tests.support.readiness import HEALTH, OUTBOUND_HEALTH, wait_status

READY_S: Final = 60.0
DAPR_APP_ID: Final = "dapr-app-id"
_SENTRY: Final = ("--healthz-port", "0", "--trust-domain", "localhost")
_CONTROL_PLANE: Final = {"NAMESPACE": "default"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """A running sidecar. A port is 0 where it has none (the peer port never is)."""

    app_id: str
    http_port: int
    grpc_port: int
    peer_port: int
    metrics_port: int
    admin_socket: str
    process: Process = field(repr=False)

    async def admin(self, target: str, *, method: str = "GET", timeout_s: float = 30.0) -> Response:
        """Ask the admin socket; `json.loads` the body of a 200."""
        return await request(0, method, target, unix=self.admin_socket, timeout_s=timeout_s)

    async def status(self) -> dict[str, object]:
        """What `/status` says."""
        content: dict[str, object] = json.loads((await self.admin("/status")).body)
        return content

    async def wait_app(self) -> None:
        """Return once it has seen that its app takes calls, which it may see after it can call out. Raises NotReadyError."""
        await asyncio.to_thread(wait_status, self.http_port, HEALTH, 204, self.process)

    async def end(self) -> int:
        """Shut it down as `postern stop` does, by SIGTERM; its exit code."""
        return await self.process.end(timeout_s=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSentry:
    """A sentry of no mesh, which asks for no proof: how sidecars are told of it."""

    flags: tuple[str, ...]
    env: Mapping[str, str]


@contextmanager
def shared_sentry() -> Iterator[SharedSentry]:
    """Run one; raises LeftoverError at its end."""
    root = Path(tempfile.mkdtemp(prefix="psentry-"))
    address, store = root / "sentry.sock", root / "authority"
    where = ("--unix-socket", str(address), "--issuer-credentials", str(store), "--insecure-validator")
    try:
        with Processes() as processes:
            _start_ready(
                processes, "sentry", (*where, *_SENTRY), name="shared sentry", env=_CONTROL_PLANE, cwd=root
            )
            flags = ("--sentry-address", f"unix:{address}")
            yield SharedSentry(
                flags=flags, env={"DAPR_TRUST_ANCHORS": (store / "ca.crt").read_text(encoding="ascii")}
            )
    finally:
        shutil.rmtree(root, ignore_errors=True)


class Mesh:
    """Starts a sentry with the first sidecar, unless it is given a shared one; ends all at its own end and proves that nothing is left.

    Use as `async with`.
    """

    def __init__(self, files: Path, *, with_sentry: bool = True, shared: SharedSentry | None = None) -> None:
        self.files = files
        self.root = Path(tempfile.mkdtemp(prefix="pmesh-"))
        self.processes = Processes()
        self.sentry: Process | None = None
        self._with_sentry = with_sentry
        self._shared = shared
        self._starting_sentry = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End every process and remove the runtime root. Raises LeftoverError."""
        try:
            await self.processes.aclose()
        finally:
            shutil.rmtree(self.root, ignore_errors=True)

    async def http_app(self, name: str = "app", *flags: str) -> App:
        """Start an HTTP app under test."""
        return await start_http_app(self.processes, name, *flags)

    async def grpc_app(self, name: str = "app", *flags: str) -> App:
        """Start a gRPC app under test."""
        return await start_grpc_app(self.processes, name, *flags)

    def write(self, name: str, text: str) -> Path:
        """Write a file (a Configuration, a Resiliency) beside the mesh."""
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    async def start_sentry(self, *flags: str) -> Process:
        """Start the mesh's own sentry on the socket in the runtime root, if it doesn't run yet; `flags` are added to its own."""
        async with self._starting_sentry:
            if self.sentry is None or not self.sentry.is_running:
                folder = self.root / "sentry"
                folder.mkdir(mode=0o700, exist_ok=True)
                where = ("--runtime-path", str(self.root), "--unix-socket", str(folder / "sentry.sock"))
                args = (*where, *_SENTRY, *flags)
                self.sentry, _ = await self._start_ready("sentry", args, name="sentry", env=_CONTROL_PLANE)
                self._shared = None
        return self.sentry

    async def sidecar(
        self,
        app_id: str,
        *,
        app: App | None = None,
        app_port: int | None = None,
        app_protocol: str | None = None,
        flags: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        until_ready: bool = True,
        with_sentry: bool = True,
    ) -> Sidecar:
        """Start a sidecar for `app` (or an app at `app_port`, or none); returns once it can call out.

        `until_ready=False` returns once its listeners are bound: it may have no identity yet. `with_sentry=False`
        leaves a sentry that was ended as it is.
        """
        shared, told = self._shared, dict(env or {})
        args = self.arguments(app_id, app=app, app_port=app_port, app_protocol=app_protocol, flags=flags)
        if "--insecure-plaintext" in flags or not (self._with_sentry and with_sentry):
            pass
        elif shared is not None:
            args, told = (*shared.flags, *args), {**shared.env, **told}
        else:
            await self.start_sentry()
        process, ready = await self._start_ready("proxy", args, name=f"sidecar {app_id}", env=told)
        ports = ready["ports"]
        if until_ready and ports.get("http"):
            await asyncio.to_thread(wait_status, ports["http"], OUTBOUND_HEALTH, 204, process)
        return Sidecar(
            app_id=app_id,
            http_port=ports.get("http") or 0,
            grpc_port=ports.get("grpc") or 0,
            peer_port=ports.get("peer") or 0,
            metrics_port=ports.get("metrics") or 0,
            admin_socket=ready["adminSocket"],
            process=process,
        )

    def arguments(
        self,
        app_id: str,
        *,
        app: App | None = None,
        app_port: int | None = None,
        app_protocol: str | None = None,
        flags: tuple[str, ...] = (),
    ) -> tuple[str, ...]:
        """The flags of a sidecar of this mesh; those given come last and so win."""
        port = app.port if app else app_port
        protocol = app_protocol or (app.protocol if app else "http")
        to_app = ("--app-port", str(port), "--app-protocol", protocol) if port else ()
        ports = (
            "--dapr-http-port",
            "0",
            "--dapr-grpc-port",
            "0",
            "--dapr-internal-grpc-port",
            "0",
            "--metrics-port",
            "0",
        )
        own = ("--app-id", app_id, "--runtime-path", str(self.root), "--profile", "dev", "--drain", "0s")
        patient = ("--connect-timeout", "30s", "--keepalive-timeout", "60s")  # others may have the processor
        return (*own, *ports, *patient, *to_app, *flags)

    async def _start_ready(
        self, module: str, args: tuple[str, ...], *, name: str, env: Mapping[str, str]
    ) -> tuple[Process, dict[str, Any]]:
        return await asyncio.to_thread(
            _start_ready, self.processes, module, args, name=name, env=env, cwd=self.files
        )


def _start_ready(
    processes: Processes, module: str, args: tuple[str, ...], *, name: str, env: Mapping[str, str], cwd: Path
) -> tuple[Process, dict[str, Any]]:
    """Start a module and block until it says that it is ready: the process, and what it said."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-I", "-m", module, *args, "--ready-fd", str(theirs.fileno())]
        process = processes.start(command, name=name, env=env, cwd=cwd, pass_fds=(theirs.fileno(),))
        theirs.close()
        line = read_line(ours.fileno(), process, waited_for="ready line", timeout_s=READY_S)
    return process, json.loads(line)
