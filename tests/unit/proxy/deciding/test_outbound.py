"""Naming the callee by all six ways, guards, and what the Plan towards a peer holds."""

import base64

import pytest
from msgspec.structs import replace

from policies.rules.access import CallerRules
from policies.rules.caller import Caller
from policies.rules.matcher import path_table
from policies.rules.pipelines import RateLimit, RouterChecker
from policies.rules.resiliency import ResiliencyRules, RetryRule, TargetRules
from proxy.contract.head import Headers, RequestHead
from proxy.contract.plan import Cause, Decision, Edit, Hold, Op, Plan, Reply
from proxy.deciding.app_plan import NO_VERB
from proxy.deciding.authorizer import Authorizer
from proxy.deciding.browsers import Browsers
from proxy.deciding.callee import HTTP_PIPELINE, parse_routes
from proxy.deciding.outbound import DAPR_API, INVOKER
from proxy.deciding.pipeline import Pipeline
from tests.unit.proxy.heads import APP, asking, head, outbound, tables
from tests.unit.proxy.heads import rules as access_rules

GRPC = {
    "protocol": "grpc",
    "framing": "stream",
    "method": "POST",
    "listener": "grpc",
    "authority": "localhost:50001",
}
CALLER_RULES = CallerRules(
    policy="cart", default_allow=False, rules=(), table=path_table((), (), fold_case=True)
)
NAMED = ((b"dapr-app-id", b"cart"),)


def decide(one: RequestHead, **view: object) -> Decision:
    return outbound(**view).decide(asking(one))


def basic(credentials: str) -> Headers:
    return ((b"authorization", b"Basic " + base64.b64encode(credentials.encode())),)


def cluster(decision: Decision) -> str:
    assert isinstance(decision, Plan), decision
    return decision.routes[0].cluster


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (head("/v1.0/invoke/cart/method/items?x=1"), "peer:cart.shop"),
        (head("/v1.0/invoke/cart.other/method/items"), "peer:cart.other"),
        (head("/items", headers=((b"dapr-app-id", b"cart"),)), "peer:cart.shop"),
        (head("/items", headers=basic("dapr-app-id:cart")), "peer:cart.shop"),
        (head("/items", headers=basic("Dapr-App-Id:cart.other")), "peer:cart.other"),
        (head("http://cart/items"), "peer:cart.shop"),
        (head("http://cart:80/items"), "peer:cart.shop"),
        (head("/items", authority="cart.localhost:3500"), "peer:cart.shop"),
        (head("/items", authority="cart.other.localhost"), "peer:cart.other"),
        (head("/items", listener="own:cart", authority="localhost:7001"), "peer:cart.shop"),
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
        (head("/v1.0/invoke/web/method/x", headers=(*NAMED, *basic("dapr-app-id:web"))), "peer:cart.shop"),
        (head("/v1.0/invoke/web/method/x", headers=basic("dapr-app-id:cart")), "peer:cart.shop"),
        (head("/v1.0/invoke/cart/method/x", headers=basic("user:web")), "peer:cart.shop"),
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
        (head("/x", listener="own:cart", authority="evil.example:7001"), Cause.FORBIDDEN_ORIGIN, 403, 7),
        (head("/v1.0/metadata", authority="evil.example"), Cause.FORBIDDEN_ORIGIN, 403, 7),
        (
            head("/v1.0/invoke/cart/method/x", headers=((b"origin", b"http://evil"),)),
            Cause.FORBIDDEN_ORIGIN,
            403,
            7,
        ),
        (head("/unknown.Service/Get", **GRPC), Cause.UNSUPPORTED, 501, 12),
        (head("/dapr.proto.runtime.v1.Dapr/SaveState", **GRPC), Cause.UNSUPPORTED, 500, 12),
        (head("/dapr.proto.runtime.v1.Dapr/Frobnicate", **GRPC), Cause.UNSUPPORTED, 501, 12),
        (head("/dapr.proto.runtime.v1.AppCallback/OnInvoke", **GRPC), Cause.UNSUPPORTED, 501, 12),
        (head("/a/b/c", **GRPC), Cause.UNSUPPORTED, 501, 12),
    ],
)
def test_refusals_say_why(one: RequestHead, cause: Cause, status: int, grpc: int) -> None:
    reply = refused(decide(one))
    assert (reply.cause, reply.status, reply.grpc_code) == (cause, status, grpc)
    assert len(reply.grpc_message) > 20


