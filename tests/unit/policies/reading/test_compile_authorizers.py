"""`spec.authorizers` and rules that authorize: whom they have asked, what they allow, and where their faults are."""

from pathlib import Path
from typing import Any

import pytest

from policies.rules.access_policies import PolicyVerdict
from policies.rules.authorizers import AuthorizerTls, ExternalAuthorizer
from policies.rules.caller import Caller
from tests.unit.policies.reading.test_compile_access_policies import (
    CART,
    ask,
    enforced,
    faults,
    loaded,
    policy,
    rule,
)

ENTRY = {"name": "opa", "grpc": "localhost:9191"}
OTHER = {"name": "other", "http": "http://localhost:8080/check"}
STRANGER = Caller("public", "far", "cart")


def asks(name: str = "asked", authorizer: str = "opa", **more: object) -> dict[str, object]:
    return rule(name, "authorize", authorizer=authorizer, **more)


def test_rule_allows_what_its_authorizer_lets_pass(tmp_path: Path) -> None:
    rules = enforced(tmp_path, policy(asks(to={"paths": ["/asked/{**}"]}), authorizers=[ENTRY]))
    assert ask(rules, "/asked/1") == PolicyVerdict(True, "p", "asked", authorizers=("opa",))
    assert ask(rules, "/else") == PolicyVerdict(allowed=False)
    assert ask(rules, "/asked/1", caller=None) == PolicyVerdict(allowed=False)


def test_what_other_rules_allow_is_asked_about_as_well(tmp_path: Path) -> None:
    rules = enforced(
        tmp_path,
        policy(
            rule("all", from_={"namespaces": ["*"]}),
            asks("first", to={"paths": ["/asked/{**}"]}),
            asks("second", "other", to={"methods": ["POST"]}),
            authorizers=[ENTRY, OTHER],
        ),
    )
    assert ask(rules, "/asked/1", method="POST").authorizers == ("opa", "other")
    assert ask(rules, "/else").authorizers == ()
    # A rule that allows means callers of our own namespace; what is asked about is meant of all, in any case of its letters.
    assert ask(rules, "/ASKED/1", caller=STRANGER) == PolicyVerdict(True, "p", "all", authorizers=("opa",))
    assert not ask(enforced(tmp_path, policy(asks(), authorizers=[ENTRY])), caller=STRANGER).allowed


@pytest.mark.parametrize("path", ["/asked/x", "/%61sked/x", "//asked/x", "/x/../asked/x", "/asked;v=1/x"])
def test_each_reading_of_a_path_counts(tmp_path: Path, path: str) -> None:
    rules = enforced(tmp_path, policy(rule("all"), asks(to={"paths": ["/asked/{**}"]}), authorizers=[ENTRY]))
    assert ask(rules, path).authorizers == ("opa",)


def test_rule_for_grpc_has_the_same_path_over_http_asked_about_and_allows_grpc_alone(tmp_path: Path) -> None:
    to = {"grpc": {"services": ["shop.Cart"]}}
    alone = enforced(tmp_path, policy(asks(to=to), authorizers=[ENTRY]))
    assert ask(alone, "/shop.Cart/Get", is_grpc=True, method="POST").authorizers == ("opa",)
    assert not ask(alone, "/shop.Cart/Get", method="POST").allowed
    beside = enforced(tmp_path, policy(rule("all"), asks(to=to), authorizers=[ENTRY]))
    assert ask(beside, "/shop.Cart/Get", method="POST").authorizers == ("opa",)


def test_denial_comes_first_and_a_self_call_is_asked_about(tmp_path: Path) -> None:
    deny = rule("no", "deny", to={"paths": ["/asked/never"]})
    rules = enforced(tmp_path, policy(asks(to={"paths": ["/asked/{**}"]}), deny, authorizers=[ENTRY]))
    assert ask(rules, "/asked/never") == PolicyVerdict(False, "p", "no")
    assert ask(rules, "/asked/1", caller=STRANGER, is_self=True).authorizers == ("opa",)
    assert ask(rules, "/else", is_self=True) == PolicyVerdict(allowed=True)


def test_default_that_allows_is_asked_about(tmp_path: Path) -> None:
    rules = enforced(
        tmp_path, policy(asks(from_={"apps": ["web"]}), rule("all"), default="allow", authorizers=[ENTRY])
    )
    assert ask(rules, caller=CART).authorizers == ()
    assert ask(rules, caller=Caller("public", "far", "web")).authorizers == ("opa",)


def test_rule_of_a_name_takes_the_place_of_one_that_asks(tmp_path: Path) -> None:
    first = policy(asks(), name="first", authorizers=[ENTRY])
    rules = enforced(tmp_path, first, policy(rule("asked"), name="second"))
    assert ask(rules) == PolicyVerdict(True, "second", "asked")
    assert rules.authorizers  # it may be asked by rules of later policies
    later = policy(asks("later"), name="second")
    assert ask(enforced(tmp_path, first, later)).authorizers == ("opa",)


