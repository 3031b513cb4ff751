"""What becomes of calls of APIs that `spec.api` closes."""

from typing import Any

import pytest

from policies.rules.api_lists import NAMES, ApiLists, ApiProtocol, ApiRule
from proxy.contract.plan import Decision, Plan, Reply
from proxy.deciding.building_blocks import block_of
from proxy.deciding.callee import DaprMethods
from proxy.deciding.outbound import INVOKER
from tests.unit.proxy.heads import asking, head, outbound, tables

GRPC: dict[str, Any] = {"protocol": "grpc", "framing": "stream", "method": "POST", "listener": "grpc"}
DAPR = "/dapr.proto.runtime.v1.Dapr/"
NAMED = ((b"dapr-app-id", b"cart"),)


def lists(*allowed: str, denied: tuple[str, ...] = (), protocol: ApiProtocol = "http") -> ApiLists:
    def rules(names: tuple[str, ...]) -> tuple[ApiRule, ...]:
        return tuple(ApiRule(name=name, version="v1", protocol=protocol) for name in names)

    return ApiLists(allowed=rules(allowed), denied=rules(denied))


def decide(apis: ApiLists, target: str, *, token: bool = False, **changes: Any) -> Decision:
    pushed = tables(token=b"secret" if token else None)
    return outbound(apis=apis, token_required=token).decide(asking(head(target, **changes), pushed))


def is_closed(found: Decision) -> bool:
    if not isinstance(found, Reply) or found.status != 404:
        return False
    assert dict(found.headers)[b"content-type"].startswith(b"text/plain")
    return b"spec.api" in found.body


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        ("/v1.0/invoke/cart/method/x", {}),
        ("/x", {"headers": NAMED}),
        ("/v1.0/metadata", {"headers": NAMED}),
        ("/x", {"authority": "cart.localhost"}),
        ("http://cart/x", {}),
        ("/x", {"listener": "own:cart"}),
        ("/x", {"protocol": "websocket", "headers": NAMED}),
    ],
)
def test_without_invoke_no_app_is_called_over_http(target: str, changes: dict[str, Any]) -> None:
    apis = lists(denied=("invoke", "metadata"))
    assert is_closed(decide(apis, target, **changes))
    assert isinstance(decide(ApiLists(), target, **changes), Plan)


def test_calls_of_invoke_service_are_judged_where_they_came_in() -> None:
    assert isinstance(decide(lists("metadata"), "/x", listener=INVOKER, headers=NAMED), Plan)


@pytest.mark.parametrize(
    ("verb", "target"),
    [
        ("GET", "/v1.0/metadata"),
        ("PUT", "/v1.0/metadata/key"),
        ("POST", "/v1.0/shutdown"),
        ("GET", "/v1.0/state/store/key"),
    ],
)
def test_closed_route_is_not_there_and_the_header_calls_the_app(verb: str, target: str) -> None:
    assert is_closed(decide(lists("invoke"), target, method=verb))
    to_app = decide(lists("invoke"), target, method=verb, headers=NAMED)
    assert isinstance(to_app, Plan)
    assert to_app.routes[0].cluster == "peer:cart.shop"


@pytest.mark.parametrize("target", ["/v1.0/healthz", "/v1.0/healthz/outbound"])
def test_health_is_always_open(target: str) -> None:
    assert isinstance(decide(lists("metadata", denied=("healthz",)), target), Plan)


def test_token_is_asked_for_first_over_http_and_last_in_grpc() -> None:
    over_http = decide(lists("invoke"), "/v1.0/metadata", token=True)
    assert isinstance(over_http, Reply)
    assert over_http.status == 401
    over_grpc = decide(lists("invoke", protocol="grpc"), f"{DAPR}GetMetadata", token=True, **GRPC)
    assert isinstance(over_grpc, Reply)
    assert over_grpc.grpc_code == 12


@pytest.mark.parametrize("method", ["GetMetadata", "SetMetadata", "Shutdown", "GetState", "Unheard"])
def test_method_that_is_not_allowed_is_not_implemented(method: str) -> None:
    found = decide(lists("invoke", protocol="grpc"), DAPR + method, headers=NAMED, **GRPC)
    assert isinstance(found, Reply)
    assert found.grpc_code == 12


def test_denied_method_says_so_with_details_and_others_stay_open() -> None:
    apis = lists(denied=("invoke",), protocol="grpc")
    found = decide(apis, f"{DAPR}InvokeService", **GRPC)
    assert isinstance(found, Reply)
    assert b"grpc-status-details-bin" in dict(found.headers)
    assert not isinstance(decide(apis, f"{DAPR}GetMetadata", **GRPC), Reply)
    assert isinstance(decide(apis, "/shop.Cart/Get", headers=NAMED, **GRPC), Plan)


def test_every_name_is_one_that_rules_may_have() -> None:
    served = {"InvokeService": "invoke", "GetMetadata": "metadata", "Shutdown": "shutdown"}
    classes = {method: DaprMethods().classify(DAPR + method) for method in served}
    assert classes == {method: ("served", name) for method, name in served.items()}
    paths = {name: block_of(f"/v1.0/{name}/x") for name in NAMES}
    assert {name for name, block in paths.items() if block is None} == {
        "healthz",
        "invoke",
        "metadata",
        "shutdown",
    }
