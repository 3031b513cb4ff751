"""What deciders may ask of header fields without a value becoming a key: patterns, and whether baggage is valid. Imports nothing."""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote_to_bytes

MAX_BAGGAGE_MEMBERS = 64  # W3C Baggage §3.3.2: what every platform must pass on
MAX_BAGGAGE_BYTES = 8_192
_VALUE_CHARS = 256
# W3C Baggage §3.3.1: a token, `=`, octets without blanks, quotes, commas, semicolons and backslashes, then properties.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"
_MEMBER = re.compile(
    rb"%(token)b[ \t]*=[ \t]*%(value)b(?:[ \t]*;[ \t]*%(token)b[ \t]*(?:=[ \t]*%(value)b)?)*"
    % {b"token": _TOKEN, b"value": _VALUE}
)


def carries(headers: Iterable[tuple[bytes, bytes]], patterns: frozenset[bytes]) -> bool:
    """Whether a field matches a pattern: `name`, or `name: word` (lower-case, the value up to a space, `;` or `,`); `*` ends either."""
    for name, data in headers:
        for field in (name, b"%b: %b" % (name, _first_word(data))):
            if field in patterns:
                return True
            if any(pattern[-1:] == b"*" and field.startswith(pattern[:-1]) for pattern in patterns):
                return True
    return False


def _first_word(data: bytes) -> bytes:
    for end in (b";", b",", b"\t", b" "):
        data = data.strip(b" \t").partition(end)[0]
    return data.lower()


def read_baggage(
    headers: Iterable[tuple[bytes, bytes]], allowed: frozenset[bytes] | None = None
) -> tuple[str, bytes]:
    """What is wrong with the baggage ("" where nothing is), and the members to pass on.

    Bad members are left out one by one; of more than any platform must pass on, none is kept. allowed: keys; members with others are
    left out, too, and told where nothing else is wrong.
    """
    lines = [data for name, data in headers if name == b"baggage"]
    if not lines:
        return "", b""
    whole = b",".join(lines)
    members = [item for item in (part.strip(b" \t") for part in whole.split(b",")) if item]
    if len(whole) > MAX_BAGGAGE_BYTES:
        return "too-large", b""
    if len(members) > MAX_BAGGAGE_MEMBERS:
        return "too-many", b""
    sound = [member for member in members if _MEMBER.fullmatch(member)]
    wrong = "" if len(sound) == len(members) else "malformed"
    if allowed is not None:
        kept = [member for member in sound if member.partition(b"=")[0].strip(b" \t") in allowed]
        wrong, sound = wrong or ("" if len(kept) == len(sound) else "not-allowed"), kept
    return wrong, b",".join(sound)


def baggage_values(
    headers: Iterable[tuple[bytes, bytes]], keys: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """(key, value) of the sound members with these keys, in the order of `keys`; of equal keys the last member counts.

    Values are percent-decoded (W3C Baggage §3.3.1), what of them is not UTF-8 as U+FFFD; longer ones end in `…`.
    """
    found: dict[str, str] = {}
    for member in read_baggage(headers)[1].split(b","):
        key, equals, value = member.partition(b";")[0].partition(b"=")
        name = key.strip(b" \t").decode("ascii")
        if equals and name in keys:
            text = unquote_to_bytes(value.strip(b" \t")).decode("utf-8", "replace")
            found[name] = text if len(text) <= _VALUE_CHARS else f"{text[: _VALUE_CHARS - 1]}…"
    return tuple((key, found[key]) for key in keys if key in found)
