"""Paths that stand for others."""

import pytest

from proxy.deciding.path_aliases import PathAliases

ALIASES = PathAliases(
    (
        ("/{a}/{b}", "/two"),
        ("/x/{b}", "/one"),
        ("/x/y", "/none"),
        ("/{a}/y", "/first"),
        ("/deep/{id}/end/", "/deep"),
    )
)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/x/y", "/none"),
        ("//x/./y/", "/none"),
        ("/x/z", "/one"),
        ("/z/y", "/first"),
        ("/a/b", "/two"),
        ("/deep/7/end", "/deep"),
        ("/deep/7/8/end", "/deep/7/8/end"),
        ("/x", "/x"),
        ("/X/y", "/first"),
    ],
)
def test_route_with_the_fewest_holes_counts(path: str, target: str) -> None:
    assert ALIASES.classify(path)[1] == target


def test_holes_become_members_of_a_query() -> None:
    for path, query in (
        ("/a/b", "a=a&b=b"),
        ("/a%20b/c&d=e", "a=a%20b&b=c%26d%3De"),
        ("/%C3%A4/+", "a=%C3%A4&b=%2B"),
    ):
        number = ALIASES.classify(path)[0]
        assert isinstance(number, int)
        assert ALIASES.fill(number, path) == query
