"""A sentry process of one test."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sentry.bundle import TrustBundle
from sentry.client import METHOD, SvidClient, TokenSource, client_context, join_token, parse_address
from sentry.grpc_call import UnaryCall
from sentry.local import LocalPaths
from sentry.spiffe import SpiffeId, sentry_id

SENTRY_ID = sentry_id("localhost", "default")
CART = SpiffeId("public", "default", "cart")


def command(*flags: str) -> list[str]:
    return [sys.executable, "-I", "-m", "sentry", *flags]


@dataclass(frozen=True, kw_only=True)
class Running:
    """A sentry that answers, its runtime root and what it said of itself."""

    root: Path
    pid: int
    addresses: tuple[str, ...]
    log: Path
    metrics: str = ""

    @property
    def store(self) -> Path:
        return self.root / "sentry" / "authority"

    @property
    def anchors(self) -> TrustBundle:
        return TrustBundle.parse((self.store / "ca.crt").read_bytes())

    @property
    def audit(self) -> list[dict[str, object]]:
        lines = (self.root / "sentry" / "audit.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def client(self, tokens: TokenSource | None = None, *, anchors: TrustBundle | None = None) -> SvidClient:
        return SvidClient(
            self.addresses[0],
            anchors or self.anchors,
            SENTRY_ID,
            tokens or join_token(self.root, SENTRY_ID),
        )


@contextmanager
def running_sentry(root: Path, *flags: str, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start a sentry on a free loopback port (or as `flags` say) and end it afterwards."""
    (root / "sentry").mkdir(mode=0o700, exist_ok=True)
    ready, said = os.pipe()
    where = () if "--unix-socket" in flags else ("--listen-address", "127.0.0.1", "--port", "0")
    healthz = () if "--healthz-port" in flags else ("--healthz-port", "0")
    arguments = command("--runtime-path", str(root), "--ready-fd", str(said), *where, *healthz, *flags)
    log = root / "test.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments, pass_fds=(said,), stdout=output, stderr=output, env=dict(env or {})
        )
    os.close(said)
    try:
        readable, _, _ = select.select([ready], [], [], 20)
        with os.fdopen(ready, "rb") as pipe:
            line = pipe.readline() if readable else b""
        assert line, log.read_text()
        facts = json.loads(line)
        yield Running(
            root=root,
            pid=process.pid,
            addresses=tuple(facts["addresses"]),
            log=log,
            metrics=facts["metrics"],
        )
    finally:
        process.terminate()
        process.wait(20)


def end_local(root: Path) -> None:
    """End the local sentry of `root`, if it runs, by its own word on its pid."""
    paths = LocalPaths(root=root)
    if paths.pid.exists() and is_alive(pid := int(paths.pid.read_text())):
        os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        return "sentry" in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def raw_call(
    sentry: Running, message: bytes, path: str = METHOD, *, anchors: TrustBundle | None = None
) -> bytes:
    """One call past our client's own checks. Raises CallError."""
    host, port = parse_address(sentry.addresses[0])
    context = client_context(anchors or sentry.anchors)
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
        try:
            call = UnaryCall(authority="sentry", path=path, message=message, timeout_ms=5000)
            writer.write(call.start())
            while not call.is_done:
                writer.write(call.receive(await reader.read(65536)))
            return call.result()
        finally:
            writer.transport.abort()
