"""The keys of a component's configuration, read with their types; pure. Names of keys are compared without regard to case, as Dapr does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nameresolution.errors import ComponentConfigurationError
from telemetry.durations import parse_duration_s

_WORDS = {
    **dict.fromkeys(("y", "yes", "true", "t", "on", "1"), True),
    **dict.fromkeys(("n", "no", "false", "f", "off", "0", ""), False),
}


class Fields:
    """One mapping of a configuration. Every method raises ComponentConfigurationError for a value of the wrong form."""

    def __init__(
        self,
        component: str,
        given: object,
        known: Iterable[str],
        *,
        aliases: Mapping[str, str] | None = None,
        within: str = "",
    ) -> None:
        """`known` are the keys that may be there, `aliases` other names for some; `within` leads to the mapping, with a dot at its end.

        Raises: ComponentConfigurationError for a key that is not known, and for anything but a mapping.
        """
        self._component = component
        self._within = within
        names = {name.lower(): name for name in known}
        names |= {alias.lower(): name for alias, name in (aliases or {}).items()}
        self._values: dict[str, object] = {}
        if given is None:
            return
        if not isinstance(given, Mapping):
            raise ComponentConfigurationError(component, within.rstrip("."), f"expected a map, got {given!r}")
        for key, value in given.items():
            name = names.get(str(key).lower())
            if name is None:
                expected = " or ".join(sorted(known))
                raise self.fault(str(key), f"is unknown, expected {expected}")
            self._values[name] = value

    def fault(self, field: str, problem: str) -> ComponentConfigurationError:
        """The error to raise for a field."""
        return ComponentConfigurationError(self._component, f"{self._within}{field}", problem)

    def get(self, field: str) -> object:
        """The value as it is written, None if it isn't."""
        return self._values.get(field)

    def rest(self) -> dict[str, object]:
        """All that is given, by the names as they are known."""
        return dict(self._values)

    def text(self, field: str, default: str = "") -> str:
        """A text or a number as text."""
        value = self._values.get(field)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.fault(field, f"expected a string, got {value!r}")
        return str(value)

    def switch(self, field: str, *, default: bool = False) -> bool:
        """True or false, also as a word."""
        value = self._values.get(field)
        if value is None:
            return default
        word = value if isinstance(value, bool) else _WORDS.get(str(value).lower())
        if word is None:
            raise self.fault(field, f"expected true or false, got {value!r}")
        return word

    def seconds(self, field: str, default: float) -> float:
        """A duration such as `5s`; a bare number is seconds. Never negative."""
        value = self._values.get(field)
        if value is None or value == "":
            return default
        try:
            text = "" if isinstance(value, bool) else str(value)
            seconds = float(text) if text.isdigit() else parse_duration_s(text)
        except ValueError as error:
            raise self.fault(field, f"expected {error}, got {value!r}") from None
        if seconds < 0:
            raise self.fault(field, f"expected a duration that is not negative, got {value!r}")
        return seconds

    def texts(self, field: str, of_what: str) -> tuple[str, ...]:
        """A list of texts that are not empty."""
        value = self._values.get(field, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.fault(field, f"expected a list of {of_what}")
        return tuple(value)
