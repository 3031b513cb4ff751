"""Addresses of hosts outside of the mesh: looked up when a call first waits for them, refreshed while calls go there.

The system's resolver tells no lifetimes, so a host is looked up again after 30 s; calls go on to the old addresses meanwhile, and for as
long as no newer ones are found. Owns no connection and no cluster.
"""

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

from msgspec import Struct

from proxy.contract.addresses import join_address

LOOKUP_S = 5.0
_SWEEP_S = 1.0
MAX_LOOKUPS = 16  # at once, a thread each: the system's resolver can't be interrupted
MAX_WAITING = 256  # for their turn, and under way
REFRESH_S = 30.0
IDLE_S = 300.0  # without a call
AGAIN_S = 1.0  # after a failed lookup
# Where clouds serve credentials to whoever asks, beside the link-local 169.254.169.254: AWS over IPv6, Alibaba, Oracle, Azure.
_METADATA = frozenset(map(ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")))
_NAT64 = 0x64FF9B << 96  # 64:ff9b::/96 (RFC 6052 §2.1)

Lookup = Callable[[str, int], Awaitable[tuple[str, ...]]]
"""IP addresses of a host; raises OSError."""


class _Host(Struct):
    """As known at the moment. Times are the loop's."""

    host: str
    port: int
    addresses: tuple[str, ...] = ()
    error: str = ""
    is_asking: bool = False
    asked_at: float = float("-inf")
    used_at: float = float("-inf")
    is_stale: bool = False


class ExternalHosts:
    """Mutable state: hosts by key, those asked for last at the end; the lookups that wait, and their TaskGroup while `run` is running.

    refused: why an address of a key may not be called, or None. changed, expired, forgotten: told of keys.
    """

    def __init__(
        self,
        lookup: Lookup,
        *,
        refused: Callable[[str, str, int], str | None],
        changed: Callable[[str], None],
        expired: Callable[[str], None],
        forgotten: Callable[[str], None],
        now: Callable[[], float],
    ) -> None:
        self._lookup = lookup
        self._refused = refused
        self._changed = changed
        self._expired = expired
        self._forgotten = forgotten
        self._now = now
        self._hosts: dict[str, _Host] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._turns = asyncio.Semaphore(MAX_LOOKUPS)
        self._waiting = 0

    async def run(self) -> None:
        """Own the lookups until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                while True:
                    await asyncio.sleep(_SWEEP_S)
                    self.sweep()
            finally:
                self._tasks = None

    @property
    def keys(self) -> tuple[str, ...]:
        """All that are known, the least recently used first."""
        return tuple(self._hosts)

    def use(self, key: str, host: str, port: int, *, is_looked_up: bool = True) -> None:
        """A call goes there or waits for it: look the host up where that is due. An IP address is known at once, and so is a name that
        somebody else looks up.
        """
        found = self._hosts.pop(key, None) or _Host(host, port)
        self._hosts[key] = found
        found.used_at = self._now()
        if _is_address(host) or not is_looked_up:
            found.asked_at, found.is_stale = self._now(), False  # as good as new
            if not found.addresses and not found.error:
                self._found(key, found, (host,))
        elif self._is_due(found):
            self._begin(key, found)

    def _begin(self, key: str, found: _Host) -> None:
        if self._tasks is None or self._waiting >= MAX_WAITING:
            found.error = "too many hosts are being looked up at once"
            return
        found.is_asking, found.asked_at, found.is_stale = True, self._now(), False
        self._waiting += 1
        self._tasks.create_task(self._ask(key, found))

    def _is_due(self, found: _Host) -> bool:
        if found.is_asking:
            return False
        return self._now() - found.asked_at >= (AGAIN_S if not found.addresses else REFRESH_S)

    def addresses(self, key: str) -> tuple[str, ...]:
        """`ip:port` of each address that may be called."""
        found = self._hosts.get(key)
        return tuple(join_address(ip, found.port) for ip in found.addresses) if found is not None else ()

    def has_failed(self, key: str) -> bool:
        """Whether no news of a host will come soon."""
        found = self._hosts.get(key)
        return found is not None and not found.is_asking and not found.addresses

    def error(self, key: str) -> str:
        """Why a host has no addresses."""
        found = self._hosts.get(key)
        return (found.error or "it is still being looked up") if found is not None else ""

    def fail(self, key: str, error: str) -> None:
        """Its addresses are of no use."""
        if (found := self._hosts.get(key)) is not None:
            found.addresses, found.error = (), error
            self._changed(key)

    def forget(self, key: str) -> None:
        """Its connections are of no use any more."""
        if self._hosts.pop(key, None) is not None:
            self._forgotten(key)

    def sweep(self) -> None:
        """Have decisions made anew for addresses that are old, so that hosts in use are seen; let go of what is idle."""
        now = self._now()
        for key, found in list(self._hosts.items()):
            if now - found.used_at > IDLE_S and not found.is_asking:
                self.forget(key)
            elif found.addresses and not found.is_stale and now - found.asked_at > REFRESH_S:
                found.is_stale = True
                self._expired(key)

    async def _ask(self, key: str, found: _Host) -> None:
        ips: tuple[str, ...] = ()
        try:
            async with asyncio.timeout(LOOKUP_S), self._turns:
                ips = await self._lookup(found.host, found.port)
            error = "" if ips else f"{found.host} has no address"
        except TimeoutError:
            error = f"looking {found.host} up took longer than {LOOKUP_S:g} s"
        except OSError as failure:
            error = f"{found.host} was not found: {failure.strerror or failure}"
        finally:
            found.is_asking = False
            self._waiting -= 1
        if self._hosts.get(key) is not found:
            return  # forgotten meanwhile
        if ips:
            self._found(key, found, ips)
        elif not found.addresses:
            found.error = error
            self._changed(key)

    def _found(self, key: str, found: _Host, ips: tuple[str, ...]) -> None:
        reasons = {ip: self._refused(key, ip, found.port) for ip in dict.fromkeys(ips)}
        allowed = tuple(ip for ip, reason in reasons.items() if reason is None)
        before, found.addresses = found.addresses, allowed
        found.error = "" if allowed else "; ".join(dict.fromkeys(filter(None, reasons.values())))
        if not before or set(before) != set(allowed):
            self._changed(key)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def forbidden(ip: str, port: int, *, own_ports: frozenset[int], own_ip: str) -> str | None:
    """Why nobody is called at an address by a name that leads there: credentials of a cloud, no unicast, or one of our own ports."""
    if not _is_address(ip):
        return None  # an HTTP proxy looks it up, and what it lets through is its affair
    address = _plain(ip_address(ip))
    if address.is_link_local or address in _METADATA:
        return f"{ip} is link-local, where clouds serve credentials"
    if address.is_multicast or address.is_unspecified:
        return f"{ip} is the address of no host"
    if port in own_ports and (address.is_loopback or ip == own_ip):
        return f"{ip}:{port} is a port of this proxy itself"
    return None


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one leads to, or itself."""
    if isinstance(address, IPv4Address):
        return address
    if int(address) >> 32 == _NAT64 >> 32:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address
