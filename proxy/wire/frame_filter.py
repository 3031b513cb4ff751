"""The filter in front of h2: takes GOAWAY out of the byte stream and counts the frames that floods are made of.

h2 refuses every frame after a GOAWAY in either direction, so GOAWAY is read and written by hand here; and h2 counts no resets, pings,
settings or empty frames, so this does. Sans-io: bytes in, bytes for h2 out, `Flood` raised when a peer passes a limit.

What calls and data account for is never a flood: a receiver of data pings to measure the path and sends window updates (gRPC's clients
and servers do), a caller may cancel each of its calls, a server may stop each request that it has answered. What goes beyond that has a
budget; past it the peer is read more slowly (`take_pause`), then sent away (`take_strain`), then cut off (`FloodError`).
Source: RFC 9113 §4.1, §5.1.2, §6.8, §8.1; CVE-2023-44487, CVE-2025-8671, VU#421644, CVE-2019-9511..9518.
"""

from collections.abc import Callable

from msgspec import Struct

from proxy.contract.engine import Limits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _PRIORITY, _RST, _SETTINGS, _PUSH_PROMISE = 0x0, 0x1, 0x2, 0x3, 0x4, 0x5
_PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0x6, 0x7, 0x8, 0x9
_PIECED = frozenset({_DATA, _HEADERS, _CONTINUATION})
_KINDS = {_PRIORITY: "priority", _SETTINGS: "settings", _PING: "ping", _WINDOW_UPDATE: "window-update"}
_END_STREAM = _ACK = 0x1
_END_HEADERS = 0x4
_PADDED = 0x8
_MAX_FRAME_BYTES = 16_384  # what we announce (RFC 9113 §4.2); h2 would collect up to 16 MiB of a frame before it looks at the size
_SMALL_FRAME_BYTES = 1_024  # of DATA, as many peers cut them
_UPDATES_PER_FRAME = 10  # WINDOW_UPDATEs that one may bring about
_MAX_UPDATES = 65_536
_CONTROL_PER_HEAD = 2  # control frames that a head accounts for, besides its reset
_MAX_DUE = 4_096  # resets that may come for calls that were
_MAX_PAUSE_S = 1.0
_PIECE_BYTES = 512  # of header blocks, as much as a loop's turn should have to read at least: one large head, several small ones
_DATA_BYTES, _JOINED_BYTES = (
    16,
    1,
)  # of header blocks that take as long as a DATA frame, and as one that is joined to another
_HEAD_BYTES = 64  # for what a head costs whatever its size
_PROTOCOL_ERROR, _FRAME_SIZE_ERROR, _ENHANCE_YOUR_CALM = 0x1, 0x6, 0xB


class FloodError(Exception):
    """A peer passed a limit; `kind` names it for the counter, `code` is for the GOAWAY."""

    def __init__(self, kind: str, text: str = "", code: int = _ENHANCE_YOUR_CALM) -> None:
        super().__init__(text or f"too many {kind} frames")
        self.kind = kind
        self.code = code


class GoAway(Struct, frozen=True):
    """A peer's GOAWAY: streams above `last_stream` were not processed."""

    last_stream: int
    code: int


class Bucket:
    """A token bucket: `burst` at once, `per_s` sustained."""

    __slots__ = ("_at", "_burst", "_now", "_per_s", "_tokens")

    def __init__(self, per_s: float, burst: int, now: Callable[[], float]) -> None:
        self._per_s = per_s
        self._burst = burst
        self._now = now
        self._tokens = float(burst)
        self._at = now()

    def take(self) -> bool:
        """Whether one more is within the limit."""
        now = self._now()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Budget:
    """What a peer may send beyond what calls and data account for. Mutable state: `over`, how many there were beyond the bucket."""

    __slots__ = ("_bucket", "most_over", "over", "slowed_s")

    def __init__(self, per_s: float, burst: int, now: Callable[[], float]) -> None:
        self._bucket = Bucket(per_s, burst, now)
        self.slowed_s = 1.0 / max(per_s, 1.0)
        self.most_over = burst
        self.over = 0

    def take(self) -> bool:
        """Whether one more is within the bucket."""
        if self._bucket.take():
            self.over = max(0, self.over - 1)
            return True
        self.over += 1
        return False


