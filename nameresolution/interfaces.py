"""Network interfaces as values, and which of them are wanted; pure, and light to import."""

from __future__ import annotations

import fnmatch
import ipaddress

from msgspec import Struct


class Interface(Struct, frozen=True, kw_only=True):
    """One network interface with its first IPv4 address."""

    name: str
    index: int
    address: str


class InterfaceFilter(Struct, frozen=True, kw_only=True):
    """Which interfaces to use, by name pattern (`eth*`) or network (`10.0.0.0/8`). An empty `include` means all."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def allows(self, name: str, address: str) -> bool:
        """Whether an interface is to be used."""
        if any(_matches(pattern, name, address) for pattern in self.exclude):
            return False
        return not self.include or any(_matches(pattern, name, address) for pattern in self.include)


def _matches(pattern: str, name: str, address: str) -> bool:
    if fnmatch.fnmatchcase(name, pattern):
        return True
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return False


class Network(Struct, frozen=True, kw_only=True):
    """The interfaces to multicast on, and every address that is ours."""

    interfaces: tuple[Interface, ...]
    own_addresses: frozenset[str]
