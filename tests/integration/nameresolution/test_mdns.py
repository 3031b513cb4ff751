"""mDNS on this host's loopback: real multicast, peers in one process, raw sockets in the role of a daprd."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from nameresolution.directory import Directory
from nameresolution.interfaces import Interface, InterfaceFilter
from nameresolution.mdns.packets import answer, goodbye, question, read
from nameresolution.mdns.records import Query, Response, make_advert
from nameresolution.mdns.resolver import MdnsResolver
from nameresolution.mdns.sockets import Link
from nameresolution.resolver import AppName, EndpointSet, Instance

LOOPBACK_ONLY = InterfaceFilter(include=("lo*",))
LOOPBACK = Interface(name="lo", index=1, address="127.0.0.1")


@pytest.fixture
def app_id() -> str:
    """A name that no other sidecar on this host has; mixed case and a hyphen must survive."""
    return f"Cart-{uuid.uuid4().hex[:10]}"


def instance(app_id: str, name: str = "c1", port: int = 50002, mesh: str = "") -> Instance:
    return Instance(app_id=app_id, namespace="default", host="127.0.0.1", port=port, instance=name, mesh=mesh)


class Peer:
    """A directory over mDNS on loopback, and what it pushed."""

    def __init__(self, open_link: Callable[[Interface], Link] = Link) -> None:
        self.directory = Directory([MdnsResolver(interfaces=LOOPBACK_ONLY, open_link=open_link)])
        self.pushed: asyncio.Queue[EndpointSet] = asyncio.Queue()
        self.directory.subscribe(self.pushed.put_nowait)

    async def look_up(self, app_id: str) -> EndpointSet:
        self.directory.want(AppName(app_id, "default"))
        async with asyncio.timeout(10):
            return await self.pushed.get()


@asynccontextmanager
async def peers(*peers: Peer) -> AsyncIterator[None]:
    """Run them; each has its sockets open once its own question came back silent or answered."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(peer.directory.run()) for peer in peers]
        for peer in peers:
            own = f"up-{uuid.uuid4().hex}"
            await peer.directory.announce(instance(own))
            assert len((await peer.look_up(own)).endpoints) == 1
        yield
        for task in running:
            task.cancel()


async def test_cold_lookup_is_answered(app_id: str) -> None:
    cart, asker = Peer(), Peer()
    async with peers(cart, asker):
        await cart.directory.announce(instance(app_id))
        found = await asker.look_up(app_id)
        assert [endpoint.address for endpoint in found.endpoints] == ["127.0.0.1:50002"]


async def test_two_askers_within_one_second_both_get_their_answer(app_id: str) -> None:
    cart = Peer()
    askers = [Peer() for _ in range(4)]
    async with peers(cart, *askers):
        await cart.directory.announce(instance(app_id))
        for asker in askers:
            assert len((await asker.look_up(app_id)).endpoints) == 1


async def test_negative_is_dropped_at_once_by_an_announcement(app_id: str) -> None:
    cart, asker = Peer(), Peer()
    async with peers(cart, asker):
        assert (await asker.look_up(app_id)).endpoints == ()
        await cart.directory.announce(instance(app_id))
        async with asyncio.timeout(30):
            assert len((await asker.pushed.get()).endpoints) == 1


async def test_goodbye_removes_at_once_and_a_foreign_mesh_is_never_seen(app_id: str) -> None:
    ours, foreign, asker = Peer(), Peer(), Peer()
    async with peers(ours, foreign, asker):
        await foreign.directory.announce(instance(app_id, "f1", 50009, mesh="other"))
        await ours.directory.announce(instance(app_id))
        found = await asker.look_up(app_id)
        assert [endpoint.instance for endpoint in found.endpoints] == ["c1"]
        await ours.directory.withdraw()
        async with asyncio.timeout(30):
            assert (await asker.pushed.get()).endpoints == ()


