"""Patterns, and the classes of paths."""

from typing import Literal

import pytest

from policies.rules.matcher import MAX_CLASSES, UNREADABLE, PathTable, ascii_lower, path_table
from policies.rules.path_readings import readings
from tests.support.vectors import Vector, vectors

ALL = frozenset({"*"})


def table(*patterns: str, fold_case: bool = False) -> PathTable:
    return path_table(patterns, [ALL] * len(patterns), fold_case=fold_case)


class Classes(Vector, frozen=True, kw_only=True):
    patterns: list[str]
    verbs: list[list[str]] | None = None
    fold_case: bool = False
    path: str
    classes: list[Literal["unreadable"] | tuple[int | None, tuple[tuple[int, bool], ...]]]
    asks_python: bool = False


@vectors("access", "classes", Classes)
def test_path_has_the_classes_of_all_its_readings(vector: Classes) -> None:
    verbs = (
        [ALL] * len(vector.patterns) if vector.verbs is None else [frozenset(some) for some in vector.verbs]
    )
    one = path_table(vector.patterns, verbs, fold_case=vector.fold_case)
    found: list[object] = []
    for path_class in one.classes(vector.path):
        walked, candidates = one.outcome(path_class) if path_class != UNREADABLE else (-1, ())
        met = (walked if walked >= 0 else None, tuple((rule, is_parent) for rule, is_parent in candidates))
        found.append("unreadable" if path_class == UNREADABLE else met)
    assert sorted(map(repr, found)) == sorted(map(repr, vector.classes))


@pytest.mark.parametrize("path", ["", "a", "x/a"])
def test_reading_without_a_root_is_unreadable(path: str) -> None:
    assert table("/**").classify(path) == UNREADABLE


@pytest.mark.parametrize(
    "path", ["/", "/a/", "/a b", "/100%", "/...", "/.a", "/é", "/a;b", "//a", "/a/../b", "/a%2Fb"]
)
def test_path_that_rfc_3986_allows_is_judged(path: str) -> None:
    assert UNREADABLE not in table("/**").classes(path)


def test_path_has_the_distinct_classes_of_its_readings_in_order() -> None:
    one = table("/a/*", "/b")
    assert one.classes("/a/x") == one.classes("/a/%78") == (one.classify("/a/x"),)
    wanted = {one.classify(path) for path in ("/a/../b", "/b", "/a/b")}
    assert len(wanted) == 3
    assert one.classes("/a/../b") == tuple(sorted(wanted))


def test_path_of_too_many_classes_is_unreadable() -> None:
    path = "/a/../b//c%2Fd%5C..%5Ce"
    found = readings(path)
    assert found is not None
    assert len(found) > MAX_CLASSES
    assert table(*found).classes(path) == (UNREADABLE,)


def test_classify_gives_equal_numbers_in_equal_tables() -> None:
    patterns = ("/a", "/a/*", "/a*", "/**")
    paths = ["/a", "/a/b", "/ab/c", "/x", "/"]
    assert [table(*patterns).classify(p) for p in paths] == [
        table(*patterns).classify(p) for p in reversed(paths)
    ][::-1]


@pytest.mark.parametrize(
    ("over", "under", "path"),
    [
        ("/a", "/*", "/a"),
        ("/a", "/a/*", "/a"),
        ("/a/*", "/a/**", "/a/b"),
        ("/ab*", "/a*", "/abc"),
        ("/ab", "/a*", "/ab"),
        ("/a/b", "/a", "/a/b/c"),
        ("/", "/**", "/"),
    ],
)
def test_more_specific_pattern_is_over_the_other(over: str, under: str, path: str) -> None:
    one = path_table([under, over], [frozenset({"GET"}), frozenset({"POST"})], fold_case=False)
    lower, upper = one.candidates(path)
    assert one.is_over(upper, lower)
    assert not one.is_over(lower, upper)


@pytest.mark.parametrize(
    ("left", "right", "path"),
    [("/a*/b", "/ac/*", "/ac/b"), ("/**/b", "/a/**", "/a/b"), ("/a*", "/*c", "/ac"), ("/a", "/a/**", "/a/b")],
)
def test_patterns_that_cross_are_not_over_each_other(left: str, right: str, path: str) -> None:
    one = path_table([left, right], [ALL, ALL], fold_case=False)
    first, second = one.candidates(path)
    assert not one.is_over(first, second)
    assert not one.is_over(second, first)


def test_long_path_of_many_stars_is_classified_in_linear_time() -> None:
    one = table("/" + "a*" * 1000 + "b", "/" + "/".join(["a*"] * 500))
    assert one.classify("/" + "a" * 8000) != UNREADABLE
    assert one.classify("/" + "/".join(["aa"] * 2000)) != UNREADABLE


def test_table_of_ten_thousand_globs_is_made_and_searched() -> None:
    one = table(*(f"/{number}*" for number in range(10_000)))
    assert {candidate.rule for candidate in one.candidates("/123x")} == {123}


def test_fold_case_touches_no_letter_beyond_ascii() -> None:
    assert ascii_lower("KA\u212a\u0130") == "ka\u212a\u0130"
