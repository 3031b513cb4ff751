"""Names, kinds, attributes, status and events of spans."""

import json

import pytest

from telemetry.report import Call
from telemetry.spans import DEFAULT_FORM, PATH_LIMIT, UNREADABLE, Span, SpanForm, method_of, span_of
from tests.unit.telemetry.building import BEGAN, a_call, a_grpc_call, a_span, an_attempt


def made(call: Call, form: SpanForm = DEFAULT_FORM, route: str = "") -> Span:
    span = span_of(call, "cart", form, route)
    assert span is not None
    return span


def test_span_of_http_caller_has_daprs_name_kind_and_attributes() -> None:
    span = made(a_call())
    attributes = dict(span.attributes)
    assert (span.name, span.kind, span.service) == ("CallLocal/checkout/orders/1", "CLIENT", "cart")
    assert attributes == {
        "rpc.service": "ServiceInvocation",
        "net.peer.name": "checkout",
        "peer.service": "checkout",
        "dapr.protocol": "http",
        "dapr.api": "GET /v1.0/invoke/checkout/method/orders/1",
        "dapr.status_code": "200",
        "http.request.method": "GET",
        "http.response.status_code": "200",
        "url.full": "/v1.0/invoke/checkout/method/orders/1",
        "url.path": "/orders/1",
        "server.address": "10.0.0.7",
        "server.port": "5000",
    }
    assert (span.remote_service, span.remote_host, span.remote_port) == ("checkout", "10.0.0.7", 5000)
    assert span.error is None
    assert span.events == ()


def test_span_of_http_callee_names_the_proven_caller_as_remote() -> None:
    span = made(a_call(direction="inbound", peer_address="10.0.0.3", endpoint="127.0.0.1:8080"))
    attributes = dict(span.attributes)
    assert (span.kind, span.name) == ("SERVER", "CallLocal/checkout/orders/1")
    assert (span.remote_service, span.remote_host, span.remote_port) == ("cart", "10.0.0.3", 0)
    assert attributes["dapr.invoke_method"] == "orders/1"
    assert attributes["dapr.protocol"] == "grpc"
    assert attributes["dapr.api"] == "/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream"
    assert attributes["client.address"] == "10.0.0.3"


def test_span_of_own_surface_has_the_same_name_but_no_dapr_api() -> None:
    attributes = dict(made(a_call(surface="own")).attributes)
    assert made(a_call(surface="own")).name == "CallLocal/checkout/orders/1"
    assert attributes["url.full"] == "/orders/1"
    assert "dapr.api" not in attributes


def test_span_of_grpc_is_named_by_its_method_on_both_sides() -> None:
    client, server = made(a_grpc_call()), made(a_grpc_call(direction="inbound"))
    assert (client.name, client.kind) == ("/shop.Checkout/Pay", "CLIENT")
    assert (server.name, server.kind) == ("/shop.Checkout/Pay", "SERVER")
    assert dict(client.attributes)["dapr-app-id"] == "checkout"
    assert dict(server.attributes)["dapr-caller-app-id"] == "cart"
    assert dict(server.attributes)["dapr-callee-app-id"] == "checkout"
    assert dict(client.attributes)["rpc.method"] == "shop.Checkout/Pay"
    assert dict(client.attributes)["rpc.response.status_code"] == "OK"
    assert "rpc.service" not in dict(client.attributes)


def test_span_of_websocket_is_named_as_a_get() -> None:
    span = made(a_call(protocol="websocket", status=101))
    assert span.name == "CallLocal/checkout/orders/1"
    assert dict(span.attributes)["http.request.method"] == "GET"
    assert span.error is None


@pytest.mark.parametrize("path", ["/healthz", "/v1.0/healthz/outbound"])
def test_span_of_probe_is_none(path: str) -> None:
    assert span_of(a_call(path=path), "cart") is None


