"""Faults and warnings of access control beyond the decision table."""

from pathlib import Path

import pytest

from policies.errors import DocumentError
from policies.reloading.loading import load
from tests.unit.policies.writing import OWN, A, Json, acl, asker, configuration, entry, loaded, op, sources


def single(*operations: Json, d: str = "allow") -> str:
    return acl(entry(*operations, d=d), g="deny")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (single(op("/a/", "deny", "*")), "/a/ never fits"),
        (single(op("/a?b", "deny", "*")), "never fits"),
        (single(op("/a//b", "deny", "*")), "never fits"),
        (single(op("/a/../b", "deny", "*")), "never fits"),
        (single(op("/orders/{id}", "deny", "*")), "braces stand for themselves"),
        (single(op("/a", "deny", "get")), "`get` is not a verb"),
        (single(op("/a", "deny", "PROPFIND")), "is matched only by"),
        (single(op("/a/*/b", "deny", "*"), op("/a/**", "allow", "*")), "matches only `*` itself"),
        (single(op("/a", "allow", "*"), op("/a", "deny", "POST")), "is named again"),
        (single({"action": "deny", "httpVerb": ["*"]}), "has no name"),
        (single(op("/" + "a" * 2048, "deny", "*")), "is too long"),
        (acl(entry(d="deny"), entry(d="allow"), g="deny"), "second entry for app1"),
    ],
)
def test_fault_that_could_admit_is_never_forgiven(tmp_path: Path, text: str, fault: str) -> None:
    is_never_forgiven(tmp_path, text, fault)


def test_more_operations_than_are_read_are_never_forgiven(tmp_path: Path) -> None:
    many = [op(f"/{number}", "allow", "*") for number in range(10_001)]
    is_never_forgiven(tmp_path, acl(entry(*many)), "too many operations")


def is_never_forgiven(folder: Path, text: str, fault: str) -> None:
    for lenient in (False, True):
        with pytest.raises(DocumentError) as caught:
            loaded(folder, text, lenient=lenient)
        assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (single(op("/a", "deny", "*"), op("/a/b", "allow", "*")), "/a/b never admits anything: /a on line"),
        (single(op("/Op", "allow", "GET"), op("/op", "allow", "POST")), "is named again"),
        (single(op("/a", "allow", "PROPFIND")), "is matched only by"),
        (acl(entry(d="dney"), g="deny"), "`dney` is not an action"),
    ],
)
def test_fault_that_denies_is_forgiven(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(DocumentError, match="expected"):
        loaded(tmp_path, text)
    assert fault in "\n".join(loaded(tmp_path, text, lenient=True).warnings)


def test_every_fault_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = acl(entry(op("/a", "alow", "get"), ns="", d="x"), g="y")
    with pytest.raises(DocumentError) as caught:
        loaded(tmp_path, text)
    lines = {fault.line: text.splitlines()[fault.line - 1].strip() for fault in caught.value.faults}
    assert sorted(lines.values()) == [
        '"action": "alow"',
        '"defaultAction": "x",',
        '"defaultAction": "y",',
        '"get"',
        '"namespace": "",',
    ]


def test_grpc_apps_tell_patterns_by_case(tmp_path: Path) -> None:
    text = single(op("/s/Get", "allow"), op("/s/get", "deny"), d="deny")
    ask = asker(loaded(tmp_path, text, is_grpc=True), is_grpc=True)
    assert [ask(A, "", path).allowed for path in ("/s/Get", "/s/get")] == [True, False]


def test_plain_policy_warns_of_nothing(tmp_path: Path) -> None:
    text = single(op("/a/**", "allow", "GET"), op("/b/*", "allow", "POST"), d="deny")
    assert loaded(tmp_path, text).warnings == ()


def test_trust_domain_alone_leaves_the_posture_of_the_profile(tmp_path: Path) -> None:
    text = '{"kind": "Configuration", "spec": {"accessControl": {"trustDomain": "td"}}}'
    ask = asker(loaded(tmp_path, text, profile="production"))
    assert [ask(caller, "GET", "/x").allowed for caller in (A, OWN)] == [False, True]


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n"])
def test_empty_file_is_never_taken_for_no_policy(tmp_path: Path, text: str) -> None:
    for lenient in (False, True):
        with pytest.raises(DocumentError, match=r"config1\.yaml: is empty"):
            loaded(tmp_path, text, lenient=lenient)


def test_missing_kind_is_forgiven_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="has no kind"):
        loaded(tmp_path, "spec: {}\n")
    assert "has no kind" in loaded(tmp_path, "spec: {}\n", lenient=True).warnings[0]
    with pytest.raises(DocumentError, match="kind"):
        loaded(tmp_path, "kind: Component\nspec: {}\n", lenient=True)


def test_harmless_second_document_is_forgiven(tmp_path: Path) -> None:
    text = "kind: Configuration\n---\nkind: Configuration\nspec: {tracing: {samplingRate: '1'}}\n"
    with pytest.raises(DocumentError, match="second document"):
        loaded(tmp_path, text)
    assert not loaded(tmp_path, text, lenient=True).configuration.tracing.is_rate_given


def test_trust_domain_of_a_file_is_our_own_unless_a_flag_names_it(tmp_path: Path) -> None:
    text = configuration({"accessControl": {"trustDomain": "shop.example", "defaultAction": "deny"}})
    free = sources(tmp_path, text, own_trust_domain="public", is_trust_domain_given=False)
    assert load(free).access.own_trust_domain == "shop.example"
    bound = load(sources(tmp_path, text, own_trust_domain="public"))
    assert bound.access.own_trust_domain == "public"
    assert ["trustDomain: has no effect: ours is public" in warning for warning in bound.warnings] == [True]
    again = load(sources(tmp_path, text, own_trust_domain="shop.example"))
    assert (again.access.own_trust_domain, again.warnings) == ("shop.example", ())


def test_trust_domain_that_is_none_is_a_fault(tmp_path: Path) -> None:
    text = configuration({"accessControl": {"trustDomain": "Shop", "defaultAction": "deny"}})
    with pytest.raises(DocumentError, match="invalid trust domain `Shop`"):
        loaded(tmp_path, text)