def test_fields_of_authorizers(tmp_path: Path) -> None:
    (tmp_path / "resources").mkdir(exist_ok=True)
    (tmp_path / "resources" / "ca.pem").write_text("x")
    url = "https://opa:8181/v1/data/app/allow"
    entries: list[dict[str, Any]] = [
        ENTRY,
        {**OTHER, "timeout": "1s", "headers": ["X-A"], "toApp": ["X-User"], "cache": "5s", "failOpen": True},
        {"name": "o", "opa": url},
        {"name": "t", "grpc": "authz.example:443", "tls": {"serverName": "x"}},
    ]
    found = loaded(tmp_path, policy(authorizers=entries))
    assert found.access.policies.authorizers == (
        ExternalAuthorizer(name="opa", kind="grpc", target="localhost:9191"),
        ExternalAuthorizer(
            name="other",
            kind="http",
            target="http://localhost:8080/check",
            timeout_s=1.0,
            is_fail_open=True,
            headers=frozenset({"x-a", "authorization"}),
            to_app=frozenset({"x-user"}),
            cache_s=5.0,
        ),
        ExternalAuthorizer(name="o", kind="opa", target=url, tls=AuthorizerTls()),
        ExternalAuthorizer(
            name="t", kind="grpc", target="authz.example:443", tls=AuthorizerTls(server_name="x")
        ),
    )
    (warning,) = (text for text in found.warnings if "failOpen" in text)
    assert warning.endswith("spec.authorizers[1].failOpen: lets calls by while it gives no answer")
    assert loaded(tmp_path, policy(mode="audit", authorizers=entries)).access.policies.authorizers == ()


@pytest.mark.parametrize(
    ("entry", "field", "problem"),
    [
        ({}, "name", "names nobody to ask"),
        ({"grpc": "a:1", "opa": "http://a"}, "name", "names grpc and opa"),
        ({"grpc": "nowhere"}, "grpc", "`nowhere` is not an address"),
        ({"grpc": "a:70000"}, "grpc", "is not an address"),
        ({"http": "ftp://a"}, "http", "is not a URL"),
        ({"opa": "http://u:p@a/x"}, "opa", "is not a URL"),
        ({"opa": "http://a:x/"}, "opa", "is not a URL"),
        ({"grpc": "a:1", "timeout": "0s"}, "timeout", "is out of range"),
        ({"grpc": "a:1", "timeout": "2h"}, "timeout", "is out of range"),
        ({"grpc": "a:1", "cache": "soon"}, "cache", "soon"),
        ({"grpc": "a:1", "headers": ["a b"]}, "headers[0]", "is not the name of a header"),
        ({"http": "http://a", "headers": ["*"]}, "headers[0]", "`*` is not the name of a header"),
        ({"grpc": "a:1", "toApp": ["x"]}, "toApp", "is for http alone"),
        ({"http": "http://a", "tls": {}}, "tls", "is for https"),
        ({"grpc": "a:1", "tls": {"caFile": "none.pem"}}, "tls.caFile", "does not exist"),
        ({"grpc": "a:1", "name": "a b"}, "name", "can't be a name"),
    ],
)
def test_faults_name_their_field(tmp_path: Path, entry: dict[str, Any], field: str, problem: str) -> None:
    found = faults(tmp_path, policy(authorizers=[{"name": "a", **entry}]))
    assert any(text.startswith(f"spec.authorizers[0].{field}: ") and problem in text for text in found), found


def test_faults_of_rules(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        policy(
            asks(authorizer=""), asks("b", "nobody"), rule("c", authorizer="opa"), authorizers=[ENTRY, ENTRY]
        ),
        policy(authorizers=[{**ENTRY, "timeout": "1s"}], name="second"),
    )
    for text in (
        "spec.authorizers[1].name: opa is named again",
        "spec.rules[0].authorizer: is missing (expected one of opa)",
        "spec.rules[1].authorizer: `nobody` is not in spec.authorizers (expected one of opa)",
        "spec.rules[2].authorizer: is beside action allow (expected action: authorize)",
        "spec.authorizers[0]: opa is not as an earlier policy has it (expected another name)",
    ):
        assert text in found


def test_condition_that_callers_choose_is_warned_of_once(tmp_path: Path) -> None:
    asked = asks(when={"header": {"x-a": ["1"]}})
    found = loaded(tmp_path, policy(asked, authorizers=[ENTRY]))
    (warning,) = (text for text in found.warnings if "chosen by callers" in text)
    assert "is not asked about" in warning