INVOKE_SERVICE = "/dapr.proto.runtime.v1.Dapr/InvokeService"
DAPR_API_KNOWN = frozenset({"peer:cart.shop", DAPR_API})


def test_first_call_of_dapr_grpc_api_waits_for_its_server() -> None:
    held = decide(head(INVOKE_SERVICE, **GRPC))
    assert isinstance(held, Hold)
    assert (held.key, held.then.cause, held.then.grpc_code) == (DAPR_API, Cause.NOT_READY, 14)


@pytest.mark.parametrize("method", ["InvokeService", "GetMetadata", "SetMetadata", "Shutdown"])
@pytest.mark.parametrize("headers", [(), NAMED])
def test_dapr_grpc_api_is_the_sidecars_own_whatever_app_id_comes_with_it(
    method: str, headers: Headers
) -> None:
    one = head(f"/dapr.proto.runtime.v1.Dapr/{method}", **GRPC | {"headers": headers})
    plan = decide(one, known=DAPR_API_KNOWN)
    assert cluster(plan) == DAPR_API
    assert isinstance(plan, Plan)
    assert plan.labels.dst == ""
    assert f"name:{DAPR_API}" in plan.scopes
    assert Edit(op=Op.REMOVE, name=b"dapr-api-token") in plan.routes[0].edits


@pytest.mark.parametrize(
    "one",
    [
        head(INVOKE_SERVICE, **GRPC | {"authority": "cart.localhost:50001"}),
        head(INVOKE_SERVICE, **GRPC | {"listener": "own:cart"}),
        head("/dapr.proto.runtime.v1.Dapr/Frobnicate", **GRPC | {"headers": NAMED}),
        head("/dapr.proto.runtime.v1.Dapr2/InvokeService", **GRPC | {"headers": NAMED}),
    ],
    ids=str,
)
def test_dapr_grpc_api_of_an_app_that_is_named_otherwise_is_carried_there(one: RequestHead) -> None:
    assert cluster(decide(one, known=DAPR_API_KNOWN)) == "peer:cart.shop"


HEALTH_CHECK = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


@pytest.mark.parametrize("target", [HEALTH_CHECK, REFLECTION, REFLECTION.replace("v1", "v1alpha")])
def test_health_and_reflection_are_the_sidecars_unless_an_app_is_named(target: str) -> None:
    assert cluster(decide(head(target, **GRPC), known=DAPR_API_KNOWN)) == DAPR_API
    for named in ({"headers": NAMED}, {"authority": "cart.localhost:50001"}, {"listener": "own:cart"}):
        assert cluster(decide(head(target, **GRPC | named), known=DAPR_API_KNOWN)) == "peer:cart.shop"


def test_health_wants_no_token_and_reflection_does() -> None:
    health, reflection = (
        decide(head(target, **GRPC), token_required=True, known=DAPR_API_KNOWN)
        for target in (HEALTH_CHECK, REFLECTION)
    )
    assert cluster(health) == DAPR_API
    assert refused(reflection).cause is Cause.UNAUTHENTICATED


@pytest.mark.parametrize("method", ["InvokeService", "SaveState"])
def test_dapr_grpc_api_wants_the_token(method: str) -> None:
    one = head(f"/dapr.proto.runtime.v1.Dapr/{method}", **GRPC)
    assert refused(decide(one, token_required=True, known=DAPR_API_KNOWN)).cause is Cause.UNAUTHENTICATED


def test_page_in_a_browser_does_not_reach_dapr_grpc_api() -> None:
    one = head(INVOKE_SERVICE, **GRPC | {"authority": "evil.example"})
    assert refused(decide(one, known=DAPR_API_KNOWN)).cause is Cause.FORBIDDEN_ORIGIN


