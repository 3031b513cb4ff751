"""Status codes as they are written: lists of them in `matching`, and gRPC's by number or name; pure."""

import re
from collections.abc import Mapping
from typing import Final

from policies.errors import CodesError

# gRPC codes of failures by name. Source: grpc/grpc doc/statuscodes.md.
GRPC_CODES: Final[Mapping[str, int]] = {
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "DATA_LOSS": 15,
    "UNAUTHENTICATED": 16,
}
_ITEM = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?", re.ASCII)


def parse_codes(text: str, lowest: int, highest: int) -> frozenset[int] | None:
    """The codes of `429,500-504`; None for a text without any, which stands for all codes.

    Ranges hold both ends; empty items are skipped; blanks are not. Raises: CodesError.
    """
    codes: set[int] = set()
    for item in text.split(","):
        if not item:
            continue
        match = _ITEM.fullmatch(item)
        if match is None:
            raise CodesError(
                f"`{item}` is not a code or a range of codes (expected one such as 429,500-504, without blanks)"
            )
        first = int(match[1])
        last = int(match[2]) if match[2] is not None else first
        if first > last:
            raise CodesError(f"`{item}` is a reversed range (expected {last}-{first})")
        if first < lowest or last > highest:
            raise CodesError(f"`{item}` is out of range (expected codes from {lowest} to {highest})")
        codes.update(range(first, last + 1))
    return frozenset(codes) or None


def grpc_code(written: int | str) -> int:
    """The gRPC code of a failure, written by number or by name. Raises: CodesError."""
    code = GRPC_CODES.get(written.upper()) if isinstance(written, str) else written
    if code not in GRPC_CODES.values():
        known = ", ".join(f"{name} ({number})" for name, number in GRPC_CODES.items())
        raise CodesError(f"`{written}` is not the code of a failure (expected a name or number of {known})")
    assert code is not None
    return code
