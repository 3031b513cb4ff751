"""Regular expressions in Dapr's dialect, RE2, which find or don't in time linear in the text: no pattern can hold a proxy up.

The library is an extra, and loaded with the first pattern.
"""

from typing import Any, Final

MAX_PATTERN_BYTES: Final = 16_384


class PatternError(ValueError):
    """A text is not an RE2 pattern, or the library is missing."""


class Pattern:
    """One pattern, compiled."""

    __slots__ = ("_found",)

    def __init__(self, text: str) -> None:
        """Raises: PatternError."""
        try:
            import re2  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise PatternError(
                "patterns need the extra `re2`, which is not installed: pipx install '.[re2]'"
            ) from error
        if len(text.encode()) > MAX_PATTERN_BYTES:
            raise PatternError(f"is longer than {MAX_PATTERN_BYTES} bytes")
        options = re2.Options()
        options.log_errors = False
        try:
            self._found: Any = re2.compile(text, options)
        except re2.error as error:
            why = error.args[0] if error.args else error
            raise PatternError(why.decode() if isinstance(why, bytes) else str(why)) from error

    def finds(self, text: str) -> bool:
        """Whether it is found anywhere in a text."""
        return self._found.search(text) is not None