@pytest.mark.parametrize("target", ["/v1.0/metadata", "/v1.0/invoke/web/method/x", "/items"])
def test_invocation_of_dapr_grpc_api_goes_to_the_app_that_it_names(target: str) -> None:
    """Its token and origin were looked at as it came in; a path of the API is a path of the app there."""
    one = head(target, listener=INVOKER, authority="localhost", headers=NAMED)
    view = {"token_required": True, "sockets": frozenset({INVOKER})}
    assert cluster(decide(one, **view)) == "peer:cart.shop"


def test_unknown_app_is_held_then_answered_by_surface() -> None:
    dapr = decide(head("/v1.0/invoke/ghost/method/x"))
    own = decide(head("/x", authority="ghost.localhost"))
    assert isinstance(dapr, Hold)
    assert isinstance(own, Hold)
    assert (dapr.key, dapr.then.status, dapr.then.grpc_code) == ("peer:ghost.shop", 500, 2)
    assert b"ERR_DIRECT_INVOKE" in dapr.then.body
    assert (own.then.status, own.then.grpc_code) == (404, 5)


@pytest.mark.parametrize("site", [b"cross-site", b"same-site"])
@pytest.mark.parametrize(
    "target", ["/v1.0/invoke/cart/method/delete?id=1", "http://cart/x", "/v1.0/metadata"], ids=str
)
def test_page_of_another_site_may_not_even_get(site: bytes, target: str) -> None:
    """An image or a link carries no Origin: what a browser says of the site does."""
    one = head(target, headers=((b"sec-fetch-site", site),))
    assert refused(decide(one)).cause is Cause.FORBIDDEN_ORIGIN


@pytest.mark.parametrize("site", [b"none", b"same-origin"])
def test_address_typed_into_a_browser_passes(site: bytes) -> None:
    one = head("/v1.0/invoke/cart/method/x", headers=((b"sec-fetch-site", site),))
    assert cluster(decide(one)) == "peer:cart.shop"


def test_page_of_another_site_on_an_own_port_is_refused_and_any_origin_lets_it_in() -> None:
    one = head("/x", listener="own:cart", headers=((b"sec-fetch-site", b"cross-site"),))
    assert refused(decide(one)).cause is Cause.FORBIDDEN_ORIGIN
    assert cluster(decide(one, browsers=Browsers(origins=("*",)))) == "peer:cart.shop"


def test_page_of_an_allowed_origin_passes_whatever_its_site() -> None:
    headers = ((b"origin", b"http://dev.example"), (b"sec-fetch-site", b"cross-site"))
    one = head("/v1.0/invoke/cart/method/x", headers=headers)
    assert cluster(decide(one, browsers=Browsers(origins=("http://dev.example",)))) == "peer:cart.shop"


def test_allowed_origin_passes() -> None:
    one = head("/v1.0/invoke/cart/method/x", headers=((b"origin", b"http://dev.example:3000"),))
    assert cluster(decide(one, browsers=Browsers(origins=("http://*.example:3000",)))) == "peer:cart.shop"


def test_token_is_demanded_but_never_a_key() -> None:
    pushed = tables(token=b"secret")
    decider = outbound(token_required=True)
    without = decider.decide(asking(head("/v1.0/invoke/cart/method/x"), pushed))
    wrong = decider.decide(
        asking(head("/v1.0/invoke/cart/method/x", headers=((b"dapr-api-token", b"x"),)), pushed)
    )
    asked = asking(head("/v1.0/invoke/cart/method/x", headers=((b"dapr-api-token", b"secret"),)), pushed)
    right = decider.decide(asked)
    assert refused(without).status == refused(wrong).status == 401
    assert isinstance(right, Plan)
    assert "secret" not in repr(asked.key)
    assert cluster(decider.decide(asking(head("/v1.0/healthz"), pushed))) == "local-api"


@pytest.mark.parametrize(
    "headers",
    [
        basic("user:s3cret"),
        basic("dapr-app-id:a:s3cret"),
        basic("s3cret"),
        ((b"authorization", b"Bearer s3cret"),),
        ((b"authorization", b"Basic s3cret!"),),
    ],
)
def test_credentials_that_name_no_app_are_forwarded_and_never_a_key(headers: Headers) -> None:
    asked = asking(head("/v1.0/invoke/cart/method/items", headers=headers))
    plan = outbound().decide(asked)
    assert isinstance(plan, Plan)
    assert "s3cret" not in repr(asked.key)
    assert not any(edit.name == b"authorization" for edit in plan.routes[0].edits)


