"""What must be right on the network: multicast on each interface, the name localhost, the trace collector."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from policies.reloading.loading import PolicySources, load
from proxy.cli.checks.findings import Finding, Probe, blocking, fail, ok, warn
from proxy.contract.addresses import split_address
from proxy.control.own_status import collector_of
from proxy.control.tracing_setup import configured_target

if TYPE_CHECKING:
    from nameresolution.mdns.self_query import Heard

_CONNECT_S: Final = 2.0


def network_probes(collectors: Iterable[str]) -> tuple[Probe, ...]:
    """collectors: `host:port` of each."""
    return (
        Probe(id="multicast", what="multicast", run=_multicast),
        Probe(id="localhost", what="the name localhost", run=blocking(check_localhost)),
        *map(collector_probe, dict.fromkeys(collectors)),
    )


def collector_probe(address: str) -> Probe:
    """Whether a trace collector takes connections."""

    async def run() -> Sequence[Finding]:
        return await _collector(address)

    return Probe(id="collector", what=f"trace collector {address}", run=run)


async def _multicast() -> Sequence[Finding]:
    from nameresolution.mdns.self_query import ask_ourselves  # noqa: PLC0415 - brings in the packet codec

    return check_multicast(await ask_ourselves())


def check_multicast(heard: Sequence["Heard"]) -> tuple[Finding, ...]:
    """A line for each interface. Warnings only: apps of one host find each other in its registry."""
    found = [
        warn(
            "multicast", f"IPv4 multicast on {each.interface.name} ({each.interface.address}): {each.problem}"
        )
        if each.problem
        else ok(
            "multicast",
            f"IPv4 multicast on {each.interface.name} ({each.interface.address}) works: heard after {each.took_ms:.0f} ms",
        )
        for each in heard
    ]
    if not any(not each.interface.address.startswith("127.") for each in heard):
        text = "no interface but the loopback can multicast over IPv4, as our mDNS does: apps on other hosts are not found by it"
        found.append(warn("multicast", text, "connect to a network, or name those apps in endpoints.yaml"))
    return tuple(found)


def check_localhost() -> tuple[Finding, ...]:
    """What the system's resolver makes of it. Blocks."""
    try:
        told = socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return (fail("localhost", f"localhost does not resolve: {error.strerror}"),)
    addresses = list(dict.fromkeys(str(each[4][0]) for each in told))
    foreign = [
        address for address in addresses if not ipaddress.ip_address(address.partition("%")[0]).is_loopback
    ]
    if foreign:
        return (fail("localhost", f"localhost leads to {', '.join(foreign)}, which is not the loopback"),)
    return (ok("localhost", f"localhost is {' and '.join(addresses)}"),)


async def _collector(address: str) -> Sequence[Finding]:
    try:
        await connect(address)
    except (OSError, ValueError) as error:
        return (fail("collector", f"trace collector {address}: {reason(error)}"),)
    return (ok("collector", f"trace collector {address} takes connections"),)


async def connect(address: str) -> None:
    """Open a TCP connection and close it. Raises: OSError (TimeoutError among them), ValueError for what is no `host:port`."""
    host, port = split_address(address)
    async with asyncio.timeout(_CONNECT_S):
        _, writer = await asyncio.open_connection(host, port)
    writer.transport.abort()


def reason(error: Exception) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, TimeoutError):
        return f"no answer within {_CONNECT_S:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there (connection refused)"
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def configured_collectors(files: Sequence[Path]) -> tuple[str, ...]:
    """The collectors that Configurations name. Blocks on the disk. Raises: DocumentError."""
    if not files:
        return ()
    found = load(
        PolicySources(config_paths=tuple(files), own_app_id="check", own_namespace="default", lenient=True)
    )
    tracing = found.configuration.tracing
    otlp = "" if tracing.otel is None else configured_target(tracing.otel).address
    return tuple(filter(None, (collector_of(tracing.zipkin_endpoint or ""), otlp)))
