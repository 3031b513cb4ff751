"""The `metadata` of a Component: settings by name, each checked where it stands."""

import difflib
import math
import re
from collections.abc import Mapping
from typing import TypeVar

import yaml

from policies.reading import schema
from policies.reading.construct import Place, text_of
from policies.reading.documents import Document
from policies.reading.findings import Findings, Spot
from policies.reading.loader import Loader
from policies.reading.shown_urls import shown_url
from policies.reading.urls import http_url
from policies.reading.validation import either
from policies.reading.variables import NO_SECRETS, read_variable
from policies.rules.patterns import Pattern, PatternError

ChoiceT = TypeVar("ChoiceT")

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")  # it is part of headers
_METADATA: Place = ("spec", "metadata")


class Settings:
    """Those of one component; names count in any case, as in Dapr. Mutable state: which were asked for, the rest being faults."""

    def __init__(
        self, document: Document, component: schema.Component, env: Mapping[str, str], findings: Findings
    ) -> None:
        self.name = component.metadata.name
        self._env = env
        self._spot = Spot(document, findings)
        self._items: dict[str, tuple[Place, schema.NameValue]] = {}
        self._known: dict[str, str] = {}
        if _NAME.fullmatch(self.name) is None:
            problem = f"`{self.name}` can't be used (expected letters, digits, '.', '_' or '-')"
            self._spot.fault(("metadata", "name"), problem)
        for number, item in enumerate(component.spec.metadata):
            place = (*_METADATA, number)
            if item.name.lower() in self._items:
                self._spot.fault((*place, "name"), f"`{item.name}` is there already (expected one of a name)")
            self._items[item.name.lower()] = (place, item)

    def _place(self, *names: str) -> Place:
        found = next((self._items[name.lower()] for name in names if name.lower() in self._items), None)
        return (*found[0], "value") if found is not None else _METADATA

    def fault(self, name: str, problem: str, *aliases: str) -> None:
        """Something is wrong with a setting, or with its absence."""
        self._spot.fault(self._place(name, *aliases), problem)

    def _find(self, names: tuple[str, ...]) -> tuple[Place, schema.NameValue] | None:
        self._known |= {name.lower(): name for name in names}
        found = [self._items[name.lower()] for name in names if name.lower() in self._items]
        if len(found) > 1:
            self._spot.fault((*found[1][0], "name"), f"`{' and '.join(names)}` are two names of one setting")
        return found[0] if found else None

    def raw(self, name: str) -> object:
        """A value as it is written, of any type; None where it is not there."""
        found = self._find((name,))
        return None if found is None else found[1].value

    def text(self, name: str, *aliases: str, default: str | None = "") -> str:
        """A text; without a default it must be there."""
        found = self._find((name, *aliases))
        made = "" if found is None else self._value(*found).strip()
        if not made and default is None:
            self.fault(name, f"{name} is missing (expected it among the settings of {self.name})")
        return made or default or ""

    def _value(self, place: Place, item: schema.NameValue) -> str:
        if item.secret_key_ref is not None:
            self._spot.fault((*place, "secretKeyRef"), NO_SECRETS)
            return "?"
        if item.env_ref:
            value, problem = read_variable(item.env_ref, self._env, kind="components")
            if problem is not None:
                self._spot.fault((*place, "envRef"), problem)
                return "?"
            return value
        if isinstance(item.value, dict | list):
            self._spot.fault((*place, "value"), "is not text (expected one value)")
            return "?"
        return _text(item.value)

    def number(self, name: str, *, default: float) -> float:
        """A number above 0."""
        text = self.text(name)
        if not text:
            return default
        try:
            made = float(text)
        except ValueError:
            made = math.nan
        if not 0 < made < math.inf:
            self.fault(name, f"`{text}` is not a number above 0 (expected one such as {default:g})")
            return default
        return made

    def url(self, name: str, *aliases: str, default: str | None = "") -> str:
        """An http or https URL; over http only on this host without a warning."""
        text = self.text(name, *aliases, default=default)
        if not text:
            return ""
        parts = http_url(text)
        if parts is None:
            self.fault(
                name,
                f"`{shown_url(text)}` is not a URL (expected one such as https://login.example.com/path)",
                *aliases,
            )
            return ""
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            problem = (
                f"`{shown_url(text)}` is not https: whoever is on the way can read and change what is sent"
            )
            self._spot.warn(self._place(name, *aliases), problem)
        return text

    def choice(self, name: str, choices: Mapping[str, ChoiceT], *, default: str) -> ChoiceT:
        """One of several."""
        text = self.text(name, default=default)
        if text.lower() not in choices:
            self.fault(name, f"`{text}` is unknown (expected {either(choices)})")
        return choices.get(text.lower(), choices[default])

    def pattern(self, name: str, *, default: str | None = "") -> str:
        """A regular expression (RE2)."""
        text = self.text(name, default=default)
        if text:
            try:
                Pattern(text)
            except PatternError as error:
                self.fault(name, f"`{text}` is not a regular expression that can be used: {error}")
        return text

    def mapping(self, name: str) -> dict[str, str]:
        """Text by text: a mapping, or a text that holds one in YAML or JSON."""
        value = self.raw(name)
        if isinstance(value, str):
            try:
                value = yaml.load(value, Loader=Loader)  # noqa: S506 - a safe loader, bounded in depth
            except yaml.YAMLError as error:
                self.fault(name, f"is neither YAML nor JSON: {str(error).splitlines()[0]}")
                return {}
        if not isinstance(value, dict) or not value:
            self.fault(
                name, f"{name} is not a mapping (expected one in YAML or JSON, with one entry at least)"
            )
            return {}
        if nested := [key for key, one in value.items() if isinstance(one, dict | list | set)]:
            self.fault(name, f"{_text(nested[0])} is not given a text (expected one for each key)")
            return {}
        return {_text(key): _text(one) for key, one in value.items()}

    def finish(self) -> None:
        """All were asked for: what is left means nothing."""
        for lowered, (place, item) in self._items.items():
            if lowered not in self._known:
                close = difflib.get_close_matches(lowered, self._known, n=1, cutoff=0.6)
                meant = [self._known[one] for one in close] or sorted(self._known.values())
                hint = f"did you mean {meant[0]}?" if close else f"expected {', '.join(meant)}"
                self._spot.fault((*place, "name"), f"unknown setting `{item.name}` ({hint})", is_lenient=True)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return text_of(value) if isinstance(value, int | float) else str(value)
