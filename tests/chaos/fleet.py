"""A caller and some instances of one app, each of which can be hurt: killed, frozen, made slow or made to fail."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.mesh.standing import eventually
from tests.support.http_client import request
from tests.support.mesh import Mesh, Sidecar
from tests.support.processes import Process

APP_ID = "shop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One of them: its app, which answers with its name, and the sidecar beside it."""

    name: str
    app: Process
    app_port: int
    sidecar: Sidecar

    async def set_mode(self, **mode: float) -> None:
        """Have the app behave otherwise: fields of `tests.chaos.unsteady_app.Mode`."""
        answer = await request(self.app_port, "POST", "/mode", body=json.dumps(mode).encode())
        assert answer.status == 200

    async def seen(self) -> int:
        """How many requests came to the app so far."""
        return int((await request(self.app_port, "GET", "/seen")).body)

    def freeze(self, *, app: bool = False, sidecar: bool = False) -> None:
        """Stop processes without ending them: their sockets stay open and nothing answers."""
        for process in self._processes(app=app, sidecar=sidecar):
            process.send_signal(signal.SIGSTOP)

    def thaw(self, *, app: bool = False, sidecar: bool = False) -> None:
        """Let them go on."""
        for process in self._processes(app=app, sidecar=sidecar):
            process.send_signal(signal.SIGCONT)

    def kill(self, *, app: bool = False, sidecar: bool = False) -> None:
        """End processes at once, as a crash does."""
        for process in self._processes(app=app, sidecar=sidecar):
            process.kill()

    def _processes(self, *, app: bool, sidecar: bool) -> list[Process]:
        return [*([self.app] if app else []), *([self.sidecar.process] if sidecar else [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """`web` calls `shop`, of which there are some instances."""

    mesh: Mesh
    web: Sidecar
    instances: tuple[Instance, ...]


async def start_instance(mesh: Mesh, name: str, flags: tuple[str, ...]) -> Instance:
    """One more instance of the app."""
    app = mesh.processes.start_python("tests.chaos.unsteady_app", "--name", name, name=f"app {name}")
    port = int(json.loads((await app.line(r'^\{"port": ')).string)["port"])
    sidecar = await mesh.sidecar(APP_ID, app_port=port, flags=flags)
    return Instance(name=name, app=app, app_port=port, sidecar=sidecar)


@asynccontextmanager
async def fleet(
    files: Path, engine: str, *, web: tuple[str, ...] = (), shop: tuple[str, ...] = (), instances: int = 3
) -> AsyncIterator[Fleet]:
    """Start them; flags go to all sidecars of an app. Returns once the caller knows all instances."""
    flags = ("--engine", engine)
    async with Mesh(files) as mesh:
        await mesh.start_sentry()
        async with asyncio.TaskGroup() as tasks:
            starting = [
                tasks.create_task(start_instance(mesh, name, (*flags, *shop))) for name in "abc"[:instances]
            ]
            caller = tasks.create_task(mesh.sidecar("web", flags=(*flags, *web)))
        made = Fleet(mesh=mesh, web=caller.result(), instances=tuple(task.result() for task in starting))

        async def are_known() -> bool:
            answer = await request(made.web.http_port, "GET", "/", headers=[("dapr-app-id", APP_ID)])
            found = json.loads((await made.web.admin(f"/endpoints?app={APP_ID}")).body)
            return answer.status == 200 and len(found[f"{APP_ID}.default"]["endpoints"]) == len(
                made.instances
            )

        await eventually(are_known)
        yield made
