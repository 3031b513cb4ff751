"""Whether multicast works here: on each interface an instance of a made-up name is asked for, answered and heard, as between two sidecars.

What is sent leaves the host, like any question; nobody else has the name. Import it late, it brings in the packet codec.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable

from msgspec import Struct

from nameresolution.interfaces import Interface, InterfaceFilter
from nameresolution.mdns import packets
from nameresolution.mdns.records import Advert, Query, Response, make_advert
from nameresolution.mdns.sockets import Link, describe, survey
from nameresolution.resolver import Instance

WITHIN_S = 2.0  # as long as a lookup asks
_AGAIN_S = 0.25  # between two questions: a datagram may be lost


class Heard(Struct, frozen=True, kw_only=True):
    """What came of asking on one interface; `problem` is empty where we heard ourselves, after `took_ms`."""

    interface: Interface
    took_ms: float = 0.0
    problem: str = ""


async def ask_ourselves(
    *,
    within_s: float = WITHIN_S,
    interfaces: InterfaceFilter | None = None,
    open_link: Callable[[Interface], Link] = Link,
) -> tuple[Heard, ...]:
    """Ask on all interfaces that are up and can multicast, side by side; in the order of their names."""
    found = survey(interfaces or InterfaceFilter()).interfaces
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(_on(interface, within_s, open_link))
            for interface in sorted(found, key=lambda each: each.name)
        ]
    return tuple(task.result() for task in asked)


async def _on(interface: Interface, within_s: float, open_link: Callable[[Interface], Link]) -> Heard:
    try:
        link = open_link(interface)
    except OSError as error:
        return Heard(interface=interface, problem=describe(error))
    try:
        return await _SelfQuery(link).ask(within_s)
    finally:
        link.close()


class _SelfQuery:
    """One question on one link. Mutable state: `_steps`, which of our own packets came back."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._advert = _advert(link.interface.address)
        self._steps: set[str] = set()
        self._heard = asyncio.Event()

    async def ask(self, within_s: float) -> Heard:
        """Ask until we hear our own answer, or the time is over."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        loop.add_reader(self._link.fileno(), self._on_readable)
        try:
            while not self._heard.is_set() and loop.time() < began + within_s:
                self._link.send(packets.question(self._advert.instance.app_id, random.getrandbits(16)))
                await self._wait(min(_AGAIN_S, max(began + within_s - loop.time(), 0.0)))
        finally:
            loop.remove_reader(self._link.fileno())
        took_ms = (loop.time() - began) * 1000
        problem = "" if self._heard.is_set() else self._problem(within_s)
        return Heard(interface=self._link.interface, took_ms=took_ms, problem=problem)

    async def _wait(self, for_s: float) -> None:
        try:
            async with asyncio.timeout(for_s):
                await self._heard.wait()
        except TimeoutError:
            return

    def _on_readable(self) -> None:
        for data, sender in self._link.receive():
            if sender[0] != self._link.interface.address:
                continue
            match packets.read(data, from_this_host=True):
                case Query() as query if self._advert.service_name in query.names:
                    self._steps.add("question")
                    answer = packets.answer(self._advert, query)
                    if answer is not None:
                        self._link.send(answer)
                case Response() as response if self._is_ours(response):
                    self._heard.set()

    def _is_ours(self, response: Response) -> bool:
        return any(each.app_id == self._advert.instance.app_id for each in response.sightings)

    def _problem(self, within_s: float) -> str:
        if self._link.problem:
            return self._link.problem
        what = "answer" if "question" in self._steps else "question"
        return f"our own {what} did not come back within {within_s:g} s"


def _advert(address: str) -> Advert:
    name = f"postern-check-{secrets.token_hex(6)}"
    instance = Instance(app_id=name, namespace="default", host=address, port=1, instance=name)
    return make_advert(instance, "localhost", 1)
