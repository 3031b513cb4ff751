"""What must be right on this host before anything runs: versions, the runtime root, disk, ports, clock."""

import asyncio
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from msgspec import Struct

from nameresolution.errors import RuntimeRootError
from nameresolution.host_registry import Entry
from nameresolution.runtime_root import check as check_root
from proxy.cli.checks.findings import Finding, Probe, blocking, fail, ok, warn
from proxy.control.app_port import holder, listeners
from proxy.settings.version import VERSION, has_native

LEAST_PYTHON: Final = (3, 11)
_LOAD_S: Final = 10.0
_LOAD: Final = """from proxy.engine.native.seam import check
try:
    check()
except ImportError as error:
    raise SystemExit(str(error))
"""
_STALE: Final = ": rebuild it "  # what `proxy.engine.native.seam` says of such an engine ends in this and how
_MIB: Final = 1 << 20
LEAST_BYTES, ENOUGH_BYTES = (
    16 * _MIB,
    256 * _MIB,
)  # keys and registry; five rotated logs of 10 MiB each for a few apps
_SOCKET_BYTES: Final = 107  # of sun_path, unix(7)
_LONGEST_SOCKET: Final = "sentry/sentry.sock"


class UsualPort(Struct, frozen=True):
    """A port that is taken when free. is_own: `postern run` takes it; otherwise programs started by hand, and daprds."""

    number: int
    use: str
    is_own: bool = True


PORTS: Final = (
    UsualPort(3500, "the HTTP API"),
    UsualPort(50001, "the gRPC API, or a sentry started by hand"),
    UsualPort(9090, "metrics"),
    UsualPort(50002, "peers of a daprd", is_own=False),
    UsualPort(8080, "the health of a sentry started by hand", is_own=False),
)


def host_probes(root: Path, running: Sequence[Entry]) -> tuple[Probe, ...]:
    """Versions, runtime root, disk and ports."""

    async def python() -> Sequence[Finding]:
        return (check_python(sys.version_info[:3]),)

    return (
        Probe(id="python", what="Python's version", run=python),
        Probe(id="engine", what="the native engine", run=_engine, within_s=_LOAD_S),
        Probe(id="runtime-root", what=str(root), run=blocking(lambda: check_runtime_root(root))),
        Probe(id="disk", what=f"the disk of {root}", run=blocking(lambda: (check_disk(root),))),
        Probe(id="port", what="ports", run=blocking(lambda: check_ports(running))),
    )


def check_python(version: tuple[int, int, int]) -> Finding:
    """The interpreter that runs this command, and so all that it starts."""
    text = f"postern {VERSION} on Python {'.'.join(map(str, version))}"
    if version[:2] >= LEAST_PYTHON:
        return ok("python", text)
    return fail("python", f"{text}, which is older than {'.'.join(map(str, LEAST_PYTHON))}")


async def _engine() -> Sequence[Finding]:
    """In a process of its own: a library for another machine may end the process that loads it."""
    if not has_native():
        return (warn("engine", "the native engine is not installed: the portable one carries the calls"),)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-c",
        _LOAD,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode == 0:
        return (ok("engine", "the native engine loads"),)
    why = said.decode("utf-8", "replace").strip().rpartition("\n")[2] or f"ended with {process.returncode}"
    return (engine_unusable(why),)


def engine_unusable(why: str) -> Finding:
    """Of an engine that did not load. why: what that said; one of other sources is to be rebuilt, any other to be installed again."""
    reason, is_stale, remedy = why.partition(_STALE)
    text = f"the portable engine carries the calls, as the native one can't be used: {reason}"
    return warn("engine", text, f"rebuild it {remedy}" if is_stale else "")


def check_runtime_root(root: Path) -> tuple[Finding, ...]:
    """Whether it is private and can be written, and its sockets' names are short enough; one that is missing can be made."""
    longest = len(os.fsencode(root / _LONGEST_SOCKET))
    if longest > _SOCKET_BYTES:
        text = (
            f"{root / _LONGEST_SOCKET} has {longest} bytes, {longest - _SOCKET_BYTES} too many for a socket"
        )
        return (fail("socket-path", text),)
    if not os.path.lexists(root):
        return (_check_parent(root),)
    try:
        check_root(root, root.stat(), os.geteuid())
    except RuntimeRootError as error:
        return (fail("runtime-root", f"{error.path}: {error.problem}", error.fix),)
    if not os.access(root, os.W_OK | os.X_OK):
        return (fail("runtime-root", f"{root} can't be written", "choose another with --runtime-path"),)
    return (ok("runtime-root", f"runtime root {root} is private"),)


