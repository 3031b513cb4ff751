"""The bare h2 relay as a target: two hops, mutual TLS, gRPC only."""

import asyncio
import json
from pathlib import Path
from typing import Final

from tests.bench.certificates import Identity, write_identities
from tests.bench.targets import Target
from tests.bench.upstreams import Upstreams
from tests.support.processes import Process, Processes

NAME: Final = "bare-h2"


async def start(processes: Processes, folder: Path, upstreams: Upstreams) -> Target:
    """Start the callee's relay, then the caller's in front of it."""
    relay_folder = folder / NAME
    relay_folder.mkdir()
    caller, callee = write_identities(relay_folder)
    behind, port = await _start(processes, upstreams.grpc_port, ("--listen-tls", *_files(callee)))
    front, entry = await _start(processes, port, ("--dial-tls", *_files(caller)))
    return Target(name=NAME, ports={"grpc": entry}, proxies=lambda _: (front, behind))


async def _start(processes: Processes, upstream: int, tls: tuple[str, ...]) -> tuple[Process, int]:
    process = await asyncio.to_thread(
        processes.start_python, "tests.bench.bare_h2", "--upstream", str(upstream), *tls, name=NAME
    )
    return process, int(json.loads((await process.line(r'^\{"port": ')).string)["port"])


def _files(identity: Identity) -> tuple[str, str, str]:
    return str(identity.chain), str(identity.key), str(identity.roots)
