"""Which address of this host others are told to dial; the choice is pure, reading the host's addresses a thin shell.

The order is a daprd's, except that a host with nothing but loopback advertises loopback instead of failing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping

from msgspec import Struct

from nameresolution.errors import AnnouncementError

LOOPBACK = "127.0.0.1"
_IGNORED = ipaddress.ip_network("192.0.0.0/29")  # DS-Lite: no one else can reach it
_CARRIER_NAT = ipaddress.ip_network("100.64.0.0/10")
_PROBES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


class HostAddresses(Struct, frozen=True, kw_only=True):
    """What this host says of itself: `routed` are the source addresses of its default routes, IPv4 first."""

    routed: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()


def advertised_address(
    env: Mapping[str, str], listen_address: str, survey: Callable[[], HostAddresses] | None = None
) -> str:
    """The IP address to advertise for a peer listener on `listen_address`.

    A listener on one address advertises that one; one on all addresses advertises DAPR_HOST_IP, else the source
    address of the default route, else the best interface address, else loopback.

    Raises: AnnouncementError if DAPR_HOST_IP is not an IP address.
    """
    listen = listen_address.strip("[]")
    if listen in {"localhost", "::1", LOOPBACK}:
        return listen if listen != "localhost" else LOOPBACK
    given = env.get("DAPR_HOST_IP", "").strip()
    if given:
        if _parsed(given) is None:
            raise AnnouncementError("DAPR_HOST_IP", f"expected an IP address, got {given!r}")
        return given
    parsed = _parsed(listen)
    if parsed is not None and not parsed.is_unspecified:
        return listen
    return choose(survey() if survey is not None else survey_host())


def choose(host: HostAddresses) -> str:
    """The best of the host's addresses: routed ones first, then by how far away they can be reached."""
    for address in host.routed:
        if _rank(address) is not None:
            return address
    ranked = [
        (rank, order, address) for order, address in enumerate(host.interfaces) if (rank := _rank(address))
    ]
    return min(ranked)[2] if ranked else LOOPBACK


def survey_host() -> HostAddresses:
    """Inspect this host: its routes (no packet is sent) and, only where there are none, its interfaces."""
    routed = tuple(address for family, target in _PROBES if (address := _source_towards(family, target)))
    return HostAddresses(routed=routed, interfaces=() if routed else _interface_addresses())


def _interface_addresses() -> tuple[str, ...]:
    import ifaddr  # noqa: PLC0415 - brings in ctypes, which most hosts' start-up never needs

    addresses = (ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips)
    return tuple(address if isinstance(address, str) else address[0] for address in addresses)


def _rank(address: str) -> int | None:
    """1 is best; None for what must not be advertised."""
    parsed = _parsed(address)
    if parsed is None or parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast:
        return None
    if parsed.version == 4 and parsed in _IGNORED:
        return None
    if parsed.is_link_local:
        return 5
    if parsed.version == 4:
        return 3 if parsed.is_private or parsed in _CARRIER_NAT else 1
    return 4 if parsed.is_private else 2


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


def _source_towards(family: socket.AddressFamily, target: str) -> str:
    """The local address of a datagram socket aimed at a documentation address, "" without a route."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 80))
        except OSError:
            return ""
        return str(probe.getsockname()[0])
