"""The request body of one call, as far as it must be held: until an upstream takes it, and while another attempt may need it.

Sans-io. Bytes are acknowledged to the caller once, when they first leave for a callee; a later attempt replays them without another ack.
"""

from proxy.contract.head import Framing, Headers
from proxy.wire.streams import UpstreamCall


class RequestBody:
    """Mutable state: `_chunks` held, of which `_given` went to the current attempt; the credit; whether some was let go of.

    Invariant: `is_whole` until a chunk is dropped, and only a whole body may be sent again.
    """

    __slots__ = (
        "_acked",
        "_chunks",
        "_drained",
        "_given",
        "ended",
        "is_whole",
        "keep_bytes",
        "size",
        "trailers",
    )

    def __init__(self, framing: Framing) -> None:
        self.ended = framing == "none"  # known before the end is told: no attempt may announce a body
        self.trailers: Headers = ()
        self.size = 0  # bytes that came so far
        self.keep_bytes = 0  # the most that is held for another attempt
        self.is_whole = True
        self._chunks: list[bytes] = []
        self._given = 0
        self._drained = 0
        self._acked = 0

    @property
    def is_empty(self) -> bool:
        """Whether the request is complete with neither body nor trailers."""
        return self.ended and not self._chunks and not self.trailers

    @property
    def has_left(self) -> bool:
        """Whether the request is complete, and none of it waits for the callee's windows."""
        return self.ended and self._drained >= self.size

    @property
    def has_left_so_far(self) -> bool:
        """Whether all that came went on to a callee: more is for the caller to send."""
        return self._acked >= self.size

    def arrive(self, data: bytes, call: UpstreamCall | None, *, committed: bool) -> None:
        """More of it: on to the attempt, if there is one, and held while that may be of use."""
        self.size += len(data)
        if call is None:
            self._chunks.append(data)
            return
        if self.size <= self.keep_bytes and not committed:
            self._chunks.append(data)
            self._given += 1
        else:
            self.let_go()
        call.send(data)

    def restart(self) -> None:
        """A new attempt begins."""
        self._given = self._drained = 0

    def give(self, call: UpstreamCall) -> bool:
        """The next held chunk to the attempt; False when none is left."""
        if self._given >= len(self._chunks):
            if self.size > self.keep_bytes:
                self.let_go()  # too large to keep: this attempt is the last
            return False
        chunk = self._chunks[self._given]
        self._given += 1
        call.send(chunk)
        return True

    def committed(self) -> None:
        """The answer is on its way to the caller: no further attempt will need what was given."""
        if self._given == len(self._chunks):
            self.let_go()

    def let_go(self) -> None:
        """Drop what is held."""
        self.is_whole = False
        self._chunks.clear()
        self._given = 0

    def drain(self, count: int) -> int:
        """So many bytes left on this attempt; returns how many of them left for the first time."""
        self._drained += count
        fresh = max(0, self._drained - self._acked)
        self._acked += fresh
        return fresh