@pytest.mark.parametrize(
    ("direction", "status", "error"),
    [
        ("outbound", 399, None),
        ("outbound", 404, "Code(404): Not Found"),
        ("outbound", 500, "Code(500): Internal Server Error"),
        ("inbound", 404, None),
        ("inbound", 500, "Code(500): Internal Server Error"),
        ("inbound", 599, "Code(599): Unknown"),
    ],
)
def test_span_of_http_status_decides_the_error(direction: str, status: int, error: str | None) -> None:
    span = made(a_call(direction=direction, status=status))
    assert span.error == error
    assert dict(span.attributes).get("error.type") == (None if error is None else str(status))


def test_span_of_grpc_error_names_the_code() -> None:
    span = made(a_grpc_call(grpc_code=5, direction="inbound"))
    assert span.error == "Code(5): NOT_FOUND"
    assert dict(span.attributes)["error.type"] == "NOT_FOUND"
    assert made(a_grpc_call(grpc_code=99)).error == "Code(99): 99"


def test_span_of_failure_made_by_a_proxy_is_error_type_and_event() -> None:
    span = made(a_call(status=504, cause="timeout", head_ns=0))
    assert dict(span.attributes)["error.type"] == "timeout"
    assert span.error == "Code(504): Gateway Timeout (timeout)"
    assert span.events == ((BEGAN + 2_000_000, "timeout"),)


def test_span_of_call_without_any_answer_is_an_error() -> None:
    span = made(a_call(status=0, cause="caller-left", head_ns=0))
    assert span.error == "Code(0): no response (caller-left)"
    assert "http.response.status_code" not in dict(span.attributes)


def test_span_of_retries_are_events_after_the_first_attempt() -> None:
    attempts = (
        an_attempt(status=503, cause="status"),
        an_attempt(started_ns=BEGAN + 101_000_000, ended_ns=BEGAN + 102_000_000, cause="connect", status=0),
        an_attempt(started_ns=BEGAN + 152_000_000, endpoint="10.0.0.8:5000"),
    )
    span = made(a_call(attempts=attempts))
    assert span.events == (
        (BEGAN + 101_000_000, "retry attempt=2 reason=503 delay_ms=100 endpoint=10.0.0.7:5000"),
        (BEGAN + 152_000_000, "retry attempt=3 reason=connect delay_ms=50 endpoint=10.0.0.8:5000"),
    )
    assert dict(span.attributes)["http.request.resend_count"] == "2"
    assert span.error is None


def test_span_of_grpc_retry_names_the_code_it_met() -> None:
    attempts = (an_attempt(status=200, grpc_code=14), an_attempt(started_ns=BEGAN))
    ((_, text),) = made(a_grpc_call(attempts=attempts)).events
    assert text == "retry attempt=2 reason=UNAVAILABLE delay_ms=0 endpoint=10.0.0.7:5000"


def test_span_of_http_caller_ends_with_the_head_and_others_with_the_call() -> None:
    assert made(a_call()).end_ns == BEGAN + 1_500_000
    assert made(a_call(direction="inbound")).end_ns == BEGAN + 2_000_000
    assert made(a_grpc_call()).end_ns == BEGAN + 2_000_000
    assert made(a_call(cause="reset-late")).end_ns == BEGAN + 2_000_000


def test_span_of_decision_is_an_attribute() -> None:
    span = made(a_call(direction="inbound", decision="policy=cart rule=/orders reason=rule"))
    assert dict(span.attributes)["postern.decision"] == "policy=cart rule=/orders reason=rule"


def test_span_of_very_long_path_is_cut_visibly() -> None:
    span = made(a_call(path="/" + "x" * 100_000))
    assert span.name.endswith("…")
    assert max(len(value) for _, value in span.attributes) < PATH_LIMIT + 100


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/a/b", "a/b"),
        ("/", ""),
        ("", ""),
        ("a", "a"),
        ("/v1.0/invoke/b/method/x/y", "x/y"),
        ("/v1.0/invoke/b", "v1.0/invoke/b"),
    ],
)
def test_method_of_path_forms(path: str, method: str) -> None:
    assert method_of(path) == method


