"""Plans that leave the mesh: what goes along, and who goes before whom."""

import random

import pytest
from msgspec.structs import replace

from policies.rules.http_endpoints import HttpEndpoint, parse_url
from policies.rules.resiliency import BreakerRule, ResiliencyRules, RetryRule, TargetRules
from proxy.contract.breakers import BreakerUse
from proxy.contract.head import Header, RequestHead
from proxy.contract.plan import Cause, Decision, Hold, Op, Plan, Reply
from proxy.deciding.egress import Egress
from proxy.deciding.external import endpoint_key, endpoint_of, url_of
from proxy.wire.edits import compile_edits, edit_headers, target_of
from tests.unit.proxy.heads import APP, asking, head, outbound

PAY = HttpEndpoint(name="cart", url=parse_url("https://pay.example/v1"), headers=((b"x-key", b"ours"),))
KEY = "http-endpoint:cart"
URL = "url:https://api.example:8443"
BY_URL = head("/v1.0/invoke/https://api.example:8443/base/method/items")


def decide(one: RequestHead, *known: str, **view: object) -> Decision:
    made = {
        "http_endpoints": {"cart": PAY},
        "egress": Egress(("*",)),
        "known": frozenset((*known, "peer:cart.shop")),
    }
    return outbound(**{**made, **view}).decide(asking(one))


def plan(one: RequestHead, **view: object) -> Plan:
    found = decide(one, KEY, URL, **view)
    assert isinstance(found, Plan), found
    return found


@pytest.mark.parametrize(
    ("one", "target"),
    [
        (head("/v1.0/invoke/cart/method/items?x=1"), b"/v1/items?x=1"),
        (head("/v1.0/invoke/cart.other/method/items"), b"/v1/items"),
        (head("/a/../items", headers=((b"dapr-app-id", b"cart"),)), b"/v1/items"),
        (head("/a/../items", authority="cart.localhost"), b"/v1/items"),
        (head("http://cart/../items"), b"/v1/items"),
        (head("/items", listener="own:cart", authority="localhost:7001"), b"/v1/items"),
        (BY_URL, b"/base/items"),
    ],
)
def test_every_name_of_an_endpoint_leads_below_its_base(one: RequestHead, target: bytes) -> None:
    (route,) = plan(one).routes
    assert route.cluster == (URL if one is BY_URL else KEY)
    assert target_of(compile_edits(route.edits), one) == target


def test_endpoint_goes_before_an_app_of_its_name_and_before_our_own() -> None:
    assert plan(head("/v1.0/invoke/cart/method/x")).routes[0].cluster == KEY
    own = {"web": replace(PAY, name="web")}
    found = decide(head("/v1.0/invoke/web/method/x"), http_endpoints=own)
    assert isinstance(found, Hold)
    assert found.key == "http-endpoint:web"


def test_grpc_calls_the_app_of_that_name() -> None:
    one = head(
        "/x.Y/Z",
        protocol="grpc",
        framing="stream",
        method="POST",
        listener="grpc",
        headers=((b"dapr-app-id", b"cart"),),
    )
    found = decide(one)
    assert isinstance(found, Plan)
    assert found.routes[0].cluster == "peer:cart.shop"


def test_nothing_of_ours_goes_along() -> None:
    sent: tuple[Header, ...] = (
        *(
            (b"dapr-api-token", b"t"),
            (b"dapr-caller-app-id", b"x"),
            (b"postern-callee", b"x"),
            (b"dapr-x", b"x"),
        ),
        *((b"connection", b"x-hop"), (b"x-hop", b"1"), (b"x-key", b"theirs"), (b"cookie", b"kept")),
    )
    app = replace(APP, token=b"of-the-app")
    (route,) = plan(head("/v1.0/invoke/cart/method/x"), app=app, forwarded=()).routes
    compiled = compile_edits(route.edits)
    assert edit_headers(compiled, sent) == [(b"cookie", b"kept"), (b"x-key", b"ours")]
    assert (compiled.authority, compiled.trace) == (b"pay.example", True)
    assert route.expect == frozenset()


def test_answer_cannot_pass_for_the_proxys_and_its_trace_is_told() -> None:
    ops = {(edit.op, edit.name) for edit in plan(BY_URL).reply_edits}
    assert {(Op.HOP_BY_HOP, b""), (Op.REMOVE_PREFIX, b"postern-"), (Op.TELL_TRACE, b"")} <= ops


def test_host_without_addresses_is_waited_for() -> None:
    found = decide(BY_URL)
    assert isinstance(found, Hold)
    assert (found.key, found.then.cause, found.then.status) == (URL, Cause.NO_ENDPOINT, 500)
    assert found.then.labels.dst == "https://api.example:8443"


@pytest.mark.parametrize(
    ("target", "cause", "status"),
    [
        ("/v1.0/invoke/http://u:p@h/method/x", Cause.BAD_REQUEST, 400),
        ("/v1.0/invoke/http://h%0d%0ax/method/x", Cause.BAD_REQUEST, 400),
        ("/v1.0/invoke/http://other.example/method/x", Cause.DENIED, 403),
    ],
)
def test_url_that_is_bad_or_not_allowed_is_refused(target: str, cause: Cause, status: int) -> None:
    one = head("/")
    path, _, _ = target.partition("?")
    found = decide(replace(one, path=path, target=path.encode()), egress=Egress(("api.example",)))
    assert isinstance(found, Reply)
    assert (found.cause, found.status) == (cause, status)


def test_policies_go_by_the_spelling_and_the_built_in_retry_is_for_peers() -> None:
    retry = RetryRule(name="two", max_retries=2, duration_s=0.01)
    rules = ResiliencyRules(
        targets={
            "cart": TargetRules(timeout_s=2.0, retry=retry, resource=("r", "")),
            "https://api.example:8443/base": TargetRules(timeout_s=3.0),
        }
    )
    named = plan(head("/v1.0/invoke/cart/method/x"), resiliency=rules)
    assert (named.attempt_s, named.retries[0].attempts) == (2.0, 3)
    assert named.labels.policies == (("r", "", "timeout", "app_cart"), ("r", "", "retry", "app_cart"))
    assert plan(BY_URL, resiliency=rules).attempt_s == 3.0
    assert all(policy.is_inner for policy in plan(BY_URL).retries)
    causes = [policy.on for policy in plan(BY_URL).retries]
    assert causes == [{Cause.CONNECT}, {Cause.REFUSED}, {Cause.RESET_EARLY}]


def test_breaker_of_an_endpoint_is_one_and_a_url_has_one_for_each_path() -> None:
    rule = BreakerRule(name="guard", trip=(("bool", 1),))
    rules = ResiliencyRules(default=TargetRules(breaker=rule, source="default"))
    by_url, named = plan(BY_URL, resiliency=rules), plan(head("/v1.0/invoke/cart/method/x"), resiliency=rules)
    url = "https://api.example:8443/base"
    assert by_url.breaker == BreakerUse(name="", target=url, form="method")
    assert named.breaker == BreakerUse(name="", target="cart", form="method", method=str(PAY.url))


def test_connection_is_tried_thrice_without_a_policy() -> None:
    redial = plan(BY_URL, random=lambda: random.Random(1)).retries[0]
    assert len(list(redial.delays_s())) == 2  # type: ignore[call-overload]


def test_keys_are_read_back() -> None:
    assert endpoint_of(endpoint_key("pay")) == "pay"
    assert endpoint_of(URL) is None
    assert str(url_of(URL)) == "https://api.example:8443"
    assert url_of("peer:a.b") is None
