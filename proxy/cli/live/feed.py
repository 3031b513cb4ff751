"""Polls the sidecars while a page is open, and hands the newest picture to each.

Without a page nothing is asked. Every question has a deadline, so that a picture comes whatever a sidecar does.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from nameresolution.host_registry import Entry
from proxy.cli.fleet import ask, entries
from proxy.cli.live.picture import Json, Painter
from proxy.cli.rates import TARGET, Mesh

PERIOD_S = 1.0
_MANY = 12  # sidecars; with more, pictures come half as often
_STATUS_EVERY = 3  # pictures


class Feed:
    """The newest picture. Mutable state: that, the mesh it shows, whom to wake for the next one, and statuses by instance."""

    def __init__(self, root: Path, *, wall: Callable[[], float] = time.time) -> None:
        self.root = root
        self.picture: Json | None = None
        self.mesh: Mesh | None = None
        self.listed: tuple[Entry, ...] = ()
        self._wall = wall
        self._painter = Painter()
        self._statuses: dict[str, Mapping[str, object]] = {}
        self._looking: set[Callable[[], None]] = set()
        self._wanted = asyncio.Event()

    def look(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` for each new picture; the function returned stops that."""
        self._looking.add(wake)
        self._wanted.set()
        return lambda: self._looking.discard(wake)

    async def sidecars(self) -> tuple[Entry, ...]:
        """Those that run now."""
        return await asyncio.to_thread(entries, self.root)

    async def find(self, instance: str) -> Entry | None:
        """The sidecar of an instance, if it runs."""
        return next((entry for entry in await self.sidecars() if entry.instance == instance), None)

    async def run(self) -> None:
        """Paint until cancelled."""
        number = 0
        while True:
            if not self._looking:
                self.picture = self.mesh = None  # whoever looks next is not shown an old one
                self._wanted.clear()
                await self._wanted.wait()
                number = 0
            began = asyncio.get_running_loop().time()
            with contextlib.suppress(OSError):  # out of descriptors: the page tells that nothing came
                await self._paint(with_status=number % _STATUS_EVERY == 0)
            number += 1
            period_s = PERIOD_S * (2 if len(self.listed) > _MANY else 1)
            await asyncio.sleep(max(began + period_s - asyncio.get_running_loop().time(), PERIOD_S / 4))

    async def _paint(self, *, with_status: bool) -> None:
        listed = await self.sidecars()
        told = await ask(listed, TARGET)
        heard = [sidecar.entry for sidecar in told if sidecar.answer is not None]
        unknown = [entry for entry in heard if entry.instance not in self._statuses]
        asked = heard if with_status else unknown
        for sidecar in await ask(asked, "/status") if asked else ():
            if sidecar.answer is not None:
                self._statuses[sidecar.entry.instance] = sidecar.answer
            else:
                self._statuses.pop(sidecar.entry.instance, None)
        instances = {entry.instance for entry in heard}
        self._statuses = {name: one for name, one in self._statuses.items() if name in instances}
        self.listed = listed
        self.picture, self.mesh = self._painter.paint(told, self._statuses, self._wall())
        for wake in tuple(self._looking):
            wake()
