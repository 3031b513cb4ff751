"""Our sidecars among stand-ins for daprds of four releases, all under a sentry like Dapr's of 1.18."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from proxy.wire.http2_client import Http2Client
from sentry.issuer import new_key
from sentry.spiffe import SpiffeId
from tests.integration.daprd.calling import client_context, connected
from tests.integration.daprd.fake_sentry import FakeSentry, fake_sentry
from tests.integration.daprd.mixed import CONFIGURATION, rules_about
from tests.integration.daprd.releases import RELEASES, App, Asked, Release, answering
from tests.integration.mesh.peers import Forge
from tests.support.fake_daprd import fake_daprd
from tests.support.mesh import Mesh, Sidecar

OURS: Final = "ours"
OURS_GRPC: Final = "ours-grpc"


async def _unset(asked: Asked) -> None:
    raise AssertionError(f"nobody expected a call of {asked.method}")


@dataclass(slots=True, kw_only=True)
class Skew:
    """Our two sidecars, before an app each. `app`: what the stand-ins' app does, which tests set."""

    sentry: FakeSentry
    http: Sidecar
    grpc: Sidecar
    app: App = field(default=_unset)

    @asynccontextmanager
    async def calling(self, release: Release, callee: Sidecar) -> AsyncIterator[Http2Client]:
        """A connection of a stand-in to one of ours."""
        context = client_context(forge_of(self.sentry, release), release)
        async with connected(callee.peer_port, context, callee.app_id) as client:
            yield client


def forge_of(sentry: FakeSentry, release: Release) -> Forge:
    """What makes certificates for a stand-in, with the keys that its release has."""
    return sentry.forge if release.has_ed25519 else replace(sentry.forge, make_key=new_key)


@asynccontextmanager
async def skew(files: Path, engine: str) -> AsyncIterator[Skew]:
    """Start all of it. Our app that speaks gRPC has OnInvoke."""
    async with AsyncExitStack() as stack:
        sentry = await stack.enter_async_context(fake_sentry(files / "issued"))
        mesh = await stack.enter_async_context(Mesh(files, with_sentry=False))
        apps: list[Skew] = []
        ports: dict[str, int] = {}
        for release in RELEASES:
            named = SpiffeId("public", "default", release.app_id)
            context = forge_of(sentry, release).server_context(named, alpn=("h2",))
            answer = answering(release, lambda: apps[0].app)
            ports[release.app_id] = await stack.enter_async_context(fake_daprd(context, answer))
        lines = "".join(f"{name}: 127.0.0.1:{port}\n" for name, port in ports.items())
        (mesh.root / "endpoints.yaml").write_text(lines)
        denied = rules_about(*(release.app_id for release in RELEASES))
        rules = mesh.write("rules.yaml", CONFIGURATION + denied)
        where = ("--sentry-address", f"127.0.0.1:{sentry.port}", "--config", str(rules))
        flags, env = ("--engine", engine, *where), {"DAPR_TRUST_ANCHORS": sentry.anchors_pem}
        http = await mesh.sidecar(OURS, app=await mesh.http_app(OURS), flags=flags, env=env)
        app = await mesh.grpc_app(OURS_GRPC, "--callback")
        grpc = await mesh.sidecar(OURS_GRPC, app=app, flags=flags, env=env)
        apps.append(Skew(sentry=sentry, http=http, grpc=grpc))
        yield apps[0]
