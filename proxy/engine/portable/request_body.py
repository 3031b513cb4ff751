"""The request body of one call, as far as it must be held, and how far each attempt has sent it.

Sans-io. It is held until an upstream takes it, and while another attempt may need it. Bytes are acknowledged to the caller once, when they
first leave for a callee, however many attempts send them.
"""

from proxy.contract.head import Framing, Headers
from proxy.wire.streams import UpstreamCall


class ReplayRoom:
    """What the bodies of all calls may hold for another attempt. Mutable state: `held`, in bytes."""

    __slots__ = ("_most", "held")

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def take(self, count: int) -> bool:
        """Room for so many bytes more; False: there is none."""
        if self.held + count > self._most:
            return False
        self.held += count
        return True


class RequestBody:
    """Of the call. Mutable state: `chunks` held, what was acknowledged, whether some was let go of.

    Invariant: `is_whole` until a chunk is dropped; then the rest is the one attempt's that has it, and no other may send it again.
    """

    __slots__ = (
        "_acked",
        "_room",
        "_taken",
        "chunks",
        "ended",
        "ended_at",
        "is_upper",
        "is_whole",
        "keep_bytes",
        "size",
        "trailers",
    )

    def __init__(self, framing: Framing, room: ReplayRoom) -> None:
        self._room = room
        self._taken = 0  # of the room
        self.ended = framing == "none"  # known before the end is told: no attempt may announce a body
        self.ended_at = 0.0  # by the loop's clock
        self.trailers: Headers = ()
        self.size = 0  # bytes that came so far
        self.keep_bytes = 0  # the most that is held for another attempt
        self.is_upper = False  # it is sent on in upper case
        self.is_whole = True
        self.chunks: list[bytes] = []
        self._acked = 0

    @property
    def is_empty(self) -> bool:
        """Whether the request is complete with neither body nor trailers."""
        return self.ended and not self.chunks and not self.trailers

    @property
    def has_left_so_far(self) -> bool:
        """Whether all that came went on to a callee: more is for the caller to send."""
        return self._acked >= self.size

    @property
    def held_bytes(self) -> int:
        """How much of it is held."""
        return sum(map(len, self.chunks))

    def arrive(self, data: bytes) -> None:
        """More of it, held until an attempt has sent it."""
        self.size += len(data)
        self.chunks.append(data)

    def may_keep(self) -> bool:
        """Whether what is held is kept for another attempt: there is room for it."""
        fresh = self.size - self._taken
        if self.size > self.keep_bytes or not self._room.take(fresh):
            return False
        self._taken += fresh
        return True

    def let_go(self) -> None:
        """Drop what is held."""
        self.is_whole = False
        self.chunks.clear()
        self._room.held -= self._taken
        self._taken = 0

    def release(self, drained: int) -> int:
        """So many bytes left on an attempt; returns how many of them left for the first time."""
        fresh = max(0, drained - self._acked)
        self._acked += fresh
        return fresh


class BodyCursor:
    """How far one attempt has sent the body. Mutable state: how many chunks it was `_given`, and the bytes that left."""

    __slots__ = ("_body", "_drained", "_given")

    def __init__(self, body: RequestBody) -> None:
        self._body = body
        self._given = 0
        self._drained = 0

    @property
    def has_left(self) -> bool:
        """Whether the request is complete, and none of it waits for the callee's windows."""
        return self._body.ended and self._drained >= self._body.size

    def give(self, call: UpstreamCall, *, keep: bool) -> bool:
        """The next held chunk to the callee; False when none is left. keep: another attempt may send it again."""
        body = self._body
        if self._given >= len(body.chunks):
            return False
        chunk = body.chunks[self._given]
        self._given += 1
        if self._given == len(body.chunks) and not (keep and body.may_keep()):
            self.let_go()  # too large to keep: this attempt is the last
        call.send(chunk.upper() if body.is_upper else chunk)  # of ASCII letters
        return True

    def committed(self) -> None:
        """The answer is on its way to the caller: no further attempt will need what was given."""
        if self._given == len(self._body.chunks):
            self.let_go()

    def let_go(self) -> None:
        """What is held was given, and nobody sends it again."""
        self._body.let_go()
        self._given = 0

    def drain(self, count: int) -> int:
        """So many bytes left on this attempt; returns how many of them left for the first time on any."""
        self._drained += count
        return self._body.release(self._drained)
