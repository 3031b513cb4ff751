"""Paths -> the few values that the `path` label of HTTP metrics may have. Pure.

Patterns are those of `spec.metrics.http.pathMatching` (Go's mux): `/orders/{id}`, `/files/{rest...}`, a trailing `/`
for a subtree, `{$}` for the path itself. The label is the pattern; the most specific one that matches wins. One that begins with
`/v1.0/invoke/` is for the path as the app sends it.
"""

import re
from collections.abc import Iterable

from telemetry.errors import MetricError
from telemetry.names import INVOKE_PREFIX
from telemetry.series import OTHER

#: Asked of every app by its sidecar, and therefore labels of their own.
FIXED = frozenset({"/dapr/config", "/dapr/metrics", "/dapr/subscribe", "/healthz"})

METHOD = "/method"
#: Characters of a path that is its own label.
LONGEST = 256

_ANY_APP = f"{INVOKE_PREFIX}{{app_id}}{METHOD}"
_WILDCARD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}")


class PathLabels:
    """A `path_label` for CallRecorder: `labels(path)`.

    An unmatched path is "", or itself with `raw` (which Dapr calls increased cardinality); the cap on series holds
    either way.
    """

    __slots__ = ("_patterns", "_raw")

    def __init__(self, patterns: Iterable[str] = (), *, raw: bool = False) -> None:
        """Raises: MetricError for an invalid path pattern."""
        ranked = sorted(set(patterns), key=_specificity)
        self._patterns = tuple(
            (pattern, re.compile(_expression(pattern), re.DOTALL).fullmatch) for pattern in ranked
        )
        self._raw = raw

    @property
    def has_patterns(self) -> bool:
        """Whether any path has another label than itself."""
        return bool(self._patterns)

    def __call__(self, path: str, below: str = "") -> str:
        """The label of a path; `below`: what stands before it in a call by Dapr's path form, `/v1.0/invoke/<app-id>/method`."""
        if path == OTHER:
            return OTHER
        route = self.route(path, below)
        if route:
            return f"{_ANY_APP}{route}" if below and not route.startswith(INVOKE_PREFIX) else route
        if not self._raw and path not in FIXED:
            return ""
        return f"{below}{path}" if len(path) <= LONGEST else OTHER

    def route(self, path: str, below: str = "") -> str:
        """The pattern that a path matches, "" where none does. below: as above."""
        for pattern, matches in self._patterns:
            if matches(f"{below}{path}" if pattern.startswith(INVOKE_PREFIX) else path) is not None:
                return pattern
        return ""


def _segments(pattern: str) -> list[str]:
    return pattern.split("/")[1:]


def _specificity(pattern: str) -> list[tuple[int, str]]:
    """Sorts literal segments before wildcards, and those before whatever takes the rest of the path."""
    ranks = [(_rank(segment), segment) for segment in _segments(pattern)]
    # A pattern without a trailing slash ends where a subtree's would go on.
    return ranks if pattern.endswith("/") else [*ranks, (0, "")]


def _rank(segment: str) -> int:
    found = _WILDCARD.fullmatch(segment)
    if segment == "" or (found is not None and found[2]):
        return 3
    return 2 if found is not None else 1


def _expression(pattern: str) -> str:
    segments = _segments(pattern)
    if not pattern.startswith("/") or "" in segments[:-1]:
        raise MetricError(pattern, "path pattern: expected segments that begin with / and are not empty")
    parts = [
        _segment(pattern, segment, last=number == len(segments) - 1)
        for number, segment in enumerate(segments)
    ]
    return "".join(parts)


def _segment(pattern: str, segment: str, *, last: bool) -> str:
    if segment == "":
        return "/.*"
    if segment == "{$}" and last:
        return "/"
    found = _WILDCARD.fullmatch(segment)
    if found is None:
        if "{" in segment or "}" in segment:
            raise MetricError(
                pattern, f"path pattern: expected {{name}} to be a whole segment, got {segment!r}"
            )
        return "/" + re.escape(segment)
    if found[2] and not last:
        raise MetricError(pattern, f"path pattern: expected {segment} at the end")
    return "/.*" if found[2] else "/[^/]+"
