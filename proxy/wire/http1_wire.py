"""What both ends of HTTP/1.1 share: joined writes with credit, one lazy alarm, and reading `h11` events."""

import asyncio
import contextlib
import math
import socket
import struct
from collections.abc import Callable

import h11

from proxy.contract.head import Headers
from proxy.wire.turns import Rota

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Outbox:
    """Bytes on their way to one transport, joined into one write a turn of the loop.

    `drained` is told how many body bytes left, at once while the transport takes more, else when it does again; never from `put`.
    """

    __slots__ = ("_body", "_drained", "_loop", "_parts", "_paused", "_scheduled", "_transport", "handed")

    def __init__(self, transport: asyncio.Transport, drained: Callable[[int], None]) -> None:
        self._transport = transport
        self._drained = drained
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._body = 0
        self._paused = False
        self._scheduled = False
        self.handed = 0  # writes so far: unchanged means that the other side can't have seen a byte

    @property
    def is_paused(self) -> bool:
        """Whether the transport holds enough."""
        return self._paused

    def put(self, parts: list[bytes], body: int = 0) -> None:
        """Queue bytes, `body` of which count for credit."""
        self._parts += parts
        self._body += body
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def flush(self) -> None:
        """Hand over what is queued now; credit follows at the next turn."""
        parts = self._parts
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            if not self._transport.is_closing():
                self.handed += 1
                self._transport.write(data)

    def _turn(self) -> None:
        self._scheduled = False
        self.flush()
        self._settle()

    def _settle(self) -> None:
        if self._body and not self._paused:
            count, self._body = self._body, 0
            self._drained(count)

    def pause(self) -> None:
        """The transport holds enough."""
        self._paused = True

    def resume(self) -> None:
        """The transport takes more."""
        self._paused = False
        self._settle()


class Alarm:
    """One deadline that is moved often and fires rarely: moving it later costs no timer. `_due`: infinite when unset."""

    __slots__ = ("_due", "_handle", "_loop", "_ring")

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._due = math.inf
        self._handle: asyncio.TimerHandle | None = None

    def set(self, delay_s: float) -> None:
        """Ring after so long, instead of whenever it was to ring."""
        due = self._due = self._loop.time() + delay_s
        handle = self._handle
        if handle is None or handle.when() > due:
            if handle is not None:
                handle.cancel()
            self._handle = self._loop.call_at(due, self._fire)

    def clear(self) -> None:
        """Do not ring."""
        self._due = math.inf

    def stop(self) -> None:
        """Do not ring, ever again."""
        self._due = math.inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        if self._due <= self._loop.time():
            self._due = math.inf
            self._ring()
        elif self._due < math.inf:
            self._handle = self._loop.call_at(self._due, self._fire)


class Pieces:
    """Has what was left of a body's bytes read in a later turn, after other connections had theirs. Mutable state: `is_left`."""

    __slots__ = ("_read", "_rota", "is_left")

    def __init__(self, read: Callable[[], None], rota: Rota | None) -> None:
        self._read = read
        self._rota = rota or Rota()
        self.is_left = False

    def leave(self) -> None:
        """Have it read later."""
        if not self.is_left:
            self.is_left = True
            self._rota.wait(self._take)

    def _take(self) -> None:
        self.is_left = False
        self._read()


def read_body(conn: h11.Connection, data: bytes) -> tuple[bytes, bool, Headers]:
    """Feed framed body bytes to `h11`: what it makes of them, whether the message ended, and its trailers.

    Raises h11.RemoteProtocolError.
    """
    if data:
        conn.receive_data(data)
    parts: list[bytes] = []
    while True:
        event = conn.next_event()
        if type(event) is h11.Data:
            parts.append(event.data)
        elif type(event) is h11.EndOfMessage:
            return b"".join(parts), True, tuple(event.headers)
        else:
            return b"".join(parts), False, ()


def reset(transport: asyncio.Transport) -> None:
    """Close so that the other side sees an error, not an end (TCP RST; other sockets just close)."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # the socket is gone already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