def test_credentials_that_name_the_app_stay_here() -> None:
    plan = decide(head("/items", headers=basic("dapr-app-id:cart")))
    assert isinstance(plan, Plan)
    assert Edit(op=Op.REMOVE, name=b"authorization") in plan.routes[0].edits


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
    decider = outbound()
    first = asking(head("/v1.0/invoke/cart/method/orders/1"))
    second = asking(head("/v1.0/invoke/cart/method/orders/2"))
    assert isinstance(decider.decide(first), Plan)
    assert isinstance(decider.decide(second), Plan)
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
    assert all(Cause.RESET_EARLY not in policy.on for policy in post.retries)
    assert all(policy.http_codes == frozenset() for policy in post.retries)
    stream = decide(head("/v1.0/invoke/cart/method/x", method="POST", framing="stream"))
    assert isinstance(stream, Plan)
    assert stream.retries == ()


def test_written_retry_does_what_it_says() -> None:
    rules = ResiliencyRules(
        targets={
            "cart": TargetRules(timeout_s=0.3, retry=RetryRule(name="few", max_retries=2), builtin_retry=None)
        }
    )
    plan = decide(head("/v1.0/invoke/cart/method/x"), resiliency=rules)
    assert isinstance(plan, Plan)
    assert plan.attempt_s == 0.3
    assert plan.retries[0].attempts == 3
    assert plan.retries[0].http_codes is None


@pytest.mark.parametrize(
    ("one", "is_told"),
    [
        (head("/v1.0/invoke/web/method/x"), False),
        (head("/x", headers=((b"dapr-app-id", b"web"),)), False),
        (head("/shop.WebService/Get", **GRPC | {"headers": ((b"dapr-app-id", b"web"),)}), False),
        (head("/x", authority="web.localhost:3500"), True),
        (head("http://web/x", authority="web"), True),
        (head("/shop.WebService/Get", **GRPC), True),
    ],
    ids=str,
)
def test_app_that_calls_itself_is_told_so_but_not_on_daprs_surface(one: RequestHead, is_told: bool) -> None:
    plan = decide(one, app=replace(APP, protocol="h2c"))
    assert isinstance(plan, Plan), plan
    told = {edit.name for edit in plan.routes[0].edits if edit.op is Op.SET}
    names = {b"dapr-caller-app-id", b"dapr-caller-namespace", b"dapr-callee-app-id"}
    assert told == (names if is_told else set())


def test_self_call_to_an_unhealthy_app_is_refused() -> None:
    reply = refused(decide(head("/v1.0/invoke/web/method/x"), app=replace(APP, healthy=False)))
    assert reply.cause is Cause.APP_UNHEALTHY


