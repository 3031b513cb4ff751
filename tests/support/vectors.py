"""Cases that the tests of both languages read (`tests/vectors`): what stands in Python and again in the native engine."""

from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

FOLDER = Path(__file__).parents[1] / "vectors"


class Vector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One case; `why` says what it is there for."""

    why: str


VectorT = TypeVar("VectorT", bound=Vector)

Text = str | list[str | tuple[str, int]]
"""A text, or its pieces; a piece may be repeated."""


def spelt(text: Text) -> str:
    """The text in one piece."""
    if isinstance(text, str):
        return text
    return "".join(piece if isinstance(piece, str) else piece[0] * piece[1] for piece in text)


def octets(text: Text) -> bytes:
    """The same as bytes, one a character."""
    return spelt(text).encode("latin-1")


def vectors(file: str, section: str, kind: type[VectorT]) -> pytest.MarkDecorator:
    """A test of each case in a section, as its argument `vector`."""
    sections = msgspec.json.decode((FOLDER / f"{file}.json").read_bytes(), type=dict[str, list[msgspec.Raw]])
    found = [msgspec.json.decode(case, type=kind) for case in sections[section]]
    return pytest.mark.parametrize("vector", found, ids=[vector.why for vector in found])
