"""Three instances of an app behind proxies of their own, all alike or one of them slow, and who balances calls over them.

A mesh of postern's, and Envoys around the same apps: one that takes instances in turn (`envoy`), one that takes the one with the fewest
requests of two (`envoy-least-request`).
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.bench import envoy, postern
from tests.bench.cases import ALIKE, NATIVE, ONE_SLOW
from tests.bench.certificates import write_identities
from tests.bench.targets import Target
from tests.support.mesh import Mesh
from tests.support.processes import Processes

QUICK_MS: Final = 5
SLOW_MS: Final = 200
LEAST_REQUEST: Final = "envoy-least-request"
_DELAYS_MS: Final = (QUICK_MS, QUICK_MS, QUICK_MS, SLOW_MS)
#: Which of the apps above are an app's instances.
_PLACES: Final[Mapping[str, tuple[int, ...]]] = {ALIKE: (0, 1, 2), ONE_SLOW: (0, 1, 3)}

Apps = Mapping[str, tuple[int, ...]]  # ports of its instances, by app-id


async def start(mesh: Mesh, folder: Path, sink_port: int, names: Sequence[str]) -> list[Target]:
    """Start the apps, and those of the targets that are asked for: each calls by the app-ids of the cases."""
    apps = await _start_apps(mesh.processes)
    started = []
    if NATIVE in names:
        started.append(await _start_postern(mesh, sink_port, apps))
    if "envoy" in names:
        started += await _start_envoys(mesh.processes, folder, apps)
    return started


async def _start_apps(processes: Processes) -> Apps:
    delays = ("--delays-ms", ",".join(map(str, _DELAYS_MS)))
    process = await asyncio.to_thread(
        processes.start_python, "tests.bench.canned", *delays, name="slow upstreams"
    )
    ports = json.loads((await process.line(r'^\{"delayed": ')).string)["delayed"]
    return {app_id: tuple(ports[place] for place in places) for app_id, places in _PLACES.items()}


async def _start_postern(mesh: Mesh, sink_port: int, apps: Apps) -> Target:
    caller = await postern.start_instances(mesh, sink_port, apps)
    return Target(
        name=NATIVE,
        ports={"http1": caller.http_port},
        proxies=lambda _: (caller.process,),
        sidecars=(caller,),
    )


async def _start_envoys(processes: Processes, folder: Path, apps: Apps) -> list[Target]:
    own, theirs = write_identities(folder)
    instances = await envoy.start_instances(processes, folder, theirs, own, apps)
    found = []
    for name, policy in (("envoy", "ROUND_ROBIN"), (LEAST_REQUEST, "LEAST_REQUEST")):
        process, port = await envoy.start_balancer(processes, folder, own, theirs, instances, policy=policy)
        found.append(
            Target(name=name, ports={"http1": port}, proxies=lambda _, process=process: (process,))  # type: ignore[misc]
        )
    return found
