"""Kept decisions are those of the rules: same answer for every caller, path and verb, and no facet read in vain."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.rules.access import AccessDecision, CallerRules, Operation, Protocol, Rule
from policies.rules.access_policies import (
    AccessPolicies,
    Callers,
    Pattern,
    PolicyRule,
    PolicyRules,
    policy_rules,
)
from policies.rules.caller import Caller
from policies.rules.matcher import path_table
from policies.rules.templates import template_table
from proxy.contract.plan import Cause, Labels, Plan, Reply
from proxy.contract.recording import Facet, RecordingHead
from proxy.deciding.authorizer import Authorizer
from tests.unit.proxy.heads import asking, head, outbound, rules, tables

CART = Caller(trust_domain="public", namespace="shop", app_id="cart")
SELF = Caller(trust_domain="public", namespace="shop", app_id="web")
FREE = Caller(trust_domain="public", namespace="shop", app_id="free")
STRANGER = Caller(trust_domain="public", namespace="far", app_id="x")
PATTERNS = ("/admin", "/admin/**", "/orders/*", "/")


def caller_rules(*given_rules: tuple[str, str, bool], default: bool | None = True) -> CallerRules:
    """Rules of one caller: pattern, verb, allow."""
    made = tuple(Rule(pattern=p, verbs=frozenset({v}), is_allow=a) for p, v, a in given_rules)
    table = path_table(tuple(r.pattern for r in made), tuple(r.verbs for r in made), fold_case=True)
    return CallerRules(policy="some", default_allow=default, rules=made, table=table)


def authorizer(**changes: Any) -> Authorizer:
    """Cart and the app itself must not touch /admin by POST; `free` has a default only."""
    rule = ("/admin", "POST", False)
    callers = {CART: caller_rules(rule), SELF: caller_rules(rule), FREE: caller_rules()}
    return Authorizer(rules(**{"is_off": False, "default_allow": False, "callers": callers, **changes}))


def ask(made: Authorizer, target: str = "/", **changes: Any) -> RecordingHead:
    return asking(head(target, **changes), tables(made))


@given(
    caller=st.sampled_from([CART, SELF, FREE, STRANGER, None]),
    path=st.sampled_from(["/", "/admin", "/admin/x", "/ADMIN", "/orders/1", "/orders", "/other"]),
    verb=st.sampled_from(["GET", "POST", "PUT", "FOO"]),
    drawn=st.lists(
        st.tuples(st.sampled_from(PATTERNS), st.sampled_from(["GET", "POST", "*"]), st.booleans()), max_size=4
    ),
    default=st.sampled_from([True, False, None]),
    fallback=st.booleans(),
)
def test_kept_decision_is_that_of_the_rules(
    *,
    caller: Caller | None,
    path: str,
    verb: str,
    drawn: list[tuple[str, str, bool]],
    default: bool | None,
    fallback: bool,
) -> None:
    made = authorizer(
        callers={CART: caller_rules(*drawn, default=default), FREE: caller_rules()}, default_allow=fallback
    )
    decided = made.decide(ask(made, path, method=verb), caller, "http")
    assert decided == made.rules.evaluate(caller, Operation(protocol="http", verb=verb, path=path))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("caller", [None, STRANGER, FREE])
def test_path_and_verb_are_not_read_where_no_rule_turns_on_them(
    caller: Caller | None, protocol: Protocol
) -> None:
    made = authorizer()
    one = ask(made, "/admin", method="POST")
    made.decide(one, caller, protocol)
    assert one.vary == ()


def test_path_and_verb_are_read_where_a_rule_turns_on_them() -> None:
    made = authorizer()
    one = ask(made, "/admin", method="POST")
    assert not made.decide(one, CART, "http").allowed
    assert {read.facet for read in one.vary} == {Facet.PATH, Facet.METHOD}


def test_grpc_has_no_verb_to_read() -> None:
    made = authorizer()
    one = ask(made, "/admin", method="POST")
    made.decide(one, CART, "grpc")
    assert [read.facet for read in one.vary] == [Facet.PATH]


def test_rules_that_are_off_need_no_tables() -> None:
    made = Authorizer(rules(is_off=True))
    assert list(made.tables()) == []
    assert made.decide(ask(made), None, "http").allowed


def test_tables_have_numbers_of_their_own() -> None:
    numbers = [number for number, _ in authorizer().tables()]
    assert (
        len(set(numbers)) == len(numbers) == 4
    )  # cart, web, and web's on Dapr's surfaces; `free` has no rules


def test_call_to_oneself_in_the_path_form_is_judged_by_its_method() -> None:
    made = authorizer()
    pushed = tables(made)

    def decide(target: str, verb: str, **changes: Any) -> Plan | Reply:
        found = outbound(authorizer=made).decide(asking(head(target, method=verb, **changes), pushed))
        assert isinstance(found, Plan | Reply)
        return found

    refused = decide("/v1.0/invoke/web/method/admin", "POST")
    assert isinstance(refused, Reply)
    assert refused.cause is Cause.DENIED
    assert isinstance(decide("/v1.0/invoke/web/method/admin", "GET"), Plan)
    assert isinstance(decide("/v1.0/invoke/web/method/other", "POST"), Plan)
    named = ((b"dapr-app-id", b"web"),)
    assert isinstance(decide("/admin", "POST", headers=named), Reply)
    assert isinstance(decide("/v1.0/invoke/web/method/admin", "POST", headers=named), Plan)


def test_call_to_oneself_is_judged_by_the_path_that_the_app_finds() -> None:
    """Row 9 of the decision table: on Dapr's surfaces the path is cleaned, on others empty and dot segments are sent."""
    allow = caller_rules(("/op1", "*", True), default=False)
    made = authorizer(callers={SELF: allow})
    pushed = tables(made)

    def is_denied(target: str, **changes: Any) -> bool:
        return isinstance(outbound(authorizer=made).decide(asking(head(target, **changes), pushed)), Reply)

    named = ((b"dapr-app-id", b"web"),)
    for path in ("/op1", "//op1", "/x/../op1", "/op1/"):
        assert not is_denied(f"/v1.0/invoke/web/method{path}")
        assert not is_denied(path, headers=named)
        assert is_denied(path, authority="web.localhost") is (path in ("//op1", "/x/../op1"))
    for path in ("/x%2F..%2Fop1", "/op1/%2e%2e/op2"):
        assert is_denied(f"/v1.0/invoke/web/method{path}")