@pytest.mark.parametrize(
    ("one", "cause"),
    [
        (head("/v1.0/invoke/cart/method/x", headers=((b"dapr-app-id", b""),)), Cause.NO_APP),
        (head("/x", headers=((b"dapr-app-id", b"a" * 300),)), Cause.NO_APP),
        (head("/x", authority="a.b.c.localhost"), Cause.NO_APP),
        (head("/x", authority="user@cart.localhost"), Cause.NO_APP),
        (head("/x", authority="e" * 300), Cause.FORBIDDEN_ORIGIN),
        (head("/x", authority="localhost.evil.example"), Cause.FORBIDDEN_ORIGIN),
        (head("http://[::1]/x"), Cause.NO_APP),
        (head("http://10.0.0.1.example:80/x"), Cause.NO_APP),
        (head("/v1.0/invoke/cart%20x/method/x"), Cause.NO_APP),
        (head("/v1.0/invoke//method/x"), Cause.NO_APP),
        (head("/v1.0x"), Cause.NO_APP),
        (head("/v1.0/healthz", method="POST"), Cause.NO_APP),
        (head("/v1.0/shutdown", headers=((b"origin", b"null"),), method="POST"), Cause.FORBIDDEN_ORIGIN),
        (
            head("/x", listener="own:cart", headers=((b"origin", b"http://evil.example"),)),
            Cause.FORBIDDEN_ORIGIN,
        ),
        (head("/x", listener="own:cart", method="CONNECT"), Cause.NO_APP),
        (head("/a/b", **GRPC | {"listener": "own:cart", "path": "/a/b/c"}), Cause.UNSUPPORTED),
    ],
)
def test_what_names_nobody_or_may_not_is_answered_here(one: RequestHead, cause: Cause) -> None:
    assert refused(decide(one)).cause is cause


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (head("http://cart/x", headers=((b"dapr-app-id", b"cart.other"),)), "peer:cart.other"),
        (head("http://cart.localhost/x"), "peer:cart.shop"),
        (head("http://cart.other./x", authority="cart.other.localhost."), "peer:cart.other"),
        (head("/x", authority="cart.localhost", protocol="websocket"), "peer:cart.shop"),
        (head("/v1.0/invoke/cart/method/x", protocol="websocket"), "peer:cart.shop"),
        (head("/x", authority="10.0.0.9:3500", headers=((b"dapr-app-id", b"cart"),)), "peer:cart.shop"),
        (head("/x", authority="[::1]:3500", headers=((b"dapr-app-id", b"cart"),)), "peer:cart.shop"),
        (head("/x", authority="box:3500", headers=((b"dapr-app-id", b" cart "),)), "peer:cart.shop"),
        (head("/v1.0/invoke/cart/method/v1.0/healthz"), "peer:cart.shop"),
        (head("//v1.0//healthz"), "local-api"),
        (head("/v1.0/healthz", listener="own:cart"), "peer:cart.shop"),
        (head("/x.Y/Z", **GRPC | {"listener": "own:cart", "authority": "web.localhost"}), "peer:cart.shop"),
        (head("/x.Y/Z", **GRPC | {"authority": "box:50001", "headers": NAMED}), "peer:cart.shop"),
    ],
)
def test_callee_is_found_in_odd_but_right_requests(one: RequestHead, expected: str) -> None:
    assert cluster(decide(one)) == expected


def plan_of(one: RequestHead, **view: object) -> Plan:
    decision = decide(one, **view)
    assert isinstance(decision, Plan), decision
    return decision


def test_own_surface_forwards_the_target_as_it_came_and_daprs_rewrites_it() -> None:
    rewrites = {
        target: [edit.data for edit in plan_of(one).routes[0].edits if edit.op is Op.DAPR_PATH]
        for target, one in {
            "path": head("/v1.0/invoke/cart/method/x"),
            "header": head("/x", headers=NAMED),
            "authority": head("/x", authority="cart.localhost"),
            "port": head("/x", listener="own:cart"),
            "proxy": head("http://cart/x"),
        }.items()
    }
    assert rewrites == {"path": [b"method"], "header": [b"whole"], "authority": [], "port": [], "proxy": []}


def test_forwarded_headers_and_the_surface_travel_on_daprs_http_calls_only() -> None:
    added = (Edit(op=Op.ADD, name=b"x-forwarded-for", data=b"10.0.0.1"),)
    surface = Edit(op=Op.SET, name=b"postern-surface", data=b"dapr")
    dapr = plan_of(head("/v1.0/invoke/cart/method/x"), forwarded=added).routes[0].edits
    own = plan_of(head("/x", authority="cart.localhost"), forwarded=added).routes[0].edits
    grpc = plan_of(head("/x.Y/Z", **GRPC | {"headers": NAMED}), forwarded=added).routes[0].edits
    assert added[0] in dapr
    assert added[0] not in (*own, *grpc)
    assert (surface in dapr, surface in own, surface in grpc) == (True, False, True)


@pytest.mark.parametrize("headers", [(), ((b"dapr-app-id", b"cart"),)], ids=["service", "header"])
def test_grpc_path_that_is_not_exactly_service_and_method_is_refused(
    headers: tuple[tuple[bytes, bytes], ...],
) -> None:
    for path in (
        "/shop.CartService/Get/",
        "/shop.CartService/../Get",
        "/shop.CartService/..",
        "//shop.CartService/Get",
    ):
        assert refused(decide(head(path, **GRPC | {"headers": headers}))).cause is Cause.UNSUPPORTED


