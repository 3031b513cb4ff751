"""The checks of the network, on this host's own and on made-up answers."""

import asyncio
import socket
from pathlib import Path

import pytest

from nameresolution.interfaces import Interface
from nameresolution.mdns.self_query import Heard
from policies.errors import DocumentError
from proxy.cli.checks.findings import run_all
from proxy.cli.checks.network import (
    check_localhost,
    check_multicast,
    collector_probe,
    configured_collectors,
    network_probes,
)

LOOPBACK = Heard(interface=Interface(name="lo", index=1, address="127.0.0.1"), took_ms=1.2)
CABLE = Interface(name="eth0", index=2, address="10.0.0.1")


def test_multicast_is_told_for_each_interface() -> None:
    blocked = Heard(interface=CABLE, problem="our own answer did not come back within 2 s")
    found = check_multicast((blocked, LOOPBACK))
    assert [(each.state, each.text) for each in found] == [
        ("warning", "IPv4 multicast on eth0 (10.0.0.1): our own answer did not come back within 2 s"),
        ("ok", "IPv4 multicast on lo (127.0.0.1) works: heard after 1 ms"),
    ]
    (_, alone) = check_multicast((LOOPBACK,))
    assert (alone.state, "endpoints.yaml" in alone.hint) == ("warning", True)


def test_localhost_must_be_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_localhost()[0].state == "ok"
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.9.9.9", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    assert check_localhost()[0].text == "localhost leads to 10.9.9.9, which is not the loopback"

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert check_localhost()[0].text == "localhost does not resolve: Name or service not known"


async def test_collector_is_tried() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        (up,) = await collector_probe(address).run()
    (down,) = await collector_probe(address).run()
    (odd,) = await collector_probe("nowhere").run()
    assert up.text == f"trace collector {address} takes connections"
    assert down.text == f"trace collector {address}: nobody listens there (connection refused)"
    assert odd.state == "failed"


async def test_network_is_probed_side_by_side() -> None:
    found = await run_all(network_probes(()))
    assert {each.id for each in found} == {"multicast", "localhost"}


@pytest.mark.parametrize(
    ("tracing", "addresses"),
    [
        ('zipkin: {endpointAddress: "http://z.example:9411/api/v2/spans"}', ("z.example:9411",)),
        ('zipkin: {endpointAddress: "https://[::1]/spans"}', ("[::1]:443",)),
        ("otel: {endpointAddress: collector:4317, isSecure: false, protocol: grpc}", ("collector:4317",)),
        ("stdout: true", ()),
    ],
)
def test_collectors_are_those_of_the_configuration(
    tmp_path: Path, tracing: str, addresses: tuple[str, ...]
) -> None:
    path = tmp_path / "c.yaml"
    head = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\n"
    path.write_text(f'{head}spec:\n  tracing:\n    samplingRate: "1"\n    {tracing}\n')
    assert configured_collectors((path,)) == addresses
    assert configured_collectors(()) == ()
    path.write_text("kind: [")
    with pytest.raises(DocumentError):
        configured_collectors((path,))
