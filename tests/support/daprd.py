"""Dapr's own sidecar and sentry as processes, beside a mesh of ours: `make stock` builds them, or POSTERN_TEST_DAPRD and
POSTERN_TEST_DAPR_SENTRY name others.

Unless told otherwise, these daprds find apps in a file (tests/stock/daprd/static.go), so that tests run side by side; ours have the same
names in theirs.
"""

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sentry.join import mint
from sentry.spiffe import SpiffeId
from tests.support.apps import App
from tests.support.errors import ProcessEndedError
from tests.support.mesh import Mesh, Sidecar
from tests.support.ports import free_ports
from tests.support.processes import REPOSITORY, Process
from tests.support.readiness import OUTBOUND_HEALTH, wait_status

_BUILT: Final = REPOSITORY / ".cache" / "stock" / "daprd"
SENTRY_ID: Final = SpiffeId("localhost", "default", "dapr-sentry")
_CONFIGURATION: Final = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: naming}
spec:
  nameResolution: NAMING
"""
_BY_FILE: Final = "{component: static, version: v1}"


def _program(name: str, variable: str) -> Path:
    return Path(os.environ.get(variable) or _BUILT / name)


DAPRD: Final = _program("daprd", "POSTERN_TEST_DAPRD")
DAPR_SENTRY: Final = _program("sentry", "POSTERN_TEST_DAPR_SENTRY")


def reason_missing() -> str | None:
    """Why neither can be run here, and what to do about it; None if they can."""
    for program in (DAPRD, DAPR_SENTRY):
        if not program.exists():
            how = "make stock" if shutil.which("go") else "install Go 1.25 or newer, then make stock"
            return f"{program} is not built: {how}"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A sentry that daprds ask over TCP: ours, or Dapr's."""

    port: int
    anchors_pem: str
    is_ours: bool

    def environment(self) -> dict[str, str]:
        """What tells a sidecar whom to believe."""
        return {"DAPR_TRUST_ANCHORS": self.anchors_pem}


@dataclass(frozen=True, slots=True, kw_only=True)
class Daprd:
    """A running daprd."""

    app_id: str
    http_port: int
    grpc_port: int
    peer_port: int
    process: Process = field(repr=False)


async def our_sentry(mesh: Mesh) -> Authority:
    """The sentry of a mesh, on a port of loopback as well."""
    (port,) = free_ports(1)
    try:
        await mesh.start_sentry("--port", str(port), "--listen-address", "127.0.0.1")
    except ProcessEndedError:  # somebody took the port in between
        (port,) = free_ports(1)
        await mesh.start_sentry("--port", str(port), "--listen-address", "127.0.0.1")
    anchors = (mesh.root / "sentry" / "authority" / "ca.crt").read_text()
    return Authority(port=port, anchors_pem=anchors, is_ours=True)


async def dapr_sentry(mesh: Mesh) -> Authority:
    """Dapr's sentry, for a mesh that starts none of its own."""
    port, health, metrics = free_ports(3)
    credentials = mesh.files / "credentials"
    credentials.mkdir()
    configuration = mesh.write("sentry.yaml", _CONFIGURATION.replace("NAMING", _BY_FILE))
    where = ("--listen-address", "127.0.0.1", "--port", str(port))
    process = mesh.processes.start(
        [
            *(DAPR_SENTRY, "--config", configuration, "--issuer-credentials", credentials, *where),
            *("--healthz-listen-address", "127.0.0.1", "--healthz-port", str(health)),
            *("--metrics-listen-address", "127.0.0.1", "--metrics-port", str(metrics)),
        ],
        name="Dapr's sentry",
    )
    await asyncio.to_thread(wait_status, health, "/healthz", 200, process)
    return Authority(port=port, anchors_pem=(credentials / "ca.crt").read_text(), is_ours=False)


async def start_daprd(
    mesh: Mesh,
    authority: Authority | None,
    app_id: str,
    *,
    app: App | None = None,
    rules: str = "",
    naming: str = _BY_FILE,
    flags: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Daprd:
    """Start a daprd; returns once it can call out. rules: a Configuration's `accessControl`, below `spec`; naming: its `nameResolution`.
    No authority: no TLS.
    """
    http, grpc, peer, metrics, profile = free_ports(5)
    configuration = mesh.write(f"{app_id}.daprd.yaml", _CONFIGURATION.replace("NAMING", naming) + rules)
    args: list[str | Path] = [
        *(DAPRD, "--app-id", app_id, "--config", configuration, "--dapr-listen-addresses", "127.0.0.1"),
        *("--dapr-http-port", str(http), "--dapr-grpc-port", str(grpc)),
        *("--dapr-internal-grpc-port", str(peer), "--dapr-internal-grpc-listen-address", "127.0.0.1"),
        *(
            "--metrics-port",
            str(metrics),
            "--metrics-listen-address",
            "127.0.0.1",
            "--profile-port",
            str(profile),
        ),
    ]
    if app is not None:
        args += ["--app-port", str(app.port), "--app-protocol", app.protocol]
    variables = {"STATIC_NAMES": str(_names(mesh)), "NAMESPACE": "default", **(env or {})}
    if authority is not None:
        args += ["--enable-mtls", "--sentry-address", f"127.0.0.1:{authority.port}"]
        variables |= authority.environment()
        if authority.is_ours:
            variables["DAPR_SENTRY_TOKEN_FILE"] = str(_token(mesh, app_id))
    process = mesh.processes.start([*args, *flags], name=f"daprd {app_id}", env=variables, cwd=mesh.files)
    await asyncio.to_thread(wait_status, http, OUTBOUND_HEALTH, 204, process, timeout_s=30.0)
    return Daprd(app_id=app_id, http_port=http, grpc_port=grpc, peer_port=peer, process=process)


def introduce(mesh: Mesh, *sidecars: Daprd | Sidecar) -> None:
    """Write down where each is, for daprds and for ours (`endpoints.yaml`, which they read again within a second)."""
    _names(mesh).write_text("".join(f"{one.app_id} 127.0.0.1:{one.peer_port}\n" for one in sidecars))
    ours = "".join(f"{one.app_id}: 127.0.0.1:{one.peer_port}\n" for one in sidecars if isinstance(one, Daprd))
    (mesh.root / "endpoints.yaml").write_text(ours)


def _names(mesh: Mesh) -> Path:
    return mesh.files / "names"


def _token(mesh: Mesh, app_id: str) -> Path:
    """A join token, which whoever runs the sentry's host may give to a daprd."""
    spiffe_id = SpiffeId("public", "default", app_id)
    return mesh.write(f"{app_id}.token", mint(mesh.root, spiffe_id, SENTRY_ID))
