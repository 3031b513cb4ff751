"""Naming the callee by all six ways, guards, and what the Plan towards a peer holds."""

from dataclasses import replace

import pytest

from policies.resiliency import ResiliencyRules, RetryRule, TargetRules
from proxy.plan import Cause, Decision, Hold, Op, Plan, Reply, RequestHead
from proxy.target import parse_routes
from tests.unit.proxy.heads import APP, asking, head, outbound, tables

GRPC = {
    "protocol": "grpc",
    "framing": "stream",
    "method": "POST",
    "listener": "grpc",
    "authority": "localhost:50001",
}


def decide(one: RequestHead, **view: object) -> Decision:
    return outbound(**view).decide(asking(one))


def cluster(decision: Decision) -> str:
    assert isinstance(decision, Plan), decision
    return decision.routes[0].cluster


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (head("/v1.0/invoke/cart/method/items?x=1"), "peer:cart.shop"),
        (head("/v1.0/invoke/cart.other/method/items"), "peer:cart.other"),
        (head("/items", headers=((b"dapr-app-id", b"cart"),)), "peer:cart.shop"),
        (head("http://cart/items"), "peer:cart.shop"),
        (head("http://cart:80/items"), "peer:cart.shop"),
        (head("/items", authority="cart.localhost:3500"), "peer:cart.shop"),
        (head("/items", authority="cart.other.localhost"), "peer:cart.other"),
        (head("/items", listener="own:cart", authority="anything.example"), "peer:cart.shop"),
        (head("/shop.CartService/Get", **GRPC), "peer:cart.shop"),
        (head("/x.Y/Get", **GRPC | {"headers": ((b"dapr-app-id", b"cart.other"),)}), "peer:cart.other"),
        (head("/x.Y/Get", **GRPC | {"authority": "cart.localhost:50001"}), "peer:cart.shop"),
        (head("/v1.0/invoke/web/method/self"), "app"),
        (head("/v1.0/healthz"), "local-api"),
        (head("/v1.0/metadata"), "local-api"),
    ],
)
def test_callee_is_named_by_every_way(one: RequestHead, expected: str) -> None:
    assert cluster(decide(one)) == expected


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        # own port beats everything, header beats authority and path, authority beats path
        (
            head("/v1.0/invoke/web/method/x", listener="own:cart", headers=((b"dapr-app-id", b"web"),)),
            "peer:cart.shop",
        ),
        (head("/v1.0/invoke/web/method/x", headers=((b"dapr-app-id", b"cart"),)), "peer:cart.shop"),
        (head("/x", authority="web.localhost", headers=((b"dapr-app-id", b"cart"),)), "peer:cart.shop"),
        (head("/v1.0/invoke/web/method/x", authority="cart.localhost"), "peer:cart.shop"),
        (head("/v1.0/metadata", authority="cart.localhost"), "peer:cart.shop"),
    ],
)
def test_precedence_when_two_ways_differ(one: RequestHead, expected: str) -> None:
    assert cluster(decide(one)) == expected


def refused(decision: Decision) -> Reply:
    assert isinstance(decision, Reply), decision
    return decision


@pytest.mark.parametrize(
    ("one", "cause", "status", "grpc"),
    [
        (head("/nothing"), Cause.NO_APP, 404, 2),
        (head("/v1.0/invoke/cart/items"), Cause.NO_APP, 404, 2),
        (head("/v1.0/invoke/a.b.c/method/x"), Cause.NO_APP, 500, 2),
        (head("/v1.0/metadata", method="DELETE"), Cause.NO_APP, 404, 2),
        (head("http://www.example.com/x"), Cause.NO_APP, 404, 5),
        (head("http://cart:8080/x"), Cause.NO_APP, 404, 5),
        (head("/", method="CONNECT", authority="localhost:50001"), Cause.NO_APP, 404, 5),
        (head("/x", authority="evil.example"), Cause.FORBIDDEN_ORIGIN, 403, 7),
        (head("/v1.0/metadata", authority="evil.example"), Cause.FORBIDDEN_ORIGIN, 403, 7),
        (
            head("/v1.0/invoke/cart/method/x", headers=((b"origin", b"http://evil"),)),
            Cause.FORBIDDEN_ORIGIN,
            403,
            7,
        ),
        (head("//items", authority="cart.localhost"), Cause.BAD_REQUEST, 400, 3),
        (head("/unknown.Service/Get", **GRPC), Cause.UNSUPPORTED, 501, 12),
        (head("/dapr.proto.runtime.v1.Dapr/InvokeService", **GRPC), Cause.UNSUPPORTED, 501, 12),
        (head("/a/b/c", **GRPC), Cause.UNSUPPORTED, 501, 12),
    ],
)
def test_refusals_say_why(one: RequestHead, cause: Cause, status: int, grpc: int) -> None:
    reply = refused(decide(one))
    assert (reply.cause, reply.status, reply.grpc_code) == (cause, status, grpc)
    assert len(reply.grpc_message) > 20


