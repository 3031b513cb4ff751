"""The self-query on real loopback multicast, and on links that fail or say nothing."""

from __future__ import annotations

from collections.abc import Iterable

from nameresolution.interfaces import Interface, InterfaceFilter
from nameresolution.mdns.self_query import ask_ourselves
from nameresolution.mdns.sockets import Link

LOOPBACK = InterfaceFilter(include=("127.0.0.0/8",))


class Deaf(Link):
    """A link on which nothing comes back."""

    def receive(self) -> Iterable[tuple[bytes, tuple[str, int]]]:
        tuple(super().receive())
        return ()


class HalfDeaf(Link):
    """A link on which only what was sent first comes back."""

    def send(self, data: bytes, to: tuple[str, int] = ("224.0.0.251", 5353)) -> None:
        if data[2] & 0x80 == 0:  # a question, RFC 1035 section 4.1.1
            super().send(data, to)


async def test_loopback_hears_itself() -> None:
    (heard,) = await ask_ourselves(within_s=10.0, interfaces=LOOPBACK)
    assert (heard.interface.name, heard.problem) == ("lo", "")
    assert heard.took_ms > 0


async def test_what_did_not_come_back_is_told() -> None:
    (heard,) = await ask_ourselves(within_s=0.3, interfaces=LOOPBACK, open_link=Deaf)
    assert heard.problem == "our own question did not come back within 0.3 s"
    (heard,) = await ask_ourselves(within_s=2.0, interfaces=LOOPBACK, open_link=HalfDeaf)
    assert heard.problem == "our own answer did not come back within 2 s"


async def test_link_that_cannot_be_opened_or_sent_on_says_why() -> None:
    def refuse(interface: Interface) -> Link:
        raise PermissionError(1, "Operation not permitted")

    (heard,) = await ask_ourselves(interfaces=LOOPBACK, open_link=refuse)
    assert "a firewall or sandbox forbids multicast" in heard.problem

    class Broken(Link):
        def send(self, data: bytes, to: tuple[str, int] = ("224.0.0.251", 5353)) -> None:
            self.problem = "Network is unreachable"

    (heard,) = await ask_ourselves(within_s=0.1, interfaces=LOOPBACK, open_link=Broken)
    assert heard.problem == "Network is unreachable"


async def test_no_interface_is_nothing_to_ask_on() -> None:
    assert await ask_ourselves(interfaces=InterfaceFilter(include=("nothing*",))) == ()
