"""A mesh that a whole module shares: an HTTP callee, a gRPC callee and a caller, started together because starting is what costs."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.apps import App
from tests.support.mesh import Mesh, SharedSentry, Sidecar
from tests.support.processes import Process

#: Allows everybody, but `web` at `/secret`.
NO_SECRET_FOR_WEB = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: rules}
spec:
  accessControl:
    defaultAction: allow
    policies:
    - appId: web
      defaultAction: allow
      trustDomain: public
      namespace: default
      operations: [{name: /secret, httpVerb: ["*"], action: deny}]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`web` calls `shop` (HTTP) and `echo` (gRPC)."""

    mesh: Mesh
    http_app: App
    grpc_app: App
    shop: Sidecar
    echo: Sidecar
    web: Sidecar

    @property
    def sidecars(self) -> tuple[Sidecar, Sidecar, Sidecar]:
        """All three, for what must hold of each."""
        return self.web, self.shop, self.echo


@asynccontextmanager
async def standing(
    files: Path,
    *,
    flags: tuple[str, ...] = (),
    shop: tuple[str, ...] = (),
    web: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    shared: SharedSentry | None = None,
) -> AsyncIterator[Standing]:
    """Start them; `flags` go to all, `shop` and `web` to one. shared: for one test's alone, see `Mesh`."""
    async with Mesh(files, shared=shared) as mesh:
        async with asyncio.TaskGroup() as tasks:
            http, grpc = tasks.create_task(mesh.http_app("shop")), tasks.create_task(mesh.grpc_app("echo"))
            caller = tasks.create_task(mesh.sidecar("web", flags=(*flags, *web), env=env))
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(mesh.sidecar("shop", app=http.result(), flags=(*flags, *shop), env=env))
            second = tasks.create_task(mesh.sidecar("echo", app=grpc.result(), flags=flags, env=env))
        await asyncio.gather(first.result().wait_app(), second.result().wait_app())
        yield Standing(
            mesh=mesh,
            http_app=http.result(),
            grpc_app=grpc.result(),
            shop=first.result(),
            echo=second.result(),
            web=caller.result(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """`web` calls `shop` (HTTP)."""

    mesh: Mesh
    shop: Sidecar
    web: Sidecar

    @property
    def sidecars(self) -> tuple[Sidecar, Sidecar]:
        """Both, for what must hold of each."""
        return self.web, self.shop


@asynccontextmanager
async def pair(
    files: Path,
    shared: SharedSentry,
    *,
    flags: tuple[str, ...] = (),
    shop: tuple[str, ...] = (),
    web: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Pair]:
    """Start them for one test that needs no gRPC app; `flags` go to both."""
    async with Mesh(files, shared=shared) as mesh:
        app = await mesh.http_app("shop")
        caller, callee = await asyncio.gather(
            mesh.sidecar("web", flags=(*flags, *web), env=env),
            mesh.sidecar("shop", app=app, flags=(*flags, *shop), env=env),
        )
        await callee.wait_app()
        yield Pair(mesh=mesh, shop=callee, web=caller)


def invoke(app_id: str, path: str) -> str:
    """The target that calls `path` of an app by Dapr's form."""
    return f"/v1.0/invoke/{app_id}/method{path}"


async def eventually(look: Callable[[], Awaitable[bool]], *, within_s: float = 45.0) -> None:
    """Look until it is so: another process tells nobody when it has changed. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while not await look():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.02)


async def until_logged(process: Process, pattern: str, call: Callable[[], Awaitable[object]]) -> None:
    """Call until the log has a line like that: beyond ten a second of a kind, other tests' lines among them, it has none."""

    async def is_logged() -> bool:
        await call()
        return re.search(pattern, process.output) is not None

    await eventually(is_logged)
