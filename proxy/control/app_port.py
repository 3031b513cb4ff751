"""Who listens on the app's own port, according to the kernel: without a connection that the app would have to accept.

Linux only (sock_diag(7), /proc); elsewhere, and where it is forbidden, `listeners` is None and the port has to be dialled.
"""

import errno
import ipaddress
import os
import pwd
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_TCP_LISTEN = 10
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_QUERY = struct.Struct("=BBBxI")  # struct inet_diag_req_v2, without its sockid
_SOCKID = struct.Struct("!HH16s16s")  # struct inet_diag_sockid, without interface and cookie
_FACTS = struct.Struct("=4x48x12xII")  # struct inet_diag_msg: uid and inode
_RECEIVE_BYTES = 1 << 16
_TIMEOUT_S = 0.2
_LOOPBACKS = frozenset({"127.0.0.1", "::1"})


class Listener(Struct, frozen=True, kw_only=True):
    """A socket that accepts connections. `inode` finds the processes that have it open. uid: the user who opened it."""

    address: str
    port: int
    uid: int
    inode: int


class Holder(Struct, frozen=True, kw_only=True):
    """A process that listens on `port`. `pid` 0: another user's, that we can't see. `is_foreign`: surely not of our app's family."""

    uid: int
    port: int
    pid: int = 0
    name: str = ""
    is_foreign: bool = False

    def __str__(self) -> str:
        if self.pid:
            return f"{self.name} (pid {self.pid})"
        return f"a process of user {_user(self.uid)} (which one only root sees: sudo ss -ltnp 'sport = :{self.port}')"


def listeners(host: str, port: int) -> tuple[Listener, ...] | None:
    """The sockets that accept what is sent to `host` and `port`, None where the kernel can't be asked or `host` isn't local."""
    wanted = _addresses(host)
    if wanted is None or not hasattr(socket, "AF_NETLINK"):
        return None
    found: list[Listener] = []
    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            found += (listener for listener in _dump(family, port) if listener.address in wanted)
    except OSError:
        return None
    return tuple(found)


def holder(listener: Listener, ours: int | None) -> Holder:
    """The process that holds a listener: one of the family of `ours` if there is one, else any that we may see. Blocks on /proc."""
    mine = _family_of(ours) if ours else frozenset()
    link = f"socket:[{listener.inode}]"
    for pid in sorted(_pids(), key=lambda pid: pid not in mine):
        if _has_open(pid, link):
            return Holder(
                pid=pid,
                name=_name(pid),
                uid=listener.uid,
                port=listener.port,
                is_foreign=ours is not None and pid not in mine,
            )
    is_foreign = bool(mine) and _sees_all() and not any(listener.uid in _uids(pid) for pid in mine)
    return Holder(uid=listener.uid, port=listener.port, is_foreign=is_foreign)


def _family_of(pid: int) -> frozenset[int]:
    """A process, its descendants and the members of its process group, which may outlive their parents."""
    parents: dict[int, tuple[int, int]] = {}
    for each in _pids():
        stat = _stat(each)
        if stat is not None:
            parents[each] = stat
    found = {pid}
    while True:
        more = {
            each
            for each, (parent, group) in parents.items()
            if each not in found and (parent in found or group == pid)
        }
        if not more:
            return frozenset(found)
        found |= more


def _addresses(host: str) -> frozenset[str] | None:
    """The addresses of listeners that a connection to `host` may reach; None where that is not an address of this machine's loopback."""
    if host == "localhost":
        return _LOOPBACKS | {"0.0.0.0", "::", "::ffff:127.0.0.1"}  # noqa: S104 - compared, not bound
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if not address.is_loopback:
        return None
    if address.version == 6:
        return frozenset({str(address), "::"})
    return frozenset({str(address), f"::ffff:{address}", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def _dump(family: int, port: int) -> Iterator[Listener]:
    sockid = _SOCKID.pack(port, 0, bytes(16), bytes(16)) + bytes(12)
    body = _QUERY.pack(family, socket.IPPROTO_TCP, 0, 1 << _TCP_LISTEN) + sockid
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diag:  # 4: NETLINK_SOCK_DIAG
        diag.settimeout(_TIMEOUT_S)
        diag.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body)
        while True:
            data = memoryview(diag.recv(_RECEIVE_BYTES))
            while len(data) >= _HEADER.size:
                length, kind, *_ = _HEADER.unpack_from(data)
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR or length < _HEADER.size:
                    raise OSError(errno.EOPNOTSUPP, "sock_diag is not available")
                yield from _listener(family, port, data[_HEADER.size : length])
                data = data[(length + 3) & ~3 :]


def _listener(family: int, port: int, message: memoryview) -> Iterator[Listener]:
    local, _, source, _ = _SOCKID.unpack_from(message, 4)
    uid, inode = _FACTS.unpack_from(message)
    if local == port:
        packed = bytes(source[:4]) if family == socket.AF_INET else bytes(source)
        yield Listener(address=socket.inet_ntop(family, packed), port=port, uid=uid, inode=inode)


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _stat(pid: int) -> tuple[int, int] | None:
    """Parent and process group of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), int(fields[2])


def _sees_all() -> bool:
    """Whether /proc lists other users' processes, as it does unless it is mounted with hidepid=2."""
    return Path("/proc/1").exists()


def _uids(pid: int) -> frozenset[int]:
    """The users that a process runs as: real, effective, saved."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return frozenset()
    uids = next((line for line in status.splitlines() if line.startswith("Uid:")), "")
    return frozenset(map(int, uids.split()[1:4]))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def _has_open(pid: int, link: str) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(os.readlink(f"{folder}/{name}") == link for name in os.listdir(folder))
    except OSError:
        return False
