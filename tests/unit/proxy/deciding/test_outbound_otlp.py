"""What the app exports by OpenTelemetry's protocol is ours, unless an app is named or known for it."""

import base64

import pytest

from proxy.contract.head import RequestHead
from proxy.contract.plan import Decision, Hold, Plan, Reply
from proxy.deciding.browsers import Browsers
from proxy.deciding.callee import OTLP_PATHS, OtlpPaths, parse_routes
from proxy.deciding.outbound import OTLP
from telemetry.otlp.target import SERVICES
from tests.unit.proxy.heads import asking, head, outbound

GRPC = {
    "protocol": "grpc",
    "framing": "stream",
    "method": "POST",
    "listener": "grpc",
    "authority": "localhost:50001",
}
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
CART = (b"dapr-app-id", b"cart")
BASIC = (b"authorization", b"Basic " + base64.b64encode(b"dapr-app-id:cart"))


def post(target: str = "/v1/traces", **changes: object) -> RequestHead:
    return head(target, **{"method": "POST", "framing": "length", **changes})


def cluster(one: RequestHead, **view: object) -> str:
    decision: Decision = outbound(**view).decide(asking(one))
    if isinstance(decision, Plan):
        return decision.routes[0].cluster
    return "held" if isinstance(decision, Hold) else "refused"


@pytest.mark.parametrize(
    "one",
    [
        post(),
        post("/v1//traces"),
        post(headers=((b"authorization", b"Bearer x"),)),
        head(EXPORT, **GRPC),
        head(EXPORT, **{**GRPC, "listener": "http"}),
        post("/v1/metrics"),
        post("/v1/logs"),
        head("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", **GRPC),
        head("/opentelemetry.proto.collector.logs.v1.LogsService/Export", **GRPC),
    ],
)
def test_export_is_ours(one: RequestHead) -> None:
    assert cluster(one) == OTLP
    assert cluster(one, takes_otlp=False) == "refused"


@pytest.mark.parametrize(
    "one",
    [
        post(headers=(CART,)),
        post(headers=(BASIC,)),
        post(authority="cart.localhost:3500"),
        post("http://cart/v1/traces"),
        post("/v1.0/invoke/cart/method/v1/traces"),
        post(listener="own:cart"),
        head(EXPORT, **GRPC, headers=(CART,)),
        head(EXPORT, **{**GRPC, "authority": "cart.localhost:50001"}),
        head(EXPORT, **{**GRPC, "listener": "own:cart"}),
    ],
)
def test_app_that_is_named_gets_it(one: RequestHead) -> None:
    assert cluster(one) == "peer:cart.shop"


@pytest.mark.parametrize("service", SERVICES)
def test_app_that_is_routed_to_gets_it(service: str) -> None:
    routes = parse_routes((f"{service}=cart",))
    assert cluster(head(f"/{service}/Export", **GRPC), routes=routes) == "peer:cart.shop"


def test_app_that_is_known_to_serve_it_gets_it() -> None:
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    learnt = parse_routes(()).with_learnt({service: frozenset({"cart"})})
    assert cluster(head(EXPORT, **GRPC), routes=learnt) == "peer:cart.shop"
    disputed = parse_routes(()).with_learnt({service: frozenset({"cart", "shop"})})
    assert cluster(head(EXPORT, **GRPC), routes=disputed) == "refused"


@pytest.mark.parametrize(
    "one", [head("/v1/traces"), post("/v1/other"), post("/v1/traces/x"), post("/traces")]
)
def test_nothing_else_is_ours(one: RequestHead) -> None:
    assert cluster(one) == "refused"


@pytest.mark.parametrize("one", [post(), head(EXPORT, **GRPC)])
def test_token_and_origin_are_asked_for(one: RequestHead) -> None:
    assert cluster(one, token_required=True) == "refused"
    foreign = RequestHead(
        **{
            **{name: getattr(one, name) for name in one.__struct_fields__},
            "headers": ((b"origin", b"http://evil.example"), (b"content-type", b"text/plain")),
        }
    )
    refused = outbound(browsers=Browsers(hosts=("box",))).decide(asking(foreign))
    assert isinstance(refused, Reply)
    assert refused.status == 403


def test_export_of_its_own_kind_makes_no_kinds_of_other_calls() -> None:
    """Requests that name their app are kept by what they were before, and not by the new table."""
    asked = asking(head("/v1/traces", headers=(CART,), method="POST"))
    outbound().decide(asked)
    assert all(read.table != OTLP_PATHS for read in asked.vary)
    assert OtlpPaths().classify("/v1/traces") == "traces"
