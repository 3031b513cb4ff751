"""Decisions that no document speaks about, and the reasons that decisions give."""

from pathlib import Path
from typing import get_args

import pytest

from policies.reloading.loading import load
from policies.rules.access import DENIALS, AccessRules, Operation, Profile, Reason, without_policy
from policies.rules.caller import Caller
from tests.unit.policies.writing import OWN, A, acl, asker, entry, loaded, op, sources

STRANGER = Caller(trust_domain="public", namespace="elsewhere", app_id="app1")
GET = Operation(protocol="http", verb="GET", path="/x")


def posture(profile: Profile, *, mtls: bool = True, own_trust_domain: str | None = None) -> AccessRules:
    return without_policy(
        profile=profile,
        own_app_id="callee",
        own_namespace="default",
        own_trust_domain=own_trust_domain,
        mtls=mtls,
    )


@pytest.mark.parametrize(
    ("profile", "mtls", "allowed"),
    [
        ("daprd", True, {"own", "neighbour", "stranger", "nobody"}),
        ("daprd", False, {"own", "neighbour", "stranger", "nobody"}),
        ("dev", True, {"own", "neighbour"}),
        ("dev", False, {"own", "neighbour", "stranger", "nobody"}),
        ("production", True, {"own"}),
        ("production", False, {"own"}),
    ],
)
def test_posture_without_policy_follows_the_profile(profile: Profile, mtls: bool, allowed: set[str]) -> None:
    callers = {"own": OWN, "neighbour": A, "stranger": STRANGER, "nobody": None}
    rules = posture(profile, mtls=mtls)
    assert {name for name, caller in callers.items() if rules.evaluate(caller, GET).allowed} == allowed
    assert all(rules.table(caller) is None for caller in callers.values())
    denied = [rules.evaluate(callers[name], GET) for name in callers if name not in allowed]
    assert {(decision.reason, rules.profile) for decision in denied} <= {("no-policy", profile)}


def test_own_name_in_a_foreign_trust_domain_is_not_the_own_app() -> None:
    rules = posture("production", own_trust_domain="public")
    assert rules.evaluate(OWN, GET).reason == "self"
    impostor = Caller(trust_domain="evil", namespace=OWN.namespace, app_id=OWN.app_id)
    assert not rules.evaluate(impostor, GET).allowed


@pytest.mark.parametrize(
    ("profile", "default", "trusted"),
    [
        ("production", "deny", {"public", "partner"}),
        ("production", "allow", {"public", "partner"}),
        ("dev", "allow", {"public", "partner"}),
        ("daprd", "deny", {"public", "partner"}),
        ("daprd", "allow", {"public", "partner", "evil"}),
    ],
)
def test_default_of_allow_is_for_trust_domains_that_are_named_but_as_daprd(
    tmp_path: Path, profile: Profile, default: str, trusted: set[str]
) -> None:
    text = acl(entry(td="partner", d="deny"), g=default)
    rules = load(sources(tmp_path, text, profile=profile, own_trust_domain="public")).access
    assert {domain for domain in ("public", "partner", "evil") if rules.trusts(domain)} == trusted
    stranger = Caller(trust_domain="evil", namespace="default", app_id="app1")
    decision = rules.evaluate(stranger, GET)
    assert decision.allowed is ("evil" in trusted)
    assert decision.allowed or decision.reason == "trust-domain"


@pytest.mark.parametrize(("profile", "trusts"), [("daprd", True), ("dev", False), ("production", False)])
def test_without_a_policy_no_foreign_trust_domain_is_let_in_but_as_daprd(
    profile: Profile, trusts: bool
) -> None:
    rules = posture(profile, own_trust_domain="public")
    assert (rules.trusts("public"), rules.trusts("evil")) == (True, trusts)


def test_decision_names_policy_rule_and_reason(tmp_path: Path) -> None:
    text = acl(
        entry(op("/a", "allow", "GET"), d="deny"),
        entry(op("/a", "deny", "GET"), app="app2"),
        g="allow",
    )
    ask = asker(loaded(tmp_path, text))
    app2 = Caller(trust_domain="public", namespace="default", app_id="app2")
    given = {
        (decision.reason, decision.policy, decision.rule, decision.scope, decision.allowed)
        for decision in (
            ask(A, "GET", "/a/b"),
            ask(A, "PUT", "/a/b"),
            ask(app2, "GET", "/a"),
            ask(app2, "GET", "/b"),
            ask(STRANGER, "GET", "/a"),
            ask(None, "GET", "/a"),
            ask(A, "GET", "/a%FF"),
            ask(A, "", "/a"),
        )
    }
    assert given == {
        ("rule", "app1", "/a", "app", True),
        ("default-app", "app1", "", "app", False),
        ("rule", "app2", "/a", "global", False),
        ("default-global", "app2", "", "global", True),
        ("default-global", "", "", "global", True),
        ("no-id", "", "", "global", True),
        ("bad-path", "app1", "", "app", False),
        ("no-verb", "app1", "", "app", False),
    }


def test_grpc_call_to_an_http_app_is_judged_as_a_post(tmp_path: Path) -> None:
    access = loaded(tmp_path, acl(entry(op("/s/m", "allow", "POST"), d="deny"), g="deny")).access
    assert access.evaluate(A, Operation(protocol="grpc", verb="", path="/s/m")).allowed


def test_unknown_verb_is_denied_where_post_is(tmp_path: Path) -> None:
    ask = asker(loaded(tmp_path, acl(entry(op("/a", "deny", "POST"), d="allow"), g="allow")))
    assert ask(A, "GET", "/a").allowed
    assert not ask(A, "FOO", "/a").allowed


def test_verbs_are_those_that_rules_tell_apart(tmp_path: Path) -> None:
    rules = loaded(tmp_path, acl(entry(op("/a", "deny", "GET", "*"), d="allow"), g="allow")).access
    assert rules.verbs == {"GET"}
    assert posture("dev").verbs == frozenset()


def test_deny_without_verbs_denies_every_verb(tmp_path: Path) -> None:
    snapshot = loaded(tmp_path, acl(entry(op("/a", "deny"), d="allow"), g="allow"))
    assert not asker(snapshot)(A, "GET", "/a").allowed
    assert "denies every verb" in "\n".join(snapshot.warnings)


def test_every_reason_to_deny_is_explained() -> None:
    assert DENIALS.keys() == set(get_args(Reason)) - {"self", "own-namespace"}


@pytest.mark.parametrize("other", ["/pkg/**", "/pkg/*/-/*", "/pkg/secret/-/f"])
@pytest.mark.parametrize("is_first", [True, False])
def test_denying_a_path_denies_all_below_it(tmp_path: Path, other: str, is_first: bool) -> None:
    operations = [op("/pkg/secret", "deny", "*"), op(other, "allow", "*")]
    text = acl(entry(*(reversed(operations) if is_first else operations), d="allow"), g="allow")
    ask = asker(loaded(tmp_path, text, lenient=True))
    assert not ask(A, "GET", "/pkg/secret/-/f").allowed
    assert not ask(A, "GET", "/pkg/secret").allowed
    assert ask(A, "GET", "/pkg/secrets").allowed
