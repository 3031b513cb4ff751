"""AccessPolicy resources: what they decide, how they add up, and where their faults are."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from policies.errors import DocumentError
from policies.reloading.loading import PolicySnapshot, load
from policies.rules.access_policies import Asked, PolicyMode, PolicyRules, PolicyVerdict
from policies.rules.caller import Caller
from tests.unit.policies.writing import sources

CART = Caller("public", "default", "cart")
Json = Mapping[str, object]


def rule(name: str = "r", action: str = "allow", **more: object) -> dict[str, object]:
    return {"name": name, "action": action, **{key.removesuffix("_"): value for key, value in more.items()}}


def policy(*rules: Json, name: str = "p", scopes: Sequence[str] = (), **spec: object) -> str:
    made = {"apiVersion": "postern.dev/v1alpha1", "kind": "AccessPolicy", "metadata": {"name": name}}
    return json.dumps({**made, "scopes": list(scopes), "spec": {**spec, "rules": list(rules)}}, indent=1)


def loaded(folder: Path, *texts: str) -> PolicySnapshot:
    files = {f"{number}.yaml": text for number, text in enumerate(texts)}
    return load(sources(folder, resources=files, profile="production", own_trust_domain="public"))


def enforced(folder: Path, *texts: str) -> PolicyRules:
    found = loaded(folder, *texts).access.policies.enforced
    assert found is not None
    return found


def ask(
    rules: PolicyRules,
    path: str = "/orders",
    *,
    caller: Caller | None = CART,
    method: str = "GET",
    is_grpc: bool = False,
    is_self: bool = False,
    headers: Mapping[str, str] | None = None,
) -> PolicyVerdict:
    def has_header(number: int) -> bool:
        wanted = rules.headers[number]
        return (headers or {}).get(wanted.name.decode(), "").encode() in wanted.values

    return rules.evaluate(Asked(caller, is_self, method, is_grpc, rules.table.classes(path), has_header))


def faults(folder: Path, *texts: str) -> list[str]:
    with pytest.raises(DocumentError) as raised:
        loaded(folder, *texts)
    assert not any(fault.is_lenient for fault in raised.value.faults)
    return [f"{fault.field}: {fault.problem}" for fault in raised.value.faults]


def test_what_no_rule_allows_is_denied(tmp_path: Path) -> None:
    rules = enforced(tmp_path, policy(rule("reads", to={"methods": ["GET"], "paths": ["/orders/{*}"]})))
    assert ask(rules, "/orders/1") == PolicyVerdict(allowed=True, policy="p", rule="reads")
    assert not ask(rules, "/orders/1", method="POST").allowed
    assert not ask(rules, "/orders").allowed
    assert not ask(rules, "/orders/1/2").allowed
    assert ask(enforced(tmp_path, policy(default="allow"))) == PolicyVerdict(allowed=True)
    assert ask(enforced(tmp_path, policy())) == PolicyVerdict(allowed=False)


@pytest.mark.parametrize(
    ("mode", "enforced", "audited"), [("enforce", True, True), ("audit", False, True), ("off", False, False)]
)
def test_no_policy_is_in_more_than_the_mode_of_the_sidecar(
    tmp_path: Path, mode: PolicyMode, enforced: bool, audited: bool
) -> None:
    texts = {"a.yaml": policy(rule("one"), name="a"), "b.yaml": policy(rule("two"), name="b", mode="audit")}
    given = sources(tmp_path, resources=texts, profile="production", own_trust_domain="public")
    found = load(replace(given, access_policy_mode=mode))
    assert (found.access.policies.enforced is not None) is enforced
    assert (found.access.policies.audited is not None) is audited
    warned = [
        text for text in found.warnings if f"spec.mode: is {mode} here, as --access-policy-mode says" in text
    ]
    assert len(warned) == {"enforce": 0, "audit": 1, "off": 2}[mode]


def test_denying_rule_comes_before_all_that_allow(tmp_path: Path) -> None:
    deny = rule("no-admin", "deny", to={"paths": ["/admin/{**}"]})
    rules = enforced(tmp_path, policy(rule("all"), deny))
    assert ask(rules, "/orders").rule == "all"
    for path in ("/admin", "/Admin/x", "/%61dmin", "//admin", "/x/../admin", "/admin;v=1", "/x%2F..%2Fadmin"):
        assert ask(rules, path) == PolicyVerdict(allowed=False, policy="p", rule="no-admin"), path


def test_path_that_can_not_be_judged_is_denied(tmp_path: Path) -> None:
    assert ask(enforced(tmp_path, policy(rule(to={"paths": ["/{**}"]}))), "/a%00").is_unreadable


@pytest.mark.parametrize(
    ("whom", "caller", "is_allowed"),
    [
        ({}, CART, True),
        ({}, CART._replace(namespace="far"), False),
        ({}, CART._replace(trust_domain="other"), False),
        ({}, None, False),
        ({"namespaces": ["*"]}, CART._replace(namespace="far"), True),
        ({"namespaces": ["far"], "trustDomains": ["*"]}, Caller("other", "far", "x"), True),
        ({"apps": ["cart"]}, CART, True),
        ({"apps": ["web", "cart"]}, CART, True),
        ({"apps": ["ca*"]}, CART, True),
        ({"apps": ["*rt"]}, CART, True),
        ({"apps": ["car"]}, CART, False),
        ({"principals": ["spiffe://other/ns/far/cart"]}, Caller("other", "far", "cart"), True),
        ({"principals": ["spiffe://other/*"]}, Caller("other", "far", "cart"), True),
        ({"principals": ["spiffe://other/*"]}, CART, False),
        ("anonymous", None, True),
        ("anonymous", CART, False),
    ],
)
def test_rule_is_about_its_callers(
    tmp_path: Path, whom: object, caller: Caller | None, is_allowed: bool
) -> None:
    assert ask(enforced(tmp_path, policy(rule(from_=whom))), caller=caller).allowed is is_allowed


def test_denial_means_callers_of_everywhere(tmp_path: Path) -> None:
    rules = enforced(tmp_path, policy(rule("bad", "deny", from_={"apps": ["cart"]}), default="allow"))
    assert not ask(rules, caller=Caller("other", "far", "cart")).allowed
    assert ask(rules, caller=Caller("other", "far", "web")).allowed


def test_app_may_call_itself_where_no_rule_denies_a_reading_of_the_path(tmp_path: Path) -> None:
    rules = enforced(tmp_path, policy(rule("no", "deny", to={"paths": ["/admin/{**}"]})))
    assert ask(rules, "/x", is_self=True) == PolicyVerdict(allowed=True)
    assert not ask(rules, "/x").allowed
    assert ask(rules, "/x/%2e%2e/Admin/y", is_self=True).rule == "no"


def test_grpc_rule_is_for_grpc_calls_and_its_denial_for_all(tmp_path: Path) -> None:
    to = {"grpc": {"services": ["shop.*"], "methods": ["Get"]}}
    rules = enforced(tmp_path, policy(rule(to=to)))
    assert ask(rules, "/shop.Cart/Get", method="POST", is_grpc=True).allowed
    assert not ask(rules, "/shop.Cart/Drop", method="POST", is_grpc=True).allowed
    assert not ask(rules, "/bank.Cart/Get", method="POST", is_grpc=True).allowed
    assert not ask(rules, "/shop.Cart/Get", method="POST").allowed
    rules = enforced(tmp_path, policy(rule("no", "deny", to=to), default="allow"))
    assert not ask(rules, "/shop.Cart/Get").allowed


def test_header_condition_must_hold(tmp_path: Path) -> None:
    rules = enforced(tmp_path, policy(rule(when={"header": {"X-Env": ["prod", "test"]}})))
    assert ask(rules, headers={"x-env": "test"}).allowed
    assert not ask(rules, headers={"x-env": "dev"}).allowed
    assert not ask(rules).allowed


def test_alias_is_our_own_trust_domain(tmp_path: Path) -> None:
    rules = enforced(tmp_path, policy(rule(), trustDomainAliases=["old.example"]))
    assert ask(rules, caller=CART._replace(trust_domain="old.example")).allowed
    assert not ask(rules, caller=CART._replace(trust_domain="new.example")).allowed


def test_trust_domains_that_rules_name_are_let_in(tmp_path: Path) -> None:
    whom = [{"trustDomains": ["two"]}, {"principals": ["spiffe://three/ns/a/b"]}]
    rules = [rule(f"r{number}", from_=one) for number, one in enumerate(whom)]
    access = loaded(tmp_path, policy(*rules, trustDomainAliases=["four"])).access
    trusted = ["public", "two", "three", "four", "five"]
    assert [access.trusts(domain) for domain in trusted] == [True, True, True, True, False]


def test_policies_add_up_and_a_rule_of_the_same_name_takes_the_place(tmp_path: Path) -> None:
    first = policy(rule("a", to={"paths": ["/a"]}), rule("b", to={"paths": ["/b"]}), name="one")
    second = policy(rule("b", to={"paths": ["/c"]}), name="two")
    snapshot = loaded(tmp_path, first, second)
    rules = snapshot.access.policies.enforced
    assert rules is not None
    assert [ask(rules, path).policy for path in ("/a", "/b", "/c")] == ["one", "", "two"]
    assert ["takes the place of the rule b at" in one for one in snapshot.warnings] == [True]


def test_default_is_tightened_freely_and_loosened_by_override(tmp_path: Path) -> None:
    allow, deny = policy(default="allow", name="open"), policy(name="shut")
    assert not ask(enforced(tmp_path, allow, deny)).allowed
    assert faults(tmp_path, deny, allow) == [
        "spec.default: allow would loosen the default of an earlier policy (write override: true)"
    ]
    assert ask(enforced(tmp_path, deny, policy(default="allow", override=True))).allowed


def test_audited_policies_stand_beside_those_in_force(tmp_path: Path) -> None:
    found = loaded(tmp_path, policy(rule()), policy(name="soon", mode="audit"), policy(mode="off")).access
    assert found.policies.enforced is not None
    assert found.policies.audited is not None
    assert ask(found.policies.enforced).allowed
    assert not ask(found.policies.audited).allowed


def test_policy_for_other_apps_is_checked_and_left_out(tmp_path: Path) -> None:
    assert loaded(tmp_path, policy(scopes=["other"])).access.policies.enforced is None
    assert loaded(tmp_path, policy(scopes=["callee"])).access.policies.enforced is not None
    assert faults(tmp_path, policy(rule(to={"paths": ["x"]}), scopes=["other"]))


@pytest.mark.parametrize(
    ("bad", "place", "problem"),
    [
        ({"to": {"paths": ["orders"]}}, "to.paths[0]", "begins with /"),
        ({"to": {"paths": ["/a/{**}/b"]}}, "to.paths[0]", "before its end"),
        ({"to": {"paths": ["/a/{id}"]}}, "to.paths[0]", "{*} for any one segment"),
        ({"to": {"paths": ["/a/*"]}}, "to.paths[0]", "{*} for any one segment"),
        ({"to": {"paths": ["/a%20b"]}}, "to.paths[0]", "never fits"),
        ({"to": {"paths": ["/a?b"]}}, "to.paths[0]", "never fits"),
        ({"to": {"paths": []}}, "to.paths", "is empty"),
        ({"to": {"methods": ["get"]}}, "to.methods[0]", "expected upper case, such as GET"),
        ({"to": {"methods": []}}, "to.methods", "is empty"),
        ({"to": {"grpc": {}}}, "to.grpc.services", "is missing"),
        ({"to": {"grpc": {"services": ["/a"]}}}, "to.grpc.services[0]", "package.Service"),
        ({"to": {"grpc": {"services": ["a"], "methods": ["b/c"]}}}, "to.grpc.methods[0]", "is not a method"),
        ({"to": {"grpc": {"services": ["a"]}, "paths": ["/x"]}}, "to.grpc", "beside paths"),
        ({"from_": {"apps": ["a*b"]}}, "from.apps[0]", "`*` at one end"),
        ({"from_": {"apps": []}}, "from.apps", "is empty"),
        ({"from_": {"principals": ["cart"]}}, "from.principals[0]", "SPIFFE ID"),
        ({"from_": "nobody"}, "from", "anonymous"),
        ({"from_": {"app": ["a"]}}, "from.app", "did you mean apps?"),
        (
            {"when": {"header": {"authorization": ["x"]}}},
            "when.header.authorization",
            "not a header for rules",
        ),
        ({"when": {"header": {"x-a": []}}}, "when.header.x-a", "has no values"),
        ({"action": "audit"}, "action", "expected allow, deny or"),
        ({"name": "a b"}, "name", "can't be a name"),
    ],
)
def test_fault_names_its_place_and_what_is_expected(
    tmp_path: Path, bad: dict[str, object], place: str, problem: str
) -> None:
    changes = {key.removesuffix("_"): value for key, value in bad.items()}
    (found,) = faults(tmp_path, policy({**rule(), **changes}))
    assert found.startswith(f"spec.rules[0].{place}: ")
    assert problem in found


def test_names_are_given_once_in_a_policy(tmp_path: Path) -> None:
    (found,) = faults(tmp_path, policy(rule("a"), rule("a")))
    assert "is named again (first on line" in found


def test_rules_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.reading.compile_access_policies.MAX_RULES", 3)
    first, second = policy(rule("a"), rule("b")), policy(rule("c"))
    assert len(enforced(tmp_path, first, second).rules) == 3
    (found,) = faults(tmp_path, first, policy(rule("c"), rule("d")))
    assert "expected at most 3" in found