@pytest.mark.parametrize(
    ("target", "changes", "reading"),
    [
        ("/x;/%2e%2e/admin", {}, "/admin"),
        ("/admin", {}, "/admin"),
        ("/a%FF", {}, ""),
        ("/a", {"peer": "spiffe://public/ns/far/x"}, ""),
    ],
)
def test_denied_reading_is_that_which_a_rule_denies(
    target: str, changes: dict[str, str], reading: str
) -> None:
    made = authorizer(callers={CART: caller_rules(("/admin", "*", False))})
    peer = changes.get("peer", "spiffe://public/ns/shop/cart")
    inbound = Labels(direction="inbound", peer_id=peer)
    assert made.denied_as(head(target), inbound, "http", SELF) == reading


def test_denied_reading_of_a_call_to_oneself_is_of_what_the_app_finds() -> None:
    made = authorizer(callers={SELF: caller_rules(("/admin", "*", False))})
    labels = Labels(direction="outbound", surface="dapr", strip=True)
    one = head("/v1.0/invoke/web/method//x/%2e%2e/admin")
    assert made.denied_as(one, labels, "http", SELF) == "/admin"


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (AccessDecision(allowed=True, reason="self"), "policy=- rule=- reason=self"),
        (AccessDecision(allowed=False, reason="no-policy"), "policy=- rule=- reason=no-policy profile=dev"),
        (
            AccessDecision(allowed=False, reason="rule", policy="cart", rule="/admin"),
            "policy=cart rule=/admin reason=rule",
        ),
        (
            AccessDecision(allowed=True, reason="self", would_deny="p/r"),
            "policy=- rule=- reason=self would_deny=p/r",
        ),
    ],
)
def test_decision_is_described_in_a_few_words(decision: AccessDecision, expected: str) -> None:
    assert Authorizer(rules()).describe(decision) == expected


def policies(*allowed: str, default_allow: bool = False) -> PolicyRules:
    named = [
        PolicyRule(policy="p", name=app, is_allow=True, callers=Callers(apps=(Pattern(app),)))
        for app in allowed
    ]
    return policy_rules(
        named,
        default_allow=default_allow,
        table=template_table(()),
        headers=(),
        aliases=frozenset(),
        own_trust_domain="public",
    )


def judged(made: Authorizer, caller: Caller | None = CART) -> tuple[bool, str, str]:
    pushed = tables(made)
    found = made.decide(RecordingHead(head("/x"), pushed), caller, "http")
    return found.allowed, found.reason, found.would_deny


def test_denied_by_access_control_or_by_the_policies_is_denied() -> None:
    open_to_all, shut = caller_rules(), {CART: caller_rules(default=False)}
    both = AccessPolicies(enforced=policies("cart"))
    assert judged(authorizer(callers={CART: open_to_all}, profile=None, policies=both)) == (True, "rule", "")
    assert judged(authorizer(callers=shut, profile=None, policies=both)) == (False, "default-app", "")
    none = AccessPolicies(enforced=policies())
    assert judged(authorizer(callers={CART: open_to_all}, profile=None, policies=none)) == (
        False,
        "no-rule",
        "",
    )


def test_policies_alone_decide_where_there_is_no_access_control() -> None:
    made = authorizer(callers={}, profile="production", policies=AccessPolicies(enforced=policies("cart")))
    assert judged(made) == (True, "rule", "")
    assert judged(made, SELF) == (True, "self", "")
    assert judged(made, None) == (False, "no-rule", "")
    assert made.posture is None


def test_audited_policies_tell_and_deny_nothing() -> None:
    made = authorizer(callers={CART: caller_rules()}, policies=AccessPolicies(audited=policies()))
    assert judged(made) == (True, "default-app", "no-rule")
