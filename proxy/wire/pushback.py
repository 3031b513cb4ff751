"""What an answer says of the next attempt: gRPC's `grpc-retry-pushback-ms`, HTTP's `Retry-After`. Pure.

Kept in step with `crates/core/src/call/pushback.rs` by `tests/vectors/pushback.json`.
"""

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

from proxy.contract.head import Headers

MOST_S: Final = (
    30.0  # that a caller is made to wait for another attempt: it gets an answer that asks for more
)
_ASKS_LATER: Final = frozenset({429, 503})
_MAX_MS: Final = 2**31 - 1  # an int32, as gRPC has it
_TIME: Final = r"\d\d:\d\d:\d\d"
_DATE: Final = re.compile(  # the three forms of RFC 9110 §5.6.7, all in UTC
    rf"[A-Z][a-z]{{2}}, \d\d [A-Z][a-z]{{2}} \d{{4}} {_TIME} GMT|"
    rf"[A-Z][a-z]{{5,8}}, \d\d-[A-Z][a-z]{{2}}-\d\d {_TIME} GMT|"
    rf"[A-Z][a-z]{{2}} [A-Z][a-z]{{2}} [ \d]\d {_TIME} \d{{4}}"
)


class Pushback(NamedTuple):
    """Seconds to wait, None: make no other attempt. is_least: a longer pause is as well."""

    delay_s: float | None
    is_least: bool = False

    def applied(self, drawn_s: float) -> float | None:
        """The pause before the next attempt where a rule has drawn one; None: there is none."""
        if self.delay_s is None:
            return None
        return max(drawn_s, self.delay_s) if self.is_least else self.delay_s


def read_pushback(headers: Headers, *, grpc: bool, status: int, now_s: float) -> Pushback | None:
    """What the fields of an answer ask for; of gRPC, those that came with its status. now_s: epoch seconds.

    Source: gRPC proposal A6 (Pushback), where what is no number asks for no retry; RFC 9110 §10.2.3, where it asks for nothing.
    """
    if grpc:
        given = next((data for name, data in headers if name == b"grpc-retry-pushback-ms"), None)
        return None if given is None else Pushback(_pushback_s(given))
    if status not in _ASKS_LATER:
        return None
    given = next((data for name, data in headers if name == b"retry-after"), None)
    later_s = None if given is None else _retry_after_s(given, now_s)
    if later_s is None:
        return None
    return Pushback(later_s, is_least=True) if later_s <= MOST_S else Pushback(None)


def _pushback_s(data: bytes) -> float | None:
    if not data.isdigit() or len(data) > 10 or int(data) > _MAX_MS:
        return None
    delay_s = int(data) / 1_000
    return delay_s if delay_s <= MOST_S else None


def _retry_after_s(data: bytes, now_s: float) -> float | None:
    if data.isdigit():
        return math.inf if len(data) > 9 else float(data)
    text = data.decode("latin-1")
    if _DATE.fullmatch(text) is None:
        return None
    try:
        at = parsedate_to_datetime(text).replace(tzinfo=UTC)
    except ValueError:
        return None
    return max(0.0, at.timestamp() - now_s)
