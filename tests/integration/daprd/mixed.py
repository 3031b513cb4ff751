"""Four sidecars of two kinds in one mesh, each with an app of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.integration.mesh.standing import eventually, invoke
from tests.support.daprd import Daprd, dapr_sentry, introduce, our_sentry, start_daprd
from tests.support.http_client import request
from tests.support.mesh import Mesh, Sidecar


def rules_about(*callers: str) -> str:
    """Who is denied `/secret` (HTTP) and the method Fail (gRPC): an `accessControl`, below `spec`."""
    policies = "".join(
        f"""
    - appId: {caller}
      defaultAction: allow
      trustDomain: public
      namespace: default
      operations:
      - {{name: /secret, httpVerb: ["*"], action: deny}}
      - {{name: /testing.EchoService/Fail, action: deny}}
"""
        for caller in callers
    )
    return f"""
  accessControl:
    defaultAction: allow
    trustDomain: public
    policies:
{policies}"""


#: The two that call from beside an app that speaks HTTP.
RULES: Final = rules_about("postern-http", "daprd-http")
CONFIGURATION: Final = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: rules}\nspec:"
NAMES: Final = ("postern-http", "postern-grpc", "daprd-http", "daprd-grpc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """Sidecars by app-id: `postern-` or `daprd-`, before an app that speaks `http` or `grpc`."""

    mesh: Mesh
    engine: str
    sidecars: dict[str, Sidecar | Daprd]

    def __getitem__(self, name: str) -> Sidecar | Daprd:
        return self.sidecars[name]


@asynccontextmanager
async def mixed(files: Path, engine: str, sentry: str) -> AsyncIterator[Mixed]:
    """Start them. sentry: whose, `postern` or `dapr`."""
    async with Mesh(files, with_sentry=sentry == "postern") as mesh:
        introduce(mesh)
        rules = mesh.write("rules.yaml", CONFIGURATION + RULES)
        authority = await (our_sentry(mesh) if sentry == "postern" else dapr_sentry(mesh))
        flags: tuple[str, ...] = ("--engine", engine, "--config", str(rules))
        if not authority.is_ours:
            flags = (*flags, "--sentry-address", f"127.0.0.1:{authority.port}")
        found: dict[str, Sidecar | Daprd] = {}
        for name in NAMES:
            app = await (mesh.grpc_app(name, "--callback") if name.endswith("grpc") else mesh.http_app(name))
            if name.startswith("postern"):
                env = {} if authority.is_ours else authority.environment()
                found[name] = await mesh.sidecar(name, app=app, flags=flags, env=env)
            else:
                found[name] = await start_daprd(mesh, authority, name, app=app, rules=RULES)
        introduce(mesh, *found.values())
        for name in NAMES[:2]:
            await _knows_all(found[name])
        yield Mixed(mesh=mesh, engine=engine, sidecars=found)


async def _knows_all(sidecar: Sidecar | Daprd) -> None:
    """Wait until ours has read the file again."""
    assert isinstance(sidecar, Sidecar)
    wanted = [name for name in NAMES if name.startswith("daprd")]
    for name in wanted:
        await request(sidecar.http_port, "GET", invoke(name, "/"))

    async def has() -> bool:
        named = (await sidecar.status())["naming"]
        assert isinstance(named, dict)
        return all(named.get(f"{name}.default") for name in wanted)

    await eventually(has)
