"""Back-pressure of a body that is carried on in other pieces than it came in."""

from collections.abc import Callable, Iterator
from typing import Final

_WAITING_BYTES: Final = 262_144  # of what is on its way out; beyond it no more is asked for
_PIECE_BYTES: Final = 32_768


class Credit:
    """Acknowledges what came while little of what was made of it waits. Mutable state: both counts, and whether all is dropped."""

    def __init__(self, ack: Callable[[int], None]) -> None:
        self._ack = ack
        self._owed = self._waiting = 0
        self._is_dropping = False

    def came(self, count: int) -> None:
        """So many bytes were taken in."""
        self._owed += count
        self._repay()

    def sent(self, count: int) -> None:
        """So many are on their way out."""
        self._waiting += count

    def left(self, count: int) -> None:
        """So many of them have left."""
        self._waiting -= count
        self._repay()

    def drop(self) -> None:
        """Nothing waits any more: what comes is for nobody, or is kept."""
        self._is_dropping = True
        self._repay()

    def _repay(self) -> None:
        if self._owed and (self._is_dropping or self._waiting < _WAITING_BYTES):
            owed, self._owed = self._owed, 0
            self._ack(owed)


def pieces(data: bytes) -> Iterator[bytes]:
    """Data in pieces that fit in a message each."""
    if len(data) <= _PIECE_BYTES:
        yield data
        return
    for start in range(0, len(data), _PIECE_BYTES):
        yield data[start : start + _PIECE_BYTES]
