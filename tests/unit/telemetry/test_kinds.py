"""Classes of calls: labels that many calls share."""

import pytest

from telemetry.kinds import attempt_result, code_class, edge_name, method_class, rpc_code
from tests.unit.telemetry.building import a_call, a_grpc_call


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        ("denied", "acl"),
        ("timeout", "timeout"),
        ("breaker-open", "breaker"),
        ("tls-identity", "connect"),
        ("no-endpoint", "connect"),
        ("rate-limited", "shed"),
        ("app-down", "connect"),
        ("shed", "shed"),
        ("status", "5xx"),
        (None, "5xx"),
    ],
)
def test_code_class_failures_of_a_proxy_have_their_own(cause: str | None, expected: str) -> None:
    assert code_class(a_call(status=503, cause=cause)) == expected


@pytest.mark.parametrize(
    ("cause", "said", "peer_id", "expected"),
    [
        (None, "denied", "spiffe://public/ns/shop/checkout", "acl"),
        (None, "rate-limited", "spiffe://public/ns/shop/checkout", "shed"),
        ("status", "denied", "spiffe://public/ns/shop/checkout", "acl"),
        ("timeout", "denied", "spiffe://public/ns/shop/checkout", "timeout"),
        (None, "denied", "", "4xx"),
        (None, None, "spiffe://public/ns/shop/checkout", "4xx"),
    ],
)
def test_code_class_of_what_a_proven_peer_refused_is_its_cause(
    cause: str | None, said: str | None, peer_id: str, expected: str
) -> None:
    assert code_class(a_call(status=403, cause=cause, said=said, peer_id=peer_id)) == expected


@pytest.mark.parametrize(("status", "expected"), [(101, "1xx"), (204, "2xx"), (404, "4xx"), (0, "none")])
def test_code_class_http_by_hundreds(status: int, expected: str) -> None:
    assert code_class(a_call(status=status)) == expected


@pytest.mark.parametrize(
    ("code", "expected"), [(0, "2xx"), (5, "4xx"), (14, "5xx"), (4, "5xx"), (99, "5xx"), (None, "5xx")]
)
def test_code_class_grpc_by_the_status_it_stands_for(code: int | None, expected: str) -> None:
    assert code_class(a_grpc_call(grpc_code=code)) == expected


@pytest.mark.parametrize(
    ("status", "cause", "code"),
    [
        (200, None, 2),
        (404, None, 12),
        (503, None, 14),
        (418, None, 2),
        (200, "reset-late", 14),
        (0, "caller-left", 1),
    ],
)
def test_grpc_call_without_a_status_counts_as_what_its_end_stands_for(
    status: int, cause: str | None, code: int
) -> None:
    assert rpc_code(a_grpc_call(grpc_code=None, status=status, cause=cause)) == code


def test_method_class_is_bounded() -> None:
    assert method_class(a_call(verb="PATCH")) == "PATCH"
    assert method_class(a_call(verb="BREW")) == "other"
    assert method_class(a_grpc_call()) == "rpc"
    assert method_class(a_call(protocol="websocket")) == "websocket"


def test_edge_name_joins_app_and_namespace() -> None:
    assert edge_name("cart", "shop") == "cart.shop"
    assert edge_name("cart", "") == "cart"
    assert edge_name("", "shop") == ""


def test_attempt_result_is_ok_or_a_class() -> None:
    assert [attempt_result(cause) for cause in (None, "refused", "timeout")] == ["ok", "connect", "timeout"]
