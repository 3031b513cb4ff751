"""What `postern explain` is told: the request as the deciders see it, and the decision with what it read."""

import pytest
from msgspec.structs import replace

from policies.reloading.loading import PolicySources, load
from policies.rules.http_endpoints import HttpEndpoint, parse_url
from policies.rules.pipelines import Pipelines, Uppercase
from policies.rules.resiliency import BreakerRule, ResiliencyRules, RetryRule, TargetRules
from proxy.contract.breakers import BreakerGlance, Counts
from proxy.control.explaining import Explainer, inbound_head, outbound_head
from tests.unit.proxy.control.test_plane import ONE, Make, found, make  # noqa: F401 - a fixture

LISTENERS = {3500: "http", 50001: "grpc", 4000: "own:cart"}
PEER = "spiffe://public/ns/default/cart"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/v1.0/invoke/cart/method/x", ("http", "localhost", "/v1.0/invoke/cart/method/x", "origin")),
        ("http://localhost:3500/x?y", ("http", "localhost:3500", "/x", "origin")),
        ("http://Cart.localhost/x", ("http", "cart.localhost", "/x", "origin")),
        ("http://localhost:4000/x", ("own:cart", "localhost:4000", "/x", "origin")),
        ("http://cart/x", ("http", "cart", "/x", "absolute")),
        ("http://localhost", ("http", "localhost", "/", "origin")),
    ],
)
def test_url_is_read_as_a_client_would_send_it(url: str, expected: tuple[str, str, str, str]) -> None:
    head = outbound_head("GET", url, (), is_grpc=False, listeners=LISTENERS)
    assert (head.listener, head.authority, head.path, head.form) == expected


def test_user_information_becomes_credentials_and_an_upgrade_a_websocket() -> None:
    url = "http://dapr-app-id:cart@localhost:3500/x"
    head = outbound_head("GET", url, ((b"upgrade", b"WebSocket"),), is_grpc=False, listeners=LISTENERS)
    assert head.get(b"authorization") == b"Basic ZGFwci1hcHAtaWQ6Y2FydA=="
    assert (head.protocol, head.authority) == ("websocket", "localhost:3500")


def test_grpc_call_is_a_stream_to_the_grpc_port() -> None:
    head = outbound_head("GET", "/shop.Cart/Get", (), is_grpc=True, listeners=LISTENERS)
    assert (head.protocol, head.method, head.framing, head.listener) == ("grpc", "POST", "stream", "grpc")


