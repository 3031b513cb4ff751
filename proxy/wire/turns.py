"""Takes turns at reading connections, so that one that sends many heads at once does not starve the others.

Bytes are read piece by piece. What a turn leaves waits here for the next one, and the transport reads no more meanwhile.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

TURN_S = 0.002  # for which a connection's heads are read before the others have their turn

#: Reads a piece; what is left for later ones, None where the connection is over.
Feed = Callable[[bytes], bytes | None]


class Rota:
    """Lets one of several connections have its turn in each of the loop's, so that however many they are, others wait for one at most.

    Mutable state: the turns that wait, first come, first served.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    def wait(self, turn: Callable[[], None]) -> None:
        """Have a turn after those who wait already."""
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        turn = self._waiting[0]
        try:
            turn()
        finally:
            self._waiting.popleft()
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._next)


class Turns:
    """`rota`: whom it shares its turns with, else it has one in each of the loop's.

    Mutable state: `_unread`, what came and waits for the next turn; `_is_slowed`, the peer is beyond its budget.
    """

    __slots__ = ("_feed", "_is_slowed", "_loop", "_rota", "_transport", "_unread")

    def __init__(self, feed: Feed, loop: asyncio.AbstractEventLoop, rota: Rota | None) -> None:
        self._feed = feed
        self._loop = loop
        self._rota = rota
        self._transport: asyncio.Transport | None = None
        self._unread = b""
        self._is_slowed = False

    def begin(self, transport: asyncio.Transport) -> None:
        """The transport is there."""
        self._transport = transport

    def received(self, data: bytes) -> None:
        """Bytes came."""
        if self._transport is None:
            return
        if self._unread:  # a transport may hand on what it had read when it was told to stop
            self._unread += data
        elif self._rota is not None and self._rota.is_busy:
            self._leave(data)
        else:
            self._read(data)

    def slow_down(self, pause_s: float) -> None:
        """Have the transport read no more for a while."""
        if self._transport is not None and self._is_open():
            self._is_slowed = True
            self._transport.pause_reading()
            self._loop.call_later(pause_s, self._speed_up)

    def stop(self) -> None:
        """Drop what waits, and what comes."""
        transport, self._transport = self._transport, None
        self._unread = b""
        if transport is not None and not transport.is_closing():
            transport.resume_reading()

    def read_all(self) -> None:
        """Read at once what waits, as nothing more will come."""
        data, self._unread = self._unread, b""
        left: bytes | None = data
        while left:
            left = self._feed(left)

    def _read(self, data: bytes) -> None:
        until = time.monotonic() + TURN_S
        left = self._feed(data)
        while left:
            if not self._is_open():
                self._keep(left)
                return
            if time.monotonic() >= until:
                self._leave(left)
                return
            left = self._feed(left)

    def _keep(self, data: bytes) -> None:
        """The peer has closed behind what came: `read_all` takes it."""
        if self._transport is not None:
            self._unread = data

    def _leave(self, data: bytes) -> None:
        self._unread = data
        if self._transport is not None:
            self._transport.pause_reading()
        if self._rota is not None:
            self._rota.wait(self._take)
        else:
            self._loop.call_soon(self._take)

    def _take(self) -> None:
        data, self._unread = self._unread, b""
        if data and self._is_open():
            self._read(data)
            self._resume()
        else:
            self._keep(data)

    def _speed_up(self) -> None:
        self._is_slowed = False
        self._resume()

    def _resume(self) -> None:
        if self._transport is not None and not (self._unread or self._is_slowed) and self._is_open():
            self._transport.resume_reading()

    def _is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()
