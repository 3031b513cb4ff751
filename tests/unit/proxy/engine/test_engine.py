"""The portable engine's tasks: all are its own, and none is begun once it ends."""

import asyncio

from proxy.contract.engine import Limits, ListenerSpec
from proxy.engine.portable.engine import PortableEngine
from tests.conformance.harness import FixedTracing, Recorder, always, plan


async def test_nothing_is_begun_while_the_engine_ends() -> None:
    engine = PortableEngine(Limits(), Recorder(), FixedTracing(), str)
    async with asyncio.timeout(30.0), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(engine.run())
        await engine.listen(ListenerSpec(name="in", address="127.0.0.1:0", decide=always(plan())))
        running.cancel()
        while not running.done():  # at each step of its end
            engine.redecide_open()
            await asyncio.sleep(0)
    engine.redecide_open()