def _check_parent(root: Path) -> Finding:
    parent = next(folder for folder in root.parents if folder.exists())
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return ok("runtime-root", f"runtime root {root} is not there yet, and can be made")
    return fail(
        "runtime-root",
        f"runtime root {root} is not there and can't be made in {parent}",
        "choose another with POSTERN_HOME or --runtime-path",
    )


def check_disk(root: Path) -> Finding:
    """Room on the file system that holds the root, for this user."""
    folder = next(each for each in (root, *root.parents) if each.exists())
    facts = os.statvfs(folder)
    free = facts.f_bavail * facts.f_frsize
    text = f"{free // _MIB} MiB are free on the disk of {folder}"
    if facts.f_flag & os.ST_RDONLY:
        return fail("disk", f"the disk of {folder} is mounted read-only", "choose another runtime root")
    if free < LEAST_BYTES:
        return fail("disk", f"only {text}")
    return warn("disk", f"only {text}") if free < ENOUGH_BYTES else ok("disk", text)


def check_ports(running: Sequence[Entry], ports: Sequence[UsualPort] = PORTS) -> tuple[Finding, ...]:
    """Which of the usual ports are free, in one line, and a line for each that somebody holds."""
    free: list[str] = []
    held: list[Finding] = []
    for port in ports:
        by = _holder(port.number, running)
        if by is None:
            free.append(str(port.number))
        elif by.startswith("the sidecar of ") or not port.is_own:
            held.append(ok("port", f"port {port.number} ({port.use}) is held by {by}"))
        else:
            held.append(warn("port", f"port {port.number} ({port.use}) is held by {by}"))
    if not free:
        return tuple(held)
    many = f"ports {_listed(free)} are" if len(free) > 1 else f"port {free[0]} is"
    return (ok("port", f"{many} free"), *held)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _holder(port: int, running: Sequence[Entry]) -> str | None:
    """Who listens on a port of this machine, None where nobody does."""
    for entry in running:
        if port in (entry.http_port, entry.grpc_port, entry.metrics_port, entry.peer_port):
            return f"the sidecar of {entry.app_id}"
    found = listeners("localhost", port)
    if found is None:
        return None if _can_bind(port) else "another program"
    return str(holder(found[0], None)) if found else None


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Dated(Struct, frozen=True, kw_only=True):
    """A certificate's dates, and whose it is."""

    whose: str
    not_before: datetime
    not_after: datetime


def check_clock(
    now: datetime, dated: Sequence[Dated], turned_back: Sequence[tuple[str, float]]
) -> tuple[Finding, ...]:
    """turned_back: sidecars by whose unturnable clocks more time has passed than by the wall's, with the seconds."""
    found = [*_behind(now, dated), *_turned(turned_back)]
    against = (
        f"; by it the {_listed([each.whose for each in dated])} {'is' if len(dated) == 1 else 'are'} valid"
        if dated
        else ""
    )
    return tuple(found) or (ok("clock", f"the clock says {now:%Y-%m-%d %H:%M:%S} UTC{against}"),)


def _behind(now: datetime, dated: Sequence[Dated]) -> Iterator[Finding]:
    for each in dated:
        early = each.not_before - now
        if early > timedelta(0):
            text = f"the clock is {duration(early.total_seconds())} or more behind: the certificate of {each.whose} is not valid yet"
            yield fail("clock", text)
        elif each.not_after <= now:
            text = f"by this clock the certificate of {each.whose} ended {duration((now - each.not_after).total_seconds())} ago"
            yield fail(
                "clock",
                text,
                "if the clock is right, see the checks of the authority; else set it (timedatectl, chronyc)",
            )


def _turned(turned_back: Sequence[tuple[str, float]]) -> Iterator[Finding]:
    for app, seconds in turned_back:
        yield warn(
            "clock", f"the clock was turned back by {duration(seconds)} while the sidecar of {app} ran"
        )


def duration(seconds: float) -> str:
    """Two units at most: `41m`, `3h 20m`, `12d`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3_600:
        return f"{whole // 60}m"
    if whole < 86_400:
        return f"{whole // 3_600}h {whole % 3_600 // 60}m"
    return f"{whole // 86_400}d"


def utc_now() -> datetime:
    """By this host's clock."""
    return datetime.now(UTC)