def test_unknown_app_is_held_then_answered_by_surface() -> None:
    dapr = decide(head("/v1.0/invoke/ghost/method/x"))
    own = decide(head("/x", authority="ghost.localhost"))
    assert isinstance(dapr, Hold)
    assert isinstance(own, Hold)
    assert (dapr.key, dapr.then.status, dapr.then.grpc_code) == ("peer:ghost.shop", 500, 2)
    assert b"ERR_DIRECT_INVOKE" in dapr.then.body
    assert (own.then.status, own.then.grpc_code) == (404, 5)


def test_allowed_origin_passes() -> None:
    one = head("/v1.0/invoke/cart/method/x", headers=((b"origin", b"http://dev.example:3000"),))
    assert cluster(decide(one, allowed_origins=("http://*.example:3000",))) == "peer:cart.shop"


def test_token_is_demanded_but_never_a_key() -> None:
    pushed = tables(token=b"secret")
    decider = outbound(token_required=True)
    without = decider.decide(asking(head("/v1.0/invoke/cart/method/x"), pushed))
    wrong = decider.decide(
        asking(head("/v1.0/invoke/cart/method/x", headers=((b"dapr-api-token", b"x"),)), pushed)
    )
    right = decider.decide(
        asking(head("/v1.0/invoke/cart/method/x", headers=((b"dapr-api-token", b"secret"),)), pushed)
    )
    assert refused(without).status == refused(wrong).status == 401
    assert isinstance(right, Plan)
    assert "secret" not in repr(right.key)
    assert cluster(decider.decide(asking(head("/v1.0/healthz"), pushed))) == "local-api"


def test_peer_plan_strips_identity_and_names_the_callee() -> None:
    plan = decide(head("/v1.0/invoke/cart/method/items"))
    assert isinstance(plan, Plan)
    route = plan.routes[0]
    assert route.expect == frozenset({"spiffe://public/ns/shop/cart"})
    edits = {(edit.op, edit.name) for edit in route.edits}
    for name in (b"dapr-app-id", b"dapr-api-token", b"dapr-callee-app-id"):
        assert (Op.REMOVE, name) in edits
    assert (Op.REMOVE_PREFIX, b"dapr-caller-") in edits
    assert (Op.REMOVE_PREFIX, b"postern-") in edits
    assert (Op.SET, b"postern-callee") in edits


def test_paths_share_a_plan_and_secrets_are_no_keys() -> None:
    first = decide(head("/v1.0/invoke/cart/method/orders/1"))
    second = decide(head("/v1.0/invoke/cart/method/orders/2"))
    assert isinstance(first, Plan)
    assert isinstance(second, Plan)
    assert first.key == second.key


def test_two_claimants_of_a_service_are_named() -> None:
    routes = parse_routes(()).with_learnt({"s.S": frozenset({"a", "b"})})
    reply = refused(decide(head("/s.S/M", **GRPC), routes=routes))
    assert "a and by b" in reply.grpc_message


def test_learnt_service_routes_and_explicit_ones_win() -> None:
    learnt = {"shop.CartService": frozenset({"thief"}), "s.S": frozenset({"cart"})}
    routes = parse_routes(("shop.CartService=cart",)).with_learnt(learnt)
    assert cluster(decide(head("/s.S/M", **GRPC), routes=routes)) == "peer:cart.shop"
    assert cluster(decide(head("/shop.CartService/M", **GRPC), routes=routes)) == "peer:cart.shop"


def test_unknown_service_waits_while_learning() -> None:
    assert isinstance(decide(head("/s.S/M", **GRPC), learning_for_s=2.0), Hold)


def test_builtin_retry_covers_what_was_not_sent_only() -> None:
    post = decide(head("/v1.0/invoke/cart/method/x", method="POST", framing="length"))
    assert isinstance(post, Plan)
    assert all(Cause.RESET_EARLY not in again.on for again in post.again)
    assert all(again.http_codes == frozenset() for again in post.again)
    stream = decide(head("/v1.0/invoke/cart/method/x", method="POST", framing="stream"))
    assert isinstance(stream, Plan)
    assert stream.again == ()


def test_written_retry_does_what_it_says() -> None:
    rules = ResiliencyRules(
        targets={
            "cart": TargetRules(timeout_s=0.3, retry=RetryRule(name="few", max_retries=2), builtin_retry=None)
        }
    )
    plan = decide(head("/v1.0/invoke/cart/method/x"), resiliency=rules)
    assert isinstance(plan, Plan)
    assert plan.attempt_s == 0.3
    assert plan.again[0].attempts == 3
    assert plan.again[0].http_codes is None


def test_self_call_to_an_unhealthy_app_is_refused() -> None:
    reply = refused(decide(head("/v1.0/invoke/web/method/x"), app=replace(APP, healthy=False)))
    assert reply.cause is Cause.APP_UNHEALTHY