class RawPeer:
    """A bare multicast socket on loopback, as another implementation would hold it."""

    def __init__(self) -> None:
        self.link = Link(LOOPBACK)

    async def receive(self, is_it: Callable[[Query | Response], bool], packet_id: int | None = None) -> bytes:
        """The next packet that fits, of that id if one is given."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            while True:
                readable = asyncio.Event()
                loop.add_reader(self.link.fileno(), readable.set)
                await readable.wait()
                loop.remove_reader(self.link.fileno())
                for data, _ in self.link.receive():
                    heard = read(data, from_this_host=True)
                    if heard is None or packet_id not in {None, int.from_bytes(data[:2])}:
                        continue
                    if is_it(heard):
                        return data


def names_in(response: Response) -> list[str]:
    """The instance names of those who came and those who left."""
    came = [sighting.instance_name for sighting in response.sightings]
    return came + [goodbye.instance_name for goodbye in response.goodbyes]


@asynccontextmanager
async def raw_peer() -> AsyncIterator[RawPeer]:
    peer = RawPeer()
    try:
        yield peer
    finally:
        peer.link.close()


async def test_responder_answers_a_daprds_question_with_one_packet_within_milliseconds(app_id: str) -> None:
    cart = Peer()
    async with peers(cart), raw_peer() as daprd:
        await cart.directory.announce(instance(app_id))
        waits = []
        for packet_id in range(1, 21):
            asked_at = time.monotonic()
            daprd.link.send(question(app_id, packet_id))
            data = await daprd.receive(lambda heard: isinstance(heard, Response), packet_id)
            waits.append(time.monotonic() - asked_at)
            assert data[2:12] == struct.pack(">5H", 0x8400, 0, 1, 0, 3)
        assert (
            min(waits) < 0.010
        )  # a busy machine delays some; a responder that waits on purpose (20-120 ms) delays all


async def test_announcement_comes_twice_and_goodbye_three_times(app_id: str) -> None:
    cart = Peer()
    async with peers(cart), raw_peer() as listener:

        def is_cart(heard: Query | Response) -> bool:
            return isinstance(heard, Response) and any(app_id in name for name in names_in(heard))

        await cart.directory.announce(instance(app_id))
        first_at = time.monotonic()
        await listener.receive(is_cart)
        await listener.receive(is_cart)
        assert 0.8 < time.monotonic() - first_at < 20.0
        await cart.directory.withdraw()
        withdrawn_at = time.monotonic()
        for _ in range(3):
            heard = read(await listener.receive(is_cart), from_this_host=True)
            assert isinstance(heard, Response)
            assert len(heard.goodbyes) == 1
        assert time.monotonic() - withdrawn_at < 10.0
        listener.link.send(question(app_id, 7))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await listener.receive(is_cart)


async def test_forged_goodbye_is_contradicted_by_whom_it_names(app_id: str) -> None:
    cart = Peer()
    advert = make_advert(instance(app_id), socket.gethostname(), os.getpid())

    def is_cart(heard: Query | Response) -> bool:
        return isinstance(heard, Response) and any(found.app_id == app_id for found in heard.sightings)

    async with peers(cart), raw_peer() as forger, asyncio.timeout(10):
        await cart.directory.announce(instance(app_id))
        for _ in range(2):
            await forger.receive(is_cart)
        forger.link.send(goodbye(advert))
        await forger.receive(is_cart)


async def test_daprd_is_found_although_its_record_names_no_instance(app_id: str) -> None:
    asker = Peer()
    async with peers(asker), raw_peer() as daprd, asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(asker.look_up(app_id))
        asked = await daprd.receive(
            lambda heard: isinstance(heard, Query) and f"{app_id}.local." in heard.names
        )
        heard = read(asked, from_this_host=True)
        assert isinstance(heard, Query)
        bare = Instance(app_id=app_id, namespace="", host="127.0.0.1", port=47301, instance="", weight=1)
        reply = answer(make_advert(bare, "box.lan", 9), heard)
        assert reply is not None
        daprd.link.send(reply)
        found = await looking
        assert [(endpoint.address, endpoint.instance) for endpoint in found.endpoints] == [
            ("127.0.0.1:47301", "")
        ]


# Classic BPF: load the ancillary random word, drop below 30 % of its range, else keep the packet.
LOSE_30_PERCENT = (
    (0x20, 0, 0, 0xFFFFF000 + 56),
    (0x35, 1, 0, int(0.3 * 2**32)),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)
SO_ATTACH_FILTER = 26


class LossyLink(Link):
    """A link whose kernel drops three of ten datagrams on arrival."""

    def __init__(self, interface: Interface) -> None:
        super().__init__(interface)
        code = b"".join(struct.pack("HBBI", *line) for line in LOSE_30_PERCENT)
        self._code = ctypes.create_string_buffer(code)
        program = struct.pack("HP", len(LOSE_30_PERCENT), ctypes.addressof(self._code))
        with socket.socket(fileno=os.dup(self.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


async def test_lossy_link_of_30_percent_each_way_still_resolves() -> None:
    names = [f"lossy-{uuid.uuid4().hex[:10]}" for _ in range(25)]
    async with asyncio.TaskGroup() as tasks:
        callees = [Peer(LossyLink) for _ in names]
        running = [tasks.create_task(peer.directory.run()) for peer in callees]
        for peer, name in zip(callees, names, strict=True):
            await peer.directory.announce(instance(name))
        asker = Peer(LossyLink)
        running.append(tasks.create_task(asker.directory.run()))
        missed: set[str] = set()
        async with asyncio.timeout(40):
            for batch in range(
                0, len(names), 5
            ):  # few at once: what is measured is loss, not this machine's load
                waiting = set(names[batch : batch + 5])
                for name in waiting:
                    asker.directory.want(AppName(name, "default"))
                while waiting:
                    pushed = await asker.pushed.get()
                    if pushed.name.app_id in waiting:
                        waiting.discard(pushed.name.app_id)
                        if not pushed.endpoints:
                            missed.add(pushed.name.app_id)
        assert len(missed) <= 2
        for task in running:
            task.cancel()
