"""One app and its sidecar, from start to end, in order.

The sidecar starts first and reports which ports it took; then the app starts. At the end the sidecar drains first, then the app is told to
end, and the sidecar's outbound side stays open until it has.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from enum import Enum

from msgspec import Struct

from proxy.cli.children import Child, Guard
from proxy.cli.errors import CliError
from proxy.cli.launch import (
    AppSpec,
    Ready,
    app_command,
    app_environment,
    sidecar_command,
    sidecar_environment,
)
from proxy.cli.output import Console, LogFile, Source

READY_S = 60.0  # a sidecar binds its ports in well under a second; it gives up reading its policies after 30
APP_END_S = 5.0  # between TERM and KILL; the app's calls have drained by then, and a person may be waiting
SIDECAR_END_S = 10.0
TELL_S = 5.0  # for one fact of a run; a sidecar on a busy machine may take seconds
TELL_PAUSE_S = 1.0
MAX_TOLD_BYTES = 4096
_LINE_BYTES = 64 * 1024


class Why(Enum):
    """What ended a unit."""

    ASKED = "asked"  # we were told to stop
    APP = "app"  # the app ended by itself
    OUTSIDE = "outside"  # somebody told the sidecar to stop
    SIDECAR = "sidecar"  # the sidecar died
    START = "start"  # it never came up


class Ended(Struct, frozen=True, kw_only=True):
    """How a unit ended: the exit code that it contributes."""

    why: Why
    code: int
    message: str

    @property
    def failed(self) -> bool:
        """Whether the run as a whole must count this as a failure."""
        return self.code != 0 and self.why is not Why.ASKED


class Unit:
    """Runs one AppSpec once. Owns both children, the socket to the sidecar and the log files.

    `_changed` is set by whatever may end it; `_drained` by the sidecar's word. `ready` is set once the app has started.
    """

    def __init__(
        self, spec: AppSpec, *, console: Console, guard: Guard, environment: Mapping[str, str]
    ) -> None:
        self.spec = spec
        self.ready: Ready | None = None
        self.started = asyncio.Event()
        self._console = console
        self._guard = guard
        self._environment = environment
        self._sidecar: Child | None = None
        self._app: Child | None = None
        self._link: asyncio.StreamWriter | None = None
        self._asked = False
        self._drained = asyncio.Event()
        self._changed = asyncio.Event()
        self._logs: dict[str, LogFile] = {}

    def stop(self) -> None:
        """Ask for the orderly end."""
        self._asked = True
        self._changed.set()

    @property
    def is_asked(self) -> bool:
        """Whether `stop` was called."""
        return self._asked

    def reload(self) -> None:
        """Make the sidecar reload its policies; one that is just starting reads the newest anyway."""
        if self._sidecar is not None and self.ready is not None:
            self._sidecar.send(signal.SIGHUP)

    def kill(self) -> None:
        """End everything now."""
        self.stop()
        self._drained.set()
        for child in (self._app, self._sidecar):
            if child is not None:
                child.send_group(signal.SIGKILL)

    async def run(self) -> Ended:
        """Start, wait for the end, end what is left; never raises for what children do."""
        try:
            async with asyncio.TaskGroup() as tasks:
                try:
                    ended = await self._start_and_wait(tasks)
                except CliError as error:
                    self._drained.set()  # nobody calls what never came up
                    ended = Ended(why=Why.START, code=error.code, message=f"{self.spec.app_id}: {error}")
                await self._end()
                return ended
        finally:
            self._release()

    async def _start_and_wait(self, tasks: asyncio.TaskGroup) -> Ended:
        self.ready = ready = await self._start_sidecar(tasks)
        if not self._changed.is_set():
            await self._start_app(tasks, ready)
        self.started.set()
        await self._changed.wait()
        return self._judge()

    def _judge(self) -> Ended:
        """What happened, once something did; the app's own end counts before the sidecar's."""
        name = self.spec.app_id
        app, sidecar = self._app, self._sidecar
        if self._asked:
            return Ended(why=Why.ASKED, code=0, message=f"{name}: stopped")
        if app is not None and app.code is not None:
            how = "ended" if app.code == 0 else f"failed with exit code {app.code}{killed_by(app.code)}"
            return Ended(why=Why.APP, code=app.code, message=f"{name}: app {how}")
        if sidecar is not None and sidecar.code:
            message = f"{name}: sidecar died with exit code {sidecar.code}{killed_by(sidecar.code)}; its lines above say why"
            return Ended(why=Why.SIDECAR, code=1, message=message)
        return Ended(why=Why.OUTSIDE, code=0, message=f"{name}: stopped from outside")

    async def _start_sidecar(self, tasks: asyncio.TaskGroup) -> Ready:
        ours, theirs = socket.socketpair()
        with theirs:
            reader, self._link = await asyncio.open_unix_connection(sock=ours, limit=_LINE_BYTES)
            command = sidecar_command(self.spec, ready_fd=theirs.fileno(), cli_pid=os.getpid())
            self._sidecar = Child.start(
                command,
                guard=self._guard,
                env=sidecar_environment(self.spec, self._environment),
                folder=self.spec.folder,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        sink = self._sink("sidecar")
        tasks.create_task(self._sidecar.watch(sink, sink, self._sidecar_ended))
        ready = parse_ready(await self._first_line(reader))
        tasks.create_task(self._hear(reader))
        return ready

    def _sidecar_ended(self) -> None:
        self._drained.set()
        self._changed.set()

    async def _first_line(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(READY_S):
                line = await reader.readline()
        except TimeoutError:
            raise CliError(f"the sidecar was not ready within {READY_S:.0f} s") from None
        except ValueError:
            raise CliError(f"the sidecar's first line is longer than {_LINE_BYTES} bytes") from None
        except ConnectionError:
            line = b""
        if line:
            return line
        if self._sidecar is not None:
            await self._sidecar.wait(APP_END_S)
        code = self._sidecar.code if self._sidecar is not None else None
        raise CliError(f"the sidecar ended before it was ready, exit code {code}; its lines above say why")

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        """The sidecar's later lines; `drained` without our asking means that somebody else stops it."""
        with contextlib.suppress(ConnectionError, ValueError):
            while line := await reader.readline():
                if b'"drained"' in line:
                    self._drained.set()
                    self._changed.set()

    async def _start_app(self, tasks: asyncio.TaskGroup, ready: Ready) -> None:
        spec = self.spec
        if not spec.command:
            self._console.say("ok", f"{spec.app_id}: {describe(ready)}; {sidecar_alone(spec)}")
            tasks.create_task(self._tell_metadata(ready.admin_socket, metadata(spec, None)))
            return
        self._app = Child.start(
            app_command(spec, ready),
            guard=self._guard,
            env=app_environment(spec, ready, self._environment),
            folder=spec.folder,
            stdin=_stdin(),
        )
        tasks.create_task(self._app.watch(self._sink("app"), self._sink("app-error"), self._changed.set))
        self._console.say("ok", f"{spec.app_id}: {describe(ready)}; app is process {self._app.pid}")
        tasks.create_task(self._tell_metadata(ready.admin_socket, metadata(spec, self._app.pid)))

    async def _tell_metadata(self, admin_socket: str, told: Mapping[str, str]) -> None:
        """Let the sidecar know for `list`, again and again until it has heard all or the end comes."""
        left = dict(told)
        while admin_socket and left and not self._changed.is_set():
            await tell_metadata(admin_socket, left)
            if left:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TELL_PAUSE_S):
                        await self._changed.wait()

    async def _end(self) -> None:
        """The sidecar drains, the app ends, the sidecar goes."""
        sidecar, app = self._sidecar, self._app
        if sidecar is None:
            return
        if app is None or app.ended.is_set():
            self._say_app_ended()
        sidecar.send(signal.SIGTERM)
        await self._wait_drained()
        if app is not None:
            await app.end(APP_END_S)
        self._say_app_ended()
        if not await sidecar.wait(SIDECAR_END_S):
            self._console.say("failed", f"{self.spec.app_id}: the sidecar did not end in time and was killed")
        sidecar.kill()
        await sidecar.wait(APP_END_S)
        self._close_link()

    async def _wait_drained(self) -> None:
        settings = self.spec.settings
        within_s = settings.block_shutdown_s + settings.drain_s + (settings.graceful_shutdown_s or 30.0) + 2.0
        try:
            async with asyncio.timeout(within_s):
                await self._drained.wait()
        except TimeoutError:
            self._console.say(
                "info", f"{self.spec.app_id}: the sidecar still has calls after {within_s:.0f} s"
            )

    def _say_app_ended(self) -> None:
        if self._link is not None and not self._link.is_closing():
            with contextlib.suppress(OSError):
                self._link.write_eof()

    def _sink(self, source: Source) -> Callable[[bytes], None]:
        """Where the lines of one source go."""
        spec = self.spec
        path = spec.sidecar_log if source == "sidecar" else spec.app_log
        shown = spec.sidecar_on_console if source == "sidecar" else spec.app_on_console
        if path is not None and str(path) not in self._logs:
            self._logs[str(path)] = LogFile(path)
        log = self._logs.get(str(path)) if path is not None else None

        def sink(line: bytes) -> None:
            if shown:
                self._console.line(spec.app_id, source, line)
            if log is not None and not log.line(line):
                self._console.say(
                    "failed",
                    f"{spec.app_id}: log file {log.path}: {log.problem}; its lines are lost meanwhile",
                )

        return sink

    def _close_link(self) -> None:
        if self._link is not None:
            self._link.close()

    def _release(self) -> None:
        for child in (self._app, self._sidecar):
            if child is not None:
                child.kill()
        self._close_link()
        for log in self._logs.values():
            log.close()


