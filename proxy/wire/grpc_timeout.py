"""The value of `grpc-timeout`. Pure. Source: gRPC over HTTP/2, Timeout."""

_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def parse_grpc_timeout(data: bytes) -> float | None:
    """Seconds, or None where the value is malformed (at most 8 digits and a unit; gRPC over HTTP/2, Timeout)."""
    unit = _UNITS.get(data[-1:])
    digits = data[:-1]
    if unit is None or not digits.isdigit() or len(digits) > 8:
        return None
    return int(digits) * unit


def format_grpc_timeout(left_s: float) -> bytes:
    """The finest unit whose value fits in 8 digits, never zero."""
    for unit, scale in ((b"n", 1e9), (b"u", 1e6), (b"m", 1e3), (b"S", 1.0)):
        count = int(left_s * scale)
        if count < 100_000_000:
            return b"%d%s" % (max(count, 1), unit)
    return b"%dH" % min(int(left_s / 3600), 99_999_999)
