"""The mDNS station of one sidecar: sockets, answers and questions; the shell around packets and browser.

Import it late, it brings in the packet codec.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from nameresolution.interfaces import Interface, InterfaceFilter, Network
from nameresolution.mdns import packets
from nameresolution.mdns.browser import Browser
from nameresolution.mdns.records import Advert, Goodbye, Query, Response, make_advert
from nameresolution.mdns.sockets import Link, describe, survey
from nameresolution.resolver import Found, Instance, SourceFailure

_LOG = logging.getLogger("postern.nameresolution.mdns")

_SURVEY_S = 1.5  # a new interface is in use within 2 s
_ANNOUNCEMENTS_S = (0.0, 1.0)
_TELL_S = 0.1  # between news of one app-id: a host that announces without end must not keep everybody busy
_GOODBYES_S = (0.0, 0.125, 0.25)
_BLOCKED_FIX = (
    "is it running under this app-id? is multicast (UDP 224.0.0.251 port 5353) blocked by a VPN, a firewall or security "
    "software? if it stays blocked, list its address in a file and set nameResolution.component to file"
)
_NO_LINK_FIX = "free UDP port 5353 and allow multicast, or set nameResolution.component to file"


class Station:
    """Owns the links, the browser, our advert and the announcements still to send; runs on one event loop."""

    def __init__(
        self,
        push: Callable[[str, Found], None],
        *,
        clock: Callable[[], float],
        hostname: str,
        pid: int,
        budget_s: float,
        interfaces: InterfaceFilter,
        open_link: Callable[[Interface], Link] | None = None,
    ) -> None:
        self._push = push
        self._clock = clock
        self._hostname = hostname
        self._pid = pid
        self._filter = interfaces
        self._open_link = open_link or Link
        self._browser = Browser(budget_s)
        self._advert: Advert | None = None
        self._unsent: list[tuple[float, bytes]] = []  # moment and packet
        self._links: dict[Interface, Link] = {}
        self._refused: dict[str, str] = {}  # interface name -> why it has no link
        self._own_addresses: frozenset[str] = frozenset()
        self._surveyed_at: float | None = None
        self._woken = asyncio.Event()
        self._told_at: dict[str, float] = {}  # when an app-id's endpoints were told last
        self._untold: set[str] = set()  # app-ids with news that wait

    async def run(self) -> None:
        """Ask, answer and announce until cancelled."""
        try:
            while True:
                self._woken.clear()
                now = self._clock()
                self._survey(now)
                self._send_unsent(now)
                self._ask(now)
                self._tell_due(now)
                await self._sleep()
        finally:
            for link in self._links.values():
                asyncio.get_running_loop().remove_reader(link.fileno())
                link.close()
            self._links.clear()

    def watch(self, app_id: str) -> None:
        """Ask for an app-id now and keep it fresh."""
        self._browser.watch(app_id, self._clock())
        if self._browser.endpoints(app_id):
            self._tell(app_id)
        self._woken.set()

    def forget(self, app_id: str) -> None:
        """Keep an app-id fresh no longer."""
        self._browser.forget(app_id)
        self._told_at.pop(app_id, None)
        self._untold.discard(app_id)

    def announce(self, instance: Instance) -> None:
        """Announce an instance twice, a second apart, and answer for it from now on.

        Raises: AnnouncementError.
        """
        advert = make_advert(instance, self._hostname, self._pid)
        packet = packets.announcement(advert)
        self._advert = advert
        self._schedule(packet, _ANNOUNCEMENTS_S)

    def withdraw(self) -> None:
        """Say goodbye at once, and twice more while `run` goes on; answer for nothing any more."""
        advert, self._advert = self._advert, None
        if advert is None:
            return
        self._schedule(packets.goodbye(advert), _GOODBYES_S)
        self._send_unsent(self._clock())

    def _schedule(self, packet: bytes, offsets_s: tuple[float, ...]) -> None:
        now = self._clock()
        self._unsent = [(now + offset, packet) for offset in offsets_s]
        self._woken.set()

    def _send_unsent(self, now: float) -> None:
        for at, packet in self._unsent:
            if at <= now:
                self._multicast(packet)
        self._unsent = [(at, packet) for at, packet in self._unsent if at > now]

    def _multicast(self, packet: bytes) -> None:
        for link in self._links.values():
            link.send(packet)

    def _ask(self, now: float) -> None:
        due = self._browser.due(now)
        for app_id in due.ask:
            self._multicast(packets.question(app_id, random.getrandbits(16)))
        for app_id in {*due.changed, *due.silent}:
            self._tell(app_id)
        if not self._links:
            for app_id in due.ask:
                self._tell(app_id)

    def _tell_due(self, now: float) -> None:
        for app_id in tuple(self._untold):
            if now >= self._told_at.get(app_id, 0.0) + _TELL_S:
                self._tell(app_id)

    def _tell(self, app_id: str) -> None:
        self._untold.discard(app_id)
        self._told_at[app_id] = self._clock()
        endpoints = self._browser.endpoints(app_id)
        self._push(app_id, endpoints or self._failure(app_id))

    def _failure(self, app_id: str) -> SourceFailure:
        if self._browser.has_left(app_id):
            return SourceFailure(reason="the last instance said goodbye", missing=True)
        problems = [f"{name}: {why}" for name, why in self._refused.items()]
        problems += [
            f"{link.interface.name}: {link.problem}" for link in self._links.values() if link.problem
        ]
        if not self._links:
            reason = "; ".join(problems) or "no network interface to ask on"
            return SourceFailure(reason=reason, fix=_NO_LINK_FIX)
        names = ", ".join(sorted(link.interface.name for link in self._links.values()))
        asked = self._browser.asked(app_id)
        said = f"asked {asked} times on {names} in {self._browser.budget_s:.1f} s, nobody answered"
        if self._browser.is_lost(app_id):
            said = f"no answer on {names} since the last one expired, no goodbye either"
        reason = "; ".join([said, *problems])
        return SourceFailure(reason=reason, fix=_BLOCKED_FIX, missing=not self._browser.is_lost(app_id))

    def _on_readable(self, link: Link) -> None:
        for data, (address, port) in link.receive():
            self._hear(link, data, (address, port))

    def _hear(self, link: Link, data: bytes, sender: tuple[str, int]) -> None:
        heard = packets.read(data, from_this_host=sender[0] in self._own_addresses)
        if isinstance(heard, Query):
            self._answer(link, heard, sender)
        elif isinstance(heard, Response):
            self._take_in(heard)

    def _answer(self, link: Link, query: Query, sender: tuple[str, int]) -> None:
        packet = packets.answer(self._advert, query) if self._advert is not None else None
        if packet is None:
            return
        if query.unicast or sender[1] != 5353:
            link.send(packet, sender)
        else:
            link.send(packet)

    def _take_in(self, response: Response) -> None:
        now = self._clock()
        changed = [sighting.app_id for sighting in response.sightings if self._browser.hear(sighting, now)]
        for goodbye in response.goodbyes:
            self._contradict(goodbye)
            changed += self._browser.leave(goodbye)
        if changed:
            self._untold.update(changed)
            self._tell_due(now)
            self._woken.set()

    def _contradict(self, goodbye: Goodbye) -> None:
        """Somebody says goodbye in our name: announce ourselves again (RFC 6762 §9), at most once a second."""
        advert = self._advert
        if advert is None or self._unsent or goodbye.instance_name != advert.instance_name:
            return
        if goodbye.instance in {"", advert.instance.instance}:
            self._schedule(packets.announcement(advert), _ANNOUNCEMENTS_S)

    def _survey(self, now: float) -> None:
        """Open links on interfaces that came, close those on interfaces that went."""
        if self._surveyed_at is not None and now < self._surveyed_at + _SURVEY_S:
            return
        self._surveyed_at = now
        network = survey(self._filter)
        self._own_addresses = network.own_addresses
        for interface in set(self._links) - set(network.interfaces):
            link = self._links.pop(interface)
            asyncio.get_running_loop().remove_reader(link.fileno())
            link.close()
        opened = self._open_links(network)
        if opened and self._advert is not None and not self._unsent:
            self._schedule(packets.announcement(self._advert), _ANNOUNCEMENTS_S)
        if opened:
            for app_id in self._browser.watched():
                self._browser.watch(app_id, now)

    def _open_links(self, network: Network) -> bool:
        refused: dict[str, str] = {}
        opened = False
        for interface in network.interfaces:
            if interface in self._links:
                continue
            try:
                link = self._open_link(interface)
            except OSError as error:
                refused[interface.name] = describe(error)
                if self._refused.get(interface.name) != refused[interface.name]:
                    _LOG.warning("mdns cannot use %s: %s", interface.name, refused[interface.name])
                continue
            self._links[interface] = link
            asyncio.get_running_loop().add_reader(link.fileno(), self._on_readable, link)
            opened = True
        self._refused = refused
        return opened

    async def _sleep(self) -> None:
        moments = [moment for moment in (self._browser.next_at(),) if moment is not None]
        moments += [at for at, _ in self._unsent]
        moments += [self._told_at.get(app_id, 0.0) + _TELL_S for app_id in self._untold]
        if self._surveyed_at is not None:
            moments.append(self._surveyed_at + _SURVEY_S)
        try:
            async with asyncio.timeout(max(0.0, min(moments) - self._clock())):
                await self._woken.wait()
        except TimeoutError:
            return