def _stdin() -> int:
    """A terminal stays ours: a background process that reads from it would be stopped. A pipe is handed to the app."""
    return subprocess.DEVNULL if sys.stdin is None or sys.stdin.isatty() else sys.stdin.fileno()


def parse_ready(line: bytes) -> Ready:
    """The sidecar's first line. Raises: CliError if it is not one."""
    try:
        facts = json.loads(line)
        ports = facts["ports"]
        upstreams = {str(app): int(port) for app, port in (facts.get("upstreams") or {}).items()}
        return Ready(
            http=int(ports.get("http") or 0),
            grpc=int(ports.get("grpc") or 0),
            peer=int(ports.get("peer") or 0),
            metrics=int(ports.get("metrics") or 0),
            upstreams=upstreams,
            admin_socket=str(facts.get("adminSocket") or ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CliError(f"the sidecar's first line is not as expected: {line[:200]!r}") from error


def describe(ready: Ready) -> str:
    """The sidecar's ports, for people."""
    shown = (("HTTP", ready.http), ("gRPC", ready.grpc), ("metrics", ready.metrics), ("peers", ready.peer))
    listed = [f"{name} {port}" for name, port in shown if port]
    listed += [f"{app} at localhost:{port}" for app, port in ready.upstreams.items()]
    return "sidecar on " + ", ".join(listed)


def sidecar_alone(spec: AppSpec) -> str:
    """What to say of a unit without a command."""
    settings = spec.settings
    if settings.app_port is None:
        return "no app beside it"
    return f"start the app yourself, on {settings.app_channel_address}:{settings.app_port}"


def killed_by(code: int) -> str:
    """The signal behind an exit code of 128+n, in brackets; empty for other codes."""
    try:
        return f" ({signal.Signals(code - 128).name})"
    except ValueError:
        return ""


def metadata(spec: AppSpec, app_pid: int | None) -> dict[str, str]:
    """What `list` shows of a run, under the names that Dapr's users know; empty values are left out."""
    run = spec.settings.run
    told = {
        "cliPID": str(os.getpid()),
        "appPID": "" if app_pid is None else str(app_pid),
        "appCommand": " ".join(spec.command),
        "runTemplatePath": run.run_template,
        "runTemplateName": run.run_template_name,
        "appLogPath": str(spec.app_log or ""),
        "daprdLogPath": str(spec.sidecar_log or ""),
    }
    return {key: text for key, text in told.items() if text}


async def tell_metadata(admin_socket: str, told: dict[str, str]) -> None:
    """Tell the sidecar of a run; what it has taken leaves `told`, and what it did not take in time stays."""
    from proxy.wire.http_client import request  # noqa: PLC0415 - after the app's start, where it delays nothing

    with contextlib.suppress(OSError, TimeoutError, ValueError):
        for key, text in tuple(told.items()):
            target = f"/metadata/{key}"
            body = text.encode()[:MAX_TOLD_BYTES]
            await request(f"unix:{admin_socket}", "PUT", target, body=body, timeout_s=TELL_S)
            del told[key]
