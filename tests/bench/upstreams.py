"""Starts the apps at the end of every path, and writes what h2load posts to them."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cases import GRPC_MESSAGE, Case
from tests.support.processes import Processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstreams:
    """Ports of the running upstreams."""

    grpc_port: int
    http_port: int


async def start_upstreams(processes: Processes) -> Upstreams:
    """Start `tests.bench.canned`; returns once it listens."""
    process = await asyncio.to_thread(processes.start_python, "tests.bench.canned", name="upstreams")
    ports = json.loads((await process.line(r'^\{"grpc": ')).string)
    return Upstreams(grpc_port=ports["grpc"], http_port=ports["http1"])


def write_message(folder: Path, case: Case) -> Path:
    """Write what h2load posts: the framed request, or a body."""
    path = folder / f"message-{case.size}.bin"
    if not path.exists():
        path.write_bytes(bytes(case.size) if case.size else GRPC_MESSAGE)
    return path
