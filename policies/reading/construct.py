"""A composed YAML tree -> plain values and the place of each; pure.

PyYAML's own constructor loses lines, takes the last of two equal keys, and reads `no`, `010` and `1:30` as a boolean
and numbers; here these are faults.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import yaml
from msgspec import Struct, field

from policies.errors import Fault
from policies.reading.loader import MAX_DEPTH

Place: TypeAlias = tuple[str | int, ...]

MAX_MERGES = 8  # a mapping may merge itself
MAX_NODES = 200_000  # aliases can repeat a node; a chain of them would fill the memory

_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False}
_TRAPS = frozenset({"y", "n", "yes", "no", "on", "off"})


class WrittenInt(int):
    """A whole number that is written unlike Python prints it, such as `0x10`; `text` is what stands in the file."""

    text: str


class WrittenFloat(float):
    """A number that is written unlike Python prints it, such as `3.10`; `text` is what stands in the file."""

    text: str


def text_of(number: float) -> str:
    """A number as it stands in the file."""
    return number.text if isinstance(number, WrittenInt | WrittenFloat) else str(number)


class Built(Struct, frozen=True, kw_only=True):
    """The outcome: values, the (line, column) of each place, and what was wrong."""

    value: object
    places: Mapping[Place, tuple[int, int]]
    faults: tuple[Fault, ...]


class _Builder(Struct):
    """Grows `places` and `faults` during one pass over one document."""

    path: Path
    format_place: Callable[[Place], str]
    is_text: Callable[[Place], bool]
    places: dict[Place, tuple[int, int]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    nodes: int = 0
    merges: int = 0

    def fault(self, node: yaml.Node, place: Place, problem: str) -> None:
        line, column = _mark(node)
        self.faults.append(
            Fault(path=self.path, line=line, column=column, field=self.format_place(place), problem=problem),
        )

    def build(self, node: yaml.Node, place: Place) -> object:
        self.nodes += 1
        if len(place) > MAX_DEPTH or self.nodes > MAX_NODES:
            if not any("too deep or too large" in fault.problem for fault in self.faults):
                self.fault(node, place[:4], f"is too deep or too large (expected at most {MAX_DEPTH} levels)")
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.item(child, (*place, index)) for index, child in enumerate(node.value)]
        return self.scalar(node, place)

    def item(self, node: yaml.Node, place: Place) -> object:
        self.places[place] = _mark(node)
        return self.build(node, place)

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, object]:
        values: dict[str, object] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merged.append(value_node)
                continue
            key = self.key(key_node, place)
            if key is None:
                continue
            if key in values:
                first = self.places[(*place, key)][0]
                self.fault(key_node, (*place, key), f"is given twice (first on line {first})")
                continue
            self.places[(*place, key)] = _mark(key_node)
            values[key] = self.build(value_node, (*place, key))
        for source in merged:
            self.merge(values, source, place)
        return values

    def merge(self, values: dict[str, object], source: yaml.Node, place: Place) -> None:
        """YAML's `<<`: keys that the mapping doesn't have itself come from another one."""
        parts = source.value if isinstance(source, yaml.SequenceNode) else [source]
        for part in parts:
            if not isinstance(part, yaml.MappingNode) or self.merges > MAX_MERGES:
                self.fault(part, place, f"<< takes a mapping or a list of them, at most {MAX_MERGES} deep")
                continue
            inner = _Builder(
                self.path, self.format_place, self.is_text, nodes=self.nodes, merges=self.merges + 1
            )
            found = inner.mapping(part, place)
            self.nodes = inner.nodes
            self.faults += inner.faults
            fresh = found.keys() - values.keys()
            values.update({key: item for key, item in found.items() if key in fresh})
            for spot, mark in inner.places.items():
                if len(spot) > len(place) and spot[len(place)] in fresh:
                    self.places.setdefault(spot, mark)

    def key(self, node: yaml.Node, place: Place) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.fault(node, place, "has a key that is not text (expected key: value)")
            return None
        text: str = node.value
        if self.is_text((*place, text)):
            return text
        if not node.style and (text.lower() in _TRAPS or text.lower() in _BOOLEANS):
            self.fault(node, (*place, text), f'is a YAML boolean, not a name (expected "{text}" in quotes)')
            return None
        return text

    def scalar(self, node: yaml.Node, place: Place) -> object:
        text: str = node.value
        kind = node.tag.removeprefix(_TAG)
        if self.is_text(place) and node.tag.startswith(_TAG):
            return text if kind != "null" else ""
        if kind in {"str", "timestamp"}:
            if kind == "str" and not getattr(node, "style", None) and text.lower() in {"y", "n"}:
                self.fault(
                    node, place, f'`{text}` is a boolean to YAML 1.1 readers (expected "{text}" in quotes)'
                )
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return _BOOLEANS.get(text.lower(), text.lower() in {"yes", "on"})
        if kind == "int":
            return self.integer(node, place, text)
        if kind == "float":
            return self.decimal(text) if _FLOAT.fullmatch(text) else text
        self.fault(node, place, f"has the tag {node.tag} (expected plain YAML)")
        return None

    def integer(self, node: yaml.Node, place: Place, text: str) -> object:
        if _INTEGER.fullmatch(text) is None:
            self.fault(
                node, place, f"{text} is an octal, binary or base-60 number to YAML (expected it in quotes)"
            )
            return None
        number = WrittenInt(text, 0)
        number.text = text
        return number if str(int(number)) != text else int(number)

    def decimal(self, text: str) -> object:
        number = WrittenFloat(text)
        number.text = text
        return number if str(float(number)) != text else float(number)


def _mark(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def construct(
    path: Path,
    node: yaml.Node,
    format_place: Callable[[Place], str],
    is_text: Callable[[Place], bool] = lambda _: False,
) -> Built:
    """The values of a composed document. Faults name `path`; places are written by `format_place`.

    Where `is_text` says so a scalar stays the text that is written, whatever YAML takes it for; null is not text.
    """
    builder = _Builder(path, format_place, is_text)
    builder.places[()] = _mark(node)
    value = builder.build(node, ())
    return Built(value=value, places=builder.places, faults=tuple(builder.faults))
