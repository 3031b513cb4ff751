"""mDNS between real hosts: network namespaces, real sockets, real processes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.nameresolution.hosts import (
    REPOSITORY,
    host,
    ip,
    join,
    node,
    two_hosts,
    why_no_namespaces,
)

_WHY_NOT = why_no_namespaces()

pytestmark = [pytest.mark.netns, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT)]


async def test_two_hosts_find_each_other_and_a_goodbye_removes_at_once(tmp_path: Path) -> None:
    with two_hosts() as (left, right):
        async with node(left, tmp_path / "l") as cart, node(right, tmp_path / "r") as pay:
            await cart.do("announce Cart-1 10.77.0.1 50002 c1")
            await pay.do("announce pay 10.77.0.2 50003 p1")
            assert (await pay.look_up("pay"))["endpoints"] == ["10.77.0.2:50003"]
            assert (await cart.look_up("Cart-1"))["endpoints"] == ["10.77.0.1:50002"]
            assert (await pay.look_up("Cart-1"))["endpoints"] == ["10.77.0.1:50002"]
            assert (await cart.look_up("pay"))["endpoints"] == ["10.77.0.2:50003"]
            await cart.send("withdraw")
            gone = await pay.expect_endpoints()
            assert gone["tried"][1] == "mdns: the last instance said goodbye"


async def test_host_that_says_goodbye_leaves_the_other_instance(tmp_path: Path) -> None:
    with two_hosts() as (left, right):
        async with (
            node(left, tmp_path / "l") as one,
            node(right, tmp_path / "r") as two,
            node(right, tmp_path / "asker") as asker,
        ):
            await one.do("announce cart 10.77.0.1 50002 c1")
            await two.do("announce cart 10.77.0.2 50002 c2")
            await asker.send("want cart")
            await asker.expect_endpoints("10.77.0.1:50002", "10.77.0.2:50002")
            await one.do("withdraw")
            await asker.expect_endpoints("10.77.0.2:50002")


async def test_caller_that_came_first_learns_of_the_callee_when_it_starts(tmp_path: Path) -> None:
    with two_hosts() as (left, right):
        async with node(left, tmp_path / "l") as cart, node(right, tmp_path / "r") as asker:
            nobody = await asker.look_up("cart")
            assert nobody["endpoints"] == []
            assert "asked 9 times on lo, wire in 2.0 s, nobody answered" in nobody["tried"][1]
            assert "VPN" in nobody["tried"][1]
            await cart.do("announce cart 10.77.0.1 50002 c1")
            await asker.expect_endpoints("10.77.0.1:50002")


async def test_neighbour_that_advertises_loopback_captures_no_calls(tmp_path: Path) -> None:
    with two_hosts() as (left, right):
        async with node(left, tmp_path / "l") as neighbour, node(right, tmp_path / "r") as asker:
            await neighbour.do("announce cart 127.0.0.1 50002 c1")
            assert (await asker.look_up("cart"))["endpoints"] == []
            assert (await neighbour.look_up("cart"))["endpoints"] == ["127.0.0.1:50002"]


async def test_cable_plugged_in_later_is_in_use_soon(tmp_path: Path) -> None:
    with host() as left, host() as right:
        async with node(left, tmp_path / "l") as cart, node(right, tmp_path / "r") as asker:
            await cart.do("announce cart 10.77.0.1 50002 c1")
            assert (await asker.look_up("cart"))["endpoints"] == []
            join(left, right)
            plugged_at = time.monotonic()
            await asker.expect_endpoints("10.77.0.1:50002")
            assert time.monotonic() - plugged_at < 30.0


async def test_host_with_loopback_only_finds_its_apps_by_mdns_alone(tmp_path: Path) -> None:
    with host() as alone:
        async with node(alone, tmp_path / "a") as cart, node(alone, tmp_path / "b") as asker:
            await cart.do("announce cart 127.0.0.1 50002 c1")
            assert (await asker.look_up("cart"))["endpoints"] == ["127.0.0.1:50002"]


HOLDER = """
import sys
from pathlib import Path
from nameresolution.host_registry import Entry, HostRegistry
held = HostRegistry(Path(sys.argv[1])).register(Entry(app_id="cart", instance="c1", peer_port=50002))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def registered(root: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


async def test_where_multicast_is_blocked_the_registry_still_resolves_and_the_error_says_so(
    tmp_path: Path,
) -> None:
    with host(loopback=False) as blocked, registered(tmp_path) as cart:
        async with node(blocked, tmp_path) as asker:
            assert (await asker.look_up("cart"))["endpoints"] == ["127.0.0.1:50002"]
            nobody = await asker.look_up("pay")
            assert nobody["tried"][0] == "host registry: no entry"
            assert nobody["tried"][1].startswith("mdns: no network interface to ask on (fix: ")
            cart.send_signal(signal.SIGKILL)
            await asker.expect(lambda words: words.get("name") == "cart" and words["endpoints"] == [])


EXCLUSIVE = """
import socket, sys
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held.bind(("", 5353))
print("held", flush=True)
sys.stdin.read()
"""


async def test_port_held_by_another_program_is_named_and_used_once_it_is_free(tmp_path: Path) -> None:
    with two_hosts() as (left, right):
        held = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", right, sys.executable, "-c", EXCLUSIVE),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert held.stdin is not None
        assert held.stdout is not None
        async with asyncio.timeout(10):
            assert await held.stdout.readline() == b"held\n"
        async with node(left, tmp_path / "l") as cart, node(right, tmp_path / "r") as asker:
            await cart.do("announce cart 10.77.0.1 50002 c1")
            nobody = await asker.look_up("cart")
            assert "another program holds UDP port 5353" in nobody["tried"][1]
            assert "wire: " in nobody["tried"][1]
            held.stdin.close()
            await held.wait()
            await asker.expect_endpoints("10.77.0.1:50002")


async def test_successor_of_a_crashed_instance_is_added_at_once(tmp_path: Path) -> None:
    with two_hosts() as (left, right):
        async with node(right, tmp_path / "r") as asker:
            async with node(left, tmp_path / "l") as cart:
                await cart.do("announce cart 10.77.0.1 50002 c1")
                assert (await asker.look_up("cart"))["endpoints"] == ["10.77.0.1:50002"]
                cart.process.kill()
                await cart.process.wait()
            async with node(left, tmp_path / "l") as reborn:
                await reborn.do("announce cart 10.77.0.1 50009 c2")
                await asker.expect_endpoints("10.77.0.1:50002", "10.77.0.1:50009")


async def test_twenty_six_interfaces_are_all_used(tmp_path: Path) -> None:
    """Linux lets one socket join 20 groups at most."""
    with two_hosts() as (left, right):
        for number in range(13):
            ends = (f"d{2 * number}", f"d{2 * number + 1}")
            ip("-n", right, "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            for side, end in enumerate(ends):
                ip("-n", right, "addr", "add", f"10.78.{number}.{side + 1}/24", "dev", end)
                ip("-n", right, "link", "set", end, "up")
        async with node(left, tmp_path / "l") as cart, node(right, tmp_path / "r") as asker:
            await cart.do("announce cart 10.77.0.1 50002 c1")
            assert (await asker.look_up("cart"))["endpoints"] == ["10.77.0.1:50002"]
            nobody = await asker.look_up("pay")
            assert nobody["tried"][1].count(", d") >= 20
            assert "igmp" not in nobody["tried"][1]
