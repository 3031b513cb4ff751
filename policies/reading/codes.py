"""Lists of status codes as `matching` writes them; pure."""

import re

from policies.errors import CodesError

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
