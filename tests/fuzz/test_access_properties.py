"""Access rules under generated policies and paths."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from policies.rules.access import KNOWN_VERBS, AccessRules, CallerRules, Operation, Rule
from policies.rules.caller import Caller
from policies.rules.matcher import path_table

A = Caller(trust_domain="public", namespace="default", app_id="app1")

pattern_segments = st.sampled_from(
    ["a", "b", "ab", "A", "*", "**", "a*", "*b", "a*b", "***", "K", "\u212a", "\u0130"]
)
path_segments = st.sampled_from(
    [
        "a",
        "b",
        "ab",
        "aab",
        "axb",
        "A",
        "*",
        "**",
        "c",
        "a;v=1",
        ";x",
        "k",
        "\u212a",
        "i\u0307",
        "..",
        "%61",
        "a b",
    ],
)
patterns = st.lists(pattern_segments, max_size=4).map(lambda parts: "/" + "/".join(parts))
paths = st.lists(path_segments, max_size=5).map(lambda parts: "/" + "/".join(parts))
verbs = st.sampled_from(["GET", "POST", "PUT", "FOO", "get", "NONE", ""])
rule_verbs = st.sets(st.sampled_from(["GET", "POST", "*"]), max_size=2).map(frozenset)
rules = st.builds(Rule, pattern=patterns, verbs=rule_verbs, is_allow=st.booleans())
rule_lists = st.lists(rules, max_size=6)
defaults = st.sampled_from([None, True, False])


def access(
    listed: list[Rule],
    *,
    default: bool | None,
    is_global_allow: bool = False,
    is_http: bool = True,
    is_shadowed: bool = False,
) -> AccessRules:
    everything = frozenset({"*"})
    table = path_table(
        [rule.pattern for rule in listed],
        [rule.verbs if is_http and (rule.is_allow or rule.verbs) else everything for rule in listed],
        fold_case=is_http,
    )
    entry = CallerRules(
        policy="app1",
        default_allow=default,
        rules=tuple(listed),
        table=table,
        is_shadowed=is_shadowed,
    )
    return AccessRules(default_allow=is_global_allow, judges_verbs=is_http, callers={A: entry})


@given(
    listed=rule_lists,
    default=defaults,
    is_global_allow=st.booleans(),
    is_http=st.booleans(),
    is_shadowed=st.booleans(),
    verb=verbs,
    path=paths,
)
def test_evaluate_equals_decide_of_the_class(
    *,
    listed: list[Rule],
    default: bool | None,
    is_global_allow: bool,
    is_http: bool,
    is_shadowed: bool,
    verb: str,
    path: str,
) -> None:
    made = access(
        listed,
        default=default,
        is_global_allow=is_global_allow,
        is_http=is_http,
        is_shadowed=is_shadowed,
    )
    table = made.table(A)
    classes = table.classes(path) if table is not None else ()
    whole = made.evaluate(A, Operation(protocol="http", verb=verb, path=path))
    assert made.decide(A, classes, verb, "http") == whole
    assert table is None or table.classes(path) == classes


@given(rule_lists, paths, paths, verbs)
def test_paths_of_one_class_are_decided_alike(listed: list[Rule], one: str, other: str, verb: str) -> None:
    made = access(listed, default=None)
    table = made.table(A)
    if table is not None and table.classes(one) == table.classes(other):
        decided = {
            made.evaluate(A, Operation(protocol="http", verb=verb, path=path)) for path in (one, other)
        }
        assert len(decided) == 1


@given(rule_lists, defaults, paths, verbs, verbs)
def test_verbs_outside_the_named_ones_are_decided_alike(
    listed: list[Rule],
    default: bool | None,
    path: str,
    one: str,
    other: str,
) -> None:
    made = access(listed, default=default)
    if made.verbs.isdisjoint({one, other}) and {one, other}.isdisjoint({"", "NONE"}):
        decided = {
            made.evaluate(A, Operation(protocol="http", verb=verb, path=path)) for verb in (one, other)
        }
        assert len(decided) == 1


@given(
    listed=rule_lists,
    pattern=patterns,
    is_http=st.booleans(),
    default=defaults,
    is_global_allow=st.booleans(),
    path=paths,
    verb=verbs,
)
def test_one_more_deny_never_allows_more(
    *,
    listed: list[Rule],
    pattern: str,
    is_http: bool,
    default: bool | None,
    is_global_allow: bool,
    path: str,
    verb: str,
) -> None:
    deny = Rule(pattern=pattern, verbs=frozenset({"*"}), is_allow=False)
    asked = Operation(protocol="http", verb=verb, path=path)
    fewer = access(listed, default=default, is_global_allow=is_global_allow, is_http=is_http)
    more = access([*listed, deny], default=default, is_global_allow=is_global_allow, is_http=is_http)
    if more.evaluate(A, asked).allowed:
        assert fewer.evaluate(A, asked).allowed


@given(
    listed=rule_lists,
    pattern=patterns,
    denied=rule_verbs,
    position=st.integers(0, 6),
    path=paths,
    verb=st.sampled_from(sorted(KNOWN_VERBS)),
)
def test_safe_reading_alone_holds_wherever_the_deny_stands(
    *,
    listed: list[Rule],
    pattern: str,
    denied: frozenset[str],
    position: int,
    path: str,
    verb: str,
) -> None:
    deny = Rule(pattern=pattern, verbs=denied or frozenset({"*"}), is_allow=False)
    more = access([*listed[:position], deny, *listed[position:]], default=True)
    if _safely_allows(more, path, verb) and listed:
        assert _safely_allows(access(listed, default=True), path, verb)


def _safely_allows(made: AccessRules, path: str, verb: str) -> bool:
    """The safe reading by brute force: a deny counts unless an allow is more specific."""
    entry = made.callers[A]
    fitting = [
        one for one in entry.table.candidates(path) if not entry.table.verbs[one.rule].isdisjoint({verb, "*"})
    ]
    allows = [one for one in fitting if entry.rules[one.rule].is_allow]
    denies = [one for one in fitting if not entry.rules[one.rule].is_allow]
    return all(any(entry.table.is_over(allow, deny) for allow in allows) for deny in denies)


@given(rule_lists, defaults, st.booleans(), paths, st.sampled_from(sorted(KNOWN_VERBS)))
def test_never_more_permissive_than_a_plain_walk_of_daprs_trie(
    listed: list[Rule],
    default: bool | None,
    is_global_allow: bool,
    path: str,
    verb: str,
) -> None:
    made = access(listed, default=default, is_global_allow=is_global_allow)
    if made.evaluate(A, Operation(protocol="http", verb=verb, path=path)).allowed:
        current = is_global_allow if default is None else default
        assert _dapr_allows(listed, path.rstrip("/") or "/", verb, current=current)


def _lower(text: str) -> str:
    return "".join("i" if letter == "\u0130" else letter.lower() for letter in text)


def _dapr_allows(listed: list[Rule], path: str, verb: str, *, current: bool) -> bool:
    """Dapr's algorithm written the slow way: over lists of patterns instead of nodes."""
    by_name = {_lower(rule.pattern): rule for rule in reversed(listed)}
    names = list(dict.fromkeys(_lower(rule.pattern) for rule in listed))
    split = [name.split("/")[1:] for name in names]
    prefix: list[str] = []
    segments = _lower(path).split("/")[1:]
    for index, segment in enumerate(segments):
        is_last = index == len(segments) - 1
        found = _first_fit(split, prefix, segment, is_last=is_last)
        if found is None:
            return current
        prefix.append(found)
        rule = by_name.get("/" + "/".join(prefix))
        if rule is not None and (is_last or found != "*"):
            return _verb_action(rule, verb, current=current)
        if rule is None and is_last:
            below = _first_fit(split, prefix, "*", is_last=True)
            rule = by_name.get("/" + "/".join([*prefix, below])) if below is not None else None
            return _verb_action(rule, verb, current=current) if rule is not None else current
    return current


