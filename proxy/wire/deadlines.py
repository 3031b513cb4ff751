"""How long an HTTP call may still take, as its caller says it, and how that is told on. Pure.

Kept in step with `crates/core/src/decision/deadlines.rs` by `tests/vectors/deadlines.json`. A gRPC call says it in `grpc-timeout`.
"""

import math
from collections.abc import Iterable
from typing import Final

from proxy.contract.head import Header
from proxy.wire.grpc_timeout import parse_grpc_timeout

TIMEOUT: Final = b"postern-timeout"
DEADLINE: Final = b"postern-deadline"
ENVOYS: Final = b"x-envoy-expected-rq-timeout-ms"
_MAX_DIGITS: Final = 15  # milliseconds, beyond which no deadline lies


def read_left_s(headers: Iterable[Header], now_s: float) -> float | None:
    """Seconds; the least that is said counts, what is malformed does not. None: nothing is said. now_s: epoch seconds.

    `postern-timeout`: milliseconds, or as `grpc-timeout` has it. `postern-deadline`: a moment in epoch milliseconds.
    """
    least_s: float | None = None
    for name, data in headers:
        if name == TIMEOUT:
            left_s = _millis_s(data) if data.isdigit() else parse_grpc_timeout(data)
        elif name == ENVOYS:
            left_s = _millis_s(data) or None  # 0 bounds nothing there
        elif name == DEADLINE:
            at_s = _millis_s(data)
            left_s = None if at_s is None else max(0.0, at_s - now_s)
        else:
            continue
        if left_s is not None and (least_s is None or left_s < least_s):
            least_s = left_s
    return least_s


def grpc_left_s(headers: Iterable[Header]) -> float | None:
    """The same of a gRPC call: the first `grpc-timeout`."""
    said = next((data for name, data in headers if name == b"grpc-timeout"), None)
    return None if said is None else parse_grpc_timeout(said)


def left_ms(left_s: float) -> int:
    """Milliseconds to tell, rounded up: whoever is told never gives up before us."""
    return max(1, math.ceil(left_s * 1_000))


def told(headers: Iterable[Header], left_s: float | None) -> list[Header]:
    """The same fields with what is left. None: as they are."""
    if left_s is None:
        return list(headers)
    millis = b"%d" % left_ms(left_s)
    kept = [
        (name, millis if name == ENVOYS else data)
        for name, data in headers
        if name not in {TIMEOUT, DEADLINE}
    ]
    return [*kept, (TIMEOUT, millis)]


def _millis_s(data: bytes) -> float | None:
    return int(data) / 1_000 if data.isdigit() and len(data) <= _MAX_DIGITS else None