def test_as_dict_is_zipkins_json_with_names_as_they_are() -> None:
    found = json.loads(json.dumps(a_span(service="Cart", events=((BEGAN, "retry"),), error="bad").as_dict()))
    assert found["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (found["id"], "parentId" in found) == ("00000000000000a1", False)
    assert (found["name"], found["localEndpoint"]) == ("CallLocal/checkout/Orders", {"serviceName": "Cart"})
    assert found["remoteEndpoint"] == {"serviceName": "checkout", "ipv4": "10.0.0.7", "port": 5000}
    assert found["annotations"] == [{"timestamp": BEGAN // 1000, "value": "retry"}]
    assert (found["timestamp"], found["duration"]) == (BEGAN // 1000, 2000)
    assert found["tags"]["error"] == "bad"


def waits(**changes: object) -> list[str]:
    span = span_of(a_call(**changes), "cart")
    assert span is not None
    return [text for _, text in span.events]


def test_waits_are_events_where_they_took_long() -> None:
    ms = 1_000_000
    tried = (an_attempt(started_ns=BEGAN + 40 * ms, queue_ns=5 * ms, sent_ns=BEGAN + 52 * ms),)
    assert waits(tried=tried, resolve_ns=30 * ms, queue_ns=9 * ms) == [
        "resolve delay_ms=30",
        "queue delay_ms=14",
        "connect delay_ms=7 endpoint=10.0.0.7:5000",
    ]
    assert waits(tried=(an_attempt(started_ns=BEGAN + ms, sent_ns=BEGAN + 2 * ms),)) == []
    assert waits(ended_ns=BEGAN + 90 * ms) == []


def test_call_that_was_only_held_says_how_long() -> None:
    ms = 1_000_000
    found = waits(cause="no-app", status=404, resolve_ns=2200 * ms, ended_ns=BEGAN + 2200 * ms)
    assert found == ["resolve delay_ms=2200", "no-app"]
    found = waits(cause="shed", status=503, queue_ns=7 * ms, ended_ns=BEGAN + 8 * ms)
    assert found == ["queue delay_ms=7", "shed"]
    assert waits(cause="denied", status=403) == ["denied"]


def test_events_are_in_order_of_time() -> None:
    ms = 1_000_000
    tried = (
        an_attempt(started_ns=BEGAN, ended_ns=BEGAN + 10 * ms, status=503, sent_ns=BEGAN),
        an_attempt(started_ns=BEGAN + 30 * ms, sent_ns=BEGAN + 50 * ms),
    )
    found = waits(tried=tried, attempts=tried, cause="timeout", status=504, ended_ns=BEGAN + 99 * ms)
    assert [text.partition(" ")[0] for text in found] == ["retry", "connect", "timeout"]


def test_attempt_that_was_given_up_for_another_is_hedged() -> None:
    tried = (an_attempt(cause="caller-left", status=0), an_attempt())
    (event,) = [text for _, text in made(a_call(attempts=tried)).events if text.startswith("retry")]
    assert "reason=hedged" in event


def test_fault_that_was_injected_is_an_event() -> None:
    assert made(a_call(faults=((BEGAN, "slow,broken"),))).events == ((BEGAN, "fault slow,broken"),)


def test_span_at_the_caller_says_why_a_failure_was_not_retried() -> None:
    def said(direction: str, why: str) -> str | None:
        span = made(a_call(direction=direction, status=503, not_retried=why))
        return dict(span.attributes).get("postern.not_retried")

    assert said("outbound", "budget") == "budget"
    assert said("outbound", "") is None
    assert said("inbound", "not-covered") is None


def test_span_tells_the_circuit_breaker_that_it_met_unless_it_was_closed() -> None:
    def met(*breaker: str) -> tuple[str | None, list[str]]:
        span = made(a_call(breaker=breaker))
        return dict(span.attributes).get("postern.circuit_breaker"), [text for _, text in span.events]

    assert met("", "") == (None, [])
    assert met("closed", "closed") == (None, [])
    assert met("closed", "open") == ("open", ["circuit breaker closed -> open"])
    assert met("half-open", "half-open") == ("half-open", [])
    refused = made(a_call(breaker=("open", "open"), cause="breaker-open", status=500))
    assert dict(refused.attributes)["postern.circuit_breaker"] == "open"
    assert [text for _, text in refused.events] == ["breaker-open"]


DAPR, OTEL = SpanForm(conventions="dapr"), SpanForm(conventions="otel")


def test_attributes_of_each_convention_are_all_in_both_but_the_caller_as_server() -> None:
    for call in (
        a_call(peer_address="127.0.0.1"),
        a_call(direction="inbound", peer_address="10.0.0.3"),
        a_grpc_call(),
        a_grpc_call(direction="inbound", peer_address="10.0.0.3"),
    ):
        dapr, otel, both = (dict(made(call, form).attributes) for form in (DAPR, OTEL, DEFAULT_FORM))
        assert {**dapr, **otel} == both
        assert call.direction == "outbound" or both["client.address"] == "10.0.0.3"
        assert not any(key.startswith("dapr") or key in ("rpc.service", "net.peer.name") for key in otel)
        assert not set(dapr) & {"url.path", "http.response.status_code", "rpc.method", "client.address"}


def test_server_address_is_the_calling_app_by_daprs_conventions_alone() -> None:
    call = a_call(peer_address="127.0.0.1")
    attributes = dict(made(call, DAPR).attributes)
    assert (attributes["server.address"], attributes.get("server.port")) == ("127.0.0.1", None)
    assert dict(made(call, OTEL).attributes)["server.port"] == "5000"
    assert "server.address" not in dict(made(a_grpc_call(peer_address="127.0.0.1"), DAPR).attributes)
    assert made(call, DAPR).remote_port == 5000


def test_query_is_in_the_url_only_where_that_is_wanted_and_clipped() -> None:
    def url(call: Call, form: SpanForm) -> str:
        return dict(made(call, form).attributes)["url.full"]

    wanted = SpanForm(captures_query=True)
    assert url(a_call(surface="own", query="a=1"), DEFAULT_FORM) == "/orders/1"
    assert url(a_call(surface="own", query="a=1"), wanted) == "/orders/1?a=1"
    assert url(a_call(query="a=1"), wanted) == "/v1.0/invoke/checkout/method/orders/1?a=1"
    assert url(a_call(surface="own"), wanted) == "/orders/1"
    assert len(url(a_call(surface="own", query="q" * 2_000), wanted)) == len("/orders/1?") + PATH_LIMIT


def test_route_and_baggage_are_attributes() -> None:
    call = a_call(direction="inbound", baggage=(("tenant", "a"),))
    attributes = dict(made(call, route="/orders/{id}").attributes)
    assert attributes["http.route"] == "/orders/{id}"
    assert attributes["baggage.tenant"] == "a"
    assert "http.route" not in dict(made(call, DAPR, "/orders/{id}").attributes)


def test_call_of_our_own_api_has_its_path_as_name_and_no_other_end() -> None:
    call = a_call(dst="", path="/v1.0/metadata", endpoint="unix:/run/x.api")
    span = made(call)
    assert (span.name, span.kind, span.remote_service, span.remote_host) == (
        "/v1.0/metadata",
        "CLIENT",
        "",
        "",
    )
    attributes = dict(span.attributes)
    assert attributes["dapr.api"] == "GET /v1.0/metadata"
    assert attributes["url.full"] == attributes["url.path"] == "/v1.0/metadata"
    assert attributes["dapr.status_code"] == attributes["http.response.status_code"] == "200"
    assert not set(attributes) & {"rpc.service", "peer.service", "net.peer.name", "server.address"}
    assert span.error is None


def test_refusal_that_names_no_callee_has_its_reason_whatever_was_asked_for() -> None:
    probe = made(a_call(dst="", path="/v1.0/healthz", status=403, cause="forbidden-origin"))
    assert (probe.name, probe.error) == ("/v1.0/healthz", "Code(403): Forbidden (forbidden-origin)")
    unread = made(a_call(dst="", path="", verb="", status=431, cause="bad-request"))
    assert (unread.name, dict(unread.attributes)["error.type"]) == (UNREADABLE, "bad-request")
    rpc = made(a_grpc_call(dst="", path="/a.B/C", grpc_code=12, cause="unsupported"))
    assert rpc.name == "/a.B/C"
    assert not set(dict(rpc.attributes)) & {"dapr-app-id", "peer.service"}
