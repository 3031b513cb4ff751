"""A cable between two network namespaces that delays and loses packets: `python -m tests.chaos.lossy_link`, run by `plug` below.

Each end is a TUN device; this process carries packets from one to the other, at once until SIGUSR1 begins the weather. What is lost is
drawn from a seed. Needs root and /dev/net/tun.
"""

import argparse
import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.netns import Host
from tests.support.processes import Process, Processes

_CLONE_NEWNET: Final = 0x40000000  # setns(2)
_TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_MTU: Final = 1_500
_NAMESPACES: Final = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to packets: the share that is lost, and how long one takes, evenly between two bounds."""

    loss: float
    least_ms: float
    most_ms: float


_FINE: Final = Weather(0.0, 0.0, 0.0)


def unavailable_reason() -> str | None:
    """Why there can be no such cable here, or None."""
    if os.geteuid() != 0:
        return "TUN devices need root"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"TUN devices are not permitted: {error}"
    return None


def plug(processes: Processes, left: Host, right: Host, number: int, weather: Weather) -> Process:
    """Lay a cable; its ends are 10.78.`number`.1 and .2, and its seed is the number, too. Returns once packets pass, in fine weather."""
    name = f"tun{number}"
    command = ["tests.chaos.lossy_link", name, left.namespace, right.namespace]
    told = (str(weather.loss), str(weather.least_ms), str(weather.most_ms), str(number))
    process = processes.start_python(*command, *told, name=f"cable {number}")
    process.wait_line("^plugged")
    for host, end in ((left, 1), (right, 2)):
        host.run("ip", "address", "add", f"10.78.{number}.{end}/24", "dev", name)
        host.run("ip", "link", "set", name, "up", "mtu", str(_MTU))
    return process


def _device(namespace: str, name: str) -> int:
    """A new TUN device in a namespace, which this thread is in from now on."""
    with (_NAMESPACES / namespace).open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {namespace}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def _packets(device: int) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield os.read(device, _MTU + 100)


def carry(left: int, right: int, bad: Weather, chance: random.Random) -> None:
    """Carry packets both ways until ended."""
    weather = _FINE

    def begin(*_: object) -> None:
        nonlocal weather
        weather = bad

    signal.signal(signal.SIGUSR1, begin)
    on_the_way: list[tuple[float, int, int, bytes]] = []  # when, in which order, to which device
    number = 0
    poll = select.poll()
    for device in (left, right):
        poll.register(device, select.POLLIN)
    other = {left: right, right: left}
    while True:
        wait_ms = max(0.0, on_the_way[0][0] - time.monotonic()) * 1e3 if on_the_way else None
        for device, _ in poll.poll(wait_ms):
            for packet in _packets(device):
                if chance.random() < weather.loss:
                    continue
                number += 1
                takes = chance.uniform(weather.least_ms, weather.most_ms) / 1e3
                heapq.heappush(on_the_way, (time.monotonic() + takes, number, other[device], packet))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, _, device, packet = heapq.heappop(on_the_way)
            with contextlib.suppress(OSError):  # the end is not up, or its queue is full: lost, as on a cable
                os.write(device, packet)


def main(arguments: list[str]) -> None:
    """Open both ends and carry until ended."""
    parser = argparse.ArgumentParser()
    for name in ("name", "left", "right"):
        parser.add_argument(name)
    for name in ("loss", "least", "most", "seed"):
        parser.add_argument(name, type=float)
    told = parser.parse_args(arguments)
    left, right = (_device(namespace, told.name) for namespace in (told.left, told.right))
    sys.stdout.write("plugged\n")
    sys.stdout.flush()
    carry(left, right, Weather(told.loss, told.least, told.most), random.Random(told.seed))


if __name__ == "__main__":
    main(sys.argv[1:])
