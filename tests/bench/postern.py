"""postern as a target: a caller's and some callees' sidecars, with metrics, access rules and a resiliency policy on.

`postern-portable`: one trace in a hundred is exported; `postern-native`: one in ten thousand; `postern-native-traced`: all, `-sampled`:
one in a hundred, `-untraced`: none; `-logged`: an access log in a file; `-scraped`: metrics that are read every second; `-guarded`: a
circuit breaker, a rate limit, a bound of calls in flight and a hundred rules more; `-threads-2`: on so many threads.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.bench.cases import RULES, Case
from tests.bench.certificates import CALLER
from tests.bench.errors import BenchError
from tests.bench.scraping import scrape
from tests.bench.targets import STARTUP_RUNS, Target
from tests.bench.upstreams import Upstreams
from tests.support.errors import SupportError
from tests.support.mesh import Mesh, Sidecar

RESTLESS_S: Final = 1.0
_LEAF_S: Final = 2  # whole seconds: of leaves that live so long, 1 to 2 s are left on receipt, and half of that passes until the next
_SAMPLING: Final = {
    "portable": "0.01",
    "native-traced": "1",
    "native-sampled": "0.01",
    "native-untraced": "0",
}
_RATE: Final = "0.0001"
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
{operations}
"""
_OPERATION: Final = "          - {{name: {name}, httpVerb: [{verb}], action: allow}}"
_OPERATIONS: Final = (("/bench.Echo/*", "POST"), ("/items/*", "GET"), ("/bytes/*", "GET, POST"))
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
"""
_APP: Final = "      {app_id}: {{timeout: quick, retry: again{more}}}\n"
# The calls that the generator cuts off at the end of a window are failures to a breaker, as daprd has it: not so few may open it.
_BREAKER: Final = (
    "    circuitBreakers: {guard: {trip: requests >= 1000 && totalFailures >= requests / 2, timeout: 1s}}\n"
)
# Limits that no load here meets: what is measured is what they cost.
_GUARDS: Final = """\
apiVersion: postern.dev/v1alpha1
kind: Traffic
metadata: {name: bench}
spec:
  inbound:
    rates: [{name: calls, requests: 1000000}]
    concurrency: {limit: 100000}
---
apiVersion: postern.dev/v1alpha1
kind: AccessPolicy
metadata: {name: bench}
spec:
  rules:
    - {name: calls, action: allow, from: {apps: [load]}}