@pytest.mark.parametrize(
    ("method", "url", "fault"),
    [
        ("GET", "cart/x", "expected /path or http://host"),
        ("GET", "https://cart/x", "expected /path or http://host"),
        ("G T", "/x", "not an HTTP method"),
        ("GET", "/ä", "beyond ASCII"),
        ("GET", "/a b", "must be escaped"),
    ],
)
def test_what_no_client_can_send_is_refused_with_what_to_write(method: str, url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        outbound_head(method, url, (), is_grpc=False, listeners=LISTENERS)


def test_call_of_a_known_app_tells_route_and_identity_and_what_was_read(make: Make) -> None:  # noqa: F811
    world = make()
    world.control.names_changed(found(ONE))
    told = Explainer(world.control, lambda: LISTENERS).explain(
        {"method": ["GET"], "url": ["/v1.0/invoke/cart/method/x"], "header": ["dapr-api-token: s3cret"]}
    )
    assert (told["verdict"], told["namedBy"]) == ("forwarded", "path")
    assert told["callee"] == {"appId": "cart", "namespace": "default"}
    (route,) = told["routes"]
    assert (route["cluster"], route["expect"]) == ("peer:cart.default", [PEER])
    assert told["sends"]["target"] == "/x"
    assert {"facet": "path", "table": "paths of the API", "value": ["invoke", "cart"]} in told["read"]
    assert "s3cret" not in str(told)


def test_circuit_breaker_that_would_be_asked_is_told_with_its_state(make: Make) -> None:  # noqa: F811
    world = make()
    world.control.names_changed(found(ONE))
    guard = BreakerRule(name="guard", trip=(("bool", 1),), owner="cart")
    rules = ResiliencyRules(targets={"cart": TargetRules(breaker=guard)})
    before = load(PolicySources(own_app_id="web", own_namespace="default"))
    world.control.policy_changed(replace(before, resiliency=rules))
    asked = {"method": ["GET"], "url": ["/v1.0/invoke/cart/method//x?y"]}
    explain = Explainer(world.control, lambda: LISTENERS).explain
    assert explain(asked)["breaker"] == {"target": "cart", "method": "/x"}
    world.engine.glances = (BreakerGlance("cart", "cart", "/x", "open", Counts(), 2.0),)
    told = explain(asked)["breaker"]
    assert (told["policy"], told["state"], told["probesInS"]) == ("guard", "open", 2.0)
    world.control.policy_changed(before)
    assert explain(asked)["breaker"] is None


def test_what_is_not_retried_and_the_budget_are_told(make: Make) -> None:  # noqa: F811
    world = make()
    world.control.names_changed(found(ONE))
    before = load(PolicySources(own_app_id="web", own_namespace="default"))
    rules = ResiliencyRules(targets={"cart": TargetRules(retry=RetryRule(name="few"))})
    world.control.policy_changed(replace(before, resiliency=rules))
    explain = Explainer(world.control, lambda: LISTENERS).explain
    told = explain(
        {"method": ["POST"], "url": ["/v1.0/invoke/cart/method/x"], "header": ["content-length: 1"]}
    )
    assert [one["why"] for one in told["notRetried"]] == [
        "not-covered",
        "body-not-kept",
        "denied",
        "response-begun",
    ]
    assert told["budget"] == {"target": "peer:cart.default", "ratio": 0.2, "min_per_s": 10.0, "ttl_s": 10.0}
    chunked = {
        "method": ["POST"],
        "url": ["/v1.0/invoke/cart/method/x"],
        "header": ["transfer-encoding: chunked"],
    }
    told = explain(chunked)
    assert (told["notRetried"], told["budget"]) == ([{"why": "streaming", "what": "any failure"}], None)


def test_bodies_that_go_on_in_upper_case_are_told(make: Make) -> None:  # noqa: F811
    world = make()
    world.control.names_changed(found(ONE))
    loud = Pipelines(http=(Uppercase(name="up", request=False, response=True),))
    before = load(PolicySources(own_app_id="web", own_namespace="default"))
    world.control.policy_changed(replace(before, pipelines=loud))
    told = Explainer(world.control, lambda: LISTENERS).explain(
        {"method": ["GET"], "url": ["/v1.0/invoke/cart/method/x"]}
    )
    assert told["upperCase"] == {"request": False, "response": True}


def test_headers_are_sent_on_as_engines_send_them(make: Make) -> None:  # noqa: F811
    world = make()
    world.control.names_changed(found(ONE))
    given = ["Connection: x-hop", "X-Hop: 1", "X-Kept: 2", "dapr_caller_app_id: admin"]
    told = Explainer(world.control, lambda: LISTENERS).explain(
        {"method": ["GET"], "url": ["/v1.0/invoke/cart/method/x"], "header": given}
    )
    names = {header.partition(":")[0] for header in told["sends"]["headers"]}
    assert "x-kept" in names
    assert not names & {"connection", "x-hop", "dapr_caller_app_id"}


def test_unknown_name_is_held_and_says_what_was_tried(make: Make) -> None:  # noqa: F811
    told = Explainer(make().control, lambda: LISTENERS).explain(
        {"method": ["GET"], "url": ["http://ghost.localhost/x"]}
    )
    assert (told["verdict"], told["namedBy"], told["answer"]["cause"]) == ("held", "authority", "no-app")
    assert "ghost.default" in told["answer"]["message"]


def test_request_of_a_peer_is_decided_by_its_certificate(make: Make) -> None:  # noqa: F811
    explainer = Explainer(make().control, lambda: LISTENERS)
    asked = {"method": ["GET"], "url": ["/x"], "header": ["postern-callee: web.default"]}
    told = explainer.explain({**asked, "peer": [PEER]})
    assert (told["direction"], told["verdict"], told["request"]["peer"]) == ("inbound", "forwarded", PEER)
    assert "reason=" in told["access"]
    other = explainer.explain({**asked, "header": ["postern-callee: shop.default"], "peer": [PEER]})
    assert (other["verdict"], other["answer"]["cause"]) == ("answered", "misdirected")


def test_headers_of_an_endpoint_are_not_shown(make: Make) -> None:  # noqa: F811
    world = make()
    pay = HttpEndpoint(name="pay", url=parse_url("http://10.0.0.1/v1"), headers=((b"x-key", b"hidden"),))
    world.control.policy_changed(replace(world.policy, http_endpoints={"pay": pay}))
    told = Explainer(world.control, lambda: LISTENERS).explain(
        {"method": ["GET"], "url": ["/v1.0/invoke/pay/method/x"]}
    )
    assert (told["verdict"], told["callee"]) == ("forwarded", {"appId": "pay", "namespace": ""})
    assert (told["sends"]["target"], told["routes"][0]["endpoints"]) == (
        "/v1/x",
        [{"address": "10.0.0.1:80", "source": "dns", "ejectedForS": 0.0, "ejectedAs": ""}],
    )
    assert "hidden" not in str(told)


def test_header_without_a_colon_is_refused(make: Make) -> None:  # noqa: F811
    with pytest.raises(ValueError, match="'Name: value'"):
        Explainer(make().control, lambda: LISTENERS).explain(
            {"method": ["GET"], "url": ["/"], "header": ["x"]}
        )


def test_head_of_a_peer_in_the_clear_proves_nobody() -> None:
    assert inbound_head("GET", "/x", (), is_grpc=False, peer="").peer is None


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ([], None),
        ([f"traceparent: 00-{'a' * 32}-{'b' * 16}-01"], {"traceId": "a" * 32, "sampled": True}),
        (["traceparent: nonsense"], None),
    ],
)
def test_trace_that_a_call_goes_on_with_is_told(make: Make, headers: list[str], trace: object) -> None:  # noqa: F811
    asked = {"method": ["GET"], "url": ["/v1.0/invoke/cart/method/x"], "header": headers}
    assert Explainer(make().control, lambda: LISTENERS).explain(asked)["trace"] == trace


def test_trace_that_only_b3_names_is_not_told_where_it_is_not_read(make: Make) -> None:  # noqa: F811
    b3 = "b3: 4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"
    asked = {"method": ["GET"], "url": ["/v1.0/invoke/cart/method/x"], "header": [b3]}
    control = make().control
    assert Explainer(control, lambda: LISTENERS).explain(asked)["trace"] is not None
    assert Explainer(control, lambda: LISTENERS, lambda: False).explain(asked)["trace"] is None
