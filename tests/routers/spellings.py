"""Spellings of request targets that some web framework may read as another path than the one that they look like."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# What is routed to operations that the rules of `test_no_denied_operation.py` deny, and what to those that they allow.
DENIED: Final = ("/item/secret", "/admin", "/admin/x", "/shop/7/items/9", "/box/7", "/files/private/x")
OPEN: Final = ("/open", "/item/7", "/shop/8/items/9", "/files/public/x")
PATHS: Final = (*DENIED, *OPEN)


def _sections() -> dict[str, tuple[str, ...]]:
    text = Path(__file__).with_suffix(".txt").read_text(encoding="ascii")
    found: dict[str, list[str]] = {}
    items: list[str] = []
    for line in text.splitlines():
        if line.startswith("["):
            items = found.setdefault(line.strip("[]"), [])
        elif not line.startswith("--"):
            items += line.split()
    return {name: tuple(items) for name, items in found.items()}


_SECTIONS: Final = _sections()
KNOWN: Final = _SECTIONS["known"]
_SLASHES: Final = _SECTIONS["slashes"]
_FRONTS: Final = _SECTIONS["fronts"]
_ENDS: Final = _SECTIONS["ends"]


def _escaped(path: str, at: int, form: str) -> str:
    code = f"{ord(path[at]):02x}"
    once = "%" + code
    spelled = {
        "once": once,
        "upper": once.upper(),
        "twice": "%25" + code,
        "thrice": "%2525" + code,
        "inner": "%" + "".join(f"%{ord(digit):02x}" for digit in code),
        "legacy": f"%u00{code}",
        "wide": "".join(f"%{byte:02x}" for byte in chr(0xFEE0 + ord(path[at])).encode()),
        "overlong": f"%{0xC0 | ord(path[at]) >> 6:02x}%{0x80 | ord(path[at]) & 0x3F:02x}",
    }
    return path[:at] + spelled[form] + path[at + 1 :]


_FORMS: Final = ("once", "upper", "twice", "thrice", "inner", "legacy", "wide", "overlong")


def _edits(path: str, open_path: str) -> Iterator[str]:
    """Every spelling of a path that one edit makes."""
    slashes = [at for at, letter in enumerate(path) if letter == "/"]
    for front in _FRONTS:
        yield front.format(open=open_path) + path
    for end in _ENDS:
        yield path + end.format(open=open_path, rest=open_path[1:])
    for at in slashes:
        for slash in _SLASHES:
            yield path[:at] + slash + path[at + 1 :]
    for at in range(1, len(path)):
        for form in _FORMS:
            yield _escaped(path, at, form)


def every_edit() -> list[str]:
    """Every path with one edit, and as it is."""
    found = [*PATHS]
    for path in PATHS:
        found += _edits(path, "/open")
    return list(dict.fromkeys(found))


def some(count: int, seed: int) -> list[str]:
    """Paths with one to three edits, by chance; equal for an equal seed."""
    chance = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        spelling = chance.choice(PATHS)
        for _ in range(chance.choice((1, 1, 2, 2, 3))):
            spelling = _edit(chance, spelling, chance.choice(OPEN))
        found[spelling] = None
    return list(found)


def _edit(chance: random.Random, path: str, open_path: str) -> str:
    kind = chance.choice(("front", "end", "slash", "slash", "letter"))
    slashes = [at for at, letter in enumerate(path) if letter == "/"]
    letters = [at for at, letter in enumerate(path) if 0x21 <= ord(letter) <= 0x7E]
    if kind == "front":
        return chance.choice(_FRONTS).format(open=open_path) + path
    if kind == "slash" and slashes:
        at = chance.choice(slashes)
        return path[:at] + chance.choice(_SLASHES) + path[at + 1 :]
    if kind == "letter" and letters:
        return _escaped(path, chance.choice(letters), chance.choice(_FORMS))
    return path + chance.choice(_ENDS).format(open=open_path, rest=open_path[1:])
