"""Which rules of one caller's policy a path meets; pure.

A path is judged in every way that an app may read it (`path_readings.py`). Of the patterns there are two readings side by
side, and `access.py` allows only what both allow:

- the *ordered* one is Dapr's: a trie of segments, children tried in the order of configuration, no backtracking;
- the *open* one finds every rule that fits, and says which of them is more specific.

A path's *class* is the number of the outcome of both, so that all paths with one outcome share one decision. A class
is computed from rule numbers: the same in every process, without a table of what was seen before.
"""

import bisect
from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct, field

from policies.rules.path_readings import readings

UNREADABLE = 0  # the class of a path whose readings can't be judged; it is denied wherever paths are judged
MAX_CLASSES = 8  # of one path's readings, which are part of a kept decision's key

_LITERAL = 1 << 20  # above any glob, whose rank is 2 + its literal characters
_ONE_SEGMENT = 1
NodeT = TypeVar("NodeT")

_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class Candidate(NamedTuple):
    """A rule that fits a path in the open reading.

    `is_parent`: the rule ends in a wildcard and the path is what stands before it (`/a/*` fits `/a`), the least that
    a rule can say about a path.
    """

    rule: int
    is_parent: bool


class _Glob(Struct, frozen=True):
    """Text with `*` inside one segment. Linear: each piece is searched once, from where the last one ended."""

    prefix: str
    middle: tuple[str, ...]
    suffix: str

    def fits(self, segment: str) -> bool:
        start, end = len(self.prefix), len(segment) - len(self.suffix)
        if end < start or not segment.startswith(self.prefix) or not segment.endswith(self.suffix):
            return False
        for piece in self.middle:
            found = segment.find(piece, start, end)
            if found < 0:
                return False
            start = found + len(piece)
        return True


def _glob(segment: str) -> _Glob:
    pieces = segment.split("*")
    return _Glob(pieces[0], tuple(piece for piece in pieces[1:-1] if piece), pieces[-1])


class _Globs(Struct, Generic[NodeT]):
    """The children of a node whose segment holds `*` among other text, found by what stands before the first `*`.

    A segment is looked up once for each length that such a text has, so that a thousand globs cost as one.
    """

    by_prefix: dict[str, list[tuple[int, _Glob, NodeT]]] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)

    def add(self, order: int, segment: str, node: NodeT) -> None:
        glob = _glob(segment)
        self.by_prefix.setdefault(glob.prefix, []).append((order, glob, node))
        if len(glob.prefix) not in self.lengths:
            bisect.insort(self.lengths, len(glob.prefix))

    def fitting(self, segment: str) -> Iterator[tuple[int, NodeT]]:
        for length in self.lengths:
            if length > len(segment):
                return
            for order, glob, node in self.by_prefix.get(segment[:length], ()):
                if glob.fits(segment):
                    yield order, node


class _Ordered(Struct):
    """A node of the ordered reading; filled while a table is made and never after. `order` is the place among siblings."""

    segment: str
    order: int = 0
    rule: int = -1
    children: dict[str, "_Ordered"] = field(default_factory=dict)
    globs: "_Globs[_Ordered]" = field(default_factory=_Globs)

    def child(self, segment: str) -> "_Ordered":
        """The child of exactly this pattern segment, made if it isn't there."""
        if (node := self.children.get(segment)) is None:
            node = self.children[segment] = _Ordered(segment, len(self.children))
            if "*" in segment and segment not in {"*", "**"}:
                self.globs.add(node.order, segment, node)
        return node

    def first_fit(self, segment: str, *, is_last: bool) -> "_Ordered | None":
        best = self.children.get(segment)  # a `*` in the path is fitted by the same text, wherever it stands
        others = [self.children.get("**")]
        if is_last:
            others.append(self.children.get("*"))
        if self.globs.lengths:
            others += [node for _, node in self.globs.fitting(segment)]
        for node in others:
            if node is not None and (best is None or node.order < best.order):
                best = node
        return best


