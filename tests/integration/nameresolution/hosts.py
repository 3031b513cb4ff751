"""Hosts for tests: network namespaces joined by veth pairs, and nodes that run in them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[3]
Words = dict[str, Any]


def ip(*words: str) -> None:
    """Run one `ip` command."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=60)


def why_no_namespaces() -> str:
    """Why this machine cannot make network namespaces, "" if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the ip command (iproute2)"
    name = f"pt-{uuid.uuid4().hex[:8]}"
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"the kernel refuses network namespaces: {error.stderr.strip()}"
    ip("netns", "del", name)
    return ""


@contextmanager
def host(*, loopback: bool = True) -> Iterator[str]:
    """A network namespace with loopback only; its name."""
    name = f"pt-{uuid.uuid4().hex[:8]}"
    ip("netns", "add", name)
    try:
        if loopback:
            ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("netns", "del", name)


def join(one: str, other: str, *, network: str = "10.77.0") -> None:
    """Join two hosts by a cable, as .1 and .2 of a network, each interface called `wire`."""
    ends = [f"pt{uuid.uuid4().hex[:8]}" for _ in range(2)]
    ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
    for number, (name, end) in enumerate(zip((one, other), ends, strict=True), 1):
        ip("link", "set", end, "netns", name, "name", "wire")
        ip("-n", name, "addr", "add", f"{network}.{number}/24", "dev", "wire")
        ip("-n", name, "link", "set", "wire", "up")


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two hosts joined by a cable: 10.77.0.1 and 10.77.0.2."""
    with ExitStack() as stack:
        one, other = stack.enter_context(host()), stack.enter_context(host())
        join(one, other)
        yield one, other


@dataclass
class Node:
    """A process of `node.py`."""

    process: asyncio.subprocess.Process

    async def send(self, line: str) -> None:
        """Give it one line to obey."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def expect(self, is_it: Callable[[Words], bool], timeout_s: float = 45.0) -> Words:
        """The next words of the node that fit; all before are dropped."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            while line := await self.process.stdout.readline():
                words: Words = json.loads(line)
                if is_it(words):
                    return words
        raise EOFError("the node has ended")

    async def do(self, line: str) -> None:
        """Give it one line and wait until it is done."""
        await self.send(line)
        await self.expect(lambda words: words.get("done") == line.split(maxsplit=1)[0])

    async def look_up(self, app_id: str) -> Words:
        """Want a name and wait for the set that is pushed."""
        await self.send(f"want {app_id}")
        return await self.expect(lambda words: words.get("name") == app_id)

    async def find(self, app_id: str, *endpoints: str) -> Words:
        """Want a name and wait until exactly these are pushed, which may not be what is pushed first."""
        await self.send(f"want {app_id}")
        return await self.expect_endpoints(*endpoints)

    async def expect_endpoints(self, *endpoints: str) -> Words:
        """Wait until exactly these are pushed."""
        return await self.expect(lambda words: sorted(words.get("endpoints", ["?"])) == sorted(endpoints))


@asynccontextmanager
async def node(
    namespace: str | None, root: Path, component: str = "", configuration: dict[str, Any] | None = None
) -> AsyncIterator[Node]:
    """A node in a namespace, or on this host, killed at the end if it has not ended. No component: the chain."""
    process = await asyncio.create_subprocess_exec(
        *(("ip", "netns", "exec", namespace) if namespace else ()),
        *(sys.executable, "-m", "tests.integration.nameresolution.node"),
        *(str(root), component, json.dumps(configuration)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    started = Node(process)
    try:
        await started.expect(lambda words: words.get("done") == "start")
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        assert process.stdin is not None
        process.stdin.close()
