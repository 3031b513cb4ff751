"""A real Consul agent, server and all, that keeps everything in memory; `make stock` builds it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

from tests.stock.programs import BUILT, Program
from tests.support.http_client import request
from tests.support.ports import free_ports
from tests.support.processes import Process, Processes

CONSUL: Final = Program(
    command=(str(BUILT / "consul"),),
    built=BUILT / "consul",
    tools=("go",),
    install="install Go 1.25 or newer",
)
_START_S: Final = 30.0
_PAUSE_S: Final = 0.1


class Consul:
    """One agent, that can be ended and started again with nothing left of before."""

    def __init__(self, processes: Processes, *settings: str) -> None:
        self.port, self._server, self._serf, self.https_port = free_ports(4)
        self._processes = processes
        self._settings = settings
        self._process: Process | None = None

    @property
    def address(self) -> str:
        """Where its API is."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Return once it can be asked and has a leader."""
        https = self.https_port if self._settings else -1
        ports = f"http = {self.port} https = {https} server = {self._server} serf_lan = {self._serf}"
        none = "serf_wan = -1 dns = -1 grpc = -1 grpc_tls = -1"
        settings = ("disable_update_check = true", f"ports {{ {ports} {none} }}", *self._settings)
        flags = [word for setting in settings for word in ("-hcl", setting)]
        self._process = self._processes.start(
            [*CONSUL.command, "-dev", "-bind", "127.0.0.1", "-log-level", "warn", *flags], name="consul"
        )
        async with asyncio.timeout(_START_S):
            while not await self._has_leader():  # noqa: ASYNC110 - it doesn't say so by itself
                await asyncio.sleep(_PAUSE_S)

    async def end(self) -> None:
        """As a crash would end it."""
        assert self._process is not None
        await asyncio.to_thread(self._process.kill)

    async def get(self, target: str) -> Any:
        """What it says."""
        return json.loads((await request(self.port, "GET", target)).body)

    async def put(self, target: str, body: object) -> None:
        """Tell it something."""
        answer = await request(self.port, "PUT", target, body=json.dumps(body).encode())
        assert answer.status == 200, answer.body

    async def _has_leader(self) -> bool:
        try:
            return bool(await self.get("/v1/status/leader"))
        except (OSError, ValueError):
            return False


def tls_settings(pem: Path) -> tuple[str, ...]:
    """Have an agent serve its API over TLS, too."""
    return (f'tls {{ https {{ cert_file = "{pem}" key_file = "{pem}" }} }}',)
