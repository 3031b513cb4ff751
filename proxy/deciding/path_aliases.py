"""Paths that stand for others (`middleware.http.routeralias`). Pure."""

import re
from collections.abc import Hashable
from urllib.parse import quote, unquote

from msgspec import Struct

from proxy.wire.target import clean

_HOLE = re.compile(r"\{([^{}/]+)\}")


class _Pattern(Struct, frozen=True):
    path: re.Pattern[str]
    names: tuple[str, ...]
    target: str


class PathAliases:
    """Routes by path. One without holes goes before those with; of these, the one with fewer, then the first in the alphabet."""

    def __init__(self, routes: tuple[tuple[str, str], ...]) -> None:
        self._exact = {clean(path): target for path, target in routes if not _HOLE.search(path)}
        holed = sorted(
            (len(_HOLE.findall(path)), path, target) for path, target in routes if _HOLE.search(path)
        )
        self._patterns = tuple(_pattern(path, target) for _, path, target in holed)

    def classify(self, path: str) -> tuple[Hashable, str]:
        """What a path is told apart by, and the path that it stands for: itself where no route is for it."""
        path_here = clean(path)
        target = self._exact.get(path_here)
        if target is not None:
            return target, target
        for number, pattern in enumerate(self._patterns):
            if pattern.path.fullmatch(path_here) is not None:
                return number, pattern.target
        return None, path

    def fill(self, number: int, path: str) -> str:
        """What stands in a pattern's holes, as members of a query."""
        pattern = self._patterns[number]
        match = pattern.path.fullmatch(clean(path))
        assert match is not None
        pairs = zip(pattern.names, match.groups(), strict=True)
        return "&".join(f"{name}={quote(unquote(value), safe='')}" for name, value in pairs)


def _pattern(path: str, target: str) -> _Pattern:
    expression = "".join(
        "([^/]+)" if number % 2 else re.escape(part) for number, part in enumerate(_HOLE.split(clean(path)))
    )
    return _Pattern(re.compile(expression), tuple(_HOLE.findall(path)), target)
