"""`postern dashboard` as a process of its own, for tests."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.cli.conftest import POSTERN
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.processes import Process, Processes

START_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """One that runs."""

    link: str
    port: int
    token: str
    process: Process

    async def ask(self, target: str, *headers: tuple[str, str], method: str = "GET") -> Response:
        """One request with the token, as a program sends it."""
        return await self.bare(target, ("Authorization", f"Bearer {self.token}"), *headers, method=method)

    async def bare(self, target: str, *headers: tuple[str, str], method: str = "GET") -> Response:
        """One request without it."""
        return await request(self.port, method, target, headers=headers)

    async def told(self, target: str) -> Any:
        """What it says in JSON."""
        answer = await self.ask(target)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)


@asynccontextmanager
async def dashboard(root: Path, words: Sequence[str] = ("--no-open",)) -> AsyncIterator[Dashboard]:
    """Start one that looks into a runtime root; it ends with the block."""
    processes = Processes()
    try:
        process = processes.start(
            [*POSTERN, "dashboard", *words], name="postern dashboard", env={"POSTERN_HOME": str(root)}
        )
        found = await process.line(
            r"^(http://127\.0\.0\.1:([0-9]+)/#token=([A-Za-z0-9_-]{43}))$", timeout_s=START_S
        )
        yield Dashboard(link=found[1], port=int(found[2]), token=found[3], process=process)
    finally:
        await processes.aclose()
