"""Which path templates of access policies a path meets; pure.

A template is segments behind slashes: text as it is, `{*}` for any one segment, `{**}` at the end for any number of them or none, and text
with a final `*` for what begins so. It meets whole paths only: `/orders` is not `/orders/1`. A path is judged in every way that an app may
read it (`path_readings.py`), without matrix parameters and empty segments, as access rules are.

The native engine tells paths apart in the same way (`proxy/engine/native/crates/core/src/decision/templates.rs`):
`tests/vectors/templates.json`.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct, field

from policies.rules.matcher import MAX_CLASSES, ascii_lower
from policies.rules.path_readings import readings

ONE, REST = "{*}", "{**}"
Met = tuple[int, ...]
"""The templates that one reading of a path meets, by number, ascending."""


class Template(Struct, frozen=True):
    """`folds`: letters A to Z are compared without their case."""

    text: str
    folds: bool = False


class _Node(Struct):
    """Filled while a table is made and never after. `ends`: templates that end here; `rest`: those that go on with anything."""

    literals: "dict[str, _Node]" = field(default_factory=dict)
    beginnings: "dict[str, _Node]" = field(default_factory=dict)
    one: "_Node | None" = None
    ends: list[int] = field(default_factory=list)
    rest: list[int] = field(default_factory=list)

    def child(self, segment: str) -> "_Node":
        """The node of a template's segment, made if it isn't there."""
        if segment == ONE:
            self.one = self.one or _Node()
            return self.one
        if segment.endswith("*"):
            return self.beginnings.setdefault(segment[:-1], _Node())
        return self.literals.setdefault(segment, _Node())

    def fitting(self, segment: str) -> "Iterator[_Node]":
        """The nodes that a path's segment leads to."""
        if (node := self.literals.get(segment)) is not None:
            yield node
        if self.one is not None:
            yield self.one
        if self.beginnings:
            yield from (
                node for length in range(len(segment) + 1) if (node := self.beginnings.get(segment[:length]))
            )


class TemplateTable(Struct, frozen=True, kw_only=True):
    """Templates by number, ready to tell paths apart. Made by `template_table`."""

    templates: tuple[Template, ...]
    _exact: _Node
    _folded: _Node

    def __bool__(self) -> bool:
        return bool(self.templates)

    def classes(self, path: str) -> tuple[Met, ...] | None:
        """What each distinct reading of a path meets, ascending; None where they can't be judged, or differ too much."""
        found = readings(path)
        if found is None:
            return None
        distinct = {self.met(one) for one in found}
        return tuple(sorted(distinct)) if len(distinct) <= MAX_CLASSES else None

    def met(self, path: str) -> Met:
        """What one reading meets."""
        cut = (segment.partition(";")[0] for segment in path.split("/"))
        segments = [segment for segment in cut if segment]
        folded = [ascii_lower(segment) for segment in segments]
        return tuple(sorted({*_walk(self._exact, segments), *_walk(self._folded, folded)}))


def template_table(templates: Sequence[Template]) -> TemplateTable:
    """A table of templates that each begin with `/`."""
    exact, folded = _Node(), _Node()
    for number, template in enumerate(templates):
        node = folded if template.folds else exact
        text = ascii_lower(template.text) if template.folds else template.text
        segments = [segment for segment in text.split("/") if segment]
        is_open = segments[-1:] == [REST]
        for segment in segments[:-1] if is_open else segments:
            node = node.child(segment)
        (node.rest if is_open else node.ends).append(number)
    return TemplateTable(templates=tuple(templates), _exact=exact, _folded=folded)


def _walk(root: _Node, segments: Sequence[str]) -> Iterator[int]:
    frontier = [root]
    for segment in segments:
        for node in frontier:
            yield from node.rest
        frontier = [child for node in frontier for child in node.fitting(segment)]
    for node in frontier:
        yield from node.rest
        yield from node.ends