class FrameFilter:
    """One direction of one connection. Mutable state: what is held of a frame cut in two, and what the peer may send.

    `_earned`: control frames that calls and data account for; `_resets_due`: calls that the peer may reset.
    """

    __slots__ = (
        "_blocks",
        "_burst",
        "_continuations",
        "_control",
        "_earned",
        "_held",
        "_limits",
        "_now",
        "_pause_s",
        "_preface_left",
        "_resets",
        "_resets_due",
        "_skip",
        "_strain",
        "_updates",
        "block_at",
        "goaway",
        "pending",
        "stalled",
    )

    def __init__(self, limits: Limits, now: Callable[[], float], *, server: bool, own: bool = False) -> None:
        """`own`: our own app is at the other end."""
        factor = limits.own_app_factor if own else 1.0
        self._limits = limits
        self._preface_left = len(PREFACE) if server else 0
        self._held = b""
        self._skip = 0
        self._continuations = 0
        self._now = now
        self._blocks = 0  # bytes of header blocks in the piece that is being read, and what counts as such
        self._updates = 0  # WINDOW_UPDATEs that our DATA accounts for
        self.block_at: float | None = None  # when the header block began that has not ended
        self._burst = int(limits.control_burst * factor)
        self._resets = Budget(limits.resets_per_s * factor, int(limits.resets_burst * factor), now)
        self._control = Budget(limits.control_per_s * factor, self._burst, now)
        self._earned = 0
        self._pause_s = 0.0
        self._strain = ""
        self._resets_due = 0
        self.goaway: GoAway | None = None
        # Streams with a WINDOW_UPDATE of 0, which is an error of theirs (RFC 9113 §6.9).
        self.stalled: list[int] = []
        self.pending = b""  # what was fed and is for a later piece, to be fed again: it begins with a frame

    def take_pause(self) -> float:
        """For how many seconds to read no more, as the peer is beyond its budget; 0: it is not."""
        pause_s, self._pause_s = self._pause_s, 0.0
        return min(pause_s, _MAX_PAUSE_S)

    def take_strain(self) -> str:
        """What the peer is to be sent away for, told once; its calls in flight end in peace."""
        strain, self._strain = self._strain, ""
        return strain

    def began_call(self) -> None:
        """A call began: it accounts for some control frames, and for its reset."""
        self._earn(_CONTROL_PER_HEAD)
        self._resets_due = min(self._resets_due + 1, _MAX_DUE)

    def _earn(self, frames: int) -> None:
        self._earned = min(self._earned + frames, self._burst)

    def count_reset(self) -> None:
        """Count a stream that the peer made us reset. Raises FloodError."""
        self._spend(self._resets, "reset")

    def count_empty(self) -> None:
        """Count a DATA frame that holds nothing but padding. Raises FloodError."""
        self._count_control("empty-data")

    def sent_data(self, count: int) -> None:
        """We sent so many bytes of bodies: WINDOW_UPDATEs will follow."""
        frames = count // _SMALL_FRAME_BYTES + 1
        self._updates = min(self._updates + frames * _UPDATES_PER_FRAME, _MAX_UPDATES)
        self._earn(frames)

    def feed(self, data: bytes) -> bytes:
        """The bytes for h2. A GOAWAY met on the way is in `goaway`, what comes after many heads or small frames in `pending`.

        Raises FloodError.
        """
        self.pending = preface = b""
        if self._preface_left:
            preface, data = data[: self._preface_left], data[self._preface_left :]
            self._preface_left -= len(preface)
        if self._skip >= len(data):
            self._skip -= len(data)
            return preface + data
        if self._held:
            data, self._held = self._held + data, b""
        passed = self._frames(data)
        return preface + passed if preface else passed

    def _frames(self, data: bytes) -> bytes:
        position, self._skip = self._skip, 0
        size, start, parts = len(data), 0, list[bytes]()
        self._blocks = 0
        while position + 9 <= size:
            length = int.from_bytes(data[position : position + 3], "big")
            kind, flags = data[position + 3], data[position + 4]
            if kind in _PIECED and self._is_full(kind, length):
                self.pending, data, size = data[position:], data[:position], position
                break
            if length > _MAX_FRAME_BYTES:
                raise FloodError(
                    "frame-size", _oversized(data[position : position + 9], length), _FRAME_SIZE_ERROR
                )
            end, instead = position + 9 + length, None
            if kind in (_GOAWAY, _WINDOW_UPDATE):
                if end > size:
                    break
                instead = self._stand_in(kind, data[position:end])
            elif kind == _DATA and not flags and 0 < length < _SMALL_FRAME_BYTES:
                end, instead = self._join(data, position, end)
            if instead is None:
                self._account(kind, flags, length)
            else:
                parts += (data[start:position], instead)
                start = end
            position = end
        if position > size:
            self._skip = position - size
            parts.append(data[start:])
        else:
            parts.append(data[start:position])
            self._held = data[position:]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _account(self, kind: int, flags: int, length: int) -> None:
        if kind == _DATA and length > 0:
            self._earn(0 if flags & _PADDED else 1)  # padding may be all that there is
            return
        if kind == _SETTINGS and length and flags & _ACK:  # h2 says PROTOCOL_ERROR (RFC 9113 §6.5)
            raise FloodError("frame-size", "a SETTINGS acknowledgement with a payload", _FRAME_SIZE_ERROR)
        self._count(kind, flags)

    def _stand_in(self, kind: int, frame: bytes) -> bytes | None:
        """What h2 is to see of a frame; None: the frame itself."""
        if self.block_at is not None:  # it may not come here (RFC 9113 §4.3), which h2 says
            return None
        if kind == _GOAWAY:
            self._read_goaway(frame[9:])
            return b""
        if len(frame) != 13 or not any(frame[5:9]) or int.from_bytes(frame[9:], "big") & 0x7FFFFFFF:
            return None
        self._count(kind, 0)
        self.stalled.append(int.from_bytes(frame[5:9], "big") & 0x7FFFFFFF)
        return b""  # h2 would end the connection

    def _is_full(self, kind: int, length: int) -> bool:
        """Whether the piece that is being read ends before this frame of a body or header block."""
        if kind != _CONTINUATION and self._blocks >= _PIECE_BYTES:
            return True
        self._blocks += _DATA_BYTES if kind == _DATA else length + _HEAD_BYTES
        return False

    def _join(self, data: bytes, position: int, end: int) -> tuple[int, bytes | None]:
        """Where the small DATA frames of a stream end that begin here, and one instead of them; None where there is but the first.

        h2 takes as long for a frame of ten bytes as for one of thousands.
        """
        stream = data[position + 5 : position + 9]
        payloads, total, flags = list[bytes](), 0, 0
        while not flags and self._blocks < _PIECE_BYTES and data[position + 5 : position + 9] == stream:
            length, kind = int.from_bytes(data[position : position + 3], "big"), data[position + 3]
            after = position + 9 + length
            if kind != _DATA or not length or after > len(data) or total + length > _MAX_FRAME_BYTES:
                break
            if data[position + 4] & ~_END_STREAM:
                break
            flags = data[position + 4]
            payloads.append(data[position + 9 : after])
            total += length
            position = after
            self._blocks += _JOINED_BYTES
        if len(payloads) < 2:
            return end, None
        self._earn(len(payloads))
        return position, b"".join((total.to_bytes(3, "big"), bytes((_DATA, flags)), stream, *payloads))

    def _read_goaway(self, payload: bytes) -> None:
        if len(payload) < 8:
            raise FloodError("frame-size", "a GOAWAY of less than 8 bytes", _FRAME_SIZE_ERROR)
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        self.goaway = GoAway(last, int.from_bytes(payload[4:8], "big"))

    def _count(self, kind: int, flags: int) -> None:
        if kind == _RST:
            if self._resets_due:
                self._resets_due -= 1
            else:
                self._count_control("reset")
        elif kind == _PUSH_PROMISE:  # nobody may push here: a client never, a server after our ENABLE_PUSH=0
            raise FloodError("push-promise", "a PUSH_PROMISE, which was never allowed", _PROTOCOL_ERROR)
        elif kind == _HEADERS:
            self.began_call()
            if not flags & _END_HEADERS:
                self.block_at = self._now()
        elif kind == _CONTINUATION:
            self._continue(ended=bool(flags & _END_HEADERS))
        elif kind == _WINDOW_UPDATE and self._updates:
            self._updates -= 1
        elif kind != _DATA or not flags & _END_STREAM:
            self._count_control("empty-data" if kind == _DATA else _KINDS.get(kind, "unknown"))

    def _count_control(self, kind: str) -> None:
        if self._earned:
            self._earned -= 1
        else:
            self._spend(self._control, kind)

    def _spend(self, budget: Budget, kind: str) -> None:
        if budget.take():
            return
        self._pause_s += budget.slowed_s
        if budget.over > budget.most_over:
            raise FloodError(kind)
        if budget.over == budget.most_over // 2 + 1:
            self._strain = kind

    def _continue(self, *, ended: bool) -> None:
        self._continuations = 0 if ended else self._continuations + 1
        if ended:
            self.block_at = None
        if self._continuations > self._limits.continuations:
            raise FloodError("continuation")


def goaway_frame(last_stream: int, code: int) -> bytes:
    """A GOAWAY on the wire (RFC 9113 §6.8)."""
    payload = last_stream.to_bytes(4, "big") + code.to_bytes(4, "big")
    return len(payload).to_bytes(3, "big") + bytes((_GOAWAY, 0, 0, 0, 0, 0)) + payload


def _oversized(head: bytes, length: int) -> str:
    """What to say of a frame that is too long: text where frames are expected is another protocol."""
    if head.isascii() and head.decode("ascii").isprintable():
        return f"it does not speak HTTP/2, which gRPC needs (it sent {head.decode('ascii')!r})"
    return f"a frame of {length} bytes"
