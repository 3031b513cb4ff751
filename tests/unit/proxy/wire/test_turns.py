"""Connections take turns at being read, and those that share a rota one for each turn of the loop."""

import asyncio

from proxy.wire.turns import TURN_S, Rota, Turns
from tests.fakes.transport import FakeTransport

BUSY = 5


class Slow:
    """A connection whose pieces take a turn each. Mutable state: when it had them, in the loop's turns."""

    def __init__(self, clock: list[int], rota: Rota) -> None:
        self.at: list[int] = []
        self._clock = clock
        self.turns = Turns(self._feed, asyncio.get_running_loop(), rota)
        self.turns.begin(FakeTransport(asyncio.Protocol()))

    def _feed(self, data: bytes) -> bytes:
        self.at.append(self._clock[0])
        until = asyncio.get_running_loop().time() + 2 * TURN_S
        while asyncio.get_running_loop().time() < until:
            pass
        return data[1:]


async def test_a_rota_has_one_turn_in_each_of_the_loops() -> None:
    clock, rota = [0], Rota()
    connections = [Slow(clock, rota) for _ in range(BUSY)]
    connections[0].turns.received(b"xxx")
    for connection in connections[1:]:
        connection.turns.received(b"xxx")
    assert [len(connection.at) for connection in connections] == [1, 0, 0, 0, 0]
    while rota.is_busy:
        clock[0] += 1
        await asyncio.sleep(0)
    assert [len(connection.at) for connection in connections] == [3] * BUSY
    later = sorted(at for connection in connections for at in connection.at[1:])
    assert len(set(later)) == len(later)
    assert [connection.at[-1] for connection in connections] == sorted(c.at[-1] for c in connections)


async def test_a_turn_that_fails_does_not_keep_others_from_theirs() -> None:
    rota, had_its_turn = Rota(), asyncio.Event()

    def fails() -> None:
        raise ValueError

    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["exception"]))
    rota.wait(fails)
    rota.wait(had_its_turn.set)
    async with asyncio.timeout(10.0):
        await had_its_turn.wait()
    assert [type(error) for error in heard] == [ValueError]


async def test_what_came_before_the_peer_closed_is_read_at_the_end() -> None:
    read: list[bytes] = []
    transport = FakeTransport(asyncio.Protocol())

    def feed(data: bytes) -> bytes:
        read.append(data[:1])
        transport.close()
        return data[1:]

    turns = Turns(feed, asyncio.get_running_loop(), None)
    turns.begin(transport)
    turns.received(b"abc")
    assert read == [b"a"]
    turns.read_all()
    assert read == [b"a", b"b", b"c"]
