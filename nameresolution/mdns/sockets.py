"""Multicast sockets, one per network interface, so that no membership limit or routing rule of one touches the others.

Knows nothing of DNS. The loopback interface is used too: multicast works on it although it lacks the flag.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterable

import ifaddr

from nameresolution.interfaces import Interface, InterfaceFilter, Network

GROUP = "224.0.0.251"
PORT = 5353
_MAX_DATAGRAM_BYTES = 9000  # RFC 6762 section 17
_READS_A_TURN = 32  # datagrams taken at once before the loop gets its turn
_SIOCGIFFLAGS = 0x8913
_IFF_UP, _IFF_LOOPBACK, _IFF_MULTICAST = 0x1, 0x8, 0x1000
_IP_MULTICAST_ALL = 49  # Linux: without it a socket hears the groups joined by others, on every interface


def survey(wanted: InterfaceFilter) -> Network:
    """Look at this host's interfaces now: those that are up and can multicast, loopback included."""
    interfaces: dict[str, Interface] = {}
    own: set[str] = set()
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            own.add(ip.ip if isinstance(ip.ip, str) else ip.ip[0])
            if not isinstance(ip.ip, str) or adapter.index is None or adapter.name in interfaces:
                continue
            if wanted.allows(adapter.name, ip.ip) and _can_multicast(adapter.name):
                interfaces[adapter.name] = Interface(name=adapter.name, index=adapter.index, address=ip.ip)
    return Network(interfaces=tuple(interfaces.values()), own_addresses=frozenset(own))


def _can_multicast(name: str) -> bool:
    """By the kernel's flags; where they cannot be read (not Linux), joining the group will tell."""
    if not sys.platform.startswith("linux"):
        return True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFFLAGS, struct.pack("16sH14x", name.encode()[:15], 0))
        except OSError:
            return False
    (flags,) = struct.unpack_from("H", answer, 16)
    return bool(flags & _IFF_UP and flags & (_IFF_MULTICAST | _IFF_LOOPBACK))


class Link:
    """The socket of one interface, not blocking. `problem` is why the latest datagram could not be sent, or ""."""

    def __init__(self, interface: Interface) -> None:
        """Bind and join the group.

        Raises: OSError.
        """
        self.interface = interface
        self.problem = ""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._configure()
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor, for the event loop."""
        return self._socket.fileno()

    def send(self, data: bytes, to: tuple[str, int] = (GROUP, PORT)) -> None:
        """Send one datagram; a failure is kept in `problem`."""
        try:
            self._socket.sendto(data, to)
        except BlockingIOError:
            return  # a full buffer loses a datagram like any link; repeats are part of the protocol
        except OSError as error:
            self.problem = describe(error)
        else:
            self.problem = ""

    def receive(self) -> Iterable[tuple[bytes, tuple[str, int]]]:
        """The datagrams that have arrived, a bounded number of them."""
        for _ in range(_READS_A_TURN):
            try:
                yield self._socket.recvfrom(_MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self.problem = describe(error)
                return

    def close(self) -> None:
        """Leave the group and free the socket."""
        self._socket.close()

    def _configure(self) -> None:
        sock = self._socket
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform.startswith("linux"):
            # Not SO_REUSEPORT too: Linux then gives a datagram to one socket of the group, of any interface (measured,
            # 6.18), and the answer leaves by that interface. Sockets that set both do share the port with us.
            sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((GROUP, PORT))
        interface = self.interface
        request = struct.pack(
            "4s4si", socket.inet_aton(GROUP), socket.inet_aton(interface.address), interface.index
        )
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        local = struct.pack("4s4si", bytes(4), socket.inet_aton(interface.address), interface.index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, local)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, struct.pack("B", 255))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, struct.pack("B", 1))


def describe(error: OSError) -> str:
    """An error of a socket in words, with what is behind it where that is known."""
    text = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        return f"{text}: another program holds UDP port {PORT} for itself"
    if error.errno == errno.ENOBUFS:
        return f"{text}: raise net.ipv4.igmp_max_memberships"
    if error.errno in {errno.EPERM, errno.EACCES}:
        return f"{text}: a firewall or sandbox forbids multicast"
    return (
        text
        if error.errno is None
        else f"{text} ({errno.errorcode.get(error.errno, os.strerror(error.errno))})"
    )
