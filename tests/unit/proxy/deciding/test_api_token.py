"""A call without the API's token is refused in the words of its surface, and the token is no key."""

from base64 import b64decode

import pytest

from proxy import errors
from proxy.contract.head import RequestHead
from proxy.contract.plan import Cause, Reply
from tests.unit.proxy.heads import asking, head, outbound

NAMED = ((b"dapr-app-id", b"cart"),)
GRPC = {"protocol": "grpc", "framing": "stream", "method": "POST", "listener": "grpc"}
LOCAL = {"authority": "cart.localhost:3500"}
OWN = {"listener": "own:cart"}


def refused(one: RequestHead) -> Reply:
    found = outbound(token_required=True).decide(asking(one))
    assert isinstance(found, Reply)
    assert (found.cause, found.status, found.grpc_code) == (Cause.UNAUTHENTICATED, 401, 16)
    assert (errors.HEADER, b"unauthenticated") in found.headers
    return found


@pytest.mark.parametrize(
    "one",
    [
        head("/v1.0/invoke/cart/method/x"),
        head("/x", headers=NAMED),
        head("/x", headers=NAMED, **LOCAL),
        head("/nowhere"),
        head("/v1.0/metadata"),
    ],
    ids=str,
)
def test_http_on_daprs_surface_is_refused_in_its_plain_text(one: RequestHead) -> None:
    found = refused(one)
    assert (found.body, found.labels.surface) == (b"invalid api token\n", "dapr")
    assert (b"content-type", b"text/plain; charset=utf-8") in found.headers


@pytest.mark.parametrize(
    "one",
    [
        head("/x", **LOCAL),
        head("/x", **OWN),
        head("/x", headers=NAMED, **OWN),
        head("http://cart/x", authority="cart"),
        head("/v1/traces", method="POST", framing="length"),
    ],
    ids=str,
)
def test_http_on_our_own_surfaces_is_refused_in_json(one: RequestHead) -> None:
    found = refused(one)
    assert b'"errorCode":"ERR_UNAUTHENTICATED"' in found.body
    assert (b"content-type", b"application/json") in found.headers


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (head("/shop.CartService/Get", headers=NAMED, **GRPC), "Unauthorized"),
        (head("/dapr.proto.runtime.v1.Dapr/GetMetadata", **GRPC), "Unauthorized"),
        (head("/shop.CartService/Get", **GRPC), "the header dapr-api-token is missing or wrong"),
        (head("/shop.CartService/Get", **GRPC | LOCAL), "the header dapr-api-token is missing or wrong"),
    ],
    ids=str,
)
def test_grpc_has_an_error_info_and_on_daprs_surface_its_message(one: RequestHead, message: str) -> None:
    found = refused(one)
    assert found.grpc_message == message
    details = b64decode(dict(found.headers)[errors.DETAILS] + b"==")
    for part in (b"google.rpc.ErrorInfo", b"Unauthorized", b"401", b"dapr-api-token is missing or wrong"):
        assert part in details
