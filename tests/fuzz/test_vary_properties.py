"""Heads that are equal in a decision's `vary` get equal decisions: what an engine's kept Plans rest on."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from policies.rules.access import CallerRules, Rule
from policies.rules.access_policies import (
    AccessPolicies,
    Callers,
    HeaderCondition,
    Pattern,
    PolicyRule,
    policy_rules,
)
from policies.rules.caller import Caller
from policies.rules.matcher import path_table
from policies.rules.templates import Template, template_table
from proxy.contract.head import RequestHead
from proxy.contract.plan import Decision, Hold
from proxy.contract.recording import RecordingHead, Tables
from proxy.deciding.authorizer import Authorizer
from proxy.deciding.inbound import Inbound, InboundView
from proxy.engine.portable.plans import PlanCache
from proxy.wire.target import BadTargetError
from tests.unit.proxy.heads import APP, head, outbound, rules, tables

_TARGETS = st.sampled_from(
    [
        "/",
        "/a",
        "/a/b",
        "/admin",
        "/admin/x",
        "//a",
        "/v1.0/healthz",
        "/v1.0/metadata",
        "/v1.0/invoke/cart/method/a",
        "/v1.0/invoke/cart/method/b?q=1",
        "/v1.0/invoke/ghost/method/b",
        "/v1.0/invoke/web/method/admin",
        "/v1.0/invoke/web/method/free",
        "/v1.0/invoke/cart",
        "http://cart/x",
        "http://example.com/x",
        "/shop.CartService/Get",
        "/shop.CartService/Put",
        "/no.Such/Get",
    ]
) | st.text("ab/.;%2e5c", max_size=12).map("/".__add__)
_HEADERS = st.lists(
    st.sampled_from(
        [
            (b"dapr-app-id", b"cart"),
            (b"dapr-app-id", b"web"),
            (b"origin", b"http://evil"),
            (b"dapr-api-token", b"secret"),
            (b"dapr-api-token", b"wrong"),
            (b"postern-callee", b"web.shop"),
            (b"postern-callee", b"x.y"),
            (b"postern-surface", b"dapr"),
            (b"x-noise", b"1"),
            (b"dapr-stream", b"true"),
        ]
    ),
    max_size=3,
).map(tuple)
_HEADS = st.fixed_dictionaries(
    {
        "target": _TARGETS,
        "listener": st.sampled_from(["http", "grpc", "own:cart", "peer"]),
        "protocol": st.sampled_from(["http1", "http2", "grpc", "websocket"]),
        "framing": st.sampled_from(["none", "length", "stream"]),
        "method": st.sampled_from(["GET", "POST", "PUT", "FOO", "CONNECT"]),
        "authority": st.sampled_from(["localhost:3500", "cart.localhost", "evil.example", "127.0.0.1"]),
        "headers": _HEADERS,
        "peer": st.sampled_from([None, "spiffe://public/ns/shop/cart", "spiffe://public/ns/far/x"]),
    }
)
_POLICIES = policy_rules(
    (
        PolicyRule(policy="p", name="all", is_allow=True, methods=frozenset({"GET", "POST"})),
        PolicyRule(policy="p", name="x", is_allow=False, templates=frozenset({0}), headers=(0,)),
        PolicyRule(
            policy="p",
            name="cart",
            is_allow=False,
            templates=frozenset({1}),
            callers=Callers(apps=(Pattern("cart"),)),
        ),
    ),
    default_allow=False,
    table=template_table((Template("/{*}"), Template("/items/{**}", folds=True))),
    headers=(HeaderCondition(b"x-noise", frozenset({b"1"})),),
    aliases=frozenset(),
    own_trust_domain="public",
)
_AUTHORIZER = Authorizer(
    rules(
        is_off=False,
        default_allow=False,
        callers={
            Caller(trust_domain="public", namespace="shop", app_id=app): CallerRules(
                policy=app,
                default_allow=True,
                rules=(Rule(pattern="/admin", verbs=frozenset({"POST"}), is_allow=False),),
                table=path_table(("/admin",), (frozenset({"POST"}),), fold_case=True),
            )
            for app in ("cart", "web")
        },
        policies=AccessPolicies(enforced=_POLICIES, audited=_POLICIES),
    )
)


def _head(drawn: dict[str, Any]) -> RequestHead | None:
    try:
        return head(**drawn)
    except BadTargetError:
        return None


def _comparable(decision: Decision) -> tuple[object, ...]:
    skip = {"retries", "local_replies"}  # callables, and what follows from the labels
    return (type(decision), *(getattr(decision, f.name) for f in fields(decision) if f.name not in skip))


def _check(decide: Any, pushed: Tables, one: RequestHead, other: RequestHead) -> None:
    asking = RecordingHead(one, pushed)
    decision = decide(asking)
    if all(pushed.facet_value(read, one) == pushed.facet_value(read, other) for read in asking.vary):
        again = decide(RecordingHead(other, pushed))
        assert _comparable(decision) == _comparable(again)


@given(
    _HEADS,
    _HEADS,
    st.sampled_from(["listener", "target", "headers", "method", "authority", "peer", "framing", "none"]),
)
def test_heads_equal_in_vary_get_equal_decisions(
    first: dict[str, Any], second: dict[str, Any], differs: str
) -> None:
    other = {**first, differs: second[differs]} if differs != "none" else second
    one, two = _head(first), _head(other)
    if one is None or two is None:
        return
    pushed = tables(_AUTHORIZER, token=b"secret")
    _check(outbound(token_required=True, authorizer=_AUTHORIZER).decide, pushed, one, two)
    decider = Inbound(InboundView(app=APP, authorizer=_AUTHORIZER))
    _check(decider.decide, pushed, one, two)


@given(st.lists(_HEADS, min_size=1, max_size=12))
def test_plan_cache_answers_as_the_decider_does(drawn: list[dict[str, Any]]) -> None:
    pushed = tables(_AUTHORIZER, token=b"secret")
    decider = outbound(authorizer=_AUTHORIZER)
    cache = PlanCache(pushed)
    for one in filter(None, map(_head, drawn)):
        fresh = decider.decide(RecordingHead(one, pushed))
        kept = cache.find(one)
        if kept is not None:
            assert _comparable(kept.decision) == _comparable(fresh)
        elif not isinstance(fresh, Hold):
            cache.decide(decider.decide, one)
            again = cache.find(one)
            assert again is not None
            assert _comparable(again.decision) == _comparable(fresh)
