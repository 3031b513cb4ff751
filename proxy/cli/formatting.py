"""A document's canonical form: keys in the order of its kind's schema, two spaces, comments kept; pure.

Lines move as they are written: scalars, flow collections and comments are never written anew, so that only order and indentation change.
What came out is read and compared with what went in: where it would mean anything else, or lose a character, nothing is changed. (A library
that rewrites YAML with comments, ruamel.yaml, ties each comment to the key before it, which sorting keys would part from its own.)
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from inspect import get_annotations
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

import yaml
from msgspec import Struct
from msgspec.structs import fields
from yaml import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode

from policies.errors import DocumentError
from policies.reading import own_schema, own_traffic, schema
from policies.reading.documents import parse_documents
from proxy.cli.runfile import RunFile

Kind: TypeAlias = Any  # an annotation: a type, or what `typing` makes of types
_STEP = 2
_HEAD = ("apiVersion", "kind", "metadata")
_MARKER = re.compile(r"(---|\.\.\.)(\s|$)")
_KINDS: Mapping[str, type[Struct]] = {
    "Configuration": schema.Configuration,
    "Resiliency": schema.Resiliency,
    "Component": schema.Component,
    "HTTPEndpoint": schema.HttpEndpoint,
    "AccessPolicy": own_schema.AccessPolicy,
    "Traffic": own_traffic.Traffic,
}


class UnformattableError(ValueError):
    """Why a document is left as it is."""


def formatted(text: str) -> str:
    """The text of a file in canonical form. Raises: UnformattableError; DocumentError where it is no YAML."""
    source = text.removeprefix("\ufeff").replace("\r\n", "\n")
    before = parse_documents(Path(), source, None)
    made: list[str] = []
    for marker, lines in _documents(source):
        if marker is not None:
            made.append(marker)
        made += _document(lines)
    while made and not made[-1]:
        made.pop()
    result = "\n".join(made) + "\n" if made else ""
    if _characters(result) != _characters(source):
        raise UnformattableError("it is written in a way that can't be kept")
    try:
        after = parse_documents(Path(), result, None)
    except DocumentError as error:
        raise UnformattableError("it is written in a way that can't be kept") from error
    if [one.value for one in before] != [one.value for one in after]:
        raise UnformattableError("it is written in a way that can't be kept")
    return result


def _characters(text: str) -> Counter[str]:
    return Counter("".join(text.split()))


def _documents(source: str) -> list[tuple[str | None, list[str]]]:
    """Each document's lines with the marker before it. A marker at the start of a line ends even a block scalar (YAML 1.2 §9.1.2)."""
    found: list[tuple[str | None, list[str]]] = [(None, [])]
    for line in source.split("\n"):
        if _MARKER.match(line):
            found.append((line.rstrip(), []))
        else:
            found[-1][1].append(line)
    return found


def _document(lines: list[str]) -> list[str]:
    text = "\n".join(lines)
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.AliasToken | yaml.AnchorToken | yaml.TagToken | yaml.DirectiveToken):
            raise UnformattableError(f"line {token.start_mark.line + 1} has an anchor, an alias or a tag")
        if isinstance(token, yaml.KeyToken) and text[token.start_mark.index :].startswith("? "):
            raise UnformattableError(f"line {token.start_mark.line + 1} has a key of its own line (`? `)")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return [line.rstrip() for line in lines]
    writer = _Writer(lines)
    start = root.start_mark.line if not isinstance(root, ScalarNode) else 0
    head = writer.comments(0, start, 0)  # what a file begins with stays there
    made = [*head, *writer.collection(root, 0, _kind_of(root), start)]
    while made and not made[0]:
        made.pop(0)
    tail, rest = writer.gap(writer.end(root), len(lines), 0, root, -_STEP)
    return [*made, *tail, *rest]


def _kind_of(root: Node) -> Kind:
    if not isinstance(root, MappingNode):
        return None
    keys = {key.value: value for key, value in root.value}
    kind = keys.get("kind")
    if isinstance(kind, ScalarNode):
        return _KINDS.get(kind.value)
    return RunFile if isinstance(keys.get("apps"), SequenceNode) else None


def _order(kind: Kind) -> Mapping[str, Kind] | None:
    """The keys of a schema's type in its order, each with its own type; None: any keys, in the order that they are written."""
    for each in _alternatives(kind):
        if isinstance(each, type) and issubclass(each, Struct):
            named = {field.encode_name: field for field in fields(each)}
            own = get_annotations(each)
            first = [name for name, field in named.items() if field.name in own]
            return {
                name: named[name].type for name in dict.fromkeys([*_HEAD, *first, *named]) if name in named
            }
    return None