def _first_fit(split: list[list[str]], prefix: list[str], segment: str, *, is_last: bool) -> str | None:
    depth = len(prefix)
    for child in dict.fromkeys(
        parts[depth] for parts in split if len(parts) > depth and parts[:depth] == prefix
    ):
        if child in {segment, "**"}:
            return child
        if child == "*":
            if is_last:
                return child
            continue
        glob = ".*".join(re.escape(piece) for piece in child.split("*"))
        if re.fullmatch(glob, segment, re.DOTALL):
            return child
    return None


def _verb_action(rule: Rule, verb: str, *, current: bool) -> bool:
    return rule.is_allow if verb in rule.verbs or "*" in rule.verbs else current


@given(st.lists(patterns, min_size=1, max_size=6), paths)
def test_open_reading_finds_every_rule_that_fits(listed: list[str], path: str) -> None:
    # Verbs of its own for each rule keep one from standing for another.
    table = path_table(listed, [frozenset({str(number)}) for number in range(len(listed))], fold_case=False)
    found = {candidate.rule for candidate in table.candidates(path)}
    segments = [cut for part in path.split("/") if (cut := part.partition(";")[0])]
    expected = {number for number, pattern in enumerate(listed) if _fits(pattern, segments)}
    assert found == expected


def _fits(pattern: str, segments: list[str]) -> bool:
    parts = pattern.split("/")[1:]
    if parts == [""]:
        return not segments
    *init, last = parts
    if len(segments) < len(init) or not all(
        _segment_fits(part, segment, is_last=False) for part, segment in zip(init, segments, strict=False)
    ):
        return False
    rest = segments[len(init) :]
    if last == "**":
        return True
    if last == "*":
        return len(rest) <= 1
    return bool(rest) and _segment_fits(last, rest[0], is_last=True)


def _segment_fits(part: str, segment: str, *, is_last: bool) -> bool:
    if part == "**" and not is_last:
        return True
    if part == "*":
        return segment == "*"
    return (
        re.fullmatch(".*".join(re.escape(piece) for piece in part.split("*")), segment, re.DOTALL) is not None
    )


def test_a_million_paths_share_few_classes() -> None:
    listed = ["/orders/*", "/orders/**/items", "/admin", "/pub*", "/**"]
    table = path_table(listed, [frozenset({"*"})] * len(listed), fold_case=True)
    shapes = ["/orders/{}", "/orders/{}/items/{}", "/admin/{}", "/pub{}/x", "/other/{}", "/{}"]
    numbers = itertools.product(shapes, range(500))
    assert len({table.classify(shape.format(number, number)) for shape, number in numbers}) <= len(shapes)