@pytest.mark.parametrize("path", ["//a", "/a/../b", "/a%2Fb", "/a%FF", "/100%25ab", "/a;b", "/a%23%3F%5C"])
def test_path_that_rfc_3986_allows_is_carried(path: str) -> None:
    assert plan_of(head(path, authority="cart.localhost")).labels.dst == "cart"
    assert plan_of(head(f"/v1.0/invoke/cart/method{path}")).labels.dst == "cart"
    assert plan_of(head(path, headers=NAMED)).labels.dst == "cart"


def test_grpc_call_says_what_a_daprd_routes_by() -> None:
    edits = plan_of(head("/shop.CartService/Get", **GRPC)).routes[0].edits
    assert {e.name: e.data for e in edits if e.op is Op.SET} == {
        b"postern-callee": b"cart.shop",
        b"dapr-app-id": b"cart",
        b"dapr-callee-app-id": b"cart",
        b"dapr-caller-app-id": b"web",
    }


@pytest.mark.parametrize("surface", ["dapr", "own"])
def test_http_call_has_a_route_for_a_peer_that_turns_out_to_be_a_daprd(surface: str) -> None:
    asked = (
        head("/v1.0/invoke/cart/method/x") if surface == "dapr" else head("/x", authority="cart.localhost")
    )
    plan = plan_of(asked)
    peer, translator = plan.routes
    assert plan.by_daprd == 1
    assert (peer.weight, translator.cluster, translator.weight, translator.expect) == (
        1,
        "daprd-out",
        0,
        frozenset(),
    )
    assert translator.edits[: len(peer.edits)] == peer.edits
    (told,) = translator.edits[len(peer.edits) :]
    assert (told.op, told.name, told.data) == (Op.SET, b"postern-surface", surface.encode())


def test_other_calls_have_none() -> None:
    for plan in (
        plan_of(head("/shop.CartService/Get", **GRPC)),
        plan_of(head("/x", authority="cart.localhost", protocol="websocket")),
    ):
        assert (len(plan.routes), plan.by_daprd) == (1, None)


def test_envelope_goes_to_the_callee_and_nothing_is_done_to_it_twice() -> None:
    path = "/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream"
    decider = outbound()
    asked = head(path, listener="daprd-out", protocol="grpc", headers=((b"postern-callee", b"cart.shop"),))
    plan = decider.decide_envelope(asking(asked))
    assert isinstance(plan, Plan)
    (route,) = plan.routes
    assert route.cluster == "peer:cart.shop"
    assert route.expect == {"spiffe://public/ns/shop/cart"}
    assert (plan.labels.dst, plan.attempt_s, plan.body_bytes) == ("", None, None)
    assert not {Op.TRACE, Op.DEADLINE} & {edit.op for edit in route.edits}
    gone = head(path, listener="daprd-out", protocol="grpc", headers=((b"postern-callee", b"gone.shop"),))
    reply = decider.decide_envelope(asking(gone))
    assert isinstance(reply, Reply)
    assert (reply.cause, reply.scopes) == (Cause.NO_ENDPOINT, ("name:peer:gone.shop",))


def test_callee_is_expected_in_our_own_trust_domain_and_where_an_access_entry_names_it() -> None:
    one = head("/v1.0/invoke/cart/method/x")
    assert plan_of(one, mtls=False).routes[0].expect == frozenset()
    assert plan_of(one).routes[0].expect == {"spiffe://public/ns/shop/cart"}
    named = {
        Caller(trust_domain=domain, namespace=namespace, app_id=app): CALLER_RULES
        for domain, namespace, app in (("b", "shop", "cart"), ("c", "shop", "other"), ("d", "else", "cart"))
    }
    assert plan_of(one, authorizer=Authorizer(access_rules(callers=named))).routes[0].expect == {
        "spiffe://public/ns/shop/cart",
        "spiffe://b/ns/shop/cart",
    }


