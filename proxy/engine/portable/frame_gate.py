"""What stands before h2: takes GOAWAY out of the byte stream and counts what floods are made of.

h2 refuses every frame after a GOAWAY in either direction, so GOAWAY is read and written by hand here; and h2 counts no resets, pings,
settings or empty frames, so this does. Sans-io: bytes in, bytes for h2 out, `Flood` raised when a peer passes a limit.
Source: RFC 9113 §4.1, §6.8; spec/hardening.md (CVE-2023-44487, CVE-2025-8671, VU#421644, CVE-2019-9511..9518).
"""

from collections.abc import Callable

from msgspec import Struct

from proxy.engine.base import Limits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _PRIORITY, _RST, _SETTINGS, _PUSH_PROMISE = 0x0, 0x1, 0x2, 0x3, 0x4, 0x5
_PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0x6, 0x7, 0x8, 0x9
_KINDS = {_PRIORITY: "priority", _SETTINGS: "settings", _PING: "ping", _WINDOW_UPDATE: "window-update"}
_END_STREAM = 0x1
_END_HEADERS = 0x4
_MAX_FRAME_BYTES = 16_384  # what we announce (RFC 9113 §4.2); h2 would collect up to 16 MiB of a frame before it looks at the size
_UPDATES_PER_DATA = 10  # WINDOW_UPDATEs that a DATA frame of ours may bring about
_PROTOCOL_ERROR, _FRAME_SIZE_ERROR, _ENHANCE_YOUR_CALM = 0x1, 0x6, 0xB


class FloodError(Exception):
    """A peer passed a limit; `kind` names it for the counter, `code` is for the GOAWAY."""

    def __init__(self, kind: str, text: str = "", code: int = _ENHANCE_YOUR_CALM) -> None:
        super().__init__(text or f"too many {kind} frames")
        self.kind = kind
        self.code = code


class GoAway(Struct, frozen=True):
    """A peer's goodbye: streams above `last_stream` were not processed."""

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


class FrameGate:
    """One direction of one connection. Mutable state: what is held of a frame cut in two, and the buckets."""

    __slots__ = (
        "_continuations",
        "_control",
        "_held",
        "_limits",
        "_now",
        "_preface_left",
        "_resets",
        "_skip",
        "_updates",
        "block_at",
        "goaway",
    )

    def __init__(self, limits: Limits, now: Callable[[], float], *, server: bool) -> None:
        self._limits = limits
        self._preface_left = len(PREFACE) if server else 0
        self._held = b""
        self._skip = 0
        self._continuations = 0
        self._now = now
        self._updates = 0  # WINDOW_UPDATEs that our DATA accounts for
        self.block_at: float | None = None  # when the header block began that has not ended
        self._resets = Bucket(limits.resets_per_s, limits.resets_burst, now)
        self._control = Bucket(limits.control_per_s, limits.control_burst, now)
        self.goaway: GoAway | None = None

    def count_reset(self) -> None:
        """Count a stream reset of either side. Raises FloodError."""
        if not self._resets.take():
            raise FloodError("reset")

    def count_empty(self) -> None:
        """Count a DATA frame that holds nothing but padding. Raises FloodError."""
        if not self._control.take():
            raise FloodError("empty-data")

    def sent_data(self) -> None:
        """We sent DATA: WINDOW_UPDATEs will follow."""
        self._updates = min(self._updates + _UPDATES_PER_DATA, self._limits.control_burst)

    def feed(self, data: bytes) -> bytes:
        """The bytes for h2; a GOAWAY met on the way is in `goaway`. Raises FloodError."""
        preface = b""
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
        while position + 9 <= size:
            length = int.from_bytes(data[position : position + 3], "big")
            kind, flags = data[position + 3], data[position + 4]
            if length > _MAX_FRAME_BYTES:
                raise FloodError(
                    "frame-size", _oversized(data[position : position + 9], length), _FRAME_SIZE_ERROR
                )
            if kind == _GOAWAY:
                end = position + 9 + length
                if end > size:
                    break
                self._read_goaway(data[position + 9 : end])
                parts.append(data[start:position])
                start = position = end
                continue
            if not (kind == _HEADERS and flags & _END_HEADERS) and (kind != _DATA or length == 0):
                self._count(kind, flags)
            position += 9 + length
        if position > size:
            self._skip = position - size
            parts.append(data[start:])
        else:
            parts.append(data[start:position])
            self._held = data[position:]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_goaway(self, payload: bytes) -> None:
        if len(payload) < 8:
            raise FloodError("frame-size", "a GOAWAY of less than 8 bytes", _FRAME_SIZE_ERROR)
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        self.goaway = GoAway(last, int.from_bytes(payload[4:8], "big"))

    def _count(self, kind: int, flags: int) -> None:
        if kind == _RST:
            self.count_reset()
        elif kind == _PUSH_PROMISE:  # nobody may push here: a client never, a server after our ENABLE_PUSH=0
            raise FloodError("push-promise", "a PUSH_PROMISE, which was never allowed", _PROTOCOL_ERROR)
        elif kind == _HEADERS:
            self.block_at = self._now()
        elif kind == _CONTINUATION:
            self._continue(ended=bool(flags & _END_HEADERS))
        elif kind == _WINDOW_UPDATE and self._updates:
            self._updates -= 1
        elif (kind != _DATA or not flags & _END_STREAM) and not self._control.take():
            raise FloodError("empty-data" if kind == _DATA else _KINDS.get(kind, "unknown"))

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