class _Open(Struct):
    """A node of the open reading; filled while a table is made and never after."""

    literals: dict[str, "_Open"] = field(default_factory=dict)
    by_glob: dict[str, "_Open"] = field(default_factory=dict)
    globs: "_Globs[_Open]" = field(default_factory=_Globs)
    one: "_Open | None" = None
    below: list[int] = field(default_factory=list)  # this path and everything under it
    star: list[int] = field(default_factory=list)  # one more segment, or none
    deep: list[int] = field(default_factory=list)  # any number of segments more, or none

    def child(self, segment: str) -> "_Open":
        if segment == "**":
            self.one = self.one or _Open()
            return self.one
        if segment == "*" or "*" not in segment:
            # A lone `*` before the end stands for itself, as in the ordered reading.
            return self.literals.setdefault(segment, _Open())
        if (node := self.by_glob.get(segment)) is None:
            node = self.by_glob[segment] = _Open()
            self.globs.add(0, segment, node)
        return node

    def fitting(self, segment: str) -> Iterator["_Open"]:
        if (node := self.literals.get(segment)) is not None:
            yield node
        if self.one is not None:
            yield self.one
        if self.globs.lengths:
            yield from (child for _, child in self.globs.fitting(segment))


class PathTable(Struct, frozen=True, kw_only=True):
    """The patterns of one caller's policy, ready to classify paths. Made by `path_table`."""

    patterns: tuple[str, ...]
    fold_case: bool
    verbs: tuple[frozenset[str], ...]
    ranks: tuple[tuple[int, ...], ...]
    _ordered: _Ordered
    _open: _Open

    @property
    def rules(self) -> tuple[tuple[str, str, frozenset[str]], ...]:
        """Each pattern as the ordered reading compares it and as the open one does, and its verbs: all that a copy of this table needs."""
        fold = self.fold_case
        return tuple(
            (_go_lower(pattern) if fold else pattern, ascii_lower(pattern) if fold else pattern, verbs)
            for pattern, verbs in zip(self.patterns, self.verbs, strict=True)
        )

    def classify(self, path: str) -> int:
        """The class of one reading of a path; a trailing `/` is ignored."""
        if not path.startswith("/"):
            return UNREADABLE
        candidates = self.candidates(path)
        number = 0
        for candidate in candidates:
            digit = candidate.rule * 2 + candidate.is_parent + 1
            number = number * (2 * len(self.patterns) + 1) + digit
        return 1 + (self.first_fit(path) + 1) + number * (len(self.patterns) + 1)

    def classes(self, path: str) -> tuple[int, ...]:
        """The distinct classes of all that apps may read a path as, sent in this form; ascending."""
        found = readings(path)
        if found is None:
            return (UNREADABLE,)
        if len(found) == 1:
            return (self.classify(found[0]),)
        distinct = {self.classify(one) for one in found}
        return tuple(sorted(distinct)) if len(distinct) <= MAX_CLASSES else (UNREADABLE,)

    def outcome(self, path_class: int) -> tuple[int, tuple[Candidate, ...]]:
        """What a class stands for: the rule of the ordered reading (-1: none) and the candidates of the open one."""
        number, walked = divmod(path_class - 1, len(self.patterns) + 1)
        candidates: list[Candidate] = []
        while number:
            number, digit = divmod(number, 2 * len(self.patterns) + 1)
            candidates.append(Candidate((digit - 1) // 2, bool((digit - 1) % 2)))
        return walked - 1, tuple(reversed(candidates))

    def first_fit(self, path: str) -> int:
        """The rule that the ordered reading finds, or -1.

        Case is folded as Go's `strings.ToLower` does it, since a deny of Dapr's must stay one.
        """
        segments = (_go_lower(path) if self.fold_case else path).rstrip("/").split("/")[1:] or [""]
        node = self._ordered
        for index, segment in enumerate(segments):
            is_last = index == len(segments) - 1
            found = node.first_fit(segment, is_last=is_last)
            if found is None:
                return -1
            if found.rule >= 0 and (is_last or found.segment != "*"):
                return found.rule
            if found.rule < 0 and is_last:
                parent = found.first_fit("*", is_last=True)
                return parent.rule if parent is not None else -1
            node = found
        return -1

    def candidates(self, path: str) -> tuple[Candidate, ...]:
        """The rules that fit in the open reading, without those that can't matter for any verb, by number."""
        folded = ascii_lower(path) if self.fold_case else path
        segments = [cut for segment in folded.split("/") if (cut := segment.partition(";")[0])]
        found = sorted(self._fitting(segments))
        if len(found) < 2:
            return tuple(found)
        return tuple(one for one in found if not any(self._replaces(other, one) for other in found))

    def is_over(self, one: Candidate, other: Candidate) -> bool:
        """Whether `one` is strictly more specific than `other` on a path that both fit.

        It is at least as specific in every segment, and more so in one. Rules of which each is more specific
        somewhere are not over each other; then a deny among them counts.
        """
        left, right = self._rank(one), self._rank(other)
        if len(left) < len(right) or any(a < b for a, b in zip(left, right, strict=False)):
            return False
        return left != right or (other.is_parent and not one.is_parent)

    def _rank(self, candidate: Candidate) -> tuple[int, ...]:
        rank = self.ranks[candidate.rule]
        is_star = candidate.is_parent and not self.patterns[candidate.rule].endswith("/**")
        return rank[:-1] if is_star else rank

    def _replaces(self, one: Candidate, other: Candidate) -> bool:
        """Whether `other` can't change the decision for any verb, because `one` speaks first for all of them."""
        mine, theirs = self.verbs[one.rule], self.verbs[other.rule]
        return ("*" in mine or mine >= theirs) and self.is_over(one, other)

    def _fitting(self, segments: Sequence[str]) -> Iterator[Candidate]:
        frontier = [self._open]
        for depth in range(len(segments) + 1):
            left = len(segments) - depth
            deeper: list[_Open] = []
            for node in frontier:
                # The root's own rules are for the root only, though elsewhere a rule covers all below it.
                if node.below and (depth or not left):
                    yield from (Candidate(rule, False) for rule in node.below)
                if node.star and left <= 1:
                    yield from (Candidate(rule, not left) for rule in node.star)
                if node.deep:
                    yield from (Candidate(rule, not left) for rule in node.deep)
                if left:
                    deeper += node.fitting(segments[depth])
            frontier = deeper


def path_table(patterns: Sequence[str], verbs: Sequence[frozenset[str]], *, fold_case: bool) -> PathTable:
    """A table of patterns that each begin with `/`; `verbs[n]` are those of pattern n, `*` standing for all."""
    ordered, opened = _Ordered(""), _Open()
    ranks: list[tuple[int, ...]] = []
    for number, pattern in enumerate(patterns):
        node = ordered
        for segment in (_go_lower(pattern) if fold_case else pattern).split("/")[1:]:
            node = node.child(segment)
        if node.rule < 0:
            node.rule = number
        ranks.append(_insert_open(opened, ascii_lower(pattern) if fold_case else pattern, number))
    return PathTable(
        patterns=tuple(patterns),
        fold_case=fold_case,
        verbs=tuple(verbs),
        ranks=tuple(ranks),
        _ordered=ordered,
        _open=opened,
    )


def _insert_open(root: _Open, pattern: str, number: int) -> tuple[int, ...]:
    """Put a rule into the open reading; returns its rank, one figure per segment, more is more specific."""
    segments = pattern.split("/")[1:]
    if segments == [""]:
        root.below.append(number)
        return ()
    node = root
    for segment in segments[:-1]:
        node = node.child(segment)
    rank = [_segment_rank(segment, is_last=False) for segment in segments[:-1]]
    last = segments[-1]
    if last == "**":
        node.deep.append(number)
        return tuple(rank)
    if last == "*":
        node.star.append(number)
    else:
        node.child(last).below.append(number)
    return (*rank, _segment_rank(last, is_last=True))


def _segment_rank(segment: str, *, is_last: bool) -> int:
    if segment == "**" or (segment == "*" and is_last):
        return _ONE_SEGMENT
    if segment == "*" or "*" not in segment:
        return _LITERAL
    return 2 + len(segment) - segment.count("*")


def ascii_lower(text: str) -> str:
    """Lower case for A to Z alone: no other letter may come to equal one of them."""
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


def _go_lower(text: str) -> str:
    """Lower case letter by letter, as Go does: U+0130 becomes `i`, and a final sigma is an ordinary one."""
    if text.isascii():
        return text.lower()
    return "".join("i" if letter == "\u0130" else letter.lower() for letter in text)
