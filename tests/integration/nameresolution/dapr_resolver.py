"""Dapr's own name resolvers, as processes: what postern's must find, and must be found by."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from tests.stock.programs import BUILT, Program

RESOLVERS: Final = Program(
    command=(str(BUILT / "resolvers"),),
    built=BUILT / "resolvers",
    tools=("go",),
    install="install Go 1.26 or newer",
)
_LIMIT_S: Final = 20.0


class DaprResolver:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def say(self, *first: str) -> list[str]:
        """The next line that begins with one of these words, cut there."""
        assert self.process.stdout is not None
        async with asyncio.timeout(_LIMIT_S):
            while line := (await self.process.stdout.readline()).decode():
                words = line.rstrip("\n").split(" ", 2)
                if words[0] in first:
                    return words
        raise EOFError("the resolver has ended")

    async def resolve(self, app_id: str) -> str:
        """The address that it found, or why it found none."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{app_id}\n".encode())
        await self.process.stdin.drain()
        return (await self.say("found", "none"))[2]

    async def close(self) -> None:
        """Have it take its registration back."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await self.say("closed", "failed") == ["closed"]
        await self.process.wait()


@asynccontextmanager
async def dapr_resolver(
    component: str, configuration: dict[str, Any], app_id: str, port: int, *, app_port: int = 0
) -> AsyncIterator[DaprResolver]:
    """A resolver that has registered `app_id` at a port of loopback; killed at the end if it has not ended."""
    instance = {
        "AppID": app_id,
        "Address": "127.0.0.1",
        "DaprInternalPort": port,
        "DaprHTTPPort": port + 1,
        "AppPort": app_port,
    }
    given = {"Component": component, "Instance": instance, "Configuration": configuration}
    process = await asyncio.create_subprocess_exec(
        *RESOLVERS.command,
        json.dumps(given),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    started = DaprResolver(process)
    try:
        assert await started.say("registered", "failed") == ["registered"]
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        assert process.stdin is not None
        process.stdin.close()
