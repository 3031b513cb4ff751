"""Many peers (`peers.py`) and who calls them, in one mesh: a sidecar and an Envoy, both with the caller's certificate by its sentry."""

import asyncio
import json
from collections.abc import Mapping, Sequence

from tests.bench import envoy, postern
from tests.bench.cases import PEERS, Case
from tests.bench.certificates import fetch_caller
from tests.bench.targets import Target
from tests.bench.upstreams import Upstreams
from tests.support.mesh import Mesh
from tests.support.processes import Process


async def start(
    mesh: Mesh, upstreams: Upstreams, sink_port: int, cases: Sequence[Case], targets: Sequence[Target]
) -> list[Target]:
    """Start the peers, and for each of `targets` a caller of them that has its name."""
    await mesh.start_sentry()
    peers = await _start_peers(mesh, upstreams.grpc_port)
    callers = []
    for target in targets:
        if target.name == "envoy":
            own = await fetch_caller(mesh.files, mesh.root)
            process, port = await envoy.start_caller(mesh.processes, mesh.files, own, peers)
        else:
            sidecar = await postern.start_caller(mesh, sink_port, cases)
            process, port = sidecar.process, sidecar.grpc_port
        callers.append(_caller(target, process, port))
    return callers


def _caller(target: Target, process: Process, port: int) -> Target:
    return Target(
        name=target.name, ports={"grpc": port}, proxies=lambda _: (process,), startup_s=target.startup_s
    )


async def _start_peers(mesh: Mesh, app_port: int) -> Mapping[str, int]:
    """Their ports by app-id; also where the mesh's sidecars look for them."""
    flags = ("--runtime-path", str(mesh.root), "--count", str(PEERS), "--app-port", str(app_port))
    process = await asyncio.to_thread(mesh.processes.start_python, "tests.bench.peers", *flags, name="peers")
    ports: dict[str, int] = json.loads((await process.line(r'^\{"peers": ', timeout_s=60.0)).string)["peers"]
    lines = "".join(f"{app_id}: 127.0.0.1:{port}\n" for app_id, port in ports.items())
    (mesh.root / "endpoints.yaml").write_text(lines)  # what a user writes to name apps by hand
    return ports
