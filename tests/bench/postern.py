"""postern as a target: a caller's and two callees' sidecars, with metrics on and one trace in a hundred exported."""

import statistics
import time
from typing import Final

from tests.bench.targets import STARTUP_RUNS, Target
from tests.bench.upstreams import Upstreams
from tests.support.mesh import Mesh

_CONFIGURATION: Final = """\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: bench
spec:
  metrics:
    enabled: true
  tracing:
    samplingRate: "0.01"
    zipkin:
      endpointAddress: http://127.0.0.1:{port}/api/v2/spans
"""


async def start_mesh(mesh: Mesh, engine: str, upstreams: Upstreams, sink_port: int) -> Target:
    """Start the sidecars with `engine` and measure how long one takes to start."""
    name = f"postern-{engine}"
    config = mesh.write(f"{name}.yaml", _CONFIGURATION.format(port=sink_port))
    flags = ("--engine", engine, "--config", str(config), "--log-level", "warn")
    await mesh.start_sentry()
    startup_s = statistics.median([await _startup_s(mesh, flags) for _ in range(STARTUP_RUNS)])
    grpc = await mesh.sidecar("bench-grpc", app_port=upstreams.grpc_port, app_protocol="grpc", flags=flags)
    http = await mesh.sidecar("bench-http1", app_port=upstreams.http_port, app_protocol="http", flags=flags)
    caller = await mesh.sidecar("load", flags=flags)
    return Target(
        name=name,
        ports={"grpc": caller.grpc_port, "http1": caller.http_port},
        proxies={"grpc": (caller.process, grpc.process), "http1": (caller.process, http.process)},
        startup_s=startup_s,
    )


async def _startup_s(mesh: Mesh, flags: tuple[str, ...]) -> float:
    """From the spawn to the first 204 of the outbound health check, with sentry up."""
    began = time.perf_counter()
    sidecar = await mesh.sidecar("startup", flags=flags)
    elapsed_s = time.perf_counter() - began
    await sidecar.end()
    return elapsed_s
