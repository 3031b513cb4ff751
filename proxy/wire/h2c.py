"""The upgrade of an HTTP/1.1 connection to HTTP/2 (`Upgrade: h2c`), as a server takes it. Pure.

RFC 9113 §3.1 has made it obsolete, but clients still offer it on connections without TLS. It is an offer: what is not taken is answered
over HTTP/1.1. Source: RFC 7540 §3.2.
"""

import base64
import re
from typing import Final

from msgspec import Struct

from proxy.contract.head import Header
from proxy.wire.head_scan import RequestStart

SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
AHEAD: Final = 16_384  # bytes of bodies before the client's preface: curl gives up where more than 32 KiB come with the 101
MAX_SETTINGS: Final = 32  # RFC 9113 §6.5.2 defines six
_SETTING_BYTES = 6
# Six bytes are eight characters of base64url, and never need padding.
_SETTINGS = re.compile(rb"(?:[A-Za-z0-9_-]{8}){0,%d}" % MAX_SETTINGS)
# What settings may say, by identifier (RFC 9113 §6.5.2, RFC 8441 §3).
_RANGES = {0x2: (0, 1), 0x4: (0, 2**31 - 1), 0x5: (2**14, 2**24 - 1), 0x8: (0, 1)}


class Offer(Struct, frozen=True):
    """A request whose answer may come over HTTP/2. settings: the payload of the client's SETTINGS frame."""

    settings: bytes
    start: RequestStart

    def fields(self) -> list[Header]:
        """The request's head as HTTP/2 has it (RFC 9113 §8.3.1)."""
        start = self.start
        pseudo = [
            (b":method", start.method),
            (b":scheme", b"http"),
            (b":authority", start.host),
            (b":path", start.target),
        ]
        kept = [field for field in start.forwarded() if field[0] != b"te" or field[1] == b"trailers"]
        return [*pseudo, *kept]


def offered(start: RequestStart) -> Offer | None:
    """The offer of a request; None when it is to be treated as if it offered nothing.

    A request with a body offers nothing: all of it would have to be read before the connection speaks HTTP/2.
    """
    if not start.options >= {b"upgrade", b"http2-settings"} or start.minor != 1:
        return None
    if start.chunked or start.length or start.target[:1] != b"/":
        return None
    protocols = [data.lower() for name, data in start.headers if name == b"upgrade"]
    names = [name.strip(b" \t") for name in b",".join(protocols).split(b",")]
    if b"h2c" not in names or b"websocket" in names:
        return None
    settings = [data for name, data in start.headers if name == b"http2-settings"]
    if len(settings) != 1 or _SETTINGS.fullmatch(settings[0]) is None:
        return None
    payload = base64.urlsafe_b64decode(settings[0])
    return Offer(payload, start) if _is_sound(payload) else None


def _is_sound(payload: bytes) -> bool:
    for at in range(0, len(payload), _SETTING_BYTES):
        least, most = _RANGES.get(int.from_bytes(payload[at : at + 2], "big"), (0, 2**32 - 1))
        if not least <= int.from_bytes(payload[at + 2 : at + _SETTING_BYTES], "big") <= most:
            return False
    return True
