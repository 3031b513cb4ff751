"""Network namespaces joined by a bridge, for tests of multicast and of machines that cannot see each other. Needs root.

Each host is a namespace with loopback up, and mostly `eth0` on one common network; names are unique,
and everything is removed at the end.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.support.errors import NamespaceError

_COMMAND_S = 30.0


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace and the address of its `eth0`."""

    namespace: str
    address: str

    def command(self, args: Sequence[str | os.PathLike[str]]) -> list[str]:
        """The arguments that run a program inside; `ip` replaces itself, so the pid is the program's."""
        return ["ip", "netns", "exec", self.namespace, *(os.fspath(arg) for arg in args)]

    def run(self, *args: str) -> str:
        """Run a short command inside; its output. Raises NamespaceError."""
        return _run("ip", "netns", "exec", self.namespace, *args)


def unavailable_reason() -> str | None:
    """Why namespaces cannot be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the `ip` command is missing: apt-get install iproute2"
    probe = f"pt{secrets.token_hex(3)}"
    try:
        _run("ip", "netns", "add", probe)
        _run("ip", "netns", "del", probe)
    except NamespaceError as error:
        return f"network namespaces are not permitted: {error}"
    return None


@contextlib.contextmanager
def lone_hosts(count: int) -> Iterator[tuple[Host, ...]]:
    """Make `count` hosts without a network: they have loopback alone, and no address; remove them all at the end."""
    tag = f"pt{secrets.token_hex(3)}"
    hosts = tuple(Host(f"{tag}-{index}", "") for index in range(count))
    with contextlib.ExitStack() as stack:
        for host in hosts:
            _add(host.namespace, stack)
        yield hosts


@contextlib.contextmanager
def joined_hosts(count: int = 2) -> Iterator[tuple[Host, ...]]:
    """Make `count` hosts on one network, 10.77.0.0/24, with multicast; remove them all at the end."""
    tag = f"pt{secrets.token_hex(3)}"
    hosts = tuple(Host(f"{tag}-{index}", f"10.77.0.{index + 1}") for index in range(count))
    switch = f"{tag}-sw"
    with contextlib.ExitStack() as stack:
        for namespace in (switch, *(host.namespace for host in hosts)):
            _add(namespace, stack)
        _run(
            "ip",
            "-n",
            switch,
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "mcast_snooping",
            "0",
            "forward_delay",
            "0",
        )
        _run("ip", "-n", switch, "link", "set", "br0", "up")
        for index, host in enumerate(hosts):
            _plug(host, switch, f"port{index}")
        yield hosts


def _add(namespace: str, stack: contextlib.ExitStack) -> None:
    _run("ip", "netns", "add", namespace)
    stack.callback(_run, "ip", "netns", "del", namespace)
    _run("ip", "-n", namespace, "link", "set", "lo", "up")


def _plug(host: Host, switch: str, port: str) -> None:
    """Put a cable between a host's eth0 and a port of the switch."""
    inside = ("ip", "-n", host.namespace)
    _run(*inside, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch)
    _run("ip", "-n", switch, "link", "set", port, "master", "br0", "up")
    _run(*inside, "address", "add", f"{host.address}/24", "dev", "eth0")
    _run(*inside, "link", "set", "eth0", "up", "multicast", "on")
    _run(*inside, "route", "add", "default", "dev", "eth0")


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    if result.returncode:
        raise NamespaceError(command, result.stderr or result.stdout)
    return result.stdout
