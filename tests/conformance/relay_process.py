"""An engine in a process of its own, for measuring it: `python -m tests.conformance.relay_process ENGINE APP_PORT`; prints `port N`."""

import asyncio
import sys

import uvloop

from proxy.contract.engine import Cluster, Limits, ListenerSpec, Upstream
from tests.conformance.harness import ENGINES, FixedTracing, Recorder, always, plan


async def main(engine: str, app_port: str) -> None:
    """Forward everything to the app until ended."""
    made = ENGINES[engine](Limits(), Recorder(), FixedTracing(), str)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(made.run())
        made.set_cluster(
            Cluster(key="app", wire="http1", tls=None, upstreams=(Upstream(address=f"127.0.0.1:{app_port}"),))
        )
        bound = await made.listen(ListenerSpec(name="in", address="127.0.0.1:0", decide=always(plan())))
        sys.stdout.write(f"port {bound.rpartition(':')[2]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
