"""mDNS as a source of endpoints: announces this sidecar on the local link and finds the others there.

Light to import: the station with its codec is loaded in a thread once `run` begins, off the path of a start-up.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from nameresolution.interfaces import Interface, InterfaceFilter
from nameresolution.mdns.records import MDNS_SOURCE
from nameresolution.resolver import AppName, Found, Instance, Push

if TYPE_CHECKING:
    from nameresolution.mdns.sockets import Link
    from nameresolution.mdns.station import Station


class MdnsResolver:
    """Owns `_names` (watched names by app-id), `_instance` (announced) and the station while it runs.

    On the wire there are only app-ids; the namespace of a peer is a hint in its record, judged by the merge.
    """

    source = MDNS_SOURCE
    lag_s = 0.0

    def __init__(
        self,
        *,
        budget_s: float = 2.0,
        interfaces: InterfaceFilter | None = None,
        hostname: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        open_link: Callable[[Interface], Link] | None = None,
    ) -> None:
        self._budget_s = budget_s
        self._interfaces = interfaces or InterfaceFilter()
        self._hostname = hostname if hostname is not None else socket.gethostname()
        self._clock = clock
        self._open_link = open_link
        self._names: dict[str, set[AppName]] = {}
        self._instance: Instance | None = None
        self._station: Station | None = None
        self._needed = asyncio.Event()

    async def run(self, push: Push) -> None:
        """Work until cancelled; blocked multicast is pushed as a failure, never raised."""
        await self._needed.wait()  # loading would hold up a start
        station_type = await asyncio.to_thread(_load_station)

        def fan_out(app_id: str, found: Found) -> None:
            for name in tuple(self._names.get(app_id, ())):
                push(MDNS_SOURCE, name, found)

        station = station_type(
            fan_out,
            clock=self._clock,
            hostname=self._hostname,
            pid=os.getpid(),
            budget_s=self._budget_s,
            interfaces=self._interfaces,
            open_link=self._open_link,
        )
        if self._instance is not None:
            station.announce(self._instance)
        for app_id in self._names:
            station.watch(app_id)
        self._station = station
        try:
            await station.run()
        finally:
            self._station = None

    def watch(self, name: AppName) -> None:
        """Ask for a name now and keep it fresh."""
        self._names.setdefault(name.app_id, set()).add(name)
        self._needed.set()
        if self._station is not None:
            self._station.watch(name.app_id)

    def forget(self, name: AppName) -> None:
        """Stop watching a name."""
        names = self._names.get(name.app_id, set())
        names.discard(name)
        if not names:
            self._names.pop(name.app_id, None)
            if self._station is not None:
                self._station.forget(name.app_id)

    async def announce(self, instance: Instance) -> None:
        """Announce an instance, now or as soon as the station runs.

        Raises: AnnouncementError if it cannot be put into DNS records.
        """
        if self._station is not None:
            self._station.announce(instance)
        self._instance = instance
        self._needed.set()

    async def withdraw(self) -> None:
        """Say goodbye at once; repeats follow within 250 ms while `run` goes on."""
        self._instance = None
        if self._station is not None:
            self._station.withdraw()


def _load_station() -> type[Station]:
    from nameresolution.mdns.station import Station  # noqa: PLC0415 - 25 to 150 ms of import, off the start-up

    return Station
