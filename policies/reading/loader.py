"""YAML's safe loader on libyaml, bounded in depth: libyaml's binding descends on the C stack, which no exception guards. Pure."""

from typing import Final

import yaml

MAX_DEPTH: Final = 64  # levels: far beyond any schema, far below Python's recursion limit


class TooDeepError(yaml.MarkedYAMLError):
    """A text nests beyond `MAX_DEPTH`."""


class Loader(yaml.CSafeLoader):
    """Mutable state: how many levels the node that is being composed lies below the top. Raises: YAMLError."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._levels = 0

    def descend_resolver(self, current_node: yaml.Node | None, current_index: object) -> None:
        """Called by the composer before it composes a node; there are no resolvers by path to descend for."""
        self._levels += 1
        if self._levels > MAX_DEPTH + 1 and current_node is not None:
            problem = f"is too deep or too large (expected at most {MAX_DEPTH} levels)"
            raise TooDeepError(problem=problem, problem_mark=current_node.start_mark)

    def ascend_resolver(self) -> None:
        """Called behind it."""
        self._levels -= 1