def _alternatives(kind: Kind) -> Sequence[Kind]:
    origin: Kind = get_origin(kind)
    if origin is Annotated:
        return _alternatives(get_args(kind)[0])
    return get_args(kind) if origin in (Union, UnionType) else (kind,)


def _inside(kind: Kind, of: type, number: int) -> Kind:
    """The type of what a dict or list of this type holds."""
    for each in _alternatives(kind):
        origin: Kind = get_origin(each)
        arguments = get_args(each)
        if origin is of and len(arguments) > number:
            return arguments[number]
    return None


class _Writer:
    """Writes nodes of one document anew from its lines."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines

    def end(self, node: Node) -> int:
        """The line after the last of a node's own."""
        if isinstance(node, ScalarNode):
            if node.style in ("|", ">"):
                return self._block_end(node)
            return int(node.end_mark.line) + 1
        if not isinstance(node, CollectionNode) or node.flow_style:
            return int(node.end_mark.line) + 1
        last = node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1]
        return max(self.end(last), int(last.start_mark.line) + 1)

    def _block_end(self, node: ScalarNode) -> int:
        start, end = node.start_mark.line, min(node.end_mark.line, len(self._lines))
        if node.end_mark.column and end < len(self._lines) and self._lines[end].strip():
            end += 1  # the text ends with this line
        is_kept = "+" in self._lines[start][node.start_mark.column :].partition("#")[0]
        while end > start + 1 and not self._lines[end - 1].strip() and not is_kept:
            end -= 1
        return int(end)

    def collection(self, node: Node, indent: int, kind: Kind, start: int) -> list[str]:
        """The lines of a block mapping or sequence whose comments begin at line `start`; of anything else, its own."""
        if isinstance(node, MappingNode) and not node.flow_style:
            return self._mapping(node, indent, kind, start)
        if isinstance(node, SequenceNode) and not node.flow_style:
            return self._sequence(node, indent, kind, start)
        text, rest = self._value(node, indent)
        return [*self.comments(start, node.start_mark.line, indent), " " * indent + text, *rest]

    def _mapping(self, node: MappingNode, indent: int, kind: Kind, start: int) -> list[str]:
        order = _order(kind)
        entries: list[tuple[str, list[str]]] = []
        last: Node | None = None
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or key.start_mark.line != key.end_mark.line:
                raise UnformattableError(f"line {key.start_mark.line + 1} has a key that is not plain text")
            tail, lead = self.gap(start, key.start_mark.line, key.start_mark.column, last, indent)
            if entries:
                entries[-1][1].extend(tail)
            else:
                lead = [*tail, *lead]
            inner = (order or {}).get(key.value) if order is not None else _inside(kind, dict, 1)
            entries.append((key.value, [*lead, *self._entry(key, value, indent, inner)]))
            start = max(self.end(value), key.start_mark.line + 1)
            last = value
        if order is not None:
            places = {name: number for number, name in enumerate(order)}
            entries.sort(key=lambda entry: places.get(entry[0], len(places)))
        made = [line for _, lines in entries for line in lines]
        while made and not made[0]:
            made.pop(0)  # no blank line before the first key
        return made

    def _entry(self, key: ScalarNode, value: Node, indent: int, kind: Kind) -> list[str]:
        name = self._lines[key.start_mark.line][key.start_mark.column : key.end_mark.column]
        head = " " * indent + name + ":"
        is_block = isinstance(value, CollectionNode) and not value.flow_style
        if is_block or value.start_mark.line != key.start_mark.line:
            after = self._lines[key.end_mark.line][key.end_mark.column :].lstrip().removeprefix(":")
            comment = after.rstrip() if after.lstrip().startswith("#") else ""
            if not is_block and not comment and isinstance(value, ScalarNode) and value.value:
                gap = self.comments(key.start_mark.line + 1, value.start_mark.line, indent)
                text, rest = self._value(value, indent)
                return [*gap, f"{head} {text}", *rest]
            inner = self.collection(value, indent + _STEP, kind, key.start_mark.line + 1)
            return [head + comment, *inner]
        text, rest = self._value(value, indent)
        return [f"{head} {text}".rstrip() if text else head, *rest]

    def _sequence(self, node: SequenceNode, indent: int, kind: Kind, start: int) -> list[str]:
        made: list[str] = []
        inner = _inside(kind, list, 0)
        last: Node | None = None
        for item in node.value:
            dash = self._dash(item, start)
            tail, lead = self.gap(start, dash, self._lines[dash].index("-"), last, indent)
            made += [*tail, *lead]
            after = self._lines[dash].lstrip()[1:]
            if after.lstrip().startswith("#"):
                made.append(" " * indent + after.strip())
            lines = self.collection(item, indent + _STEP, inner, max(dash + 1, start))
            first = next(
                number
                for number, line in enumerate(lines)
                if line.strip() and not line.lstrip().startswith("#")
            )
            made += [" " * indent + line.strip() if line.strip() else "" for line in lines[:first]]
            made.append(" " * indent + "- " + lines[first].lstrip())
            made += lines[first + 1 :]
            start = max(self.end(item), dash + 1)
            last = item
        while made and not made[0]:
            made.pop(0)
        return made

    def _dash(self, item: Node, start: int) -> int:
        """The line of an item's dash."""
        for number in range(start, item.start_mark.line + 1):
            line = self._lines[number].lstrip()
            if line == "-" or line.startswith("- "):
                return number
        raise UnformattableError(f"line {item.start_mark.line + 1} has a list within a list's line")

    def gap(
        self, start: int, end: int, column: int, before: Node | None, indent: int
    ) -> tuple[list[str], list[str]]:
        """Comments between two entries: those indented deeper than the second belong to what is within the first, `before`."""
        levels = [] if before is None else self._levels(before, indent + _STEP)
        made: list[str] = []
        for number in range(start, end):
            text, place = (
                self._lines[number].strip(),
                len(self._lines[number]) - len(self._lines[number].lstrip()),
            )
            if text and place <= column:
                return made, self.comments(
                    number - (number > start and not self._lines[number - 1].strip()), end, indent
                )
            if text:
                inner = [new for old, new in levels if old <= place]
                made += self.comments(
                    number - (number > start and not self._lines[number - 1].strip()), number, 0
                )
                made.append(" " * (inner[-1] if inner else indent + _STEP) + text)
        is_apart = start < end and not self._lines[end - 1].strip()
        return made, [""] if is_apart else []

    def _levels(self, node: Node, indent: int) -> list[tuple[int, int]]:
        """The old and the new columns of what is open at the end of a node at `indent`, the outermost first."""
        if isinstance(node, MappingNode) and not node.flow_style:
            key, value = node.value[-1]
            return [(int(key.start_mark.column), indent), *self._levels(value, indent + _STEP)]
        if isinstance(node, SequenceNode) and not node.flow_style:
            item = node.value[-1]
            line = next(
                number
                for number in range(item.start_mark.line, -1, -1)
                if self._lines[number].lstrip().startswith("-")
            )
            return [(self._lines[line].index("-"), indent), *self._levels(item, indent + _STEP)]
        return []

    def comments(self, start: int, end: int, indent: int) -> list[str]:
        """Lines without a node: comments, and one blank line for any number of them."""
        made: list[str] = []
        for line in self._lines[start:end]:
            text = line.strip()
            if text or not made or made[-1]:
                made.append(" " * indent + text if text else "")
        return made

    def _value(self, node: Node, indent: int) -> tuple[str, list[str]]:
        """What stands behind a key or a dash at `indent`, and the lines below it."""
        start, column = node.start_mark.line, node.start_mark.column
        if isinstance(node, ScalarNode) and not node.value and node.style is None:
            after = self._lines[start][column:].strip() if start < len(self._lines) else ""
            return after.lstrip(":").strip() if after.lstrip(":").strip().startswith("#") else "", []
        first = self._lines[start][column:].rstrip()
        rest = self._lines[start + 1 : self.end(node)]
        if isinstance(node, ScalarNode) and node.style in ("|", ">"):
            return first, self._block(first, rest, indent)
        return first, [" " * (indent + _STEP) + line.strip() if line.strip() else "" for line in rest]

    def _block(self, header: str, rest: Sequence[str], indent: int) -> list[str]:
        """A block scalar's text at its new place."""
        if re.match(r"[|>][+-]?\d", header):
            raise UnformattableError("a block of text says its own indentation")
        old = next((len(line) - len(line.lstrip(" ")) for line in rest if line.strip()), 0)
        return [" " * (indent + _STEP) + line[old:].rstrip("\n") if line.strip() else "" for line in rest]