def test_peer_is_told_who_calls_where_no_certificate_tells_it() -> None:
    def told(*, mtls: bool) -> list[bool]:
        routes = plan_of(head("/v1.0/invoke/cart/method/x"), mtls=mtls).routes
        return [any(e.op is Op.SET and e.name == b"dapr-caller-app-id" for e in one.edits) for one in routes]

    assert told(mtls=False) == [True, False]  # the translator tells a daprd by itself
    assert told(mtls=True) == [False, False]


def test_plan_dies_with_everything_that_it_rests_on() -> None:
    assert set(plan_of(head("/v1.0/invoke/cart/method/x")).scopes) == {
        *("name:peer:cart.shop", "access", "app", "resiliency", "routes"),
    }


def test_refusal_is_labelled_without_a_callee() -> None:
    assert refused(decide(head("/nothing"))).labels.dst == ""


@pytest.mark.parametrize(
    ("target", "method"), [("/v1.0/metadata", "GET"), ("/v1.0/metadata/x", "PUT"), ("/v1.0/shutdown", "POST")]
)
def test_own_api_wants_the_token_too(target: str, method: str) -> None:
    decider = outbound(token_required=True)
    pushed = tables(token=b"t")
    without = decider.decide(asking(head(target, method=method), pushed))
    assert refused(without).cause is Cause.UNAUTHENTICATED
    right = decider.decide(asking(head(target, method=method, headers=((b"dapr-api-token", b"t"),)), pushed))
    assert cluster(right) == "local-api"


def test_unlearnt_service_of_the_infrastructure_is_answered_at_once() -> None:
    found = refused(decide(head("/grpc.channelz.v1.Channelz/GetServers", **GRPC), learning_for_s=2.0))
    assert found.cause is Cause.UNSUPPORTED


def test_page_of_an_allowed_origin_may_read_that_a_gate_before_a_refusal_was_shut() -> None:
    handlers = (RateLimit(name="slow", per_s=1.0), RouterChecker(name="router", rule="^/none"))
    pipeline = Pipeline("http", HTTP_PIPELINE, handlers)
    decider = outbound(pipeline=pipeline, browsers=Browsers(origins=("http://dev.example",)))
    asked = asking(head("/v1.0/invoke/cart/method/x", headers=((b"origin", b"http://dev.example"),)))
    found = refused(decider.decide(asked))
    assert (found.status, found.gates) == (400, ("http:0:slow",))
    for headers in (found.headers, found.local_replies[Cause.RATE].headers):
        told = dict(headers)
        assert told[b"access-control-allow-origin"] == b"http://dev.example"
        assert (told[b"vary"], b"access-control-expose-headers" in told) == (b"Origin", True)


def test_only_allowed_hosts_lets_another_host_in() -> None:
    for one in (
        head("/v1.0/invoke/cart/method/x", authority="anything.example"),
        head("/x", listener="own:cart", authority="anything.example"),
        head("/shop.CartService/Get", **GRPC | {"authority": "anything.example"}),
    ):
        assert b"--allowed-hosts=anything.example" in refused(decide(one)).body
        assert refused(decide(one, browsers=Browsers(origins=("*",)))).cause is Cause.FORBIDDEN_ORIGIN
        assert cluster(decide(one, browsers=Browsers(hosts=("*.example",)))) == "peer:cart.shop"


def test_nobody_is_a_stranger_on_a_socket() -> None:
    headers = ((b"origin", b"null"),)
    one = head("/v1.0/invoke/cart/method/x", authority="anything.example", headers=headers)
    assert cluster(decide(one, sockets=frozenset({"http"}))) == "peer:cart.shop"


def test_call_of_the_own_app_without_a_verb_is_told_so_before_any_rule_denies_it() -> None:
    own = Caller(trust_domain="public", namespace="shop", app_id="web")
    denying = Authorizer(access_rules(is_off=False, callers={own: CALLER_RULES}))
    one = head("/v1.0/invoke/web/method/x", method=NO_VERB)
    refused = decide(one, authorizer=denying)
    assert isinstance(refused, Reply)
    assert (refused.cause, "http_extension.verb" in refused.grpc_message) == (Cause.UNSUPPORTED, True)
    denied = decide(replace(one, method="GET"), authorizer=denying)
    assert isinstance(denied, Reply)
    assert denied.cause is Cause.DENIED
