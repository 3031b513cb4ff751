"""What differs between documents as they were and as they are."""

from typing import Any

from proxy.cli.config_changes import changes, setting_changes

OLD = """\
kind: Resiliency
metadata: {name: mesh}
spec:
  policies:
    timeouts: {short: 2s, long: 9s}
    codes: [1, 2]
"""
NEW = """\
# a comment
kind: Resiliency
metadata: {name: mesh}
spec:
  policies:
    timeouts: {short: 5s}
    codes: [1, 2]
    more: [{x: 1}]
"""


def told(before: dict[str, str], after: dict[str, str]) -> list[tuple[object, ...]]:
    return [
        (one.path, one.line, one.resource, one.field, one.before, one.after) for one in changes(before, after)
    ]


def test_fields_that_were_changed_removed_and_added_are_told_with_their_lines() -> None:
    assert told({"r": OLD}, {"r": NEW}) == [
        ("r", 6, "Resiliency mesh", "spec.policies.timeouts.short", "2s", "5s"),
        ("r", 5, "Resiliency mesh", "spec.policies.timeouts.long", "9s", None),
        ("r", 8, "Resiliency mesh", "spec.policies.more[0].x", None, 1),
    ]
    assert told({"r": OLD}, {"r": f"# only a comment\n{OLD}"}) == []


def test_files_that_came_and_went_are_told_by_their_fields() -> None:
    assert told({}, {"n": "kind: X\n"}) == [("n", 1, "X", "kind", None, "X")]
    assert told({"n": "kind: X\n"}, {}) == [("n", 1, "X", "kind", "X", None)]
    assert told({"n": "kind: X\n"}, {"n": "kind: ["})[-1][5] == "(no valid YAML)"


def test_several_documents_of_one_name_are_told_apart() -> None:
    text = "kind: X\na: 1\n---\nkind: X\na: {}\n"
    assert told({"n": text}, {"n": text.replace("{}", "3")}) == [("n", 5, "X (2)", "a", {}, 3)]


def test_secret_that_changed_is_told_without_its_value() -> None:
    text = "kind: HTTPEndpoint\nspec:\n  headers: [{name: authorization, value: hunter2}]\n"
    (change,) = changes({"e": text}, {"e": text.replace("hunter2", "hunter3")})
    assert change.is_secret
    assert "hunter" not in repr(change)


def row(name: str, value: object, source: str = "flag") -> dict[str, Any]:
    return {"name": name, "value": value, "source": source}


def test_settings_are_compared_where_a_flag_decides() -> None:
    before = [
        row("a", 1),
        row("b", 2, "default"),
        row("c", 3, "environment"),
        row("x-port", 3500),
        row("d", 4, "default"),
    ]
    after = [row("a", 9), row("b", 9), row("c", 9), row("x-port", 0), row("d", 9, "default"), row("new", 1)]
    assert setting_changes(before, after) == [
        {"name": "a", "before": 1, "after": 9},
        {"name": "b", "before": 2, "after": 9},
    ]