"""
_RULE: Final = "    - {{name: r{number}, action: {action}, from: {{apps: [load]}}, to: {{paths: ['/other/{number}/{{*}}']}}}}\n"


async def start_mesh(
    mesh: Mesh, kind: str, upstreams: Upstreams, sink_port: int, cases: Sequence[Case]
) -> Target:
    """Start the sidecars of `kind` (an engine, `native-traced` or `native-threads-N`), with what `cases` need, and time a start."""
    name = f"postern-{kind}"
    config = mesh.write("config.yaml", _configuration(kind, sink_port, _OPERATIONS))
    mine = [case for case in cases if name in case.targets and not case.peers]
    flags = _flags(mesh, kind, config, mine)
    await mesh.start_sentry()
    startup_s = statistics.median([await _startup_s(mesh, flags) for _ in range(STARTUP_RUNS)])
    grpc = await mesh.sidecar("bench-grpc", app_port=upstreams.grpc_port, app_protocol="grpc", flags=flags)
    http = await mesh.sidecar("bench-http1", app_port=upstreams.http_port, app_protocol="http", flags=flags)
    callees = {"bench-grpc": grpc, "bench-http1": http}
    if any(case.paths for case in mine):
        ruled = _flags(mesh, kind, _path_rules(mesh, kind, sink_port), mine)
        callees["bench-paths"] = await mesh.sidecar(
            "bench-paths", app_port=upstreams.grpc_port, app_protocol="grpc", flags=ruled
        )
    caller = await mesh.sidecar("load", flags=flags)
    proxies = {app_id: (caller.process, callee.process) for app_id, callee in callees.items()}
    return Target(
        name=name,
        ports={"grpc": caller.grpc_port, "http1": caller.http_port},
        proxies=lambda case: proxies.get(case.app_id, (caller.process,)),
        startup_s=startup_s,
        another=lambda: mesh.sidecar("load", flags=flags),
        sidecars=(caller, *callees.values()),
    )


async def start_caller(mesh: Mesh, sink_port: int, cases: Sequence[Case]) -> Sidecar:
    """A sidecar of the caller alone, with the native engine."""
    kind = "native"
    config = mesh.write("config.yaml", _configuration(kind, sink_port, _OPERATIONS))
    return await mesh.sidecar(CALLER.app_id, flags=_flags(mesh, kind, config, cases))


async def start_instances(mesh: Mesh, sink_port: int, apps: Mapping[str, Sequence[int]]) -> Sidecar:
    """A sidecar of the caller, with the native engine, and one for each instance of some HTTP apps: ports by app-id."""
    kind = "native"
    config = mesh.write("config.yaml", _configuration(kind, sink_port, _OPERATIONS))
    flags = _flags(mesh, kind, config, ())
    await mesh.start_sentry()
    for app_id, ports in apps.items():
        for port in ports:
            await mesh.sidecar(app_id, app_port=port, app_protocol="http", flags=flags)
    return await mesh.sidecar(CALLER.app_id, flags=flags)


@asynccontextmanager
async def restless_mesh(mesh: Mesh, upstreams: Upstreams, sink_port: int) -> AsyncIterator[Target]:
    """Two sidecars of the native engine whose certificates are renewed, and whose policies are read anew, about every second."""
    kind = "native"
    config = mesh.write("config.yaml", _configuration(kind, sink_port, _OPERATIONS))
    flags = _flags(mesh, kind, config, ())
    await mesh.start_sentry("--workload-cert-ttl", str(_LEAF_S))
    callee = await mesh.sidecar("bench-grpc", app_port=upstreams.grpc_port, app_protocol="grpc", flags=flags)
    caller = await mesh.sidecar("load", flags=flags)
    sidecars = (caller, callee)

    async def disturb() -> None:
        for number in itertools.count():
            _replace(config, _configuration(kind, sink_port, (*_OPERATIONS, (f"/other-{number}/*", "GET"))))
            await asyncio.sleep(RESTLESS_S)

    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        disturbing = tasks.create_task(disturb())
        try:
            yield Target(
                name=f"postern-{kind}",
                ports={"grpc": caller.grpc_port},
                proxies=lambda _: tuple(sidecar.process for sidecar in sidecars),
                sidecars=sidecars,
            )
        except (BenchError, SupportError) as error:
            failure = error  # the group would wrap it
        disturbing.cancel()
    if failure is not None:
        raise failure


async def config_churn(target: Target) -> tuple[int, int]:
    """What grows with each new policy and each new certificate: generations, and ends in epoch seconds; the least of the sidecars."""
    told = [await scrape(sidecar) for sidecar in target.sidecars]
    return (
        min(int(metrics.total("postern_policy_generation")) for metrics in told),
        min(int(metrics.total("postern_cert_expiry_timestamp_seconds")) for metrics in told),
    )


def _flags(mesh: Mesh, kind: str, config: Path, cases: Sequence[Case]) -> tuple[str, ...]:
    app_ids = {"bench-grpc", "bench-http1", *(app_id for case in cases for app_id in case.app_ids)}
    engine, _, variant = kind.partition("-")
    resources = _resources(mesh, app_ids, is_guarded=variant == "guarded")
    documents = ("--config", str(config), "--resources-path", str(resources))
    threads = variant.removeprefix("threads-") if variant.startswith("threads-") else "1"
    log = ("--access-log", str(config.with_suffix(".access"))) if variant == "logged" else ()
    return ("--engine", engine, "--threads", threads, *documents, "--log-level", "warn", *log)


def _resources(mesh: Mesh, app_ids: Collection[str], *, is_guarded: bool) -> Path:
    more = ", circuitBreaker: guard" if is_guarded else ""
    apps = "".join(_APP.format(app_id=app_id, more=more) for app_id in sorted(app_ids))
    breaker = _BREAKER if is_guarded else ""
    text = _RESILIENCY.replace("  targets:\n", f"{breaker}  targets:\n") + apps
    folder = mesh.write("resources/resiliency.yaml", text).parent
    if is_guarded:
        rules = (
            _RULE.format(number=number, action="deny" if number % 10 == 0 else "allow")
            for number in range(RULES)
        )
        mesh.write("resources/guards.yaml", _GUARDS + "".join(rules))
    return folder


def _configuration(kind: str, sink_port: int, operations: Sequence[tuple[str, str]]) -> str:
    lines = "\n".join(_OPERATION.format(name=name, verb=verb) for name, verb in operations)
    return _CONFIGURATION.format(
        port=sink_port,
        rate=_SAMPLING.get(kind, _RATE),
        operations=lines,
    )


def _path_rules(mesh: Mesh, kind: str, sink_port: int) -> Path:
    operations = [(f"/bench.S{number}/*", "POST") for number in range(RULES - 1)]
    text = _configuration(kind, sink_port, [*operations, (f"/bench.S{RULES - 1}/M*", "POST"), _OPERATIONS[0]])
    return mesh.write("paths.yaml", text)


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


async def _startup_s(mesh: Mesh, flags: tuple[str, ...]) -> float:
    """From the spawn to the first 204 of the outbound health check, with sentry up."""
    began = time.perf_counter()
    sidecar = await mesh.sidecar("startup", flags=flags)
    elapsed_s = time.perf_counter() - began
    await sidecar.end()
    return elapsed_s
