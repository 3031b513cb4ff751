"""A transport without a socket: what was written, whether reading is paused, and how it was closed."""

import asyncio
from typing import Any


class FakeTransport(asyncio.Transport):
    """Hands bytes to a protocol on request and keeps what it writes. `writes` is one entry per `write` call."""

    def __init__(self, protocol: asyncio.Protocol, *, half_close: bool = True) -> None:
        super().__init__()
        self.protocol = protocol
        self.writes: list[bytes] = []
        self.paused = False
        self.closing = False
        self.aborted = False
        self.eof_written = False
        self.ended = asyncio.Event()  # set once we close, or close our direction
        self._half_close = half_close
        self._told = False

    @property
    def written(self) -> bytes:
        """Everything so far."""
        return b"".join(self.writes)

    def feed(self, data: bytes) -> None:
        """The other side sent bytes."""
        if not self.closing:
            self.protocol.data_received(data)

    def feed_eof(self) -> None:
        """The other side closed its direction."""
        if not self.protocol.eof_received():
            self.close()

    def lose(self, error: Exception | None = None) -> None:
        """The connection is gone."""
        self.closing = True
        self._lost(error)

    def _lost(self, error: Exception | None) -> None:
        if not self._told:
            self._told = True
            self.protocol.connection_lost(error)

    def write(self, data: Any) -> None:
        """Keep it."""
        assert not self.closing, "write after close"
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        """The other side reads at once."""
        return 0

    def write_eof(self) -> None:
        """Note it."""
        self.eof_written = True
        self.ended.set()

    def can_write_eof(self) -> bool:
        """As a plain socket, unless made otherwise."""
        return self._half_close

    def pause_reading(self) -> None:
        """Note it."""
        self.paused = True

    def resume_reading(self) -> None:
        """Note it."""
        self.paused = False

    def is_reading(self) -> bool:
        """Whether bytes may be fed."""
        return not self.paused

    def is_closing(self) -> bool:
        """Whether `close` or `abort` was called."""
        return self.closing

    def close(self) -> None:
        """Note it; the protocol hears of it at the next turn."""
        if not self.closing:
            self.closing = True
            self.ended.set()
            asyncio.get_running_loop().call_soon(self._lost, None)

    def abort(self) -> None:
        """Note it."""
        self.aborted = True
        self.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand over."""
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who owns it."""
        return self.protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """There is no socket."""
        return default
