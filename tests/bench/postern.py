"""postern as a target: a caller's and two callees' sidecars, with metrics, access rules and a resiliency policy on.

`postern-portable`: one trace in a hundred is exported; `postern-native`: one in ten thousand; `postern-native-traced`: all.
"""

import statistics
import time
from typing import Final

from tests.bench.targets import STARTUP_RUNS, Target
from tests.bench.upstreams import Upstreams
from tests.support.mesh import Mesh

_SAMPLING: Final = {"portable": "0.01", "native": "0.0001", "native-traced": "1"}
_CONFIGURATION: Final = """\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: bench
spec:
  metrics:
    enabled: true
  tracing:
    samplingRate: "{rate}"
    zipkin:
      endpointAddress: http://127.0.0.1:{port}/api/v2/spans
  accessControl:
    defaultAction: deny
    trustDomain: public
    policies:
      - appId: load
        trustDomain: public
        namespace: default
        defaultAction: deny
        operations:
          - {{name: /bench.Echo/*, httpVerb: [POST], action: allow}}
          - {{name: /items/*, httpVerb: [GET], action: allow}}
"""
_RESILIENCY: Final = """\
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata:
  name: bench
spec:
  policies:
    timeouts: {quick: 10s}
    retries: {again: {policy: constant, duration: 50ms, maxRetries: 3}}
  targets:
    apps:
      bench-grpc: {timeout: quick, retry: again}
      bench-http1: {timeout: quick, retry: again}
"""


async def start_mesh(mesh: Mesh, kind: str, upstreams: Upstreams, sink_port: int) -> Target:
    """Start the sidecars of `kind` (an engine, or `native-traced`) and measure how long one takes to start."""
    name = f"postern-{kind}"
    rate = _SAMPLING.get(kind, "0.01")
    config = mesh.write(f"{name}.yaml", _CONFIGURATION.format(port=sink_port, rate=rate))
    resources = mesh.write("resources/resiliency.yaml", _RESILIENCY).parent
    documents = ("--config", str(config), "--resources-path", str(resources))
    flags = ("--engine", kind.removesuffix("-traced"), *documents, "--log-level", "warn")
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
